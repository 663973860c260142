//! AdamW (Loshchilov and Hutter, 2019) on the flat buffer, the learning-rate schedule, and clipping by global norm.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use dram_files::parallel;

/// Constants of the optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamW {
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    /// Decoupled: each step takes away `learning rate · weight_decay` of the weight.
    pub weight_decay: f32,
}

/// First and second moments, and how many updates they have seen.
#[derive(Debug, Clone, Default)]
pub struct Moments {
    pub first: Vec<f32>,
    pub second: Vec<f32>,
    pub updates: u64,
}

/// How far one update goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Factor of the gradient: below 1 where it is clipped.
    pub scale: f32,
    pub learning_rate: f32,
}

/// Values per unit of parallel work; sums are taken per unit and then in order, so they do not depend on threads.
const PIECE: usize = 1 << 16;

impl AdamW {
    /// One update of `weights` by `gradient · rate.scale`, on `threads` threads. `decays`: ascending ranges of the weights that decay.
    pub fn update(
        &self,
        weights: &mut [f32],
        moments: &mut Moments,
        gradient: &[f32],
        rate: Rate,
        decays: &[Range<usize>],
        threads: usize,
    ) {
        moments.updates += 1;
        let n = moments.updates as f64;
        let correction1 = (1.0 - f64::from(self.beta1).powf(n)) as f32;
        let correction2 = (1.0 - f64::from(self.beta2).powf(n)) as f32;
        let pieces = pieces(weights.len(), decays);
        let (mut w, mut m, mut v, mut g) = (
            weights,
            &mut moments.first[..],
            &mut moments.second[..],
            gradient,
        );
        let work = pieces.iter().map(|&(length, decay)| {
            let (mine, rest) = std::mem::take(&mut w).split_at_mut(length);
            w = rest;
            let (first, rest) = std::mem::take(&mut m).split_at_mut(length);
            m = rest;
            let (second, rest) = std::mem::take(&mut v).split_at_mut(length);
            v = rest;
            let (gradient, rest) = g.split_at(length);
            g = rest;
            (
                mine,
                first,
                second,
                gradient,
                if decay {
                    1.0 - rate.learning_rate * self.weight_decay
                } else {
                    1.0
                },
            )
        });
        let constants = [
            self.beta1,
            self.beta2,
            self.eps,
            rate.scale,
            rate.learning_rate / correction1,
            1.0 / correction2,
        ];
        parallel::for_each(threads, work.collect(), |(w, m, v, g, keep)| {
            update(w, m, v, g, keep, constants)
        });
    }
}

/// (length, decays) of pieces that cover `0..total` in order.
fn pieces(total: usize, decays: &[Range<usize>]) -> Vec<(usize, bool)> {
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut cover = |to: usize, decay: bool| {
        while at < to {
            let length = PIECE.min(to - at);
            pieces.push((length, decay));
            at += length;
        }
    };
    for range in decays {
        cover(range.start, false);
        cover(range.end, true);
    }
    cover(total, false);
    pieces
}

crate::student::ops::per_isa! {
    fn update(w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], keep: f32, constants: [f32; 6]) {
        let [beta1, beta2, eps, scale, rate, correction2] = constants;
        for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
            let g = g * scale;
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            *w = *w * keep - rate * *m / ((*v * correction2).sqrt() + eps);
        }
    }
}

/// Euclidean norm, the same on any number of threads.
pub fn norm(x: &[f32], threads: usize) -> f64 {
    let mut sums = vec![0f64; x.len().div_ceil(PIECE)];
    let work = x.chunks(PIECE).zip(&mut sums).collect();
    parallel::for_each(threads, work, |(x, sum)| {
        *sum = x.chunks(4096).map(|x| f64::from(square_sum(x))).sum();
    });
    sums.iter().sum::<f64>().sqrt()
}

crate::student::ops::per_isa! {
    fn square_sum(x: &[f32]) -> f32 {
        crate::student::ops::dot(x, x)
    }
}

/// Adds `others` to `first`, in order, on `threads` threads.
pub fn sum_into(first: &mut [f32], others: &[&[f32]], threads: usize) {
    let work = first.chunks_mut(PIECE).enumerate().collect();
    parallel::for_each(threads, work, |(i, first): (usize, &mut [f32])| {
        for other in others {
            crate::student::ops::elementwise::add(first, &other[i * PIECE..][..first.len()]);
        }
    });
}

/// Learning rate of update `step` (from 0) out of `steps`: linear warm-up over `warmup` updates, then half a cosine down to `last` times the peak.
pub fn schedule(peak: f64, step: u64, steps: u64, warmup: u64, last: f64) -> f64 {
    if step < warmup {
        return peak * (step + 1) as f64 / warmup as f64;
    }
    let progress = (step - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
    peak * (last + (1.0 - last) * 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_formula_and_ignores_threads() {
        let n = PIECE * 2 + 77;
        let w0: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
        let optimiser = AdamW {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
        };
        let decays = [100..PIECE + 5, PIECE + 50..n - 3];
        let mut results = Vec::new();
        for threads in [1, 3] {
            let mut w = w0.clone();
            let mut moments = Moments {
                first: vec![0.0; n],
                second: vec![0.0; n],
                updates: 0,
            };
            for step in 0..3 {
                let g: Vec<f32> = (0..n).map(|i| ((i + step) as f32 * 0.11).cos()).collect();
                optimiser.update(
                    &mut w,
                    &mut moments,
                    &g,
                    Rate {
                        scale: 0.5,
                        learning_rate: 1e-2,
                    },
                    &decays,
                    threads,
                );
            }
            results.push(w);
        }
        assert_eq!(results[0], results[1]);
        for i in [0, 99, 100, PIECE + 4, PIECE + 5, PIECE + 50, n - 4, n - 3] {
            let decay = if decays.iter().any(|r| r.contains(&i)) {
                0.1
            } else {
                0.0
            };
            let (mut w, mut m, mut v) = (f64::from(w0[i]), 0.0, 0.0);
            for step in 0..3 {
                let g = 0.5 * f64::from(((i + step) as f32 * 0.11).cos());
                (m, v) = (0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g);
                let t = (step + 1) as i32;
                w -= 1e-2 * decay * w
                    + 1e-2 * (m / (1.0 - 0.9f64.powi(t)))
                        / ((v / (1.0 - 0.95f64.powi(t))).sqrt() + 1e-8);
            }
            assert!((f64::from(results[0][i]) - w).abs() < 1e-6, "{i}");
        }
        assert_eq!(norm(&w0, 1).to_bits(), norm(&w0, 2).to_bits());
    }

    #[test]
    fn schedule_rises_then_falls() {
        assert_eq!(schedule(1.0, 0, 100, 10, 0.1), 0.1);
        assert_eq!(schedule(1.0, 9, 100, 10, 0.1), 1.0);
        assert_eq!(schedule(1.0, 10, 100, 10, 0.1), 1.0);
        assert!((schedule(1.0, 55, 100, 10, 0.1) - 0.55).abs() < 1e-12);
        assert!((schedule(1.0, 100, 100, 10, 0.1) - 0.1).abs() < 1e-12);
        assert_eq!(schedule(1.0, 0, 1, 0, 0.0), 1.0);
    }
}
