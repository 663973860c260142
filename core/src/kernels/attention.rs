//! Attention's two products over the cache, here in f16 ([`super::attention_q8_0`] for Q8_0), for several query heads that share keys and values: what is read and widened once serves them all.
//!
//! Keys lie in blocks of sixteen positions, transposed, so that sixteen scores grow side by side and none is added across lanes.

use crate::quant::float16::f16_to_f32;
use half::f16;

/// Positions in a block of keys.
pub const KEYS: usize = 16;

/// Scores: `out[query, position] = scale · (queries[query] · keys[position])`, added in the order of the head's values.
#[derive(Debug)]
pub struct Scores<'a, K = f16> {
    /// `count` queries of `head_dim` values, `query_stride` values from one to the next
    pub queries: &'a [f32],
    /// From one query to the next; at least `head_dim`.
    pub query_stride: usize,
    /// Number of queries.
    pub count: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// f16: `[blocks, head_dim, KEYS]`; u8: `[blocks, head_dim / 32, KEYS]` blocks of Q8_0, woven together
    pub keys: &'a [K],
    /// Multiplies every score.
    pub scale: f32,
    /// `count` rows of `blocks · KEYS` scores, `out_stride` values from one to the next; overwritten
    pub out: &'a mut [f32],
    /// From one query's scores to the next's.
    pub out_stride: usize,
}

/// Weighted sums: `out[query] = Σₚ weights[query, p] · values[p]`, added in the order of `p`.
#[derive(Debug)]
pub struct WeightedSum<'a, V = f16> {
    /// `count` rows of `positions` weights, `weight_stride` values from one to the next
    pub weights: &'a [f32],
    /// From one query's weights to the next's.
    pub weight_stride: usize,
    /// Number of queries.
    pub count: usize,
    /// Number of values that are mixed.
    pub positions: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// f16: `[positions, head_dim]`; u8: `[positions, head_dim / 32]` blocks of Q8_0
    pub values: &'a [V],
    /// `count` rows of `head_dim` values, `out_stride` values from one to the next; overwritten
    pub out: &'a mut [f32],
    /// From one query's output to the next's; at least `head_dim`.
    pub out_stride: usize,
}

/// Whether `count` rows of `width` values, `stride` apart, lie within `length` values.
fn fits(length: usize, count: usize, width: usize, stride: usize) -> bool {
    let needed = count
        .checked_sub(1)
        .map_or(Some(0), |last| last.checked_mul(stride)?.checked_add(width));
    width <= stride && needed.is_some_and(|needed| needed <= length)
}

impl<'a> Scores<'a, ()> {
    /// The same over `keys`; before, it has none.
    pub(crate) fn over<K>(self, keys: &'a [K]) -> Scores<'a, K> {
        Scores {
            keys,
            queries: self.queries,
            query_stride: self.query_stride,
            count: self.count,
            head_dim: self.head_dim,
            scale: self.scale,
            out: self.out,
            out_stride: self.out_stride,
        }
    }
}

impl<'a> WeightedSum<'a, ()> {
    /// The same over `values`; before, it has none.
    pub(crate) fn over<V>(self, values: &'a [V]) -> WeightedSum<'a, V> {
        WeightedSum {
            values,
            weights: self.weights,
            weight_stride: self.weight_stride,
            count: self.count,
            positions: self.positions,
            head_dim: self.head_dim,
            out: self.out,
            out_stride: self.out_stride,
        }
    }
}

impl<K> Scores<'_, K> {
    /// Checks all lengths but the keys'.
    pub(super) fn check_rows(&self, positions: usize) {
        assert!(
            fits(
                self.queries.len(),
                self.count,
                self.head_dim,
                self.query_stride
            ),
            "{} queries of {} values",
            self.count,
            self.head_dim
        );
        assert!(
            fits(self.out.len(), self.count, positions, self.out_stride),
            "room for {positions} scores of {} queries",
            self.count
        );
    }
}

impl Scores<'_> {
    /// Positions that are scored.
    pub(super) fn positions(&self) -> usize {
        self.keys.len() / self.head_dim
    }

    pub(super) fn check(&self) {
        assert!(
            self.head_dim > 0 && self.keys.len().is_multiple_of(self.head_dim * KEYS),
            "whole blocks of keys"
        );
        self.check_rows(self.positions());
    }
}

impl<V> WeightedSum<'_, V> {
    /// Checks all lengths but the values'.
    pub(super) fn check_rows(&self) {
        assert!(
            fits(
                self.weights.len(),
                self.count,
                self.positions,
                self.weight_stride
            ),
            "{} weights of {} queries",
            self.positions,
            self.count
        );
        assert!(
            fits(self.out.len(), self.count, self.head_dim, self.out_stride),
            "room for {} heads of {} values",
            self.count,
            self.head_dim
        );
    }
}

impl WeightedSum<'_> {
    pub(super) fn check(&self) {
        assert!(
            self.positions.checked_mul(self.head_dim) == Some(self.values.len()),
            "{} values of {}",
            self.positions,
            self.head_dim
        );
        self.check_rows();
    }
}

/// The specification of [`Scores`].
pub(super) fn scores(s: Scores<'_>) {
    for query in 0..s.count {
        let values = &s.queries[query * s.query_stride..][..s.head_dim];
        let out = &mut s.out[query * s.out_stride..][..s.keys.len() / s.head_dim];
        for (block, out) in s
            .keys
            .chunks_exact(s.head_dim * KEYS)
            .zip(out.chunks_exact_mut(KEYS))
        {
            let mut sums = [0f32; KEYS];
            for (keys, value) in block.chunks_exact(KEYS).zip(values) {
                for (sum, key) in sums.iter_mut().zip(keys) {
                    *sum = f16_to_f32(key.to_bits()).mul_add(*value, *sum);
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sum.mul_add(s.scale, 0.0);
            }
        }
    }
}

/// The specification of [`WeightedSum`].
pub(super) fn weighted_sum(m: WeightedSum<'_>) {
    for query in 0..m.count {
        let weights = &m.weights[query * m.weight_stride..][..m.positions];
        let out = &mut m.out[query * m.out_stride..][..m.head_dim];
        out.fill(0.0);
        for (weight, values) in weights.iter().zip(m.values.chunks_exact(m.head_dim.max(1))) {
            for (out, value) in out.iter_mut().zip(values) {
                *out = weight.mul_add(f16_to_f32(value.to_bits()), *out);
            }
        }
    }
}
