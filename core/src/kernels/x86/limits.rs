//! The fastest int8 multiplications of x86-64.

use super::super::limits::Multiply;
use std::arch::asm;
use std::arch::x86_64::*;

pub(super) struct Dpbusd;

// SAFETY (every block below): the trait's contract is that the caller has the instructions.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason for all, above"
)]
impl Multiply for Dpbusd {
    type Register = __m512i;
    const PRODUCTS: u64 = 64;

    #[inline(always)]
    unsafe fn multiply(sum: __m512i, weights: __m512i, x: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, weights, x) }
    }
}

/// Without the widening to 32 bits that follows after some blocks.
pub(super) struct Maddubs;

// SAFETY (every block below): as above.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason for all, above"
)]
impl Multiply for Maddubs {
    type Register = __m256i;
    const PRODUCTS: u64 = 32;

    #[inline(always)]
    unsafe fn multiply(sum: __m256i, weights: __m256i, x: __m256i) -> __m256i {
        unsafe { _mm256_add_epi16(sum, _mm256_maddubs_epi16(anew(weights), x)) }
    }
}

/// The same value, which the compiler does not know to be the same: the product with it stays in the loop.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn anew(value: __m256i) -> __m256i {
    let mut value = value;
    // SAFETY: no instruction at all.
    unsafe {
        asm!("/* {0} */", inout(ymm_reg) value, options(nomem, nostack, preserves_flags));
    }
    value
}
