//! Comparison with llama.cpp: its Python package and its own programs, built from one source, once, and kept in the cache; and with Jinja2, on the chat
//! templates in that source.

use crate::sh;
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::Command;

/// The versions compared with.
const LLAMA: &str = "llama-cpp-python==0.3.36";
const PACKAGES: &[&str] = &[LLAMA, "numpy==2.4.6", "gguf==0.19.0", "jinja2==3.1.6"];

/// All instructions of this processor but AMX, which virtual machines name and refuse (SIGILL); threads of its own, as a phone's build has them.
#[cfg(target_arch = "x86_64")]
const CMAKE: [&str; 4] = [
    "-DGGML_NATIVE=ON",
    "-DGGML_OPENMP=OFF",
    "-DCMAKE_C_FLAGS=-mno-amx-int8",
    "-DCMAKE_CXX_FLAGS=-mno-amx-int8",
];
#[cfg(not(target_arch = "x86_64"))]
const CMAKE: [&str; 2] = ["-DGGML_NATIVE=ON", "-DGGML_OPENMP=OFF"];

/// Runs tests/tests/llama_cpp.rs, llama_cpp_tokens.rs and jinja2.rs with that Python.
pub(crate) fn run(rest: &[String]) -> Result<()> {
    let python = python()?;
    println!("python: {}", python.display());
    sh::run(
        sh::cargo(&[
            "test",
            "--release",
            "--workspace", // with the features, and so the dependencies, of the other tests
            "--test",
            "llama_cpp",
            "--test",
            "llama_cpp_tokens",
            "--test",
            "jinja2",
            "--",
            "--ignored",
            "--nocapture",
        ])
        .args(rest)
        .env("DRAM_PEERS_PYTHON", &python)
        .env("DRAM_PEERS_SOURCE", llama_source()?),
    )
}

/// The Python with llama.cpp in it: `$DRAM_PEERS_PYTHON`, or the cache's, which is made when it is missing.
fn python() -> Result<PathBuf> {
    if let Some(python) = std::env::var_os("DRAM_PEERS_PYTHON") {
        return Ok(python.into());
    }
    sh::python(
        &cached("peers")?,
        "import llama_cpp, gguf, numpy, jinja2",
        PACKAGES,
        &[(
            "CMAKE_ARGS",
            &format!("{} -DLLAVA_BUILD=OFF", CMAKE.join(" ")),
        )],
    )
    .context("needed: python3-venv, and to build llama.cpp a C++ compiler, make and cmake")
}

/// llama.cpp's programs that are compared with.
const PROGRAMS: [&str; 3] = ["llama-bench", "llama-completion", "llama-perplexity"];

/// llama.cpp's llama-bench in the cache, with the other [`PROGRAMS`] beside it; built when one is missing.
pub(crate) fn llama_bench() -> Result<PathBuf> {
    let build = cached("programs")?;
    let program = build.join("bin/llama-bench");
    if PROGRAMS
        .iter()
        .all(|name| program.with_file_name(name).is_file())
    {
        return Ok(program);
    }
    let source = llama_source()?;
    println!(
        "building the programs of {LLAMA} into {}; this takes about ten minutes, once",
        build.display()
    );
    let off = [
        "CURL",
        "OPENSSL",
        "BUILD_TESTS",
        "BUILD_EXAMPLES",
        "BUILD_SERVER",
    ];
    sh::run(
        Command::new("cmake")
            .arg("-S")
            .arg(source)
            .arg("-B")
            .arg(&build)
            .args(["-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_BUILD_TOOLS=ON"])
            .args(off.map(|name| format!("-DLLAMA_{name}=OFF")))
            .args(CMAKE),
    )?;
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    sh::run(
        Command::new("cmake")
            .arg("--build")
            .arg(&build)
            .args(["--parallel", &jobs.to_string()])
            .arg("--target")
            .args(PROGRAMS),
    )
    .context("llama.cpp is built from source: a C++ compiler, make and cmake are needed")?;
    Ok(program)
}

/// llama.cpp's source in the cache, out of the package's source archive.
pub(crate) fn llama_source() -> Result<PathBuf> {
    let folder = sh::cache_dir().join(format!("source-{}", LLAMA.replace("==", "-")));
    let source = folder.join("vendor/llama.cpp");
    if source.join("CMakeLists.txt").is_file() {
        return Ok(source);
    }
    let _ = std::fs::remove_dir_all(&folder); // what a run that was stopped has left
    std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    sh::run(
        Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--no-deps"])
            .args(["--no-binary", ":all:", "--dest"])
            .arg(&folder)
            .arg(LLAMA),
    )?;
    let entries = std::fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let archive = entries.into_iter().find(|path| path.is_file());
    let archive =
        archive.with_context(|| format!("pip left no archive in {}", folder.display()))?;
    sh::run(
        Command::new("tar")
            .args(["--strip-components=1", "-xzf"])
            .arg(&archive)
            .arg("-C")
            .arg(&folder),
    )?;
    std::fs::remove_file(&archive).with_context(|| format!("{}", archive.display()))?;
    Ok(source)
}

/// A folder in the cache for this version of llama.cpp and this processor.
fn cached(what: &str) -> Result<PathBuf> {
    let version = LLAMA.replace("==", "-");
    Ok(sh::cache_dir().join(format!("{what}-{version}-{:08x}", processor()?)))
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
