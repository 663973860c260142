//! [`super::attention`] over sixteen lanes, in register tiles of queries × blocks of keys, and queries × columns of values.

use super::attention::{KEYS, Mix, Scores};
use super::lanes::{F16, Lanes, Widen};

/// # Safety
/// Lengths have been checked, and `L` may be used.
#[inline(always)]
pub(super) unsafe fn scores<L: Lanes>(mut s: Scores<'_>) {
    let mut query = 0;
    // SAFETY: the caller's; every tile lies within the queries that are left.
    unsafe {
        while query + 4 <= s.count {
            if L::MANY {
                score_blocks::<L, 4, 2>(&mut s, query);
            } else {
                score_blocks::<L, 4, 1>(&mut s, query);
            }
            query += 4;
        }
        match s.count - query {
            3 if L::MANY => score_blocks::<L, 3, 4>(&mut s, query),
            3 => score_blocks::<L, 3, 1>(&mut s, query),
            2 => score_blocks::<L, 2, 2>(&mut s, query),
            1 => score_blocks::<L, 1, 4>(&mut s, query),
            _ => {}
        }
    }
}

/// `Q` queries over all blocks, `B` blocks together.
#[inline(always)]
unsafe fn score_blocks<L: Lanes, const Q: usize, const B: usize>(s: &mut Scores<'_>, query: usize) {
    let blocks = s.positions() / KEYS;
    let mut block = 0;
    // SAFETY: the caller's; every tile lies within the blocks that are left.
    unsafe {
        while block + B <= blocks {
            score_tile::<L, Q, B>(s, query, block);
            block += B;
        }
        while block < blocks {
            score_tile::<L, Q, 1>(s, query, block);
            block += 1;
        }
    }
}

#[inline(always)]
unsafe fn score_tile<L: Lanes, const Q: usize, const B: usize>(
    s: &mut Scores<'_>,
    query: usize,
    block: usize,
) {
    // SAFETY: the caller's: `Q` queries from `query` and `B` blocks from `block` are there.
    unsafe {
        let queries: [*const f32; Q] =
            std::array::from_fn(|q| s.queries.as_ptr().add((query + q) * s.query_stride));
        let keys: [*const u16; B] =
            std::array::from_fn(|b| s.keys.as_ptr().add((block + b) * s.head_dim * KEYS).cast());
        let mut sums = [[L::splat(0.0); B]; Q];
        for at in 0..s.head_dim {
            let keys: [L; B] = std::array::from_fn(|b| L::load_f16(keys[b].add(at * KEYS)));
            for q in 0..Q {
                let value = L::splat(*queries[q].add(at));
                for b in 0..B {
                    sums[q][b] = keys[b].mul_add(value, sums[q][b]);
                }
            }
        }
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
pub(super) unsafe fn mix<L: Lanes>(mut m: Mix<'_>) {
    let mut query = 0;
    // SAFETY: the caller's; every tile lies within the queries that are left.
    unsafe {
        while query + 4 <= m.count {
            if L::MANY {
                mix_columns::<L, 4, 2>(&mut m, query);
            } else {
                mix_columns::<L, 4, 1>(&mut m, query);
            }
            query += 4;
        }
        match m.count - query {
            3 if L::MANY => mix_columns::<L, 3, 4>(&mut m, query),
            3 => mix_columns::<L, 3, 1>(&mut m, query),
            2 => mix_columns::<L, 2, 2>(&mut m, query),
            1 => mix_columns::<L, 1, 4>(&mut m, query),
            _ => {}
        }
    }
}

/// `Q` queries over all columns, sixteen times `C` columns together.
#[inline(always)]
unsafe fn mix_columns<L: Lanes, const Q: usize, const C: usize>(m: &mut Mix<'_>, query: usize) {
    let mut at = 0;
    // SAFETY: the caller's; every tile lies within the columns that are left.
    unsafe {
        while at + 16 * C <= m.head_dim {
            mix_tile::<L, Q, C>(m, query, at, |from| L::load_f16(from));
            at += 16 * C;
        }
        while at + 16 <= m.head_dim {
            mix_tile::<L, Q, 1>(m, query, at, |from| L::load_f16(from));
            at += 16;
        }
        if at < m.head_dim {
            let rest = m.head_dim - at;
            mix_tile::<L, Q, 1>(m, query, at, |from| F16::load_part::<L>(from, rest));
        }
    }
}

#[inline(always)]
unsafe fn mix_tile<L: Lanes, const Q: usize, const C: usize>(
    m: &mut Mix<'_>,
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
