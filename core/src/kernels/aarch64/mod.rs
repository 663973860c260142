//! Instruction sets of aarch64: plain NEON, the dot product (Armv8.2), the int8 matrix multiply (Armv8.6). One file for each; here is what
//! they share.
//!
//! Int8 products have one row per 32-bit lane when a block's integers have been added up, so that the f32 accumulation over blocks is the scalar
//! code's. Weights that several tokens share are transposed for it (`product`, `unpacked_neon`); for one token the dot product takes them as they lie, and
//! its sums are transposed (`one_token_dotprod`, `superblocks`). The matrix multiply keeps two rows × two tokens (`many_tokens_i8mm`).

pub(super) mod dotprod;
pub(super) mod i8mm;
mod limits;
mod many_tokens_i8mm;
pub(super) mod neon;
mod one_token_dotprod;
mod superblocks;
mod unpacked_neon;

use super::product::Tile;
use crate::quant::activation::BLOCK;
use crate::quant::{q4_0, q8_0};
use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

pub(super) fn has_dotprod() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}

pub(super) fn has_i8mm() -> bool {
    has_dotprod() && std::arch::is_aarch64_feature_detected!("i8mm")
}

/// How an instruction set takes weights. Its method may be called only where the processor has it.
trait Arrange {
    /// Sixteen bytes of each of four rows, in the order that its products take.
    unsafe fn arrange(rows: [int8x16_t; 4]) -> [int8x16_t; 4];
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

/// How an instruction set multiplies. Its method may be called only where the processor has it.
trait Multiply: Arrange + Sums {
    /// Tokens of a register tile.
    const TOKENS: usize;

    /// The products of one block of eight rows with the blocks at `x` of `T` tokens: `[token, rows 0–3 | 4–7]`, one row per lane.
    unsafe fn dot<const T: usize>(weights: &[Group; 2], x: [*const i8; T]) -> [[int32x4_t; 2]; T];
}

/// One block of four rows: the arranged first sixteen values, then the arranged last sixteen.
type Group = [int8x16_t; 8];

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

/// A format with blocks of 32 small integers and one binary16 scale before them.
trait Block {
    const BYTES: usize;
    /// The block that begins at each of four `rows`, into `group`.
    unsafe fn unpack<M: Arrange>(rows: &[*const u8], group: &mut Group);
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

struct Q8_0;
impl Block for Q8_0 {
    const BYTES: usize = q8_0::BYTES;
    #[inline(always)]
    unsafe fn unpack<M: Arrange>(rows: &[*const u8], group: &mut Group) {
        // SAFETY: the caller's; a block's 32 values follow its scale.
        unsafe {
            let (low, high) = (M::arrange(load(rows, 2)), M::arrange(load(rows, 18)));
            for j in 0..4 {
                group[j] = low[j];
                group[j + 4] = high[j];
            }
        }
    }
}

struct Q4_0;
impl Block for Q4_0 {
    const BYTES: usize = q4_0::BYTES;
    #[inline(always)]
    unsafe fn unpack<M: Arrange>(rows: &[*const u8], group: &mut Group) {
        // SAFETY: the caller's; a block's sixteen bytes follow its scale.
        unsafe {
            let bytes = M::arrange(load(rows, 2));
            let eight = vdupq_n_s8(8);
            for j in 0..4 {
                let byte = vreinterpretq_u8_s8(bytes[j]);
                group[j] = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(byte, vdupq_n_u8(15))), eight);
                group[j + 4] = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8::<4>(byte)), eight);
            }
        }
    }
}

/// The scales that begin the blocks of four rows, one row per lane.
#[inline(always)]
unsafe fn scales(rows: &[*const u8]) -> float32x4_t {
    // SAFETY: the caller's: a block begins at each of `rows`.
    unsafe {
        let scale = |r: usize| rows[r].cast::<u16>().read_unaligned();
        let halves = [scale(0), scale(1), scale(2), scale(3)];
        widen(vld1_u16(halves.as_ptr()))
    }
}

/// Rows of a register tile: two registers.
const ROWS: usize = 8;

/// Blocks that are unpacked at a time.
const DEPTH: usize = 16;

/// Unpacked weights: eight rows × [`DEPTH`] blocks, 4.5 KB of stack that stay in the first-level cache while all tokens pass.
struct Packed {
    weights: [[Group; 2]; DEPTH],
    /// `[block, rows 0–3 | 4–7]`
    scales: [[float32x4_t; 2]; DEPTH],
}

/// The product of one token, from weights that are transposed for it.
#[inline(always)]
unsafe fn product_of_one_token<F: Block, M: Multiply>(tile: &Tile<'_>) {
    for row in (0..tile.rows).step_by(ROWS) {
        // SAFETY: the caller's: the tile has been checked.
        unsafe { one_token::<F, M>(tile, row) }
    }
}

/// The product of any number of tokens, from weights that are unpacked for all of them.
#[inline(always)]
unsafe fn product<F: Block, M: Multiply>(tile: &Tile<'_>) {
    // SAFETY: the caller's: the tile has been checked.
    unsafe {
        let mut packed = Packed {
            weights: [[[vdupq_n_s8(0); 8]; 2]; DEPTH],
            scales: [[vdupq_n_f32(0.0); 2]; DEPTH],
        };
        for row in (0..tile.rows).step_by(ROWS) {
            many_tokens::<F, M>(tile, &mut packed, row);
        }
    }
}

/// Where eight rows from `row` begin; the last row stands in for those that are not there.
#[inline(always)]
fn row_starts(tile: &Tile<'_>, row: usize) -> [*const u8; ROWS] {
    std::array::from_fn(|r| tile.bytes[(row + r).min(tile.rows - 1) * tile.row_bytes..].as_ptr())
}

/// Eight rows × one token: weights go from memory straight into the product.
#[inline(always)]
unsafe fn one_token<F: Block, M: Multiply>(tile: &Tile<'_>, row: usize) {
    let mut rows = row_starts(tile, row);
    // SAFETY: the caller's; every block read lies inside its row.
    unsafe {
        let mut total = [vdupq_n_f32(0.0); 2];
        let mut weights = [[vdupq_n_s8(0); 8]; 2];
        for block in 0..tile.cols / BLOCK {
            F::unpack::<M>(&rows[..4], &mut weights[0]);
            F::unpack::<M>(&rows[4..], &mut weights[1]);
            let [products] = M::dot(&weights, [tile.int8.values.as_ptr().add(block * BLOCK)]);
            let x_scale = *tile.int8.scales.get_unchecked(block);
            for half in 0..2 {
                let scale = vmulq_n_f32(scales(&rows[half * 4..]), x_scale);
                total[half] = vaddq_f32(total[half], vmulq_f32(scale, M::float(products[half])));
            }
            for row in &mut rows {
                *row = row.wrapping_add(F::BYTES);
            }
        }
        store(tile.out.add(row), tile.rows - row, total);
    }
}

/// Up to eight rows × all tokens.
#[inline(always)]
unsafe fn many_tokens<F: Block, M: Multiply>(tile: &Tile<'_>, packed: &mut Packed, row: usize) {
    let blocks = tile.cols / BLOCK;
    let starts = row_starts(tile, row);
    for first in (0..blocks).step_by(DEPTH) {
        let depth = DEPTH.min(blocks - first);
        // SAFETY: the caller's; `first + depth <= blocks`.
        unsafe {
            for block in 0..depth {
                let rows = starts.map(|row| row.wrapping_add((first + block) * F::BYTES));
                F::unpack::<M>(&rows[..4], &mut packed.weights[block][0]);
                F::unpack::<M>(&rows[4..], &mut packed.weights[block][1]);
                packed.scales[block] = [scales(&rows[..4]), scales(&rows[4..])];
            }
            let span = first..first + depth;
            let mut token = 0;
            if M::TOKENS >= 4 {
                while token + 4 <= tile.tokens {
                    some_tokens::<M, 4>(tile, packed, row, span.clone(), token);
                    token += 4;
                }
            }
            while token + 2 <= tile.tokens {
                some_tokens::<M, 2>(tile, packed, row, span.clone(), token);
                token += 2;
            }
            if token < tile.tokens {
                some_tokens::<M, 1>(tile, packed, row, span, token);
            }
        }
    }
}

/// Eight packed rows × `T` tokens, of the blocks in `span`.
#[inline(always)]
unsafe fn some_tokens<M: Multiply, const T: usize>(
    tile: &Tile<'_>,
    packed: &Packed,
    row: usize,
    span: Range<usize>,
    token: usize,
) {
    let blocks = tile.cols / BLOCK;
    let count = tile.rows - row;
    // SAFETY: the caller's; all indices lie inside the checked shapes.
    unsafe {
        let out: [*mut f32; T] =
            std::array::from_fn(|t| tile.out.add((token + t) * tile.stride + row));
        let mut x: [*const i8; T] = std::array::from_fn(|t| {
            tile.int8
                .values
                .as_ptr()
                .add((token + t) * tile.cols + span.start * BLOCK)
        });
        let x_scales: [*const f32; T] = std::array::from_fn(|t| {
            tile.int8
                .scales
                .as_ptr()
                .add((token + t) * blocks + span.start)
        });
        let mut totals = [[vdupq_n_f32(0.0); 2]; T];
        if span.start > 0 {
            for t in 0..T {
                totals[t] = reload(out[t], count);
            }
        }
        for block in 0..span.len() {
            let products = M::dot(&packed.weights[block], x);
            for t in 0..T {
                for half in 0..2 {
                    let scale = vmulq_n_f32(packed.scales[block][half], *x_scales[t].add(block));
                    totals[t][half] = vaddq_f32(
                        totals[t][half],
                        vmulq_f32(scale, M::float(products[t][half])),
                    );
                }
                x[t] = x[t].wrapping_add(BLOCK);
            }
        }
        for t in 0..T {
            store(out[t], count, totals[t]);
        }
    }
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

/// Reads what [`store`] wrote.
#[inline(always)]
unsafe fn reload(out: *const f32, count: usize) -> [float32x4_t; 2] {
    // SAFETY: the caller's: `count` outputs are there.
    unsafe {
        let mut lanes = [0f32; ROWS];
        let from = if count >= ROWS {
            out
        } else {
            std::ptr::copy_nonoverlapping(out, lanes.as_mut_ptr(), count);
            lanes.as_ptr()
        };
        [vld1q_f32(from), vld1q_f32(from.add(4))]
    }
}
