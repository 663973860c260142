//! NEON with the dot product: `sdot` multiplies four bytes of each lane with four activations and adds them to the lane.

use super::super::instantiate::table;
use super::super::product::Tile;
use super::limits::Sdot;
use super::neon::V128x4;
use super::unpacked_neon::{Dots, Rows4};
use super::{Mantissas, Sums, one_token_dotprod, superblocks};
use std::arch::aarch64::*;
use std::arch::asm;

table!("dotprod", "neon,dotprod", V128x4, [2, 3], int8: [], parts: [Rows4<DotProduct>, 2, 4], few: 1, one_token: [(8, one_token_q8_0), (2, one_token_q4_0), (12, superblocks::one_token_q4_k), (13, superblocks::one_token_q5_k)], most: [Sdot, 16]);

#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn one_token_q8_0(tile: &Tile<'_>) {
    // SAFETY: the caller's.
    unsafe { one_token_dotprod::one_token::<one_token_dotprod::Q8_0>(tile) }
}

#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn one_token_q4_0(tile: &Tile<'_>) {
    // SAFETY: the caller's.
    unsafe { one_token_dotprod::one_token::<one_token_dotprod::Q4_0>(tile) }
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

impl Dots for DotProduct {
    #[inline(always)]
    unsafe fn dots<const N: usize, const H: usize, const T: usize>(
        weights: [&[int8x16_t; N]; H],
        x: [*const i8; T],
    ) -> [[int32x4_t; H]; T] {
        // SAFETY: the caller's.
        unsafe {
            let mut sums = [[Self::nothing(); H]; T];
            for g in (0..N).step_by(4) {
                for t in 0..T {
                    let x = vld1q_s8(x[t].add(g * 4));
                    for h in 0..H {
                        let sum = sdot::<0>(sums[t][h], weights[h][g], x);
                        let sum = sdot::<1>(sum, weights[h][g + 1], x);
                        let sum = sdot::<2>(sum, weights[h][g + 2], x);
                        sums[t][h] = sdot::<3>(sum, weights[h][g + 3], x);
                    }
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
