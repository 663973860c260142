//! dram-core's tests on what this x86-64 processor offers.

use crate::{arm::ran, sh};
use anyhow::{Result, ensure};

/// Prints what the processor offers, requires of the tests exactly that, then forces each lower set for the whole suite.
pub(crate) fn run(_: &[String]) -> Result<()> {
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
    Ok(())
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
