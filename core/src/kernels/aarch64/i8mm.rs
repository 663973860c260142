//! NEON with the int8 matrix multiply: `smmla` multiplies eight bytes of two rows with eight bytes of two tokens. A single token takes the dot product.

use super::super::product::Tile;
use super::super::recompile::table;
use super::dotprod::DotProduct;
use super::limits::Smmla;
use super::neon::V128x4;
use super::rows4::Rows4;
use super::{Group, Multiply, Q4_0, Q8_0, dotprod, product};
use std::arch::aarch64::*;
use std::arch::asm;

table!("i8mm", "neon,dotprod,i8mm", V128x4, [2, 3], int8: [(8, product_q8_0), (2, product_q4_0)], parts: [Rows4<DotProduct>, 4, 2], one_token: [], most: [Smmla, 16]);

#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn product_q8_0(tile: &Tile<'_>) {
    // SAFETY: the caller's; a processor that has i8mm was asked for dotprod too.
    unsafe {
        if tile.tokens == 1 {
            dotprod::product_q8_0(tile)
        } else {
            product::<Q8_0, Matrix>(tile)
        }
    }
}

#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn product_q4_0(tile: &Tile<'_>) {
    // SAFETY: the caller's; a processor that has i8mm was asked for dotprod too.
    unsafe {
        if tile.tokens == 1 {
            dotprod::product_q4_0(tile)
        } else {
            product::<Q4_0, Matrix>(tile)
        }
    }
}

struct Matrix;

impl Multiply for Matrix {
    const TOKENS: usize = 4;

    /// Rows 0 and 1, then rows 2 and 3: their first eight bytes side by side, then their last eight.
    #[inline(always)]
    unsafe fn arrange(rows: [int8x16_t; 4]) -> [int8x16_t; 4] {
        // SAFETY: the caller's.
        unsafe {
            let ([a, b], [c, d]) = (pair(rows[0], rows[1]), pair(rows[2], rows[3]));
            [a, b, c, d]
        }
    }

    #[inline(always)]
    unsafe fn dot<const T: usize>(weights: &[Group; 2], x: [*const i8; T]) -> [[int32x4_t; 2]; T] {
        // SAFETY: the caller's: 32 activations at each pointer.
        unsafe {
            let zero = vdupq_n_s32(0);
            let mut products = [[zero; 2]; T];
            for first in (0..T).step_by(2) {
                let second = (first + 1).min(T - 1); // an odd last token goes with itself
                let low = pair(vld1q_s8(x[first]), vld1q_s8(x[second]));
                let high = pair(vld1q_s8(x[first].add(16)), vld1q_s8(x[second].add(16)));
                for half in 0..2 {
                    let w = &weights[half];
                    let rows = |at: usize| {
                        let sum = smmla(zero, w[at], low[0]);
                        let sum = smmla(sum, w[at + 1], low[1]);
                        let sum = smmla(sum, w[at + 4], high[0]);
                        smmla(sum, w[at + 5], high[1])
                    };
                    // [row, token] of rows 0 and 1, and of rows 2 and 3
                    let (rows01, rows23) = (rows(0), rows(2));
                    products[first][half] = vuzp1q_s32(rows01, rows23);
                    if second > first {
                        products[second][half] = vuzp2q_s32(rows01, rows23);
                    }
                }
            }
            products
        }
    }
}

/// The first eight bytes of both, and the last eight bytes of both.
#[inline(always)]
unsafe fn pair(a: int8x16_t, b: int8x16_t) -> [int8x16_t; 2] {
    // SAFETY: NEON is part of aarch64.
    unsafe {
        let (a, b) = (vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b));
        [
            vreinterpretq_s8_s64(vtrn1q_s64(a, b)),
            vreinterpretq_s8_s64(vtrn2q_s64(a, b)),
        ]
    }
}

/// Adds the 2 × 2 products of two rows of eight bytes with two tokens of eight bytes.
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(super) unsafe fn smmla(sum: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: plain arithmetic of an instruction set that the function's feature asks for. (Its intrinsic is not stable.)
    unsafe {
        asm!(
            "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sum, in(vreg) weights, in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}
