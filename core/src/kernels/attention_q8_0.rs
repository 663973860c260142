//! [`super::attention`] over a Q8_0 cache: blocks of 32 signed bytes along a head, each with one binary16 scale.
//!
//! Values lie as in a file, `[positions, head_dim / 32]` blocks. Sixteen positions' keys are woven together: for each block of the head their sixteen
//! scales, then byte 0 of all sixteen, byte 1, …: scores grow side by side, as in f16.

use super::attention::{KEYS, Scores, WeightedSum};
use crate::quant::float16::f16_to_f32;
use crate::quant::q8_0::{BLOCK, BYTES};

/// Bytes of one block of [`KEYS`] positions' keys.
pub(super) const WOVEN: usize = KEYS * BYTES;
/// Bytes of their scales, which come first.
pub(super) const SCALES: usize = KEYS * 2;

/// The block at `at` of the head of one of sixteen woven positions, as it would lie in a file. `keys`: `[head_dim / 32, WOVEN]`.
pub(crate) fn unweave(keys: &[u8], lane: usize, at: usize) -> [u8; BYTES] {
    let woven = &keys[at * WOVEN..][..WOVEN];
    let mut block = [0; BYTES];
    block[..2].copy_from_slice(&woven[lane * 2..][..2]);
    for (i, byte) in block[2..].iter_mut().enumerate() {
        *byte = woven[SCALES + i * KEYS + lane];
    }
    block
}

/// The inverse of [`unweave`].
pub(crate) fn weave(keys: &mut [u8], lane: usize, at: usize, block: &[u8; BYTES]) {
    let woven = &mut keys[at * WOVEN..][..WOVEN];
    woven[lane * 2..][..2].copy_from_slice(&block[..2]);
    for (i, byte) in block[2..].iter().enumerate() {
        woven[SCALES + i * KEYS + lane] = *byte;
    }
}

fn scale(block: &[u8; BYTES]) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[0], block[1]]))
}

impl Scores<'_, u8> {
    pub(super) fn check(&self) {
        assert!(
            self.head_dim > 0 && self.head_dim.is_multiple_of(BLOCK),
            "a head of whole blocks"
        );
        let bytes = self.head_dim / BLOCK * WOVEN;
        assert!(
            self.keys.len().is_multiple_of(bytes),
            "whole blocks of keys"
        );
        self.check_rows(self.keys.len() / bytes * KEYS);
    }
}

impl WeightedSum<'_, u8> {
    pub(super) fn check(&self) {
        assert!(
            self.head_dim.is_multiple_of(BLOCK),
            "a head of whole blocks"
        );
        assert!(
            self.positions.checked_mul(self.head_dim / BLOCK * BYTES) == Some(self.values.len()),
            "{} values of {}",
            self.positions,
            self.head_dim
        );
        self.check_rows();
    }
}

/// The specification of [`Scores`] over Q8_0: products with the bytes are added within a block, and the blocks' sums times their scales in order.
pub(super) fn scores(s: Scores<'_, u8>) {
    let blocks = s.head_dim / BLOCK;
    for query in 0..s.count {
        let values = &s.queries[query * s.query_stride..][..s.head_dim];
        let out = &mut s.out[query * s.out_stride..];
        let keys = s.keys.chunks_exact(blocks * WOVEN);
        for (keys, out) in keys.zip(out.as_chunks_mut::<KEYS>().0) {
            for (lane, out) in out.iter_mut().enumerate() {
                let mut total = 0f32;
                for (at, values) in values.as_chunks::<BLOCK>().0.iter().enumerate() {
                    let block = unweave(keys, lane, at);
                    let products = values.iter().zip(&block[2..]);
                    let sum = products.fold(0f32, |sum, (value, byte)| {
                        f32::from(*byte as i8).mul_add(*value, sum)
                    });
                    total = sum.mul_add(scale(&block), total);
                }
                *out = total.mul_add(s.scale, 0.0);
            }
        }
    }
}

/// The specification of [`WeightedSum`] over Q8_0: each position's bytes times (weight · scale), added in order.
pub(super) fn weighted_sum(m: WeightedSum<'_, u8>) {
    for query in 0..m.count {
        let weights = &m.weights[query * m.weight_stride..][..m.positions];
        let out = &mut m.out[query * m.out_stride..][..m.head_dim];
        out.fill(0.0);
        for (weight, values) in weights
            .iter()
            .zip(m.values.chunks_exact((m.head_dim / BLOCK * BYTES).max(1)))
        {
            let blocks = values.as_chunks::<BYTES>().0;
            for (block, out) in blocks.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
                let weight = weight.mul_add(scale(block), 0.0);
                for (out, byte) in out.iter_mut().zip(&block[2..]) {
                    *out = weight.mul_add(f32::from(*byte as i8), *out);
                }
            }
        }
    }
}
