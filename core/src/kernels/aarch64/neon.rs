//! Plain NEON, which every aarch64 processor has.

use super::super::instantiate::table;
use super::super::lanes::Lanes;
use super::limits::Smull;
use super::unpacked_neon::{Dots, Rows4};
use super::{Sums, narrow, widen_high, widen_low};
use std::arch::aarch64::*;

table!("neon", "neon", V128x4, [2, 3], int8: [], parts: [Rows4<Plain>, 4, 2], few: 1, one_token: [], most: [Smull, 16]);

/// Four registers of four f32.
#[derive(Clone, Copy)]
pub(super) struct V128x4(float32x4_t, float32x4_t, float32x4_t, float32x4_t);

// SAFETY (every block below): the trait's contract is that the caller passes valid pointers; NEON is part of aarch64.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason for all, above"
)]
impl Lanes for V128x4 {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe {
            let lanes = vdupq_n_f32(value);
            V128x4(lanes, lanes, lanes, lanes)
        }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe {
            let quarter = |at: usize| vreinterpretq_f32_u8(vld1q_u8(from.cast::<u8>().add(at)));
            V128x4(quarter(0), quarter(16), quarter(32), quarter(48))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        unsafe {
            let low = vreinterpretq_u16_u8(vld1q_u8(from.cast()));
            let high = vreinterpretq_u16_u8(vld1q_u8(from.cast::<u8>().add(16)));
            V128x4(
                widen_low(low),
                widen_high(low),
                widen_low(high),
                widen_high(high),
            )
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        unsafe {
            let low = vreinterpretq_u16_u8(vld1q_u8(from.cast()));
            let high = vreinterpretq_u16_u8(vld1q_u8(from.cast::<u8>().add(16)));
            V128x4(
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(low))),
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_high_u16(low))),
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(high))),
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_high_u16(high))),
            )
        }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        unsafe {
            let bytes = vld1q_s8(from);
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            V128x4(
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            )
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe {
            vst1q_f32(to, self.0);
            vst1q_f32(to.add(4), self.1);
            vst1q_f32(to.add(8), self.2);
            vst1q_f32(to.add(12), self.3);
        }
    }
    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16) {
        unsafe {
            vst1q_u16(to, narrow(self.0, self.1));
            vst1q_u16(to.add(8), narrow(self.2, self.3));
        }
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        unsafe {
            V128x4(
                vfmaq_f32(c.0, self.0, b.0),
                vfmaq_f32(c.1, self.1, b.1),
                vfmaq_f32(c.2, self.2, b.2),
                vfmaq_f32(c.3, self.3, b.3),
            )
        }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe {
            let four = vaddq_f32(vaddq_f32(self.0, self.2), vaddq_f32(self.1, self.3));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }
}

/// Products of bytes in 16 bits, added in pairs. Two of them fit: 2 · 128 · 127 < 2¹⁵.
pub(super) struct Plain;

impl Sums for Plain {
    #[inline(always)]
    unsafe fn nothing() -> int32x4_t {
        // SAFETY: NEON is part of aarch64.
        unsafe { vdupq_n_s32(0) }
    }
    #[inline(always)]
    unsafe fn float(sums: int32x4_t) -> float32x4_t {
        // SAFETY: NEON is part of aarch64.
        unsafe { vcvtq_f32_s32(sums) }
    }
}

/// The sums of the products of each group with four activations from `x` on.
#[inline(always)]
unsafe fn groups(weights: &[int8x16_t], x: *const i8) -> int32x4_t {
    // SAFETY: the caller's: four activations for each of an even number of groups.
    unsafe {
        let (mut rows01, mut rows23) = (vdupq_n_s32(0), vdupq_n_s32(0));
        for g in (0..weights.len()).step_by(2) {
            let quad = |g: usize| {
                let quad = x.add(g * 4).cast::<i32>().read_unaligned();
                vreinterpretq_s8_s32(vdupq_n_s32(quad))
            };
            let (w0, w1, x0, x1) = (weights[g], weights[g + 1], quad(g), quad(g + 1));
            let low = vmull_s8(vget_low_s8(w0), vget_low_s8(x0));
            rows01 = vpadalq_s16(rows01, vmlal_s8(low, vget_low_s8(w1), vget_low_s8(x1)));
            rows23 = vpadalq_s16(rows23, vmlal_high_s8(vmull_high_s8(w0, x0), w1, x1));
        }
        vpaddq_s32(rows01, rows23)
    }
}

impl Dots for Plain {
    #[inline(always)]
    unsafe fn dots<const N: usize, const H: usize, const T: usize>(
        weights: [&[int8x16_t; N]; H],
        x: [*const i8; T],
    ) -> [[int32x4_t; H]; T] {
        // SAFETY: the caller's.
        unsafe {
            let mut sums = [[Self::nothing(); H]; T];
            for t in 0..T {
                for h in 0..H {
                    sums[t][h] = groups(weights[h], x[t]);
                }
            }
            sums
        }
    }
}
