//! The Swift wrapper's tests, on Linux against the native library of this machine.
//!
//! Debian trixie has a Swift toolchain, older releases have none; so the tests run in a trixie of their own (3 GB), kept from run
//! to run in `$DRAM_SWIFT_ROOT` or the cache folder. Everything is mounted in a private mount namespace, which ends with the
//! process: nothing of this machine is ever left mounted below a folder that somebody may remove.

use crate::{bindings, kotlin, sh};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PACKAGES: &str = "swiftlang libc6-dev libstdc++-14-dev binutils-gold";
/// Written when the root is complete, so that an interrupted installation is started over.
const STAMP: &str = "dram-swift-root";

/// Runs them; words given are handed to `swift test` (`--filter NAME`, say).
pub(crate) fn run(rest: &[String]) -> Result<()> {
    bindings::swift()?;
    let models = [
        ("DRAM_TEST_MODEL", kotlin::test_model()?),
        ("DRAM_SLOW_MODEL", kotlin::slow_model()?),
    ];
    if cfg!(target_os = "macos") {
        // There the package takes the XCFramework, which `cargo xtask ios --build` makes.
        return sh::run(
            Command::new("swift")
                .args(["test", "--package-path"])
                .arg(sh::root().join("ios"))
                .args(rest)
                .envs(models),
        );
    }
    let root = root();
    install(&root)?;
    inside(&root, &[], &["swift", "--version"])?;

    // Inside, the repository is read-only; what the build writes stays in the root, for the next run.
    let mut binds = vec![
        (sh::root(), "dram/repository".to_string()),
        (bindings::library_dir(), "dram/library".to_string()),
    ];
    let mut command = vec![
        "env".to_string(),
        "LD_LIBRARY_PATH=/dram/library".to_string(),
    ];
    for (variable, path) in models {
        let dir = path.parent().context("a model lies in a folder")?;
        let name = path
            .file_name()
            .context("a model has a name")?
            .to_string_lossy();
        let at = format!("dram/{}", variable.to_lowercase());
        command.push(format!("{variable}=/{at}/{name}"));
        binds.push((dir.to_path_buf(), at));
    }
    command.extend(
        [
            "swift",
            "test",
            "--disable-sandbox",
            "--disable-swift-testing",
            "--package-path",
            "/dram/repository/ios",
            "--scratch-path",
            "/dram/build",
            "-Xlinker",
            "-L/dram/library",
        ]
        .map(String::from),
    );
    command.extend_from_slice(rest);
    inside(
        &root,
        &binds,
        &command.iter().map(String::as_str).collect::<Vec<_>>(),
    )?;
    // The sample app's part that needs no SwiftUI.
    inside(
        &root,
        &binds,
        &[
            "swiftc",
            "-typecheck",
            "-swift-version",
            "6",
            "-I/dram/build/debug/Modules",
            "-I/dram/repository/ios/Sources/dramFFI",
            "/dram/repository/ios/Sample/DramSample/Assistant.swift",
        ],
    )
}

fn root() -> PathBuf {
    std::env::var_os("DRAM_SWIFT_ROOT")
        .map_or_else(|| sh::cache_dir().join("swift-trixie"), PathBuf::from)
}

/// Installs Debian trixie with Swift in `root`, unless it is there already.
fn install(root: &Path) -> Result<()> {
    if root.join(STAMP).is_file() {
        return Ok(());
    }
    ensure!(
        sh::succeeds("sh", &["-c", "test $(id -u) = 0"]),
        "the Swift leg installs a Debian trixie and needs root, or a finished one in DRAM_SWIFT_ROOT"
    );
    sh::apt_install(&["debootstrap"])?;
    if root.exists() {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let below = root.display().to_string();
        ensure!(
            !mounts.lines().any(|line| line
                .split(' ')
                .nth(1)
                .is_some_and(|at| at.starts_with(&below))),
            "{below} is incomplete and something is mounted below it: unmount that first"
        );
        fs::remove_dir_all(root)?;
    }
    fs::create_dir_all(root)?;
    sh::run(
        Command::new("unshare")
            .args(["--mount", "debootstrap", "--variant=minbase", "trixie"])
            .arg(root),
    )?;
    let script = format!(
        "export DEBIAN_FRONTEND=noninteractive; apt-get update -qq && apt-get install -y -qq --no-install-recommends {PACKAGES} && apt-get clean"
    );
    inside(root, &[], &["sh", "-c", &script])?;
    fs::write(root.join(STAMP), PACKAGES)?;
    Ok(())
}

/// Runs `command` in `root`, with /proc and, read-only, each folder of `binds` at its place below `root`.
fn inside(root: &Path, binds: &[(PathBuf, String)], command: &[&str]) -> Result<()> {
    // $0 is the root; then pairs of folders, then --, then the command.
    const SCRIPT: &str = r#"set -e
mount -t proc proc "$0/proc"
while [ "$1" != -- ]; do
    mkdir -p "$0/$2"
    mount --bind -o ro "$1" "$0/$2"
    shift 2
done
shift
exec chroot "$0" "$@""#;
    println!("$ chroot {} {}", root.display(), command.join(" "));
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", SCRIPT]).arg(root);
    for (from, to) in binds {
        unshare.arg(from).arg(to);
    }
    // The machine's own variables (a library path, a toolchain) mean nothing inside.
    let status = unshare
        .arg("--")
        .args(command)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::null())
        .status()?;
    ensure!(
        status.success(),
        "`{}` failed in {}: {status}",
        command.join(" "),
        root.display()
    );
    Ok(())
}
