//! One token's product with Q8_0 and Q4_0, row by row, with the dot product.
//!
//! Each row's block is multiplied as it lies, with activations that all eight rows share. The four lanes of every row are added up afterwards,
//! which are fewer than the weights that would have to be transposed. What follows has one row per lane and the scalar code's order of additions.

use super::super::product::Tile;
use super::dotprod::sdot_lanes;
use super::{ROWS, row_starts, store, widen};
use crate::quant::activation::BLOCK;
use crate::quant::{q4_0, q8_0};
use std::arch::aarch64::*;
use std::arch::asm;

/// A format with blocks of 32 small integers and one binary16 scale before them.
pub(super) trait RowWise {
    const BYTES: usize;
    /// What is to be taken from every code.
    const OFFSET: i32;
    /// The codes of the block at `block`, in the order of the activations.
    ///
    /// # Safety
    /// A whole block is there.
    unsafe fn codes(block: *const u8) -> [int8x16_t; 2];
}

pub(super) struct Q8_0;
impl RowWise for Q8_0 {
    const BYTES: usize = q8_0::BYTES;
    const OFFSET: i32 = 0;
    #[inline(always)]
    unsafe fn codes(block: *const u8) -> [int8x16_t; 2] {
        // SAFETY: the caller's; a block's 32 values follow its scale.
        unsafe {
            [
                vld1q_s8(block.add(2).cast()),
                vld1q_s8(block.add(18).cast()),
            ]
        }
    }
}

pub(super) struct Q4_0;
impl RowWise for Q4_0 {
    const BYTES: usize = q4_0::BYTES;
    const OFFSET: i32 = 8;
    #[inline(always)]
    unsafe fn codes(block: *const u8) -> [int8x16_t; 2] {
        // SAFETY: the caller's; a block's sixteen bytes follow its scale.
        unsafe {
            let bytes = vld1q_u8(block.add(2));
            let (low, high) = (vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8::<4>(bytes));
            [vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(high)]
        }
    }
}

/// What eight rows have come to.
struct State {
    /// Where each row's next block begins.
    rows: [*const u8; ROWS],
    /// Each row's integer sums over all blocks so far, modulo 2³²: they never start again at zero, which would take an instruction for every row.
    lanes: [int32x4_t; ROWS],
    /// The same with its lanes added up, one row per lane, one block ago.
    before: [int32x4_t; 2],
    total: [float32x4_t; 2],
}

/// # Safety
/// `tile` has been checked and has one token, and the processor has the dot product.
#[inline(always)]
pub(super) unsafe fn one_token<F: RowWise>(tile: &Tile<'_>) {
    let blocks = tile.cols / BLOCK;
    for row in (0..tile.rows).step_by(ROWS) {
        // SAFETY: the caller's; every block read lies inside its row.
        unsafe {
            let mut state = State {
                rows: row_starts(tile, row),
                lanes: [vdupq_n_s32(0); ROWS],
                before: [vdupq_n_s32(0); 2],
                total: [vdupq_n_f32(0.0); 2],
            };
            let mut x = tile.int8.values.as_ptr();
            let (scales, sums) = (tile.int8.scales.as_ptr(), tile.int8.sums.as_ptr());
            for at in (0..blocks / 4 * 4).step_by(4) {
                let (scales, sums) = (vld1q_f32(scales.add(at)), vld1q_s32(sums.add(at)));
                block::<F, 0>(&mut state, x, scales, sums);
                block::<F, 1>(&mut state, x, scales, sums);
                block::<F, 2>(&mut state, x, scales, sums);
                block::<F, 3>(&mut state, x, scales, sums);
                x = x.wrapping_add(4 * BLOCK);
                state.rows = state.rows.map(|row| further(row, 4 * F::BYTES));
            }
            for at in blocks / 4 * 4..blocks {
                let (scales, sums) = (vld1q_dup_f32(scales.add(at)), vld1q_dup_s32(sums.add(at)));
                block::<F, 0>(&mut state, x, scales, sums);
                x = x.wrapping_add(BLOCK);
                state.rows = state.rows.map(|row| further(row, F::BYTES));
            }
            store(tile.out.add(row), tile.rows - row, state.total);
        }
    }
}

/// Adds block `AT` from where the rows stand. Its activations' scale and sum are lane `AT` of what is given.
#[inline(always)]
unsafe fn block<F: RowWise, const AT: i32>(
    state: &mut State,
    x: *const i8,
    x_scales: float32x4_t,
    x_sums: int32x4_t,
) {
    // SAFETY: the caller's: the block and its activations are there.
    unsafe {
        let at = AT as usize;
        let x = x.add(at * BLOCK);
        let x = [vld1q_s8(x), vld1q_s8(x.add(16))];
        for half in 0..2 {
            for r in half * 4..half * 4 + 4 {
                let codes = F::codes(state.rows[r].add(at * F::BYTES));
                let sum = sdot_lanes(state.lanes[r], codes[0], x[0]);
                state.lanes[r] = sdot_lanes(sum, codes[1], x[1]);
            }
            let lanes = &state.lanes[half * 4..];
            let so_far = add_lanes(lanes);
            let mut sums = vsubq_s32(so_far, state.before[half]);
            state.before[half] = so_far;
            if F::OFFSET != 0 {
                sums = take_product::<AT>(sums, vdupq_n_s32(F::OFFSET), x_sums);
            }
            let scale = scales::<F, AT>(&state.rows[half * 4..]);
            let scale = vmulq_laneq_f32::<AT>(scale, x_scales);
            state.total[half] = vaddq_f32(state.total[half], vmulq_f32(scale, vcvtq_f32_s32(sums)));
        }
        settle(state.total.each_mut());
    }
}

/// The scales that begin block `AT` of four rows, one row per lane. They are put together in a general register: loads into
/// lanes of one register, which the compiler would make of plain ones, take as many steps again.
#[inline(always)]
unsafe fn scales<F: RowWise, const AT: i32>(rows: &[*const u8]) -> float32x4_t {
    // SAFETY: the caller's: a block begins there in each of four rows.
    unsafe {
        let scale = |r: usize| {
            let half: u64;
            asm!(
                "ldrh {0:w}, [{1}, {at}]",
                out(reg) half, in(reg) rows[r], at = const AT as usize * F::BYTES,
                options(pure, readonly, nostack, preserves_flags)
            );
            half
        };
        let four = scale(0) | scale(1) << 16 | scale(2) << 32 | scale(3) << 48;
        widen(vcreate_u16(four))
    }
}

/// `bytes` further. The compiler does not know it for an addition, or it would keep where eight rows begin beside where they are.
#[inline(always)]
fn further(row: *const u8, bytes: usize) -> *const u8 {
    let mut row = row;
    // SAFETY: plain arithmetic of the base instruction set.
    unsafe {
        asm!("add {0}, {0}, {1}", inout(reg) row, in(reg) bytes, options(pure, nomem, nostack, preserves_flags));
    }
    row
}

/// `sums - a · lane AT of b`, in one step: the compiler would make a shift, a copy and a subtraction of it.
#[inline(always)]
unsafe fn take_product<const AT: i32>(sums: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
    let mut sums = sums;
    // SAFETY: plain arithmetic of the base instruction set.
    unsafe {
        asm!(
            "mls {0:v}.4s, {1:v}.4s, {2:v}.s[{lane}]",
            inout(vreg) sums, in(vreg) a, in(vreg) b, lane = const AT,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// The sums of four registers' lanes.
#[inline(always)]
pub(super) unsafe fn add_lanes(lanes: &[int32x4_t]) -> int32x4_t {
    // SAFETY: NEON is part of aarch64.
    unsafe {
        let (low, high) = (
            vpaddq_s32(lanes[0], lanes[1]),
            vpaddq_s32(lanes[2], lanes[3]),
        );
        vpaddq_s32(low, high)
    }
}

/// Nothing is loaded ahead of these values: the compiler would load so much early that registers ran out.
#[inline(always)]
pub(super) unsafe fn settle<const N: usize>(values: [&mut float32x4_t; N]) {
    for value in values {
        // SAFETY: no instruction at all.
        unsafe {
            asm!(
                "/* {0:v} */",
                inout(vreg) * value,
                options(nostack, preserves_flags)
            )
        }
    }
}
