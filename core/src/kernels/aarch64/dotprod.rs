//! NEON with the dot product: `sdot` multiplies four bytes of each lane with four activations and adds them to the lane.

use super::super::instantiate::table;
use super::super::product::Tile;
use super::limits::Sdot;
use super::neon::V128x4;
use super::unpacked_neon::{Dots, Rows4};
use super::{
    Arrange, Group, Mantissas, Multiply, Q4_0, Q8_0, Sums, one_token_dotprod, product, superblocks,
    transpose,
};
use std::arch::aarch64::*;
use std::arch::asm;

table!("dotprod", "neon,dotprod", V128x4, [2, 3], int8: [(8, product_q8_0), (2, product_q4_0)], parts: [Rows4<DotProduct>, 2, 4], one_token: [(12, superblocks::one_token_q4_k), (13, superblocks::one_token_q5_k)], most: [Sdot, 16]);

#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn product_q8_0(tile: &Tile<'_>) {
    // SAFETY: the caller's.
    unsafe {
        if tile.tokens == 1 {
            one_token_dotprod::one_token::<one_token_dotprod::Q8_0>(tile);
        } else {
            product::<Q8_0, DotProduct>(tile);
        }
    }
}

#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn product_q4_0(tile: &Tile<'_>) {
    // SAFETY: the caller's.
    unsafe {
        if tile.tokens == 1 {
            one_token_dotprod::one_token::<one_token_dotprod::Q4_0>(tile);
        } else {
            product::<Q4_0, DotProduct>(tile);
        }
    }
}

pub(super) struct DotProduct;

impl Sums for DotProduct {
    #[inline(always)]
    unsafe fn nothing() -> int32x4_t {
        // SAFETY: the caller's.
        unsafe { Mantissas::nothing() }
    }
    #[inline(always)]
    unsafe fn float(sums: int32x4_t) -> float32x4_t {
        // SAFETY: the caller's.
        unsafe { Mantissas::float(sums) }
    }
}

impl Arrange for DotProduct {
    #[inline(always)]
    unsafe fn arrange(rows: [int8x16_t; 4]) -> [int8x16_t; 4] {
        // SAFETY: the caller's.
        unsafe { transpose(rows) }
    }
}

impl Multiply for DotProduct {
    const TOKENS: usize = 4;

    #[inline(always)]
    unsafe fn dot<const T: usize>(weights: &[Group; 2], x: [*const i8; T]) -> [[int32x4_t; 2]; T] {
        // SAFETY: the caller's: 32 activations at each pointer.
        unsafe {
            let mut products = [[Self::nothing(); 2]; T];
            half_block::<0, T>(&mut products, weights, x);
            half_block::<4, T>(&mut products, weights, x);
            products
        }
    }
}

/// Adds the products of four groups from `FIRST`.
#[inline(always)]
unsafe fn half_block<const FIRST: usize, const T: usize>(
    products: &mut [[int32x4_t; 2]; T],
    weights: &[Group; 2],
    x: [*const i8; T],
) {
    // SAFETY: the caller's.
    unsafe {
        for t in 0..T {
            let x = vld1q_s8(x[t].add(FIRST * 4));
            for half in 0..2 {
                let sum = sdot::<0>(products[t][half], weights[half][FIRST], x);
                let sum = sdot::<1>(sum, weights[half][FIRST + 1], x);
                let sum = sdot::<2>(sum, weights[half][FIRST + 2], x);
                products[t][half] = sdot::<3>(sum, weights[half][FIRST + 3], x);
            }
        }
    }
}

impl Dots for DotProduct {
    #[inline(always)]
    unsafe fn dots<const T: usize>(weights: &[int8x16_t], x: [*const i8; T]) -> [int32x4_t; T] {
        // SAFETY: the caller's.
        unsafe {
            let mut sums = [Self::nothing(); T];
            for (sixteen, weights) in weights.chunks_exact(4).enumerate() {
                for t in 0..T {
                    let x = vld1q_s8(x[t].add(sixteen * 16));
                    let sum = sdot::<0>(sums[t], weights[0], x);
                    let sum = sdot::<1>(sum, weights[1], x);
                    let sum = sdot::<2>(sum, weights[2], x);
                    sums[t] = sdot::<3>(sum, weights[3], x);
                }
            }
            sums
        }
    }
}

/// Adds to each lane its four bytes times the four bytes of lane `LANE` of `x`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn sdot<const LANE: usize>(
    sum: int32x4_t,
    weights: int8x16_t,
    x: int8x16_t,
) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: plain arithmetic of an instruction set that the function's feature asks for. (Its intrinsic is not stable.)
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{lane}]",
            inout(vreg) sum, in(vreg) weights, in(vreg) x, lane = const LANE,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// Adds to each lane its four bytes times the four bytes of the same lane of `x`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn sdot_lanes(sum: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: as above.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sum, in(vreg) weights, in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}
