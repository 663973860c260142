//! dram-core's tests on aarch64 Linux under emulation, once for each tier of dispatch.
//!
//! Debian's `rustc-web` brings an arm64 standard library beside it, so no toolchain is downloaded. Emulation is tens of
//! times slower than a processor and says nothing about speed.

use crate::sh;
use anyhow::{Result, ensure};
use std::process::Command;

pub(crate) const TARGET: &str = "aarch64-unknown-linux-gnu";
const PACKAGES: &[&str] = &[
    "rustc-web",
    "libstd-rust-web-dev:arm64",
    "gcc-aarch64-linux-gnu",
    "libc6-dev-arm64-cross",
    "qemu-user-static",
];

/// The processors that stand for the three tiers: emulated model, what it must offer, the tests that run there. The
/// whole suite runs once; the lower tiers differ only in the kernels.
const TIERS: &[(&str, &str, &[&str])] = &[
    ("max", "neon,dotprod,i8mm", &[]),
    ("cortex-a76", "neon,dotprod", &["--test", "kernels"]),
    ("cortex-a57", "neon", &["--test", "kernels"]),
];

/// `cargo ARGS` with Debian's Rust, which it installs, and a target folder of its own.
pub(crate) fn cargo(args: &[&str]) -> Result<Command> {
    if !sh::succeeds("dpkg", &["--verify", "libstd-rust-web-dev:arm64"]) {
        sh::run(Command::new("dpkg").args(["--add-architecture", "arm64"]))?;
        sh::run(Command::new("apt-get").args(["update", "-qq"]))?;
    }
    sh::apt_install(PACKAGES)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target/arm".into());
    let mut command = sh::cargo(args);
    command
        .env("RUSTC", "/usr/bin/rustc")
        .env("RUSTDOC", "/usr/bin/rustdoc")
        .env("CARGO_TARGET_DIR", &target)
        .env(
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
            "aarch64-linux-gnu-gcc",
        );
    Ok(command)
}

/// Runs the tiers; words given are handed to the test binary (a filter, say).
pub(crate) fn run(rest: &[String]) -> Result<()> {
    for (cpu, isa, tests) in TIERS {
        println!("--- aarch64, -cpu {cpu}, which must offer {isa}");
        let mut command = cargo(&[
            "test",
            "--release",
            "--package",
            "dram-core",
            "--target",
            TARGET,
        ])?;
        command.args(*tests).args(["--", "--nocapture"]).args(rest);
        let runner = format!("timeout 900 qemu-aarch64-static -cpu {cpu}");
        command
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", runner)
            .env("DRAM_EMULATED", "1")
            .env("DRAM_REQUIRE_ISA", isa);
        let seen = sh::tee(&mut command)?;
        ran(&seen, isa)?;
    }
    Ok(())
}

/// Fails unless the tests' own output names each of these instruction sets as one that ran.
pub(crate) fn ran(output: &str, isa: &str) -> Result<()> {
    let lines: Vec<&str> = output
        .lines()
        .filter(|line| line.contains("kernels tested:"))
        .collect();
    ensure!(!lines.is_empty(), "no test printed `kernels tested: …`");
    for name in isa.split(',') {
        let named = |line: &&str| line.split([' ', ',', ':']).any(|word| word == name);
        ensure!(
            lines.iter().any(named),
            "the tests did not run on {name}; they ran on: {}",
            lines.join("; ")
        );
    }
    Ok(())
}
