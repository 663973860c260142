//! Q8_0 and Q4_0 as the int8 matrix multiply takes them: rows in pairs, eight bytes of each side by side.

use super::many_tokens_i8mm::combine;
use super::widen;
use crate::quant::{q4_0, q8_0};
use std::arch::aarch64::*;

/// A format with blocks of 32 small integers and one binary16 scale before them.
pub(super) trait Block {
    const BYTES: usize;
    /// The block that begins at each of four `rows`: the first sixteen values of rows 0 and 1, of rows 2 and 3, then the last sixteen, as
    /// [`side_by_side`] gives them.
    unsafe fn unpack(rows: &[*const u8]) -> [[int8x16_t; 4]; 2];
}

/// Sixteen bytes at `at` of four rows.
#[inline(always)]
unsafe fn load(rows: &[*const u8], at: usize) -> [int8x16_t; 4] {
    // SAFETY: the caller's: every row has sixteen bytes at `at`.
    unsafe {
        let load = |r: usize| vld1q_s8(rows[r].add(at).cast());
        [load(0), load(1), load(2), load(3)]
    }
}

pub(super) struct Q8_0;
impl Block for Q8_0 {
    const BYTES: usize = q8_0::BYTES;
    #[inline(always)]
    unsafe fn unpack(rows: &[*const u8]) -> [[int8x16_t; 4]; 2] {
        // SAFETY: the caller's; a block's 32 values follow its scale.
        unsafe { [side_by_side(load(rows, 2)), side_by_side(load(rows, 18))] }
    }
}

pub(super) struct Q4_0;
impl Block for Q4_0 {
    const BYTES: usize = q4_0::BYTES;
    #[inline(always)]
    unsafe fn unpack(rows: &[*const u8]) -> [[int8x16_t; 4]; 2] {
        // SAFETY: the caller's; a block's sixteen bytes follow its scale.
        unsafe {
            let mut halves = [side_by_side(load(rows, 2)); 2];
            for j in 0..4 {
                let byte = vreinterpretq_u8_s8(halves[0][j]);
                let (low, high) = (vandq_u8(byte, vdupq_n_u8(15)), vshrq_n_u8::<4>(byte));
                halves[0][j] = vsubq_s8(vreinterpretq_s8_u8(low), vdupq_n_s8(8));
                halves[1][j] = vsubq_s8(vreinterpretq_s8_u8(high), vdupq_n_s8(8));
            }
            halves
        }
    }
}

/// Rows 0 and 1, then rows 2 and 3: their first eight bytes side by side, then their last eight.
#[inline(always)]
unsafe fn side_by_side(rows: [int8x16_t; 4]) -> [int8x16_t; 4] {
    // SAFETY: the caller's.
    unsafe {
        let ([a, b], [c, d]) = (combine(rows[0], rows[1]), combine(rows[2], rows[3]));
        [a, b, c, d]
    }
}

/// The scales that begin the blocks of four rows, one row per lane.
#[inline(always)]
pub(super) unsafe fn scales(rows: &[*const u8]) -> float32x4_t {
    // SAFETY: the caller's: a block begins at each of `rows`.
    unsafe {
        let scale = |r: usize| rows[r].cast::<u16>().read_unaligned();
        let halves = [scale(0), scale(1), scale(2), scale(3)];
        widen(vld1_u16(halves.as_ptr()))
    }
}
