//! Comparison with llama.cpp through its Python package, built from source once and kept in the cache.

use crate::sh;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The versions compared with.
const LLAMA: &str = "llama-cpp-python==0.3.36";
const OTHERS: &[&str] = &["numpy==2.4.6", "gguf==0.19.0"];

/// Runs tests/tests/llama_cpp.rs and llama_cpp_tokens.rs with that Python.
pub(crate) fn run(rest: &[String]) -> Result<()> {
    let python = python()?;
    println!("python: {}", python.display());
    sh::run(
        sh::cargo(&[
            "test",
            "--release",
            "--package",
            "dram-tests",
            "--test",
            "llama_cpp",
            "--test",
            "llama_cpp_tokens",
            "--",
            "--ignored",
            "--nocapture",
        ])
        .args(rest)
        .env("DRAM_PEERS_PYTHON", &python),
    )
}

/// The Python with llama.cpp in it: `$DRAM_PEERS_PYTHON`, or the cache's, which is made when it is missing.
fn python() -> Result<PathBuf> {
    if let Some(python) = std::env::var_os("DRAM_PEERS_PYTHON") {
        return Ok(python.into());
    }
    let venv = sh::cache_dir().join(format!(
        "peers-{}-{:08x}",
        LLAMA.replace("==", "-"),
        processor()?
    ));
    let python = venv.join("bin/python");
    if works(&python) {
        return Ok(python);
    }
    println!(
        "building {LLAMA} into {}; this takes about ten minutes, once",
        venv.display()
    );
    sh::run(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&venv),
    )?;
    let pip = |args: &[&str]| {
        let mut command = Command::new(&python);
        command
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args(args);
        command.env(
            "CMAKE_ARGS",
            "-DGGML_NATIVE=ON -DGGML_OPENMP=OFF -DLLAVA_BUILD=OFF",
        );
        command
    };
    sh::run(&mut pip(OTHERS))?;
    sh::run(&mut pip(&[LLAMA]))
        .context("llama.cpp is built from source: a C++ compiler, make and cmake are needed")?;
    Ok(python)
}

fn works(python: &Path) -> bool {
    python
        .to_str()
        .is_some_and(|p| sh::succeeds(p, &["-c", "import llama_cpp, gguf, numpy"]))
}

/// A number for this processor's features: the build uses them all, so a cache carried to another processor must not
/// be taken for its own.
fn processor() -> Result<u32> {
    let info = std::fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
    let flags = info
        .lines()
        .find(|l| l.starts_with("flags") || l.starts_with("Features"))
        .unwrap_or_default();
    // FNV-1a, 32 bits.
    Ok(flags.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    }))
}
