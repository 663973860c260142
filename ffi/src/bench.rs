//! The latency measurement of `dram bench`, for a call from inside an app.

use crate::error::DramError;
use crate::types::{count, milliseconds};
use dram_core::latency::{self, LatencyOptions};

/// What to measure.
#[derive(Debug, Clone, uniffi::Record)]
pub struct BenchOptions {
    /// Prompt length in tokens.
    #[uniffi(default = 128)]
    pub prompt: u32,
    /// Tokens to make.
    #[uniffi(default = 64)]
    pub generate: u32,
    /// Positions already in the cache before the prompt.
    #[uniffi(default = 0)]
    pub depth: u32,
    /// Threads; None: chosen for this device.
    #[uniffi(default = None)]
    pub threads: Option<u32>,
    /// How often each is measured.
    #[uniffi(default = 3)]
    pub repetitions: u32,
}

/// What was measured: medians over the repetitions.
#[derive(Debug, Clone, uniffi::Record)]
pub struct BenchReport {
    /// Prompt tokens read per second.
    pub prefill_tokens_per_second: f64,
    /// Tokens made per second, after the first.
    pub decode_tokens_per_second: f64,
    /// From the request to the first token, in milliseconds.
    pub first_token_ms: f64,
    /// Half of the tokens came at most this long after the one before, in milliseconds.
    pub between_tokens_p50_ms: f64,
    /// 95 of 100 tokens came at most this long after the one before, in milliseconds.
    pub between_tokens_p95_ms: f64,
    /// (greatest − least) / median of the repetitions' decode rates: large when something else used the processor.
    pub decode_spread: f64,
    /// Bytes of the process's own in memory after the measurement; None where the system does not say.
    pub resident_anonymous: Option<u64>,
    /// Bytes of mapped files in memory after the measurement, the model's among them; None where the system does not say.
    pub resident_mapped: Option<u64>,
    /// Threads used.
    pub threads: u32,
    /// The instruction set of the kernels, `dotprod` for one.
    pub instruction_set: String,
}

/// Runs core's measurement.
pub(crate) fn run(
    model: &dram_core::Model,
    options: &BenchOptions,
) -> Result<BenchReport, DramError> {
    let measured = latency::measure(
        model,
        &LatencyOptions {
            prompt: options.prompt as usize,
            generate: options.generate as usize,
            depth: options.depth as usize,
            threads: options.threads.map(|n| n as usize),
            repetitions: options.repetitions as usize,
        },
        &mut |_| {},
    )?;
    Ok(BenchReport {
        prefill_tokens_per_second: measured.prefill,
        decode_tokens_per_second: measured.decode,
        first_token_ms: milliseconds(measured.first_token),
        between_tokens_p50_ms: milliseconds(measured.p50),
        between_tokens_p95_ms: milliseconds(measured.p95),
        decode_spread: measured.decode_spread,
        resident_anonymous: measured.resident.map(|r| r.anonymous),
        resident_mapped: measured.resident.map(|r| r.mapped),
        threads: count(measured.threads),
        instruction_set: measured.isa.to_string(),
    })
}
