//! Remakes the golden values of tests/golden with Hugging Face transformers. Not in CI: torch is 3 GB with what it pulls.

use crate::sh;
use anyhow::Result;
use std::process::Command;

const PACKAGES: &[&str] = &[
    "torch==2.15.0",
    "transformers==5.23.0",
    "numpy==2.4.6",
    "gguf==0.19.0",
];

/// Makes a Python with torch in the cache unless `$DRAM_GOLDEN_PYTHON` names one, and runs the script.
pub(crate) fn run(rest: &[String]) -> Result<()> {
    let python = match std::env::var_os("DRAM_GOLDEN_PYTHON") {
        Some(python) => python.into(),
        None => sh::python(
            &sh::cache_dir().join("golden"),
            "import torch, transformers, gguf",
            PACKAGES,
            &[],
        )?,
    };
    sh::run(
        Command::new(python)
            .arg(sh::root().join("tests/golden/make_llama.py"))
            .args(rest),
    )
}
