//! The thread pool under loom's model checker.

use crate::sh;
use anyhow::{Result, ensure};

/// Builds core with loom's threads and atomics, in a target folder of its own, and runs the pool's tests on them.
pub(crate) fn run(rest: &[String]) -> Result<()> {
    let seen = sh::tee(
        sh::cargo(&["test", "--release", "--package", "dram-core", "--lib"])
            .arg("loom_tests")
            .args(rest)
            .env("RUSTFLAGS", "--cfg loom")
            .env("CARGO_TARGET_DIR", sh::root().join("target/loom")),
    )?;
    ensure!(
        seen.contains(" 3 passed"),
        "expected the pool's three tests to run"
    );
    Ok(())
}
