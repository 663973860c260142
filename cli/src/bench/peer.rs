//! llama.cpp's llama-bench, one repetition at a time.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use dram_core::latency::LatencyOptions;
use serde_json::Value;

/// What it measured so far.
pub(super) struct Peer<'a> {
    program: &'a Path,
    /// Tokens per second of each turn, if there was a prompt
    pub(super) prefill: Vec<f64>,
    /// Tokens per second of each turn, if there was something to make
    pub(super) decode: Vec<f64>,
}

impl<'a> Peer<'a> {
    pub(super) fn new(program: &'a Path) -> Self {
        Peer {
            program,
            prefill: Vec::new(),
            decode: Vec::new(),
        }
    }

    /// One repetition of it. Its prompt and its generation are two tests, each right after the depth.
    pub(super) fn turn(&mut self, model: &Path, options: &LatencyOptions) -> Result<()> {
        let name = self.program.display();
        let mut command = Command::new(self.program);
        command.args(["-r", "1", "-o", "json", "-m"]).arg(model);
        command.stderr(Stdio::null());
        let LatencyOptions {
            prompt,
            generate,
            depth,
            threads,
            ..
        } = *options;
        let threads = threads.unwrap_or_else(dram_core::threads::default_threads);
        for (flag, value) in [
            ("-p", prompt),
            ("-n", generate),
            ("-d", depth),
            ("-t", threads),
        ] {
            command.args([flag, &value.to_string()]);
        }
        let output = command.output();
        let output = output.with_context(|| format!("could not start {name}"))?;
        if !output.status.success() {
            bail!("{name} on {}: {}", model.display(), output.status);
        }
        let tests: Vec<Value> = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{name} printed no array of JSON: is it llama-bench?"))?;
        for test in &tests {
            let rate = test["avg_ts"].as_f64();
            let rate = rate.with_context(|| format!("{name} printed no avg_ts for a test"))?;
            if test["n_gen"] == 0 {
                self.prefill.push(rate);
            } else {
                self.decode.push(rate);
            }
        }
        Ok(())
    }
}

/// The middle value, or the mean of both; `None` of nothing.
pub(super) fn median(rates: &[f64]) -> Option<f64> {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[half]),
        _ => Some((sorted[half - 1] + sorted[half]) / 2.0),
    }
}
