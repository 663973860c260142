//! The parity gate: does the runtime compute what was trained?

use std::fmt;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::data::Batch;
use crate::eval::{Answers, Runtime, Scorer, argmax, portions, scratch_folder};
use crate::stop::{self, Watch};
use crate::teacher::Trained;

/// How the logits of two models differ over all held-out positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Parity {
    pub positions: u64,
    /// Share of positions at which both have the same most likely token, 0 to 1.
    pub top1: f64,
    /// |a − b| over all logits.
    pub mean_difference: f64,
    pub max_difference: f32,
    /// Positions at which the most likely tokens differ, but the reference's logits of the two are closer than [`NEAR_TIE`].
    pub near_ties: u64,
    /// Standard deviation of the reference's logits inside a position, which the differences are to be seen against.
    pub spread: f64,
    /// What float rounding alone does to the reference, where [`verify`] had to ask.
    #[serde(default)]
    pub rounding: Option<Noise>,
}

/// How a model differs from itself when values change in their last bits ([`Trained::perturbed`]), at the same positions.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Noise {
    /// As [`Parity::top1`].
    pub top1: f64,
    /// As [`Parity::mean_difference`].
    pub mean_difference: f64,
    /// As [`Parity::max_difference`].
    pub max_difference: f32,
}

/// Two logits closer than this share of the spread are a near tie: float rounding decides between them.
pub const NEAR_TIE: f64 = 0.02;

/// What is still "the same up to float rounding".
///
/// Sums in another order differ in their last bits; now and then that moves an activation across the edge between two int8 values, which
/// is worth up to 1/127 of its block. In a few layers that fades, and on average one sees nothing. In many layers it does not: each moves others, until
/// the logits of the deeper SmolLM2 shape differ by more than a hundredth of their spread from those of the same model, computed a little
/// differently. So where these limits are passed, what float rounding does to the model is measured, and [`ROOM`] times that is allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Least share of equal most likely tokens. Near ties are forgiven down to [`Limits::top1_with_ties`].
    pub top1: f64,
    /// Least share of equal most likely tokens when every near tie counts as different. A model that has learnt little, or text that cannot be
    /// foreseen, is undecided often; one that has learnt its task reaches [`Limits::top1`] without being forgiven anything.
    pub top1_with_ties: f64,
    /// Greatest mean difference, as a share of the spread.
    pub mean: f64,
    /// Greatest single difference, as a share of the spread.
    pub max: f64,
}

/// Two computations may differ by this many times what [`Noise`] found in one that was disturbed: independent errors of one size differ by √2 of it,
/// and the rest is for chance.
pub const ROOM: f64 = 1.5;

impl Default for Limits {
    fn default() -> Self {
        Limits {
            top1: 0.999,
            top1_with_ties: 0.99,
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
        let forgiven = self.top1 + self.near_ties as f64 / self.positions as f64;
        let mut limits = *limits;
        if let Some(noise) = &self.rounding {
            let least = 1.0 - ROOM * (1.0 - noise.top1);
            limits = Limits {
                top1: limits.top1.min(least),
                top1_with_ties: limits.top1_with_ties.min(least),
                mean: limits.mean.max(ROOM * noise.mean_difference / self.spread),
                max: (limits.max).max(ROOM * f64::from(noise.max_difference) / self.spread),
            };
        }
        // Written so that a NaN fails.
        let good = forgiven >= limits.top1
            && self.top1 >= limits.top1_with_ties
            && mean <= limits.mean
            && max <= limits.max;
        ensure!(
            good,
            "the runtime's logits are not the training model's: {self}; expected at least {:.1} % equal top tokens ({:.1} % with near ties), a \
             mean difference of at most {:.5} and a greatest of at most {:.3} of the logits' spread (got {mean:.5} and {max:.5})",
            limits.top1 * 100.0,
            limits.top1_with_ties * 100.0,
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
            "top-1 equal at {:.3} % of {} positions ({} of the others near ties), |Δlogit| mean {:.2e}, max {:.2e}, spread of the logits {:.2}",
            self.top1 * 100.0,
            self.positions,
            self.near_ties,
            self.mean_difference,
            self.max_difference,
            self.spread
        )?;
        match &self.rounding {
            None => Ok(()),
            Some(noise) => write!(
                f,
                " (float rounding alone: {:.3} %, mean {:.2e}, max {:.2e})",
                noise.top1 * 100.0,
                noise.mean_difference,
                noise.max_difference
            ),
        }
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
    compare_with(candidate, reference, batches, &mut Watch::default())
}

/// Positions compared between two looks at the stop flag.
const POSITIONS: usize = 16;

/// [`compare`] with a watch that hears of every portion.
///
/// # Errors
/// As there, and [`crate::stop::Stopped`].
pub fn compare_with(
    candidate: &dyn Scorer,
    reference: &dyn Scorer,
    batches: &[Batch],
    watch: &mut Watch<'_>,
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
    let mut gaps = Vec::new(); // at each position whose top tokens differ: how sure the reference was
    let (mut same, mut difference, mut variance) = (0u64, 0f64, 0f64);
    let portions: Vec<Batch> = batches
        .iter()
        .flat_map(|batch| portions(batch, Some(vocabulary)))
        .collect();
    let (folder, stop) = (scratch_folder(), watch.stop());
    for (done, portion) in portions.iter().enumerate() {
        watch.at(done, portions.len())?;
        let [a, b] = [candidate, reference].map(|s| Answers::of(s, portion, &folder, stop));
        let (all_a, all_b) = (a?, b?);
        for first in (0..portion.targets.len()).step_by(POSITIONS) {
            stop::check(stop)?;
            let count = POSITIONS.min(portion.targets.len() - first);
            let read = |all: &Answers| all.read(first * vocabulary, count * vocabulary);
            let (a, b) = (read(&all_a)?, read(&all_b)?);
            for (a, b) in a.chunks_exact(vocabulary).zip(b.chunks_exact(vocabulary)) {
                parity.positions += 1;
                let (top_a, top_b) = (argmax(a), argmax(b));
                if top_a == top_b {
                    same += 1;
                } else {
                    gaps.push(f64::from(b[top_b] - b[top_a]));
                }
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
    }
    watch.at(portions.len(), portions.len())?;
    ensure!(
        parity.positions > 0,
        "the held-out data has no position with a loss (all are masked)"
    );
    let logits = parity.positions as f64 * vocabulary as f64;
    parity.top1 = same as f64 / parity.positions as f64;
    parity.mean_difference = difference / logits;
    parity.spread = (variance / logits).sqrt();
    parity.near_ties = gaps
        .iter()
        .filter(|&&gap| gap < NEAR_TIE * parity.spread)
        .count() as u64;
    Ok(parity)
}

/// Opens a GGUF file with the runtime and compares it with `reference`; if they differ by more than [`Limits::default`], finds what float rounding
/// alone does to that.
///
/// # Errors
/// When the file is refused or the comparison cannot be made. The figures may still be bad: see [`Parity::check`].
pub fn verify(
    gguf: &Path,
    reference: &Trained<'_>,
    batches: &[Batch],
    workers: usize,
) -> Result<Parity> {
    verify_with(gguf, reference, batches, workers, &mut Watch::default())
}

/// [`verify`] with a watch that hears of every portion.
///
/// # Errors
/// As there, and [`crate::stop::Stopped`].
pub fn verify_with(
    gguf: &Path,
    reference: &Trained<'_>,
    batches: &[Batch],
    workers: usize,
    watch: &mut Watch<'_>,
) -> Result<Parity> {
    let runtime = Runtime::open(gguf, workers, Some(super::longest(batches)))?;
    let mut parity = compare_with(&runtime, reference, batches, watch)?;
    if parity.check(&Limits::default()).is_err() {
        let perturbed = compare_with(&reference.perturbed(), reference, batches, watch)?;
        parity.rounding = Some(Noise {
            top1: perturbed.top1,
            mean_difference: perturbed.mean_difference,
            max_difference: perturbed.max_difference,
        });
    }
    Ok(parity)
}
