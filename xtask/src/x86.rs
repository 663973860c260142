//! dram-core's tests on what this x86-64 processor offers, and under emulation on AVX-512 VNNI where it is not there.

use crate::{arm::ran, sh};
use anyhow::{Result, bail, ensure};

/// The processor of Bochs as a Python package, and the tests that run on it, between a second and two minutes each.
const BOCHS: &str = "bochscpu-python==0.4.0";
const EMULATED: &[&str] = &["kernels", "blocks", "attention", "families", "sequence"];
const TARGET: &str = "x86_64-unknown-linux-gnu";
const OFFERED: &str = "avx2,avx512vnni";

/// Prints what the processor offers, requires of the tests exactly that, forces each lower set for the whole suite, and
/// emulates what is missing.
pub(crate) fn run(rest: &[String]) -> Result<()> {
    match rest {
        [] => {}
        [only] if only == "emulate" => return emulate(),
        _ => bail!("x86 takes nothing or `emulate`, not {rest:?}"),
    }
    let offered = offered();
    println!("this processor offers: {}", offered.join(", "));
    ensure!(
        !offered.is_empty(),
        "neither AVX2 nor AVX-512 VNNI: this leg needs an x86-64 processor with AVX2 and FMA"
    );
    let required = offered.join(",");
    let kernels = [
        "test",
        "--release",
        "--package",
        "dram-core",
        "--test",
        "kernels",
        "--",
        "--nocapture",
    ];
    let seen = sh::tee(sh::cargo(&kernels).env("DRAM_REQUIRE_ISA", &required))?;
    ran(&seen, &required)?;
    for isa in ["scalar", "avx2"] {
        if isa == "scalar" || offered.contains(&isa) {
            println!("--- the whole of core with DRAM_ISA={isa}");
            sh::run(
                sh::cargo(&["test", "--release", "--package", "dram-core", "--quiet"])
                    .env("DRAM_ISA", isa),
            )?;
        }
    }
    if !offered.contains(&"avx512vnni") {
        emulate()?;
    }
    Ok(())
}

/// Runs [`EMULATED`] as static programs on Bochs's model of Ice Lake, some hundred times slower than a processor.
fn emulate() -> Result<()> {
    println!("--- x86-64, Bochs's Ice Lake, which must offer {OFFERED}");
    let python = sh::python(
        &sh::cache_dir().join(BOCHS.replace("==", "-")),
        "from importlib.util import find_spec; assert find_spec('bochscpu')",
        &[BOCHS],
        &[],
    )?;
    let runner = sh::root().join("xtask/src/x86/emulate.py");
    let mut command = sh::cargo(&[
        "test",
        "--release",
        "--package",
        "dram-core",
        "--target",
        TARGET,
    ]);
    command
        .args(EMULATED.iter().flat_map(|test| ["--test", test]))
        .args(["--", "--nocapture"])
        .env(
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER",
            format!("timeout 900 {} {}", python.display(), runner.display()),
        )
        .env(
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            "-C target-feature=+crt-static",
        )
        .env("RUST_TEST_THREADS", "1")
        .env("DRAM_EMULATED", "1")
        .env("DRAM_REQUIRE_ISA", OFFERED);
    let seen = sh::tee(&mut command)?;
    ran(&seen, OFFERED)
}

/// The instruction sets for which core has kernels and that this processor has, by core's names.
#[cfg(target_arch = "x86_64")]
fn offered() -> Vec<&'static str> {
    let mut sets = Vec::new();
    if is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
    {
        sets.push("avx2");
    }
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl");
    if avx512 && is_x86_feature_detected!("avx512vnni") {
        sets.push("avx512vnni");
    }
    sets
}

#[cfg(not(target_arch = "x86_64"))]
fn offered() -> Vec<&'static str> {
    Vec::new()
}
