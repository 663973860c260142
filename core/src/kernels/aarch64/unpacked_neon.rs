//! Unpacked parts with NEON: four rows to a register, multiplied as the processor can.

use super::super::kinds::PartKind;
use super::super::product::Rows;
use super::super::row_lanes::RowLanes;
use super::{Sums, transpose, widen, widen_high, widen_low};
use std::arch::aarch64::*;
use std::marker::PhantomData;

/// How weights of four rows to a register are multiplied with activations.
pub(super) trait Dots: Sums {
    /// Register `g` of each of `H` registers of rows holds values `4g .. 4g + 4`, one row per lane.
    ///
    /// # Safety
    /// The processor has the instructions, and as many values are at each of `x`.
    unsafe fn dots<const N: usize, const H: usize, const T: usize>(
        weights: [&[int8x16_t; N]; H],
        x: [*const i8; T],
    ) -> [[int32x4_t; H]; T];
}

pub(super) struct Rows4<M>(PhantomData<M>);

// SAFETY (every block below): the trait's contract is that the caller has the instructions and valid pointers.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason for all, above"
)]
impl<M: Dots> RowLanes for Rows4<M> {
    const LANES: usize = 4;
    const SUMS: bool = false;
    type Bytes = int8x16_t;
    type Sums = int32x4_t;
    type Floats = float32x4_t;

    #[inline(always)]
    unsafe fn none() -> int8x16_t {
        unsafe { vdupq_n_s8(0) }
    }
    #[inline(always)]
    unsafe fn nothing() -> int32x4_t {
        unsafe { M::nothing() }
    }
    #[inline(always)]
    unsafe fn bytes16(rows: Rows) -> [int8x16_t; 4] {
        unsafe { transpose(std::array::from_fn(|r| vld1q_s8(rows.row(r).cast()))) }
    }
    #[inline(always)]
    unsafe fn bytes4(rows: Rows) -> int8x16_t {
        unsafe {
            let words: [u32; 4] =
                std::array::from_fn(|r| rows.row(r).cast::<u32>().read_unaligned());
            vreinterpretq_s8_u32(vld1q_u32(words.as_ptr()))
        }
    }
    #[inline(always)]
    unsafe fn half(rows: Rows) -> float32x4_t {
        unsafe {
            let halves: [u16; 4] =
                std::array::from_fn(|r| rows.row(r).cast::<u16>().read_unaligned());
            widen(vld1_u16(halves.as_ptr()))
        }
    }
    #[inline(always)]
    unsafe fn bytes8(rows: Rows) -> [int8x16_t; 2] {
        unsafe {
            let head = |r: usize| vreinterpret_s32_s8(vld1_s8(rows.row(r).cast()));
            let (first, second) = (
                vcombine_s32(head(0), head(1)),
                vcombine_s32(head(2), head(3)),
            );
            [
                vreinterpretq_s8_s32(vuzp1q_s32(first, second)),
                vreinterpretq_s8_s32(vuzp2q_s32(first, second)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn and(bytes: int8x16_t, mask: u8) -> int8x16_t {
        unsafe { vandq_s8(bytes, vdupq_n_s8(mask as i8)) }
    }
    #[inline(always)]
    unsafe fn or(a: int8x16_t, b: int8x16_t) -> int8x16_t {
        unsafe { vorrq_s8(a, b) }
    }
    #[inline(always)]
    unsafe fn left(bytes: int8x16_t, bits: u32) -> int8x16_t {
        unsafe {
            let lanes = vreinterpretq_u32_s8(bytes);
            vreinterpretq_s8_u32(vshlq_u32(lanes, vdupq_n_s32(bits as i32)))
        }
    }
    #[inline(always)]
    unsafe fn right(bytes: int8x16_t, bits: u32) -> int8x16_t {
        unsafe {
            let lanes = vreinterpretq_u32_s8(bytes);
            vreinterpretq_s8_u32(vshlq_u32(lanes, vdupq_n_s32(-(bits as i32))))
        }
    }
    #[inline(always)]
    unsafe fn triple(bytes: int8x16_t) -> int8x16_t {
        unsafe { vaddq_s8(vaddq_s8(bytes, bytes), bytes) }
    }
    #[inline(always)]
    unsafe fn carried(bytes: int8x16_t) -> int8x16_t {
        unsafe {
            // A comparison's −1 from 256 / 3 on, and one from 512 / 3 on.
            let bytes = vreinterpretq_u8_s8(bytes);
            let first = vcgeq_u8(bytes, vdupq_n_u8(86));
            let second = vcgeq_u8(bytes, vdupq_n_u8(171));
            vnegq_s8(vreinterpretq_s8_u8(vaddq_u8(first, second)))
        }
    }
    #[inline(always)]
    unsafe fn signed<K: PartKind>(bytes: int8x16_t, offset: u8) -> int8x16_t {
        unsafe { vsubq_s8(bytes, vdupq_n_s8(offset as i8)) }
    }
    #[inline(always)]
    unsafe fn look_up(table: &[i8; 16], bytes: int8x16_t) -> int8x16_t {
        unsafe { vqtbl1q_s8(vld1q_s8(table.as_ptr()), vreinterpretq_u8_s8(bytes)) }
    }
    #[inline(always)]
    unsafe fn spread(bits: int8x16_t, first: u32, value: u8) -> int8x16_t {
        unsafe {
            let byte = (first / 8) as u8;
            let lanes: [u8; 16] = std::array::from_fn(|at| (at / 4 * 4) as u8 + byte);
            let copies = vqtbl1q_u8(vreinterpretq_u8_s8(bits), vld1q_u8(lanes.as_ptr()));
            let each = vreinterpretq_u8_u32(vdupq_n_u32(0x0804_0201 << (first % 8)));
            vreinterpretq_s8_u8(vandq_u8(vtstq_u8(copies, each), vdupq_n_u8(value)))
        }
    }
    #[inline(always)]
    unsafe fn whole(bytes: int8x16_t, index: usize, offset: i32) -> float32x4_t {
        unsafe {
            let byte = vreinterpretq_s32_s8(Self::right(bytes, index as u32 * 8));
            let byte = vandq_s32(byte, vdupq_n_s32(255));
            vcvtq_f32_s32(vsubq_s32(byte, vdupq_n_s32(offset)))
        }
    }
    #[inline(always)]
    unsafe fn signed_whole(bytes: int8x16_t, index: usize) -> float32x4_t {
        unsafe {
            let top = vreinterpretq_s32_s8(Self::left(bytes, 24 - index as u32 * 8));
            vcvtq_f32_s32(vshrq_n_s32::<24>(top))
        }
    }
    #[inline(always)]
    unsafe fn halves(bytes: int8x16_t) -> [float32x4_t; 2] {
        unsafe {
            let pairs = vreinterpretq_u16_s8(bytes);
            let both = vuzp1q_u16(pairs, vextq_u16::<1>(pairs, pairs)); // the low ones, then the high ones
            [widen_low(both), widen_high(both)]
        }
    }
    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn dots<K: PartKind, const N: usize, const H: usize, const T: usize>(
        weights: [&[int8x16_t; N]; H],
        x: [*const i8; T],
        _x_sums: [i32; T],
    ) -> [[int32x4_t; H]; T] {
        unsafe { M::dots(weights, x) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn store(values: float32x4_t, to: *mut f32) {
        unsafe { vst1q_f32(to, values) }
    }
    #[inline(always)]
    unsafe fn add_term(
        total: float32x4_t,
        scale: float32x4_t,
        x_scale: float32x4_t,
        sum: int32x4_t,
    ) -> float32x4_t {
        unsafe {
            let scale = vmulq_f32(scale, x_scale);
            vaddq_f32(total, vmulq_f32(scale, M::float(sum)))
        }
    }
    #[inline(always)]
    unsafe fn add_product(total: float32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vaddq_f32(total, vmulq_f32(a, b)) }
    }
    #[inline(always)]
    unsafe fn sum16(x: *const i8) -> i32 {
        unsafe { i32::from(vaddlvq_s8(vld1q_s8(x))) }
    }
}
