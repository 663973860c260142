//! Running other programs: each is printed before it starts, and a failing one is an error that names it.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the repository")
        .to_path_buf()
}

/// Where things stay that take long to make: `$DRAM_CACHE`, else `~/.cache/dram`.
pub(crate) fn cache_dir() -> PathBuf {
    match (std::env::var_os("DRAM_CACHE"), std::env::var_os("HOME")) {
        (Some(dir), _) => dir.into(),
        (None, Some(home)) => Path::new(&home).join(".cache/dram"),
        (None, None) => root().join("target/cache"),
    }
}

/// `cargo ARGS` in the repository's root. The toolchain is the one on the path, whatever built xtask.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(args).current_dir(root());
    // Set by the cargo that runs xtask; they would leak into the inner one.
    for name in [
        "CARGO",
        "CARGO_MANIFEST_DIR",
        "CARGO_PKG_NAME",
        "RUSTUP_TOOLCHAIN",
    ] {
        command.env_remove(name);
    }
    command
}

/// A line that says what runs, environment included.
fn show(command: &Command) -> String {
    let env = command
        .get_envs()
        .filter_map(|(k, v)| Some(format!("{}={} ", k.to_str()?, v?.to_str()?)));
    let words = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|w| w.to_string_lossy());
    format!(
        "{}{}",
        env.collect::<String>(),
        words.collect::<Vec<_>>().join(" ")
    )
}

/// Runs it with its output passed through.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = show(command);
    println!("$ {line}");
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("could not start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// Runs it, passes its standard output through, and returns that too. Standard error is passed through only.
pub(crate) fn tee(command: &mut Command) -> Result<String> {
    let line = show(command);
    println!("$ {line}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start `{line}`"))?;
    let mut seen = String::new();
    for text in BufReader::new(child.stdout.take().expect("stdout is piped")).lines() {
        let text = text?;
        println!("{text}");
        seen.push_str(&text);
        seen.push('\n');
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(seen)
}

/// Whether the command runs and succeeds; its output is thrown away.
pub(crate) fn succeeds(program: &str, args: &[&str]) -> bool {
    let status = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|s| s.success())
}

/// A Python in a folder of the cache, made anew with these packages unless the statement `check` runs in the one that is there.
pub(crate) fn python(
    folder: &Path,
    check: &str,
    packages: &[&str],
    env: &[(&str, &str)],
) -> Result<PathBuf> {
    let python = folder.join("bin/python");
    if python.to_str().is_some_and(|p| succeeds(p, &["-c", check])) {
        return Ok(python);
    }
    println!(
        "making {} with {packages:?}, once; what is built from source takes minutes",
        folder.display()
    );
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(folder))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet"])
        .arg("--disable-pip-version-check")
        .args(packages)
        .envs(env.iter().copied()))?;
    Ok(python)
}

/// Debian packages, installed only when one of them is missing.
pub(crate) fn apt_install(packages: &[&str]) -> Result<()> {
    let installed = |p: &&str| {
        let out = Command::new("dpkg-query")
            .args(["-W", "-f=${db:Status-Abbrev}", p])
            .output();
        out.is_ok_and(|o| o.status.success() && o.stdout.starts_with(b"ii"))
    };
    if packages.iter().all(installed) {
        return Ok(());
    }
    run(Command::new("apt-get").args(["update", "-qq"]))?;
    run(Command::new("apt-get")
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive"))
    .with_context(|| format!("this leg needs the Debian packages {packages:?}"))
}
