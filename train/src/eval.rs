//! Held-out evaluation of anything that gives logits: perplexity, KL to the teacher, top-1 agreement, and exact match by greedy generation.
//!
//! The teacher is asked once per batch and every candidate is compared with those answers, so nothing of size tokens × vocabulary is kept.

mod exact;
mod runtime;

pub use exact::{Case, ExactMatch, exact_match};
pub use runtime::Runtime;

use anyhow::{Result, ensure};
use rayon::prelude::*;

use crate::data::Batch;

/// Something that gives logits at the positions of a batch that count.
pub trait Scorer {
    /// What reports call it.
    fn name(&self) -> String;

    /// Number of tokens.
    fn vocabulary(&self) -> usize;

    /// Logits at `batch.targets`, in their order: `[targets, vocabulary]`.
    ///
    /// # Errors
    /// When the model cannot take the batch.
    fn logits(&self, batch: &Batch) -> Result<Vec<f32>>;
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
    let mut sums = vec![Sums::default(); candidates.len()];
    for batch in batches.iter().filter(|b| !b.targets.is_empty()) {
        let reference = teacher.map(|t| checked(t, batch)).transpose()?;
        for (candidate, sums) in candidates.iter().zip(&mut sums) {
            let logits = checked(*candidate, batch)?;
            let reference = reference.as_deref().zip(teacher.map(Scorer::vocabulary));
            add(sums, &logits, reference, candidate.vocabulary(), batch);
        }
    }
    ensure!(
        sums.iter().all(|s| s.positions > 0),
        "the held-out data has no position that counts"
    );
    let mean = |sum: f64, s: &Sums| sum / s.positions as f64;
    Ok(sums
        .iter()
        .map(|s| Figures {
            positions: s.positions,
            nll: mean(s.nll, s),
            kl: teacher.map(|_| mean(s.kl, s)),
            top1: teacher.map(|_| mean(s.agreed as f64, s)),
            accuracy: mean(s.right as f64, s),
        })
        .collect())
}

/// Asks and checks the size of the answer.
pub(crate) fn checked(scorer: &dyn Scorer, batch: &Batch) -> Result<Vec<f32>> {
    let logits = scorer.logits(batch)?;
    let expected = batch.targets.len() * scorer.vocabulary();
    ensure!(
        logits.len() == expected,
        "{}: expected {expected} logits, got {}",
        scorer.name(),
        logits.len()
    );
    Ok(logits)
}

/// `reference`: the teacher's logits, and how many a position has.
fn add(
    sums: &mut Sums,
    logits: &[f32],
    reference: Option<(&[f32], usize)>,
    vocabulary: usize,
    batch: &Batch,
) {
    let rows: Vec<(f64, f64, bool, bool)> = logits
        .par_chunks_exact(vocabulary)
        .zip(&batch.targets)
        .enumerate()
        .map(|(i, (row, &(_, target)))| {
            let log_sum = log_sum_exp(row);
            let nll = row
                .get(target as usize)
                .map_or(f64::INFINITY, |&l| log_sum - f64::from(l));
            let best = argmax(row);
            let (mut kl, mut agreed) = (0.0, false);
            if let Some((reference, width)) = reference {
                let shared = width.min(vocabulary);
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
            (nll, kl, agreed, best == target as usize)
        })
        .collect();
    for (nll, kl, agreed, right) in rows {
        sums.positions += 1;
        sums.nll += nll;
        sums.kl += kl;
        sums.agreed += u64::from(agreed);
        sums.right += u64::from(right);
    }
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

        fn logits(&self, batch: &Batch) -> Result<Vec<f32>> {
            Ok(self.0[..batch.targets.len() * 3].to_vec())
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
            fn logits(&self, batch: &Batch) -> Result<Vec<f32>> {
                Ok([0.0, 0.0].repeat(batch.targets.len()))
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
                .contains("no position")
        );
    }
}
