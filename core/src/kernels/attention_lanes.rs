//! [`super::attention`] and [`super::attention_q8_0`] over sixteen lanes, in register tiles of queries × blocks of keys, and queries × columns of values.

use super::attention::{KEYS, Scores, WeightedSum};
use super::attention_q8_0::{SCALES, WOVEN};
use super::lanes::{Lanes, Widen};
use crate::quant::floats::{F16, F32};
use crate::quant::q8_0;
use half::f16;

/// What a cache consists of.
pub(super) trait Cached: Sized {
    /// How many of it hold a head of [`KEYS`] positions' keys.
    fn block(head_dim: usize) -> usize;

    /// The products of queries with `B` blocks of keys, one position a lane.
    ///
    /// # Safety
    /// `head_dim` values are at each of `queries`, as many keys at each of `keys`, and `L` may be used.
    unsafe fn products<L: Lanes, const Q: usize, const B: usize>(
        head_dim: usize,
        queries: [*const f32; Q],
        keys: [*const Self; B],
    ) -> [[L; B]; Q];

    /// `Q` queries from `query`, sixteen times `C` columns from `at`, a multiple of that, or what is left of the last sixteen.
    ///
    /// # Safety
    /// They are there, and `L` may be used.
    unsafe fn sum_tile<L: Lanes, const Q: usize, const C: usize>(
        m: &mut WeightedSum<'_, Self>,
        query: usize,
        at: usize,
    );
}

/// # Safety
/// Lengths have been checked, and `L` may be used.
#[inline(always)]
pub(super) unsafe fn scores<L: Lanes, K: Cached>(mut s: Scores<'_, K>) {
    let mut query = 0;
    // SAFETY: the caller's; every tile lies within the queries that are left.
    unsafe {
        while query + 4 <= s.count {
            if L::MANY {
                score_blocks::<L, K, 4, 2>(&mut s, query);
            } else {
                score_blocks::<L, K, 4, 1>(&mut s, query);
            }
            query += 4;
        }
        match s.count - query {
            3 if L::MANY => score_blocks::<L, K, 3, 4>(&mut s, query),
            3 => score_blocks::<L, K, 3, 1>(&mut s, query),
            2 => score_blocks::<L, K, 2, 2>(&mut s, query),
            1 => score_blocks::<L, K, 1, 4>(&mut s, query),
            _ => {}
        }
    }
}

/// `Q` queries over all blocks, `B` blocks together.
#[inline(always)]
unsafe fn score_blocks<L: Lanes, K: Cached, const Q: usize, const B: usize>(
    s: &mut Scores<'_, K>,
    query: usize,
) {
    let blocks = s.keys.len() / K::block(s.head_dim);
    let mut block = 0;
    // SAFETY: the caller's; every tile lies within the blocks that are left.
    unsafe {
        while block + B <= blocks {
            score_tile::<L, K, Q, B>(s, query, block);
            block += B;
        }
        while block < blocks {
            score_tile::<L, K, Q, 1>(s, query, block);
            block += 1;
        }
    }
}

#[inline(always)]
unsafe fn score_tile<L: Lanes, K: Cached, const Q: usize, const B: usize>(
    s: &mut Scores<'_, K>,
    query: usize,
    block: usize,
) {
    // SAFETY: the caller's: `Q` queries from `query` and `B` blocks from `block` are there.
    unsafe {
        let queries = std::array::from_fn(|q| s.queries.as_ptr().add((query + q) * s.query_stride));
        let keys = std::array::from_fn(|b| s.keys.as_ptr().add((block + b) * K::block(s.head_dim)));
        let sums = K::products::<L, Q, B>(s.head_dim, queries, keys);
        let (scale, zero) = (L::splat(s.scale), L::splat(0.0));
        for (q, sums) in sums.iter().enumerate() {
            for (b, sum) in sums.iter().enumerate() {
                let to = s
                    .out
                    .as_mut_ptr()
                    .add((query + q) * s.out_stride + (block + b) * KEYS);
                sum.mul_add(scale, zero).store(to);
            }
        }
    }
}

/// # Safety
/// Lengths have been checked, and `L` may be used.
#[inline(always)]
pub(super) unsafe fn weighted_sum<L: Lanes, V: Cached>(mut m: WeightedSum<'_, V>) {
    let mut query = 0;
    // SAFETY: the caller's; every tile lies within the queries that are left.
    unsafe {
        while query + 4 <= m.count {
            if L::MANY {
                sum_columns::<L, V, 4, 2>(&mut m, query);
            } else {
                sum_columns::<L, V, 4, 1>(&mut m, query);
            }
            query += 4;
        }
        match m.count - query {
            3 if L::MANY => sum_columns::<L, V, 3, 4>(&mut m, query),
            3 => sum_columns::<L, V, 3, 1>(&mut m, query),
            2 => sum_columns::<L, V, 2, 2>(&mut m, query),
            1 => sum_columns::<L, V, 1, 4>(&mut m, query),
            _ => {}
        }
    }
}

/// `Q` queries over all columns, sixteen times `C` columns together.
#[inline(always)]
unsafe fn sum_columns<L: Lanes, V: Cached, const Q: usize, const C: usize>(
    m: &mut WeightedSum<'_, V>,
    query: usize,
) {
    let mut at = 0;
    // SAFETY: the caller's; every tile lies within the columns that are left.
    unsafe {
        while at + 16 * C <= m.head_dim {
            V::sum_tile::<L, Q, C>(m, query, at);
            at += 16 * C;
        }
        while at < m.head_dim {
            V::sum_tile::<L, Q, 1>(m, query, at);
            at += 16;
        }
    }
}

/// Writes a tile's sums.
#[inline(always)]
unsafe fn store<L: Lanes, V, const Q: usize, const C: usize>(
    m: &mut WeightedSum<'_, V>,
    query: usize,
    at: usize,
    sums: &[[L; C]; Q],
) {
    // SAFETY: the caller's: `Q` queries from `query` and the columns from `at` are there.
    unsafe {
        for (q, sums) in sums.iter().enumerate() {
            let out = m.out.as_mut_ptr().add((query + q) * m.out_stride + at);
            for (c, sum) in sums.iter().enumerate() {
                let left = m.head_dim - at - c * 16;
                if left >= 16 {
                    sum.store(out.add(c * 16));
                } else {
                    let mut rest = [0.0; 16];
                    sum.store(rest.as_mut_ptr());
                    std::ptr::copy_nonoverlapping(rest.as_ptr(), out.add(c * 16), left);
                }
            }
        }
    }
}

impl Cached for f16 {
    #[inline(always)]
    fn block(head_dim: usize) -> usize {
        head_dim * KEYS
    }

    #[inline(always)]
    unsafe fn products<L: Lanes, const Q: usize, const B: usize>(
        head_dim: usize,
        queries: [*const f32; Q],
        keys: [*const f16; B],
    ) -> [[L; B]; Q] {
        // SAFETY: the caller's.
        unsafe {
            let mut sums = [[L::splat(0.0); B]; Q];
            for at in 0..head_dim {
                let keys: [L; B] =
                    std::array::from_fn(|b| L::load_f16(keys[b].add(at * KEYS).cast()));
                for q in 0..Q {
                    let value = L::splat(*queries[q].add(at));
                    for b in 0..B {
                        sums[q][b] = keys[b].mul_add(value, sums[q][b]);
                    }
                }
            }
            sums
        }
    }

    #[inline(always)]
    unsafe fn sum_tile<L: Lanes, const Q: usize, const C: usize>(
        m: &mut WeightedSum<'_, f16>,
        query: usize,
        at: usize,
    ) {
        let left = m.head_dim - at;
        // SAFETY: the caller's.
        unsafe {
            if left < 16 {
                sum_f16::<L, Q, C>(m, query, at, |from| F16::load_part::<L>(from, left));
            } else {
                sum_f16::<L, Q, C>(m, query, at, |from| L::load_f16(from));
            }
        }
    }
}

#[inline(always)]
unsafe fn sum_f16<L: Lanes, const Q: usize, const C: usize>(
    m: &mut WeightedSum<'_>,
    query: usize,
    at: usize,
    load: impl Fn(*const u16) -> L,
) {
    // SAFETY: the caller's: `Q` queries from `query` and the columns that `load` reads are there.
    unsafe {
        let weights: [*const f32; Q] =
            std::array::from_fn(|q| m.weights.as_ptr().add((query + q) * m.weight_stride));
        let mut sums = [[L::splat(0.0); C]; Q];
        for position in 0..m.positions {
            let values: *const u16 = m.values.as_ptr().add(position * m.head_dim + at).cast();
            let values: [L; C] = std::array::from_fn(|c| load(values.add(c * 16)));
            for q in 0..Q {
                let weight = L::splat(*weights[q].add(position));
                for c in 0..C {
                    sums[q][c] = weight.mul_add(values[c], sums[q][c]);
                }
            }
        }
        store(m, query, at, &sums);
    }
}

/// Q8_0.
impl Cached for u8 {
    #[inline(always)]
    fn block(head_dim: usize) -> usize {
        head_dim / q8_0::BLOCK * WOVEN
    }

    #[inline(always)]
    unsafe fn products<L: Lanes, const Q: usize, const B: usize>(
        head_dim: usize,
        queries: [*const f32; Q],
        keys: [*const u8; B],
    ) -> [[L; B]; Q] {
        // SAFETY: the caller's.
        unsafe {
            let zero = L::splat(0.0);
            let mut totals = [[zero; B]; Q];
            for block in 0..head_dim / q8_0::BLOCK {
                let keys: [*const u8; B] = std::array::from_fn(|b| keys[b].add(block * WOVEN));
                let mut sums = [[zero; B]; Q];
                for at in 0..q8_0::BLOCK {
                    let keys: [L; B] =
                        std::array::from_fn(|b| L::load_i8(keys[b].add(SCALES + at * KEYS).cast()));
                    for q in 0..Q {
                        let value = L::splat(*queries[q].add(block * q8_0::BLOCK + at));
                        for b in 0..B {
                            sums[q][b] = keys[b].mul_add(value, sums[q][b]);
                        }
                    }
                }
                let scales: [L; B] = std::array::from_fn(|b| L::load_f16(keys[b].cast()));
                for q in 0..Q {
                    for b in 0..B {
                        totals[q][b] = sums[q][b].mul_add(scales[b], totals[q][b]);
                    }
                }
            }
            totals
        }
    }

    #[inline(always)]
    unsafe fn sum_tile<L: Lanes, const Q: usize, const C: usize>(
        m: &mut WeightedSum<'_, u8>,
        query: usize,
        at: usize,
    ) {
        /// Positions whose scales are widened together.
        const SPAN: usize = 16;
        let row_bytes = m.head_dim / q8_0::BLOCK * q8_0::BYTES;
        // SAFETY: the caller's.
        unsafe {
            let zero = L::splat(0.0);
            let mut sums = [[zero; C]; Q];
            let columns: [usize; C] = std::array::from_fn(|c| at + c * 16);
            let blocks = columns.map(|column| column / q8_0::BLOCK * q8_0::BYTES);
            for first in (0..m.positions).step_by(SPAN) {
                let span = SPAN.min(m.positions - first);
                let rows = m.values.as_ptr().add(first * row_bytes);
                // [column, query, position]: weights times scales
                let mut weights = [[[0f32; SPAN]; Q]; C];
                for c in 0..C {
                    if c % 2 == 1 {
                        weights[c] = weights[c - 1]; // the same block
                        continue;
                    }
                    let mut scales = [0u16; SPAN];
                    for (position, scale) in scales.iter_mut().enumerate().take(span) {
                        let block = rows.add(position * row_bytes + blocks[c]);
                        *scale = block.cast::<u16>().read_unaligned();
                    }
                    let scales = L::load_f16(scales.as_ptr());
                    for (q, scaled) in weights[c].iter_mut().enumerate() {
                        let from = m.weights.as_ptr();
                        let from = from.add((query + q) * m.weight_stride + first);
                        F32::load_part::<L>(from, span)
                            .mul_add(scales, zero)
                            .store(scaled.as_mut_ptr());
                    }
                }
                for position in 0..span {
                    let row = rows.add(position * row_bytes);
                    for c in 0..C {
                        let within = 2 + columns[c] % q8_0::BLOCK;
                        let values = L::load_i8(row.add(blocks[c] + within).cast());
                        for q in 0..Q {
                            let weight = L::splat(weights[c][q][position]);
                            sums[q][c] = weight.mul_add(values, sums[q][c]);
                        }
                    }
                }
            }
            store(m, query, at, &sums);
        }
    }
}
