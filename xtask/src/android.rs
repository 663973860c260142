//! The library for Android: a type check of the Rust and a compilation of the Kotlin, which need neither NDK nor Gradle, and the
//! build that an app links, which needs an NDK.

use crate::{bindings, kotlin, sh};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Debian's compiler and the standard library's sources, its dependencies among them: what `-Zbuild-std` needs.
const PACKAGES: &[&str] = &["rustc-web", "rust-web-src"];

/// Rust target (the prefix of the NDK's compiler too) and Android's name of the ABI.
const ABIS: &[(&str, &str)] = &[
    ("aarch64-linux-android", "arm64-v8a"),
    ("x86_64-linux-android", "x86_64"),
];
/// The Gradle module's minSdk.
const API: u32 = 26;

/// Checks the library and compiles the sample app's Kotlin, or with `--build` builds for every ABI, with what features follow, and puts the result where the
/// Gradle module looks for it.
pub(crate) fn run(rest: &[String]) -> Result<()> {
    match rest {
        [] => {
            check("aarch64-linux-android")?;
            kotlin::maven("compile", &["--activate-profiles", "sample"])
        }
        [flag, features @ ..] if flag == "--build" => build(features),
        other => bail!("expected nothing or --build [--features …], got {other:?}"),
    }
}

/// Type-checks the façade with all its features, and all below it, for a target whose standard library is built from source.
pub(crate) fn check(target: &str) -> Result<()> {
    sh::apt_install(PACKAGES)?;
    println!("target: {target}");
    sh::run(Command::new("/usr/bin/rustc").arg("-vV"))?;
    sh::run(
        sh::cargo(&[
            "check",
            // For its macros: the development profile optimises dependencies, macros' own among them.
            "--release",
            "--package",
            "dram-ffi",
            "--features",
            bindings::FEATURES,
            "--target",
            target,
            "-Zbuild-std=std,panic_abort",
        ])
        .env("RUSTC", "/usr/bin/rustc")
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", bindings::target_dir().join("cross")),
    )
}

fn build(features: &[String]) -> Result<()> {
    let ndk = std::env::var_os("ANDROID_NDK_HOME")
        .map(PathBuf::from)
        .context("ANDROID_NDK_HOME has to name an Android NDK, r27 or later")?;
    let tools = fs::read_dir(ndk.join("toolchains/llvm/prebuilt"))
        .with_context(|| format!("{} is no NDK", ndk.display()))?
        .next()
        .context("the NDK has no prebuilt toolchain")??
        .path()
        .join("bin");
    bindings::kotlin()?;
    for (target, abi) in ABIS {
        let linker = tools.join(format!("{target}{API}-clang"));
        ensure!(linker.is_file(), "expected the NDK's {}", linker.display());
        let variable = target.to_uppercase().replace('-', "_");
        sh::run(
            sh::cargo(&[
                "build",
                "--package",
                "dram-ffi",
                "--profile",
                "mobile",
                "--target",
                target,
            ])
            .args(features)
            .env(format!("CARGO_TARGET_{variable}_LINKER"), &linker)
            // Devices with pages of 16 KB load nothing that is aligned to less.
            .env(
                format!("CARGO_TARGET_{variable}_RUSTFLAGS"),
                "-Clink-arg=-Wl,-z,max-page-size=16384",
            ),
        )?;
        let to = sh::root().join("android/dram/src/main/jniLibs").join(abi);
        fs::create_dir_all(&to)?;
        let name = "libdram_ffi.so";
        fs::copy(
            bindings::target_dir()
                .join(target)
                .join("mobile")
                .join(name),
            to.join(name),
        )?;
        println!("{}", to.join(name).display());
    }
    Ok(())
}
