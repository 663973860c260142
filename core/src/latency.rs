//! How fast a model answers on this machine: what `dram bench`, the bindings and the reports print.
//!
//! Tokens are drawn from the vocabulary by a fixed seed; what a dense decoder costs does not depend on which they are. Loading is for the caller to
//! time: [`Model::open`] is the whole of it.

use crate::model::{Adapter, Model};
use crate::sampling::{Rng, likeliest};
use crate::session::{Memory, MemoryQuery, Session, SessionOptions};
use crate::{Error, Result, kernels};
use std::time::{Duration, Instant};

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyOptions {
    /// Length of the prompt in tokens. 0 measures no prefill.
    pub prompt: usize,
    /// Tokens to make after it. 0 measures no decoding.
    pub generate: usize,
    /// Tokens already in the cache before the prompt.
    pub depth: usize,
    /// Threads; `None` as in [`SessionOptions`].
    pub threads: Option<usize>,
    /// How often to measure, at least once. One short run before it is not counted.
    pub repetitions: usize,
}

impl Default for LatencyOptions {
    fn default() -> Self {
        LatencyOptions {
            prompt: 128,
            generate: 64,
            depth: 0,
            threads: None,
            repetitions: 3,
        }
    }
}

/// How far a measurement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Repetitions done.
    pub done: usize,
    /// Repetitions in all.
    pub of: usize,
}

/// What was measured. Where nothing was asked for, numbers are 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Latency {
    /// What was asked for.
    pub options: LatencyOptions,
    /// Prompt tokens evaluated per second: the median of the repetitions.
    pub prefill: f64,
    /// Tokens made per second after the first: the median of the repetitions.
    pub decode: f64,
    /// (greatest − least) / median of the repetitions' prefill rates.
    pub prefill_spread: f64,
    /// (greatest − least) / median of the repetitions' decode rates.
    pub decode_spread: f64,
    /// From tokens to the first token made: prefill and a greedy choice. The median of the repetitions.
    pub first_token: Duration,
    /// Time from one token to the next, over all repetitions: the median.
    pub p50: Duration,
    /// Time from one token to the next, over all repetitions: 95 of 100 took at most this.
    pub p95: Duration,
    /// Prefill rate of each repetition, in order.
    pub prefill_rates: Vec<f64>,
    /// Decode rate of each repetition, in order.
    pub decode_rates: Vec<f64>,
    /// Bytes that the model and the session take, as [`Model::memory`] says.
    pub memory: Memory,
    /// What the system counts for the whole process after the measurement; `None` where it does not say.
    pub resident: Option<Resident>,
    /// Threads that computed.
    pub threads: usize,
    /// The instruction set of the kernels.
    pub isa: &'static str,
    /// Size of the model's file.
    pub file_bytes: u64,
    /// Multiply-adds of int8 weights for each prompt token; 0 where no weight is quantised. See [`crate::Limits`].
    pub prefill_multiply_adds: u64,
    /// Bytes of weights and cache that are read for each token made, in the middle of the generation.
    pub decode_bytes: u64,
}

/// The process's pages in memory, in bytes (Linux and Android: RssAnon and RssFile of `/proc/self/status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// The process's own.
    pub anonymous: u64,
    /// Pages of mapped files, the model's among them.
    pub mapped: u64,
}

/// Measures `model` with a session made for it. `progress` is called before the first repetition and after each.
///
/// # Errors
/// [`Error::InvalidOption`] when there is nothing to measure, or depth, prompt and generation together exceed the model's context; what making or
/// running a session can give.
pub fn measure(
    model: &Model,
    options: &LatencyOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Latency> {
    measure_with(model, &[], options, &|| false, progress)
}

/// [`measure`] with adapters, each with its scale, until `stop` says so: it is asked before each prefill and each token.
///
/// # Errors
/// Also what [`Session::set_adapters`] can give, and [`Error::Cancelled`].
pub fn measure_with(
    model: &Model,
    adapters: &[(Adapter, f32)],
    options: &LatencyOptions,
    stop: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Latency> {
    let LatencyOptions {
        prompt,
        generate,
        depth,
        threads,
        repetitions,
    } = *options;
    let invalid = |option, expected: String, got: String| {
        Err(Error::InvalidOption {
            option,
            expected,
            got,
        })
    };
    if repetitions == 0 {
        return invalid("repetitions", "at least 1".into(), "0".into());
    }
    if prompt == 0 && generate == 0 {
        return invalid(
            "prompt",
            "a prompt or a generation of at least one token".into(),
            "0 and 0".into(),
        );
    }
    let most = model.config().context_length;
    let context = depth.saturating_add(prompt).saturating_add(generate);
    if context > most {
        return invalid(
            "depth",
            format!("depth, prompt and generate together at most the model's {most} positions"),
            context.to_string(),
        );
    }

    let mut session = model.session(SessionOptions {
        context: Some(context),
        threads,
        ..SessionOptions::default()
    })?;
    session.set_adapters(adapters)?;
    let mut rng = Rng::new(0);
    let vocabulary = model.config().vocabulary as u64;
    let mut draw = |count: usize| -> Vec<u32> {
        (0..count)
            .map(|_| (rng.next_u64() % vocabulary) as u32)
            .collect()
    };
    let (before, ids) = (draw(depth), draw(prompt.max(1)));
    if depth > 0 {
        session.prefill(&before)?;
    }

    // Pages in the weights and wakes the threads.
    once(
        &mut session,
        &ids,
        LatencyOptions {
            prompt: prompt.min(32),
            generate: generate.min(4),
            ..*options
        },
        &mut Vec::new(),
        stop,
    )?;
    progress(Progress {
        done: 0,
        of: repetitions,
    });
    let mut intervals = Vec::with_capacity(generate * repetitions);
    let (mut prefill_rates, mut decode_rates, mut first_tokens) =
        (Vec::new(), Vec::new(), Vec::new());
    for done in 1..=repetitions {
        let start = intervals.len();
        let (prefill, first_token) = once(&mut session, &ids, *options, &mut intervals, stop)?;
        first_tokens.push(first_token);
        prefill_rates.push(rate(prompt, prefill));
        decode_rates.push(rate(generate, intervals[start..].iter().sum()));
        progress(Progress {
            done,
            of: repetitions,
        });
    }

    intervals.sort_unstable();
    first_tokens.sort_unstable();
    let ((prefill, prefill_spread), (decode, decode_spread)) =
        (summary(&prefill_rates), summary(&decode_rates));
    Ok(Latency {
        options: *options,
        prefill,
        decode,
        prefill_spread,
        decode_spread,
        first_token: percentile(&first_tokens, 50),
        p50: percentile(&intervals, 50),
        p95: percentile(&intervals, 95),
        prefill_rates,
        decode_rates,
        memory: model.memory(MemoryQuery {
            adapters,
            ..session.options().into()
        }),
        resident: resident(),
        threads: session.threads(),
        isa: kernels::selected().name(),
        file_bytes: model.info().file_bytes,
        prefill_multiply_adds: model.multiply_adds(prompt),
        decode_bytes: model.bytes_read(
            depth + prompt + generate / 2,
            session.options().cache_format,
        ),
    })
}

/// One prompt and generation at the depth. Returns the time of the prefill and that to the first token; appends the times between tokens.
fn once(
    session: &mut Session,
    ids: &[u32],
    options: LatencyOptions,
    intervals: &mut Vec<Duration>,
    stop: &dyn Fn() -> bool,
) -> Result<(Duration, Duration)> {
    let check = || {
        if stop() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    };
    check()?;
    session.truncate(options.depth);
    session.settle()?;
    let start = Instant::now();
    let (mut id, mut prefill, mut first_token) = (ids[0], Duration::ZERO, Duration::ZERO);
    if options.prompt > 0 {
        let logits = session.prefill(&ids[..options.prompt])?;
        prefill = start.elapsed();
        id = likeliest(logits).ok_or(Error::NoLogits)?;
        first_token = start.elapsed();
    }
    let mut last = Instant::now();
    for _ in 0..options.generate {
        check()?;
        id = likeliest(session.decode(id)?).ok_or(Error::NoLogits)?;
        let now = Instant::now();
        intervals.push(now - last);
        last = now;
    }
    Ok((prefill, first_token))
}

/// Tokens per second.
fn rate(tokens: usize, time: Duration) -> f64 {
    if tokens == 0 {
        0.0
    } else {
        tokens as f64 / time.as_secs_f64().max(1e-9)
    }
}

/// Median, and (greatest − least) / median.
fn summary(rates: &[f64]) -> (f64, f64) {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (half, last) = (sorted.len() / 2, sorted.len() - 1);
    let median = if sorted.len().is_multiple_of(2) {
        (sorted[half - 1] + sorted[half]) / 2.0
    } else {
        sorted[half]
    };
    (
        median,
        if median > 0.0 {
            (sorted[last] - sorted[0]) / median
        } else {
            0.0
        },
    )
}

/// The least value that `percent` of 100 values do not exceed (nearest rank); zero of none.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn resident() -> Option<Resident> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |key: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim()
            .strip_suffix("kB")?
            .trim()
            .parse::<u64>()
            .ok()?
            .checked_mul(1024)
    };
    Some(Resident {
        anonymous: bytes("RssAnon:")?,
        mapped: bytes("RssFile:")?,
    })
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn resident() -> Option<Resident> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let times: Vec<_> = (1..=40).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(20));
        assert_eq!(percentile(&times, 95), Duration::from_millis(38));
        assert_eq!(percentile(&times[..1], 95), Duration::from_millis(1));
        assert_eq!(percentile(&[], 95), Duration::ZERO);
        assert_eq!(summary(&[3.0, 1.0, 2.0]), (2.0, 1.0));
        assert_eq!(summary(&[4.0, 2.0]), (3.0, 2.0 / 3.0));
    }
}
