//! [`super::attention`] over a Q8_0 cache: blocks of 32 signed bytes along a head, each with one binary16 scale.
//!
//! Values lie as in a file, `[positions, head_dim / 32]` blocks. Sixteen positions' keys are woven together: for each block of the head their sixteen
//! scales, then byte 0 of all sixteen, byte 1, …: scores grow side by side, as in f16. What a block holds is widened once for all queries.
//!
//! The code is compiled for each instruction set by [`super::recompile`]; its inner loops are of a fixed length, and vectorise by themselves.

use super::attention::{KEYS, Mix, Scores};
use crate::quant::float16::f16_to_f32;
use crate::quant::q8_0::{BLOCK, BYTES};

/// Bytes of one block of [`KEYS`] positions' keys.
const WOVEN: usize = KEYS * BYTES;
const SCALES: usize = KEYS * 2;

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

#[inline(always)]
fn scale(bytes: &[u8; 2]) -> f32 {
    f16_to_f32(u16::from_le_bytes(*bytes))
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

impl Mix<'_, u8> {
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
#[inline(always)]
pub(super) fn scores(s: Scores<'_, u8>) {
    let blocks = s.head_dim / BLOCK;
    for (number, keys) in s.keys.chunks_exact(blocks * WOVEN).enumerate() {
        for query in 0..s.count {
            s.out[query * s.out_stride + number * KEYS..][..KEYS].fill(0.0);
        }
        for (at, woven) in keys.as_chunks::<WOVEN>().0.iter().enumerate() {
            let (scales, bytes) = woven.split_at(SCALES);
            let scales: [f32; KEYS] =
                std::array::from_fn(|lane| scale(&scales.as_chunks::<2>().0[lane]));
            let mut wide = [[0f32; KEYS]; BLOCK];
            for (wide, bytes) in wide.iter_mut().zip(bytes.as_chunks::<KEYS>().0) {
                for (wide, byte) in wide.iter_mut().zip(bytes) {
                    *wide = f32::from(*byte as i8);
                }
            }
            for query in 0..s.count {
                let values = &s.queries[query * s.query_stride + at * BLOCK..][..BLOCK];
                let mut sums = [0f32; KEYS];
                for (wide, value) in wide.iter().zip(values) {
                    for (sum, key) in sums.iter_mut().zip(wide) {
                        *sum = key.mul_add(*value, *sum);
                    }
                }
                let out = &mut s.out[query * s.out_stride + number * KEYS..][..KEYS];
                for ((out, sum), scale) in out.iter_mut().zip(sums).zip(scales) {
                    *out = sum.mul_add(scale, *out);
                }
            }
        }
        for query in 0..s.count {
            for out in &mut s.out[query * s.out_stride + number * KEYS..][..KEYS] {
                *out *= s.scale;
            }
        }
    }
}

/// The specification of [`Mix`] over Q8_0: each position's bytes times (weight · scale), added in order.
#[inline(always)]
pub(super) fn mix(mut m: Mix<'_, u8>) {
    for part in 0..m.head_dim / HALF {
        let mut query = 0;
        while query + 4 <= m.count {
            mix_part::<4>(&mut m, query, part);
            query += 4;
        }
        while query < m.count {
            mix_part::<1>(&mut m, query, part);
            query += 1;
        }
    }
}

/// Values of half a block: as many sums as stay in registers for several queries.
const HALF: usize = BLOCK / 2;

/// Half a block, the `part`th of a head, for `Q` queries from `query`.
#[inline(always)]
fn mix_part<const Q: usize>(m: &mut Mix<'_, u8>, query: usize, part: usize) {
    let (block, within) = (part / 2 * BYTES, 2 + part % 2 * HALF);
    let mut sums = [[0f32; HALF]; Q];
    let rows = m.values.chunks_exact(m.head_dim / BLOCK * BYTES);
    for (position, row) in rows.enumerate() {
        let block = &row[block..][..BYTES];
        let scale = scale(&[block[0], block[1]]);
        let bytes = &block[within..][..HALF];
        let wide: [f32; HALF] = std::array::from_fn(|i| f32::from(bytes[i] as i8));
        for (q, sums) in sums.iter_mut().enumerate() {
            let weight = m.weights[(query + q) * m.weight_stride + position] * scale;
            for (sum, value) in sums.iter_mut().zip(&wide) {
                *sum = weight.mul_add(*value, *sum);
            }
        }
    }
    for (q, sums) in sums.iter().enumerate() {
        let out = &mut m.out[(query + q) * m.out_stride + part * HALF..];
        out[..HALF].copy_from_slice(sums);
    }
}
