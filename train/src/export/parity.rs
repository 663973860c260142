//! The parity gate: does the runtime compute what was trained?

use std::fmt;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::data::Batch;
use crate::eval::{Runtime, Scorer, argmax, checked};

/// How the logits of two models differ over all held-out positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Parity {
    pub positions: u64,
    /// Share of positions at which both have the same most likely token, 0 to 1.
    pub top1: f64,
    /// |a − b| over all logits.
    pub mean_difference: f64,
    pub max_difference: f32,
    /// Standard deviation of the reference's logits inside a position, which the differences are to be seen against.
    pub spread: f64,
}

/// What is still "the same up to float rounding".
///
/// Sums in another order differ in their last bits; now and then that moves an activation across the edge between two int8 values, which
/// is worth up to 1/127 of its block and then fades. So single logits may differ visibly, but on average they do not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Least share of equal most likely tokens.
    pub top1: f64,
    /// Greatest mean difference, as a share of the spread.
    pub mean: f64,
    /// Greatest single difference, as a share of the spread.
    pub max: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            top1: 0.999,
            mean: 0.005,
            max: 0.5,
        }
    }
}

impl Parity {
    /// # Errors
    /// With the figures, when they are outside `limits`.
    pub fn check(&self, limits: &Limits) -> Result<()> {
        let mean = self.mean_difference / self.spread;
        let max = f64::from(self.max_difference) / self.spread;
        // Written so that a NaN fails.
        let good = self.top1 >= limits.top1 && mean <= limits.mean && max <= limits.max;
        ensure!(
            good,
            "the runtime's logits are not the training model's: {self}; expected at least {:.1} % equal top tokens, a mean difference of at most {} and \
             a greatest of at most {} of the logits' spread (got {mean:.5} and {max:.5})",
            limits.top1 * 100.0,
            limits.mean,
            limits.max
        );
        Ok(())
    }
}

impl fmt::Display for Parity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "top-1 equal at {:.3} % of {} positions, |Δlogit| mean {:.2e}, max {:.2e}, spread of the logits {:.2}",
            self.top1 * 100.0,
            self.positions,
            self.mean_difference,
            self.max_difference,
            self.spread
        )
    }
}

/// Compares two models on `batches`.
///
/// # Errors
/// When one of them fails, their vocabularies differ in size, or nothing counts.
pub fn compare(
    candidate: &dyn Scorer,
    reference: &dyn Scorer,
    batches: &[Batch],
) -> Result<Parity> {
    let vocabulary = reference.vocabulary();
    ensure!(
        vocabulary == candidate.vocabulary(),
        "{} has {} tokens, {} has {vocabulary}",
        candidate.name(),
        candidate.vocabulary(),
        reference.name()
    );
    let mut parity = Parity::default();
    let (mut same, mut difference, mut variance) = (0u64, 0f64, 0f64);
    for batch in batches.iter().filter(|b| !b.targets.is_empty()) {
        let (a, b) = (checked(candidate, batch)?, checked(reference, batch)?);
        for (a, b) in a.chunks_exact(vocabulary).zip(b.chunks_exact(vocabulary)) {
            parity.positions += 1;
            same += u64::from(argmax(a) == argmax(b));
            let mean = b.iter().map(|&v| f64::from(v)).sum::<f64>() / vocabulary as f64;
            variance += b
                .iter()
                .map(|&v| (f64::from(v) - mean).powi(2))
                .sum::<f64>();
            for (a, b) in a.iter().zip(b) {
                let d = (a - b).abs();
                difference += f64::from(d);
                // Comparisons with NaN are false, so it is kept by hand.
                if d > parity.max_difference || d.is_nan() {
                    parity.max_difference = d;
                }
            }
        }
    }
    ensure!(
        parity.positions > 0,
        "the held-out data has no position that counts"
    );
    let logits = parity.positions as f64 * vocabulary as f64;
    parity.top1 = same as f64 / parity.positions as f64;
    parity.mean_difference = difference / logits;
    parity.spread = (variance / logits).sqrt();
    Ok(parity)
}

/// Opens a GGUF file with the runtime and compares it with `reference`.
///
/// # Errors
/// When the file is refused or the comparison cannot be made. The figures may still be bad: see [`Parity::check`].
pub fn verify(
    gguf: &Path,
    reference: &dyn Scorer,
    batches: &[Batch],
    workers: usize,
) -> Result<Parity> {
    let runtime = Runtime::open(gguf, workers, Some(super::longest(batches)))?;
    compare(&runtime, reference, batches)
}
