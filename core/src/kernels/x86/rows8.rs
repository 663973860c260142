//! Unpacked parts with AVX2: eight rows to a register.
//!
//! `vpmaddubsw` multiplies unsigned by signed bytes and adds pairs in 16 bits. Signed weights give their sign to the activation. Weights up to
//! 32 are so small that four groups fit 16-bit sums (4 · 2 · 32 · 127 < 2¹⁵); wide ones are widened group by group (2 · 127 · 127 < 2¹⁵).

use super::super::parts::RowLanes;
use super::avx2::transposed;
use super::prefetch;
use std::arch::x86_64::*;

pub(super) struct Rows8;

// SAFETY (every block below): the trait's contract is that the caller has the instructions and valid pointers.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason for all, above"
)]
impl RowLanes for Rows8 {
    const LANES: usize = 8;
    const SUMS: bool = false;
    type Bytes = __m256i;
    type Sums = __m256i;
    type Floats = __m256;

    #[inline(always)]
    unsafe fn transpose<const SIGNED: bool>(from: *const i8, stride: usize) -> [__m256i; 8] {
        unsafe {
            let rows = std::array::from_fn(|r| from.add(r * stride).cast());
            let (low, high) = (transposed(&rows, 0), transposed(&rows, 16));
            std::array::from_fn(|g| if g < 4 { low[g] } else { high[g - 4] })
        }
    }
    #[inline(always)]
    unsafe fn dots<const T: usize, const SIGNED: bool, const WIDE: bool>(
        weights: &[__m256i],
        x: [*const i8; T],
        _x_sums: [i32; T],
    ) -> [__m256i; T] {
        unsafe {
            let ones = _mm256_set1_epi16(1);
            let mut sums = [_mm256_setzero_si256(); T];
            for (g, w) in weights.iter().enumerate() {
                let magnitude = if SIGNED { _mm256_abs_epi8(*w) } else { *w };
                for t in 0..T {
                    let x = _mm256_set1_epi32(x[t].add(g * 4).cast::<i32>().read_unaligned());
                    let x = if SIGNED { _mm256_sign_epi8(x, *w) } else { x };
                    let pairs = _mm256_maddubs_epi16(magnitude, x);
                    sums[t] = if WIDE {
                        _mm256_add_epi32(sums[t], _mm256_madd_epi16(pairs, ones))
                    } else {
                        _mm256_add_epi16(sums[t], pairs)
                    };
                }
            }
            if WIDE {
                sums
            } else {
                sums.map(|sum| _mm256_madd_epi16(sum, ones))
            }
        }
    }
    #[inline(always)]
    unsafe fn add(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> __m256 {
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(values: __m256, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, values) }
    }
    #[inline(always)]
    unsafe fn add_term(total: __m256, scale: __m256, x_scale: __m256, sum: __m256i) -> __m256 {
        unsafe {
            let scale = _mm256_mul_ps(scale, x_scale);
            _mm256_add_ps(total, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sum)))
        }
    }
    #[inline(always)]
    unsafe fn add_product(total: __m256, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(total, _mm256_mul_ps(a, b)) }
    }
    #[inline(always)]
    unsafe fn sum16(x: *const i8) -> i32 {
        unsafe { sum16(x) }
    }
    #[inline(always)]
    fn prefetch(address: *const u8) {
        prefetch(address);
    }
}

/// The sum of sixteen signed bytes.
#[inline(always)]
pub(super) unsafe fn sum16(x: *const i8) -> i32 {
    // SAFETY: the caller's: sixteen values at `x`. The instructions are part of x86-64.
    unsafe {
        // Shifted by 128 the bytes are unsigned, which is what the sum of differences takes.
        let bytes = _mm_xor_si128(_mm_loadu_si128(x.cast()), _mm_set1_epi8(-128));
        let sums = _mm_sad_epu8(bytes, _mm_setzero_si128());
        let both = _mm_add_epi32(sums, _mm_unpackhi_epi64(sums, sums));
        _mm_cvtsi128_si32(both) - 16 * 128
    }
}
