//! Q8_0 and Q4_0 for one token or a few: weights go from memory through the transposition straight into the products with all of them.

use super::super::product::Tile;
use super::avx2::{Block, LANES, broadcast, row_starts, scales, store};
use crate::prefetch::prefetch;
use crate::quant::activation::BLOCK;
use std::arch::x86_64::*;

/// Most tokens for which there are registers to sum in.
pub(super) const FEW: usize = 8;

/// Eight rows × all tokens, from one to [`FEW`].
#[inline(always)]
pub(super) unsafe fn few_tokens<F: Block>(tile: &Tile<'_>, row: usize) {
    // SAFETY: the caller's.
    unsafe {
        match tile.tokens {
            1 => all_tokens::<F, 1>(tile, row),
            2 => all_tokens::<F, 2>(tile, row),
            3 => all_tokens::<F, 3>(tile, row),
            4 => all_tokens::<F, 4>(tile, row),
            5 => all_tokens::<F, 5>(tile, row),
            6 => all_tokens::<F, 6>(tile, row),
            7 => all_tokens::<F, 7>(tile, row),
            _ => all_tokens::<F, FEW>(tile, row),
        }
    }
}

/// Eight rows × `T` tokens.
#[inline(always)]
unsafe fn all_tokens<F: Block, const T: usize>(tile: &Tile<'_>, row: usize) {
    let (x, blocks) = (&tile.int8, tile.cols / BLOCK);
    let mut rows = row_starts(tile, row);
    let ahead = LANES * F::BYTES; // the next eight rows lie behind these
    let mut next = rows[0].wrapping_add(LANES * tile.row_bytes);
    // SAFETY: the caller's; every block read lies inside its row.
    unsafe {
        let mut totals = [_mm256_setzero_ps(); T];
        for block in 0..blocks {
            for line in (0..ahead).step_by(64) {
                prefetch(next.wrapping_add(line));
            }
            next = next.wrapping_add(ahead);
            let at: [usize; T] = std::array::from_fn(|t| t * blocks + block);
            let values: [*const i8; T] =
                std::array::from_fn(|t| x.values.as_ptr().add(at[t] * BLOCK));
            let mut sums = [_mm256_setzero_si256(); T];
            for (g, weights) in F::groups(&rows).iter().enumerate() {
                for t in 0..T {
                    sums[t] = F::step(sums[t], *weights, broadcast(values[t].add(g * 4)));
                }
            }
            let scales = scales(&rows);
            for t in 0..T {
                let sum = _mm256_cvtepi32_ps(F::finish(sums[t], *x.sums.get_unchecked(at[t])));
                let scale = _mm256_mul_ps(scales, _mm256_set1_ps(*x.scales.get_unchecked(at[t])));
                totals[t] = _mm256_add_ps(totals[t], _mm256_mul_ps(scale, sum));
            }
            rows = rows.map(|row| row.wrapping_add(F::BYTES));
        }
        for t in 0..T {
            let out = tile.out.add(t * tile.stride + row);
            store(out, tile.rows - row, totals[t]);
        }
    }
}
