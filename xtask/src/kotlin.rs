//! The Kotlin wrapper's tests, on the JVM against the native library of this machine.

use crate::{bindings, sh};
use anyhow::{Result, ensure};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

// The same slow model that the façade's own tests use.
#[path = "../../ffi/tests/common/mod.rs"]
mod model;

/// Runs them; words given are handed to Maven (`-Dtest=…`, say).
pub(crate) fn run(rest: &[String]) -> Result<()> {
    if !sh::succeeds("javac", &["-version"]) {
        sh::apt_install(&["default-jdk-headless"])?;
    }
    if !sh::succeeds("mvn", &["--version"]) {
        sh::apt_install(&["maven"])?;
    }
    bindings::kotlin()?;
    sh::run(Command::new("mvn").arg("--version"))?;
    let define = |name: &str, path: PathBuf| format!("-Ddram.{name}={}", path.display());
    sh::run(
        Command::new("mvn")
            .args(["--batch-mode", "--no-transfer-progress", "test", "--file"])
            .arg(sh::root().join("android/jvm-tests/pom.xml"))
            .arg(define("bindings", bindings::kotlin_dir()))
            .arg(define("library", bindings::library_dir()))
            .arg(define("model", test_model()?))
            .arg(define("slowModel", slow_model()?))
            .arg(define("build", bindings::target_dir().join("jvm-tests")))
            .args(rest),
    )
}

/// The model that an app would ship: `$DRAM_TEST_MODEL`, else the student in the repository.
pub(crate) fn test_model() -> Result<PathBuf> {
    let path = std::env::var_os("DRAM_TEST_MODEL").map_or_else(
        || sh::root().join("train/assets/actions-student.gguf"),
        |path| std::path::absolute(path).unwrap_or_default(),
    );
    ensure!(
        path.is_file(),
        "expected a model at {}, and there is none: name one with DRAM_TEST_MODEL",
        path.display()
    );
    println!("model: {}", path.display());
    Ok(path)
}

/// Writes the model that the tests of cancelling use.
pub(crate) fn slow_model() -> Result<PathBuf> {
    let dir = bindings::target_dir().join("test-models");
    fs::create_dir_all(&dir)?;
    let path = dir.join("slow.gguf");
    fs::write(&path, model::slow_model())?;
    Ok(path)
}
