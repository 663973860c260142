//! Builds the native library and generates the Kotlin and Swift that call it, into the packages themselves.
//!
//! What is generated is not committed: it belongs to one build of the library.

use crate::sh;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::PathBuf;

/// The tests want all of the library; the bindings are the same with fewer features.
pub(crate) const FEATURES: &str = "constraint";

/// The shared library's file.
pub(crate) const LIBRARY: &str = if cfg!(target_os = "macos") {
    "libdram_ffi.dylib"
} else {
    "libdram_ffi.so"
};

/// The module map that lets Swift import the generated header on Linux. XCFrameworks carry uniffi's own.
const MODULE_MAP: &str =
    "module dramFFI {\n    header \"dramFFI.h\"\n    link \"dram_ffi\"\n    export *\n}\n";

/// Generates both.
pub(crate) fn run(_: &[String]) -> Result<()> {
    kotlin()?;
    swift()
}

/// Where the Gradle module and the JVM tests look for the generated Kotlin.
pub(crate) fn kotlin_dir() -> PathBuf {
    sh::root().join("android/dram/src/generated/kotlin")
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| sh::root().join("target"), |dir| sh::root().join(dir))
}

/// The folder of the native library for this machine.
pub(crate) fn library_dir() -> PathBuf {
    target_dir().join("release")
}

/// Builds the library and writes the Kotlin bindings.
pub(crate) fn kotlin() -> Result<()> {
    generate("kotlin", &kotlin_dir())
}

/// Builds the library and writes the Swift bindings, the C header and its module map.
pub(crate) fn swift() -> Result<()> {
    let ios = sh::root().join("ios");
    let sources = ios.join("Sources/Dram/Generated");
    let header = ios.join("Sources/dramFFI");
    generate("swift", &sources)?;
    fs::create_dir_all(&header)?;
    fs::rename(sources.join("dramFFI.h"), header.join("dramFFI.h"))?;
    fs::remove_file(sources.join("dramFFI.modulemap"))?;
    fs::write(header.join("module.modulemap"), MODULE_MAP)?;
    Ok(())
}

fn generate(language: &str, out_dir: &PathBuf) -> Result<()> {
    sh::run(&mut sh::cargo(&[
        "build",
        "--release",
        "--package",
        "dram-ffi",
        "--features",
        FEATURES,
    ]))?;
    let library = library_dir().join(LIBRARY);
    if !library.is_file() {
        bail!(
            "expected cargo to build {}, and there is none",
            library.display()
        );
    }
    if out_dir.exists() {
        fs::remove_dir_all(out_dir).with_context(|| format!("{}", out_dir.display()))?;
    }
    // The generator runs for a moment, and optimising its templates takes minutes.
    sh::run(
        sh::cargo(&[
            "run",
            "--release",
            "--quiet",
            "--package",
            "dram-ffi",
            "--features",
            &format!("bindgen,{FEATURES}"),
            "--bin",
            "dram-bindgen",
            "--config",
            "profile.release.package.uniffi_bindgen.opt-level=0",
            "--",
            language,
        ])
        .arg(&library)
        .arg(out_dir),
    )?;
    // The line above built the library too, with the generator's feature; put the plain one back.
    sh::run(&mut sh::cargo(&[
        "build",
        "--release",
        "--quiet",
        "--package",
        "dram-ffi",
        "--features",
        FEATURES,
    ]))
}
