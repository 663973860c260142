//! The fastest int8 multiplications of aarch64.

use super::super::limits::Multiply;
use super::{dotprod, i8mm};
use std::arch::aarch64::*;
use std::arch::asm;

pub(super) struct Smull;

// SAFETY (every block below): the trait's contract is that the caller has the instructions.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason for all, above"
)]
impl Multiply for Smull {
    type Register = int32x4_t;
    const PRODUCTS: u64 = 16;

    #[inline(always)]
    unsafe fn multiply(sum: int32x4_t, weights: int32x4_t, x: int32x4_t) -> int32x4_t {
        unsafe {
            let weights = anew(vreinterpretq_s8_s32(weights));
            let x = vreinterpretq_s8_s32(x);
            let low = vmull_s8(vget_low_s8(weights), vget_low_s8(x));
            vpadalq_s16(sum, vmlal_high_s8(low, weights, x))
        }
    }
}

/// The same value, which the compiler does not know to be the same: the product with it stays in the loop.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn anew(value: int8x16_t) -> int8x16_t {
    let mut value = value;
    // SAFETY: no instruction at all.
    unsafe {
        asm!("/* {0:v} */", inout(vreg) value, options(nomem, nostack, preserves_flags));
    }
    value
}

pub(super) struct Sdot;

// SAFETY (every block below): as above.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason for all, above"
)]
impl Multiply for Sdot {
    type Register = int32x4_t;
    const PRODUCTS: u64 = 16;

    #[inline(always)]
    unsafe fn multiply(sum: int32x4_t, weights: int32x4_t, x: int32x4_t) -> int32x4_t {
        unsafe { dotprod::sdot::<0>(sum, vreinterpretq_s8_s32(weights), vreinterpretq_s8_s32(x)) }
    }
}

pub(super) struct Smmla;

// SAFETY (every block below): as above.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason for all, above"
)]
impl Multiply for Smmla {
    type Register = int32x4_t;
    const PRODUCTS: u64 = 32;

    #[inline(always)]
    unsafe fn multiply(sum: int32x4_t, weights: int32x4_t, x: int32x4_t) -> int32x4_t {
        unsafe { i8mm::smmla(sum, vreinterpretq_s8_s32(weights), vreinterpretq_s8_s32(x)) }
    }
}
