//! Held-out evaluation of anything that gives logits: perplexity, KL to the teacher, top-1 agreement, and exact match by greedy generation.
//!
//! Logits of size tokens × vocabulary are never in memory as a whole. A candidate's go by in portions of [`LOGITS_BYTES`]; the teacher's are computed
//! once and kept ([`Reference`]).

mod exact;
mod portions;
mod reference;
mod runtime;

pub use exact::{Case, ExactMatch, HeldOut, exact_match};
pub use portions::LOGITS_BYTES;
pub(crate) use portions::{most_positions, pieces, portions, scratch_folder};
pub(crate) use reference::Answers;
pub use reference::Reference;
pub use runtime::Runtime;

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use crate::data::Batch;
use crate::stop::Watch;

/// What takes logits: the index of the first target that they belong to, and `[targets in a row, vocabulary]`.
pub type Take<'a> = &'a (dyn Fn(usize, &[f32]) -> Result<()> + Sync);

/// Something that gives logits at the positions of a batch that count.
pub trait Scorer {
    /// What reports call it.
    fn name(&self) -> String;

    /// Number of tokens.
    fn vocabulary(&self) -> usize;

    /// Hands over the logits at `batch.targets`, each once, in portions and from any thread.
    ///
    /// # Errors
    /// When the model cannot take the batch, `take` fails, or `stop` is set ([`crate::stop::Stopped`]).
    fn visit(&self, batch: &Batch, stop: &AtomicBool, take: Take<'_>) -> Result<()>;

    /// Logits at `batch.targets`, in their order: `[targets, vocabulary]`.
    ///
    /// # Errors
    /// When the model cannot take the batch.
    fn logits(&self, batch: &Batch) -> Result<Vec<f32>> {
        let vocabulary = self.vocabulary();
        let all = Mutex::new(vec![f32::NAN; batch.targets.len() * vocabulary]);
        self.visit(batch, &AtomicBool::new(false), &|first, logits| {
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.get_mut(first * vocabulary..)
                .and_then(|rest| rest.get_mut(..logits.len()))
                .context("more logits than target positions")?
                .copy_from_slice(logits);
            Ok(())
        })?;
        Ok(all.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Means over all held-out positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Figures {
    /// Positions that counted.
    pub positions: u64,
    /// Negative log likelihood of the target, nats per token.
    pub nll: f64,
    /// Σ p_teacher (log p_teacher − log p), nats per token; `None` without a teacher.
    pub kl: Option<f64>,
    /// Share of positions whose most likely token is the teacher's, 0 to 1; `None` without a teacher.
    pub top1: Option<f64>,
    /// Share of positions whose most likely token is the target, 0 to 1.
    pub accuracy: f64,
}

impl Figures {
    /// exp(NLL).
    #[must_use]
    pub fn perplexity(&self) -> f64 {
        self.nll.exp()
    }
}

/// Sums of which [`Figures`] are the means. f64, added in batch order, so that the result does not depend on threads.
#[derive(Clone, Copy, Default)]
struct Sums {
    positions: u64,
    nll: f64,
    kl: f64,
    agreed: u64,
    right: u64,
}

/// Evaluates every candidate on `batches`, compared with `teacher` where there is one.
///
/// # Errors
/// When a model fails, or there is no position to count. Where numbers of logits differ, KL and top-1 are over the ids that both have: whether
/// they mean the same tokens is for the caller to see to ([`crate::teacher::Teacher::check_tokens`]).
pub fn evaluate(
    candidates: &[&dyn Scorer],
    teacher: Option<&dyn Scorer>,
    batches: &[Batch],
) -> Result<Vec<Figures>> {
    let reference = teacher.map(|teacher| Reference::new(teacher, None));
    evaluate_with(
        candidates,
        reference.as_ref(),
        batches,
        &mut Watch::default(),
    )
}

/// [`evaluate`] with a teacher whose answers are kept, and a watch that hears of every portion.
///
/// # Errors
/// As there, and [`crate::stop::Stopped`].
pub fn evaluate_with(
    candidates: &[&dyn Scorer],
    reference: Option<&Reference<'_>>,
    batches: &[Batch],
    watch: &mut Watch<'_>,
) -> Result<Vec<Figures>> {
    let kept = reference.map(Scorer::vocabulary);
    let portions: Vec<Batch> = batches
        .iter()
        .flat_map(|batch| portions(batch, kept))
        .collect();
    let mut sums = vec![Sums::default(); candidates.len()];
    for (done, portion) in portions.iter().enumerate() {
        watch.at(done, portions.len())?;
        let answers = reference
            .map(|teacher| teacher.answers(portion, watch.stop()))
            .transpose()?;
        for (candidate, sums) in candidates.iter().zip(&mut sums) {
            let answers = answers.as_deref().zip(kept);
            add(sums, *candidate, answers, portion, watch.stop())?;
        }
    }
    watch.at(portions.len(), portions.len())?;
    ensure!(
        sums.iter().all(|s| s.positions > 0),
        "the held-out data has no target position"
    );
    let mean = |sum: f64, s: &Sums| sum / s.positions as f64;
    Ok(sums
        .iter()
        .map(|s| Figures {
            positions: s.positions,
            nll: mean(s.nll, s),
            kl: reference.map(|_| mean(s.kl, s)),
            top1: reference.map(|_| mean(s.agreed as f64, s)),
            accuracy: mean(s.right as f64, s),
        })
        .collect())
}

/// What a position shows: NLL, KL, whether teacher and target are the most likely token.
type Found = (f64, f64, bool, bool);

/// Adds what `candidate` says of a batch, position by position in their order. `answers`: the teacher's, and how many logits a position has there.
fn add(
    sums: &mut Sums,
    candidate: &dyn Scorer,
    answers: Option<(&Answers, usize)>,
    batch: &Batch,
    stop: &AtomicBool,
) -> Result<()> {
    let (vocabulary, name) = (candidate.vocabulary(), candidate.name());
    let rows: Mutex<Vec<Option<Found>>> = Mutex::new(vec![None; batch.targets.len()]);
    candidate.visit(batch, stop, &|first, logits| {
        let targets = batch
            .targets
            .get(first..first + logits.len() / vocabulary)
            .with_context(|| format!("{name}: more logits than positions"))?;
        let reference = answers
            .map(|(answers, width)| {
                let read = answers.read(first * width, targets.len() * width)?;
                anyhow::Ok((read, width))
            })
            .transpose()?;
        let found: Vec<_> = logits
            .par_chunks_exact(vocabulary)
            .zip(targets)
            .enumerate()
            .map(|(i, (row, &(_, target)))| {
                let log_sum = log_sum_exp(row);
                let nll = row
                    .get(target as usize)
                    .map_or(f64::INFINITY, |&l| log_sum - f64::from(l));
                let best = argmax(row);
                let (mut kl, mut agreed) = (0.0, false);
                if let Some((reference, width)) = &reference {
                    let shared = vocabulary.min(*width);
                    let teacher = &reference[i * width..][..shared];
                    let (row, log_sum, best) = if shared == vocabulary {
                        (row, log_sum, best)
                    } else {
                        let row = &row[..shared];
                        (row, log_sum_exp(row), argmax(row))
                    };
                    kl = forward_kl(teacher, row, log_sum);
                    agreed = argmax(teacher) == best;
                }
                Some((nll, kl, agreed, best == target as usize))
            })
            .collect();
        rows.lock().unwrap_or_else(PoisonError::into_inner)[first..][..found.len()]
            .copy_from_slice(&found);
        Ok(())
    })?;
    for row in rows.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let (nll, kl, agreed, right) =
            row.with_context(|| format!("{name}: fewer logits than positions"))?;
        sums.positions += 1;
        sums.nll += nll;
        sums.kl += kl;
        sums.agreed += u64::from(agreed);
        sums.right += u64::from(right);
    }
    Ok(())
}

/// log Σ exp(x), `x: [vocabulary]`.
fn log_sum_exp(x: &[f32]) -> f64 {
    let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = x.iter().map(|&v| f64::from((v - most).exp())).sum();
    f64::from(most) + sum.ln()
}

/// Σ p_t (log p_t − log p_s), both `[vocabulary]`.
fn forward_kl(teacher: &[f32], student: &[f32], student_log_sum: f64) -> f64 {
    let log_sum = log_sum_exp(teacher);
    let difference: f64 = teacher
        .iter()
        .zip(student)
        .map(|(&t, &s)| {
            let log_p = f64::from(t) - log_sum;
            let p = log_p.exp();
            if p > 0.0 {
                p * (log_p - (f64::from(s) - student_log_sum))
            } else {
                0.0
            }
        })
        .sum();
    // Rounding can make the divergence of two equal distributions a hair negative.
    difference.max(0.0)
}

/// The first of the greatest, as greedy decoding takes it.
pub(crate) fn argmax(x: &[f32]) -> usize {
    let mut best = 0;
    for (i, v) in x.iter().enumerate() {
        if *v > x[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Example;

    /// Logits from a table by position.
    struct Fixed(Vec<f32>);

    impl Scorer for Fixed {
        fn name(&self) -> String {
            "fixed".into()
        }

        fn vocabulary(&self) -> usize {
            3
        }

        fn visit(&self, batch: &Batch, _: &AtomicBool, take: Take<'_>) -> Result<()> {
            (0..batch.targets.len()).try_for_each(|i| take(i, &self.0[i * 3..][..3]))
        }
    }

    #[test]
    fn figures_match_hand_computed_ones() {
        let batch = Batch::new(&[Example::prompt_completion(&[0], &[1, 2])]);
        let ln = |x: f64| x.ln() as f32;
        let student = Fixed(vec![ln(0.5), ln(0.25), ln(0.25), ln(0.1), ln(0.1), ln(0.8)]);
        let teacher = Fixed(vec![ln(0.25), ln(0.5), ln(0.25), ln(0.1), ln(0.1), ln(0.8)]);
        let figures = evaluate(
            &[&student, &teacher],
            Some(&teacher),
            std::slice::from_ref(&batch),
        )
        .unwrap();
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} {b}");
        close(figures[0].nll, (-(0.25f64.ln()) - 0.8f64.ln()) / 2.0);
        close(figures[0].kl.unwrap(), 0.25 * 2f64.ln() / 2.0);
        close(figures[0].top1.unwrap(), 0.5);
        close(figures[0].accuracy, 0.5);
        assert_eq!(
            (figures[1].kl, figures[1].top1, figures[1].positions),
            (Some(0.0), Some(1.0), 2)
        );
        // A teacher of two tokens is compared on these two.
        struct Two;
        impl Scorer for Two {
            fn name(&self) -> String {
                "two".into()
            }
            fn vocabulary(&self) -> usize {
                2
            }
            fn visit(&self, batch: &Batch, _: &AtomicBool, take: Take<'_>) -> Result<()> {
                take(0, &[0.0, 0.0].repeat(batch.targets.len()))
            }
        }
        let two = evaluate(&[&student], Some(&Two), std::slice::from_ref(&batch)).unwrap()[0];
        // Of the first row 2/3 and 1/3 are left, of the second halves.
        let first = 0.5 * (0.5f64 / (2.0 / 3.0)).ln() + 0.5 * (0.5f64 / (1.0 / 3.0)).ln();
        close(two.kl.unwrap(), first / 2.0);
        close(two.nll, figures[0].nll);
        let empty = Batch {
            targets: vec![],
            ..batch
        };
        assert!(
            evaluate(&[&student], None, &[empty])
                .unwrap_err()
                .to_string()
                .contains("no target position")
        );
    }
}
