//! One token's product with Q4_K and Q5_K, row by row, with the dot product: as in [`super::one_token_dotprod`], for superblocks of 256 values.

use super::super::block_product::rows;
use super::super::product::{Rows, Tile};
use super::super::row_lanes::RowLanes;
use super::super::unpack::{Lanewise, Q4K, Q5K};
use super::dotprod::sdot_lanes;
use super::neon::Plain;
use super::one_token_dotprod::{add_lanes, settle};
use super::unpacked_neon::Rows4;
use crate::quant::activation::BLOCK;
use std::arch::aarch64::*;

/// Values of a superblock.
const VALUES: usize = 256;
/// Its blocks of activations.
const PARTS: usize = VALUES / BLOCK;
/// Rows that share activations: a register's lanes.
const ROWS: usize = 4;

/// A format whose nibbles lie as Q4_K's: those of two parts in 32 bytes.
trait RowWise: Lanewise {
    /// The codes of parts `2 PAIR` and `2 PAIR + 1` of the superblock at `row`.
    ///
    /// # Safety
    /// A whole superblock is there.
    unsafe fn codes<const PAIR: i32>(row: *const u8) -> [[int8x16_t; 2]; 2];
}

/// 32 bytes at `at`.
#[inline(always)]
unsafe fn bytes32(at: *const u8) -> [uint8x16_t; 2] {
    // SAFETY: the caller's.
    unsafe { [vld1q_u8(at), vld1q_u8(at.add(16))] }
}

impl RowWise for Q4K {
    #[inline(always)]
    unsafe fn codes<const PAIR: i32>(row: *const u8) -> [[int8x16_t; 2]; 2] {
        // SAFETY: the caller's; the codes follow sixteen bytes of scales.
        unsafe {
            let bytes = bytes32(row.add(16 + PAIR as usize * 32));
            let low = bytes.map(|bytes| vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15))));
            let high = bytes.map(|bytes| vreinterpretq_s8_u8(vshrq_n_u8::<4>(bytes)));
            [low, high]
        }
    }
}

impl RowWise for Q5K {
    #[inline(always)]
    unsafe fn codes<const PAIR: i32>(row: *const u8) -> [[int8x16_t; 2]; 2] {
        // SAFETY: the caller's; the codes' fifth bits follow sixteen bytes of scales, the others follow these.
        unsafe {
            let bytes = bytes32(row.add(48 + PAIR as usize * 32));
            let fifth = bytes32(row.add(16));
            // Bit p of a byte is the fifth bit of a value of part p.
            let code = |low, fifth, part: i32| {
                let fifth = vshlq_u8(fifth, vdupq_n_s8(-(part as i8)));
                vreinterpretq_s8_u8(vandq_u8(vsliq_n_u8::<4>(low, fifth), vdupq_n_u8(31)))
            };
            let (low, high) = (PAIR * 2, PAIR * 2 + 1);
            let shifted = bytes.map(|bytes| vshrq_n_u8::<4>(bytes));
            [
                [code(bytes[0], fifth[0], low), code(bytes[1], fifth[1], low)],
                [
                    code(shifted[0], fifth[0], high),
                    code(shifted[1], fifth[1], high),
                ],
            ]
        }
    }
}

/// The scales and minimums of four rows' superblocks, one row per lane.
struct Scales {
    scale: float32x4_t,
    minimum: float32x4_t,
    /// A byte for each of parts 0–3, then 4–7
    scales: [uint32x4_t; 2],
    /// As the scales.
    minimums: [uint32x4_t; 2],
}

impl Scales {
    /// Those that begin the superblocks of `rows`.
    #[inline(always)]
    unsafe fn new(rows: Rows) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let head = <Rows4<Plain> as RowLanes>::bytes16(rows);
            let [scale, minimum] = <Rows4<Plain> as RowLanes>::halves(head[0]);
            let [_, scales, minimums, both] = head.map(|bytes| vreinterpretq_u8_s8(bytes));
            let (six, four) = (vdupq_n_u8(63), vdupq_n_u8(15));
            // Bits 4 and 5, from the highest two.
            let highest = |bytes| vandq_u8(vshrq_n_u8::<2>(bytes), vdupq_n_u8(48));
            let upper_scales = vorrq_u8(vandq_u8(both, four), highest(scales));
            let upper_minimums = vorrq_u8(vshrq_n_u8::<4>(both), highest(minimums));
            Scales {
                scale,
                minimum: vnegq_f32(minimum),
                scales: [vandq_u8(scales, six), upper_scales].map(|b| vreinterpretq_u32_u8(b)),
                minimums: [vandq_u8(minimums, six), upper_minimums]
                    .map(|b| vreinterpretq_u32_u8(b)),
            }
        }
    }
}

/// Byte `part % 4` of each lane of `words[part / 4]`.
#[inline(always)]
unsafe fn byte(words: &[uint32x4_t; 2], part: usize) -> float32x4_t {
    let words = words[part / 4];
    // SAFETY: NEON is part of aarch64.
    unsafe {
        let only = |bits: u32| vandq_u32(words, vdupq_n_u32(bits));
        match part % 4 {
            0 => vcvtq_f32_u32(only(0xff)),
            1 => vcvtq_n_f32_u32::<8>(only(0xff00)),
            2 => vcvtq_n_f32_u32::<16>(only(0x00ff_0000)),
            _ => vcvtq_f32_u32(vshrq_n_u32::<24>(words)),
        }
    }
}

/// Lane `part % 4` of `values[part / 4]`, in all lanes.
#[inline(always)]
unsafe fn lane(values: &[float32x4_t; 2], part: usize) -> float32x4_t {
    let values = values[part / 4];
    // SAFETY: NEON is part of aarch64.
    unsafe {
        match part % 4 {
            0 => vdupq_laneq_f32::<0>(values),
            1 => vdupq_laneq_f32::<1>(values),
            2 => vdupq_laneq_f32::<2>(values),
            _ => vdupq_laneq_f32::<3>(values),
        }
    }
}

/// What four rows have come to.
struct State {
    /// As in [`super::one_token_dotprod`].
    lanes: [int32x4_t; ROWS],
    before: int32x4_t,
    total: float32x4_t,
}

/// The activations of a superblock.
struct Activations {
    values: *const i8,
    /// One for each part.
    scales: [float32x4_t; 2],
    /// The scale times the values' sum, for each part
    sums: [float32x4_t; 2],
}

/// Adds parts `2 PAIR` and `2 PAIR + 1`.
#[inline(always)]
unsafe fn pair<F: RowWise, const PAIR: i32>(
    state: &mut State,
    rows: Rows,
    scales: &Scales,
    x: &Activations,
) {
    // SAFETY: the caller's: the superblocks and 256 activations are there.
    unsafe {
        let first = PAIR as usize * 2;
        let values = [0, 1].map(|part| {
            let x = x.values.add((first + part) * BLOCK);
            [vld1q_s8(x), vld1q_s8(x.add(16))]
        });
        let mut codes = [[[vdupq_n_s8(0); 2]; 2]; ROWS];
        for r in 0..ROWS {
            codes[r] = F::codes::<PAIR>(rows.row(r));
        }
        for part in 0..2 {
            let lanes = &mut state.lanes;
            for r in 0..ROWS {
                let sum = sdot_lanes(lanes[r], codes[r][part][0], values[part][0]);
                lanes[r] = sdot_lanes(sum, codes[r][part][1], values[part][1]);
            }
            let so_far = add_lanes(lanes);
            let sums = vcvtq_f32_s32(vsubq_s32(so_far, state.before));
            state.before = so_far;
            let part = first + part;
            let scale = vmulq_f32(scales.scale, byte(&scales.scales, part));
            let scale = vmulq_f32(scale, lane(&x.scales, part));
            state.total = vaddq_f32(state.total, vmulq_f32(scale, sums));
            let minimum = vmulq_f32(scales.minimum, byte(&scales.minimums, part));
            state.total = vaddq_f32(state.total, vmulq_f32(minimum, lane(&x.sums, part)));
        }
        settle([&mut state.total]);
    }
}

#[inline(always)]
unsafe fn one_token<F: RowWise>(tile: &Tile<'_>) {
    let (zero, none) = unsafe { (vdupq_n_f32(0.0), vdupq_n_s32(0)) };
    // SAFETY: the caller's: the tile has been checked, and has one token.
    unsafe {
        for row in (0..tile.rows / ROWS * ROWS).step_by(ROWS) {
            let mut state = State {
                lanes: [none; ROWS],
                before: none,
                total: zero,
            };
            for block in 0..tile.cols / VALUES {
                let rows = rows::<Rows4<Plain>>(tile, row, 1, block * F::BYTES);
                let first = block * PARTS;
                let four = |at: usize| {
                    let scales = vld1q_f32(tile.int8.scales.as_ptr().add(first + at));
                    let sums = vld1q_s32(tile.int8.sums.as_ptr().add(first + at));
                    (scales, vmulq_f32(scales, vcvtq_f32_s32(sums)))
                };
                let (low, high) = (four(0), four(4));
                let x = Activations {
                    values: tile.int8.values.as_ptr().add(first * BLOCK),
                    scales: [low.0, high.0],
                    sums: [low.1, high.1],
                };
                let scales = Scales::new(rows);
                pair::<F, 0>(&mut state, rows, &scales, &x);
                pair::<F, 1>(&mut state, rows, &scales, &x);
                pair::<F, 2>(&mut state, rows, &scales, &x);
                pair::<F, 3>(&mut state, rows, &scales, &x);
            }
            vst1q_f32(tile.out.add(row), state.total);
        }
    }
}

#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn one_token_q4_k(tile: &Tile<'_>) {
    // SAFETY: the caller's.
    unsafe { one_token::<Q4K>(tile) }
}

#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn one_token_q5_k(tile: &Tile<'_>) {
    // SAFETY: the caller's.
    unsafe { one_token::<Q5K>(tile) }
}
