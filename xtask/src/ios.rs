//! The library for Apple's platforms: a type check that runs anywhere, and the XCFramework, which needs a Mac.

use crate::{android, bindings, sh};
use anyhow::{Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The slices of the XCFramework, each with the Rust targets that are joined in it.
const SLICES: &[(&str, &[&str])] = &[
    ("ios", &["aarch64-apple-ios"]),
    (
        "ios-simulator",
        &["aarch64-apple-ios-sim", "x86_64-apple-ios"],
    ),
    ("macos", &["aarch64-apple-darwin", "x86_64-apple-darwin"]),
];

/// Checks, or with `--build` makes `ios/Dram.xcframework`, with what features follow.
pub(crate) fn run(rest: &[String]) -> Result<()> {
    match rest {
        [] => android::check("aarch64-apple-ios"),
        [flag, features @ ..] if flag == "--build" => build(features),
        other => bail!("expected nothing or --build [--features …], got {other:?}"),
    }
}

fn build(features: &[String]) -> Result<()> {
    ensure!(
        cfg!(target_os = "macos"),
        "an XCFramework is made by xcodebuild, which only a Mac has; `cargo xtask ios` alone type-checks here"
    );
    bindings::swift()?;
    let work = bindings::target_dir().join("xcframework");
    let headers = work.join("headers");
    fs::create_dir_all(&headers)?;
    let generated = sh::root().join("ios/Sources/dramFFI");
    fs::copy(generated.join("dramFFI.h"), headers.join("dramFFI.h"))?;
    // In an XCFramework the static library is linked by its slice, so the map names none.
    fs::write(
        headers.join("module.modulemap"),
        "module dramFFI {\n    header \"dramFFI.h\"\n    export *\n}\n",
    )?;

    let framework = sh::root().join("ios/Dram.xcframework");
    if framework.exists() {
        fs::remove_dir_all(&framework)?;
    }
    let mut create = Command::new("xcodebuild");
    create.arg("-create-xcframework");
    for (slice, targets) in SLICES {
        let library = slice_library(&work, slice, targets, features)?;
        create
            .arg("-library")
            .arg(library)
            .arg("-headers")
            .arg(&headers);
    }
    sh::run(create.arg("-output").arg(&framework))
}

/// Builds the static library for every target of a slice and joins them in one file.
fn slice_library(
    work: &Path,
    slice: &str,
    targets: &[&str],
    features: &[String],
) -> Result<PathBuf> {
    let name = "libdram_ffi.a";
    let mut lipo = Command::new("lipo");
    lipo.arg("-create");
    for target in targets {
        let mut rustc = sh::cargo(&[
            "rustc",
            "--package",
            "dram-ffi",
            "--lib",
            "--crate-type",
            "staticlib",
            "--profile",
            "mobile",
            "--target",
            target,
        ]);
        sh::run(rustc.args(features))?;
        lipo.arg(
            bindings::target_dir()
                .join(target)
                .join("mobile")
                .join(name),
        );
    }
    let dir = work.join(slice);
    fs::create_dir_all(&dir)?;
    let library = dir.join(name);
    sh::run(lipo.arg("-output").arg(&library))?;
    Ok(library)
}
