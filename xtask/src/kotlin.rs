//! The Kotlin wrapper's tests, on the JVM against the native library of this machine.

use crate::{bindings, sh};
use anyhow::{Result, ensure};
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

// The same slow model that the façade's own tests use.
#[path = "../../ffi/tests/facade/toy.rs"]
mod toy;

/// Runs them; words given are handed to Maven (`-Dtest=…`, say).
pub(crate) fn run(rest: &[String]) -> Result<()> {
    let define = |name: &str, path: PathBuf| format!("-Ddram.{name}={}", path.display());
    let mut words = vec![
        define("library", bindings::library_dir()),
        define("model", test_model()?),
        define("slowModel", slow_model()?),
    ];
    words.extend_from_slice(rest);
    maven("test", &words)
}

/// Generates the bindings and runs one of Maven's phases over them, the wrapper and the tests.
pub(crate) fn maven<S: AsRef<OsStr>>(phase: &str, rest: &[S]) -> Result<()> {
    if !sh::succeeds("javac", &["-version"]) {
        sh::apt_install(&["default-jdk-headless"])?;
    }
    if !sh::succeeds("mvn", &["--version"]) {
        sh::apt_install(&["maven"])?;
    }
    bindings::kotlin()?;
    sh::run(Command::new("mvn").arg("--version"))?;
    let build = bindings::target_dir().join("jvm").join(phase);
    sh::run(
        Command::new("mvn")
            .args(["--batch-mode", "--no-transfer-progress", phase, "--file"])
            .arg(sh::root().join("android/jvm-tests/pom.xml"))
            .arg(format!(
                "-Ddram.bindings={}",
                bindings::kotlin_dir().display()
            ))
            .arg(format!("-Ddram.build={}", build.display()))
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

/// Writes the model that the tests of cancelling use, and beside it an adapter of it, an encoder and a reranker.
pub(crate) fn slow_model() -> Result<PathBuf> {
    let dir = bindings::target_dir().join("test-models");
    fs::create_dir_all(&dir)?;
    let path = dir.join("slow.gguf");
    fs::write(&path, toy::slow_model())?;
    fs::write(dir.join("slow-adapter.gguf"), toy::adapter())?;
    let families = sh::root().join("tests/golden/families");
    fs::copy(families.join("bert-mean.gguf"), dir.join("encoder.gguf"))?;
    fs::copy(families.join("xlmr-rank.gguf"), dir.join("reranker.gguf"))?;
    Ok(path)
}
