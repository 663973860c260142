//! Instruction sets of aarch64: plain NEON, the dot product (Armv8.2), the int8 matrix multiply (Armv8.6). One file for each; here is what
//! they share.
//!
//! Int8 products have one row per 32-bit lane when a block's integers have been added up, so that the f32 accumulation over blocks is the scalar
//! code's. Weights that several tokens share are transposed for it (`unpacked_neon`); for one token the dot product takes them as they lie, and
//! its sums are transposed (`one_token_dotprod`, `superblocks`). The matrix multiply keeps two rows × two tokens (`many_tokens_i8mm`).

pub(super) mod dotprod;
pub(super) mod i8mm;
mod limits;
mod many_tokens_i8mm;
pub(super) mod neon;
mod one_token_dotprod;
mod row_pairs;
mod superblocks;
mod unpacked_neon;

use super::product::Tile;
use std::arch::aarch64::*;
use std::arch::asm;

pub(super) fn has_dotprod() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}

pub(super) fn has_i8mm() -> bool {
    has_dotprod() && std::arch::is_aarch64_feature_detected!("i8mm")
}

/// How an instruction set keeps integer sums. Its methods may be called only where the processor has it.
trait Sums {
    /// What sums begin with.
    unsafe fn nothing() -> int32x4_t;
    unsafe fn float(sums: int32x4_t) -> float32x4_t;
}

/// Sums that are the mantissas of f32 numbers: those from −2²² to 2²² become f32 by a subtraction, where a conversion takes two steps of one port.
/// A block's sum is 32 · 128 · 127 at most.
struct Mantissas;

impl Mantissas {
    /// Where an f32 changes by 1 from each number to the next, as far as that goes in both directions.
    const MIDDLE: f32 = 12_582_912.0; // 1.5 · 2²³
}

impl Sums for Mantissas {
    #[inline(always)]
    unsafe fn nothing() -> int32x4_t {
        // SAFETY: NEON is part of aarch64.
        unsafe { vdupq_n_s32(Self::MIDDLE.to_bits() as i32) }
    }
    #[inline(always)]
    unsafe fn float(sums: int32x4_t) -> float32x4_t {
        // SAFETY: NEON is part of aarch64.
        unsafe { vsubq_f32(vreinterpretq_f32_s32(sums), vdupq_n_f32(Self::MIDDLE)) }
    }
}

/// Dwords transposed: register `j` holds bytes `4j .. 4j + 4`, one row per lane.
#[inline(always)]
unsafe fn transpose([a, b, c, d]: [int8x16_t; 4]) -> [int8x16_t; 4] {
    // SAFETY: NEON is part of aarch64.
    unsafe {
        let (a, b) = (vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b));
        let (c, d) = (vreinterpretq_s32_s8(c), vreinterpretq_s32_s8(d));
        let wide = |x| vreinterpretq_s64_s32(x);
        let (ab_even, ab_odd) = (wide(vtrn1q_s32(a, b)), wide(vtrn2q_s32(a, b)));
        let (cd_even, cd_odd) = (wide(vtrn1q_s32(c, d)), wide(vtrn2q_s32(c, d)));
        [
            vreinterpretq_s8_s64(vtrn1q_s64(ab_even, cd_even)),
            vreinterpretq_s8_s64(vtrn1q_s64(ab_odd, cd_odd)),
            vreinterpretq_s8_s64(vtrn2q_s64(ab_even, cd_even)),
            vreinterpretq_s8_s64(vtrn2q_s64(ab_odd, cd_odd)),
        ]
    }
}

/// The lower four of eight binary16, widened.
#[inline(always)]
unsafe fn widen_low(halves: uint16x8_t) -> float32x4_t {
    // SAFETY: NEON is part of aarch64.
    unsafe { widen(vget_low_u16(halves)) }
}

/// Four binary16, widened.
#[inline(always)]
unsafe fn widen(halves: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: plain arithmetic of the base instruction set. (Its intrinsic is newer than the oldest compiler supported.)
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) wide, in(vreg) halves, options(pure, nomem, nostack, preserves_flags))
    };
    wide
}

/// The upper four of eight binary16, widened.
#[inline(always)]
unsafe fn widen_high(halves: uint16x8_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: as above.
    unsafe {
        asm!("fcvtl2 {0:v}.4s, {1:v}.8h", out(vreg) wide, in(vreg) halves, options(pure, nomem, nostack, preserves_flags))
    };
    wide
}

/// Eight f32 rounded to binary16, ties to even.
#[inline(always)]
unsafe fn narrow(low: float32x4_t, high: float32x4_t) -> uint16x8_t {
    let halves: uint16x8_t;
    // SAFETY: as above.
    unsafe {
        asm!(
            "fcvtn {0:v}.4h, {1:v}.4s",
            "fcvtn2 {0:v}.8h, {2:v}.4s",
            out(vreg) halves, in(vreg) low, in(vreg) high,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    halves
}

/// Rows of a tile: two registers.
const ROWS: usize = 8;

/// Where eight rows from `row` begin; the last row stands in for those that are not there.
#[inline(always)]
fn row_starts(tile: &Tile<'_>, row: usize) -> [*const u8; ROWS] {
    std::array::from_fn(|r| tile.bytes[(row + r).min(tile.rows - 1) * tile.row_bytes..].as_ptr())
}

/// Writes the lanes of the rows that exist.
#[inline(always)]
unsafe fn store(out: *mut f32, count: usize, values: [float32x4_t; 2]) {
    // SAFETY: the caller's: `count` outputs are there.
    unsafe {
        let mut lanes = [0f32; ROWS];
        let to = if count >= ROWS {
            out
        } else {
            lanes.as_mut_ptr()
        };
        vst1q_f32(to, values[0]);
        vst1q_f32(to.add(4), values[1]);
        if count < ROWS {
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), out, count);
        }
    }
}
