//! Unpacked parts with NEON: four rows to a register, multiplied as the processor can.

use super::super::parts::RowLanes;
use super::{load, transpose};
use std::arch::aarch64::*;
use std::marker::PhantomData;

/// How sixteen weights of four rows are multiplied with sixteen activations.
pub(super) trait Sixteen {
    /// Register `g` of `weights` holds values `4g .. 4g + 4`, one row per lane.
    ///
    /// # Safety
    /// The processor has the instructions, and sixteen values are at each of `x`.
    unsafe fn dots<const T: usize>(weights: &[int8x16_t], x: [*const i8; T]) -> [int32x4_t; T];
}

pub(super) struct Rows4<M>(PhantomData<M>);

// SAFETY (every block below): the trait's contract is that the caller has the instructions and valid pointers.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason for all, above"
)]
impl<M: Sixteen> RowLanes for Rows4<M> {
    const LANES: usize = 4;
    const SUMS: bool = false;
    type Bytes = int8x16_t;
    type Sums = int32x4_t;
    type Floats = float32x4_t;

    #[inline(always)]
    unsafe fn transpose<const SIGNED: bool>(from: *const i8, stride: usize) -> [int8x16_t; 8] {
        unsafe {
            let rows: [*const u8; 4] = std::array::from_fn(|r| from.add(r * stride).cast());
            let (low, high) = (transpose(load(&rows, 0)), transpose(load(&rows, 16)));
            std::array::from_fn(|g| if g < 4 { low[g] } else { high[g - 4] })
        }
    }
    #[inline(always)]
    unsafe fn dots<const T: usize, const SIGNED: bool, const WIDE: bool>(
        weights: &[int8x16_t],
        x: [*const i8; T],
        _x_sums: [i32; T],
    ) -> [int32x4_t; T] {
        unsafe { M::dots(weights, x) }
    }
    #[inline(always)]
    unsafe fn add(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vaddq_s32(a, b) }
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
            vaddq_f32(total, vmulq_f32(scale, vcvtq_f32_s32(sum)))
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
