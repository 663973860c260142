//! AVX2 with FMA and F16C.

use super::super::instantiate::table;
use super::super::lanes::Lanes;
use super::limits::Maddubs;
use super::q6_k;
use super::unpacked_avx2::Rows8;
use crate::prefetch::prefetch;
use std::arch::x86_64::*;

table!("avx2", "avx2,fma,f16c", V256, [2, 3], int8: [], parts: [Rows8, 2, 4], few: 8, one_token: [(14, q6_k::one_token)], most: [Maddubs, 8]);

/// Two registers of eight f32.
#[derive(Clone, Copy)]
pub(super) struct V256(__m256, __m256);

// SAFETY (every block below): the trait's contract is that the caller has the instructions and valid pointers.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason for all, above"
)]
impl Lanes for V256 {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { V256(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { V256(_mm256_loadu_ps(from), _mm256_loadu_ps(from.byte_add(32))) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        unsafe {
            let half = |at: usize| _mm256_cvtph_ps(_mm_loadu_si128(from.byte_add(at).cast()));
            V256(half(0), half(16))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        unsafe {
            let half = |at: usize| {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.byte_add(at).cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            };
            V256(half(0), half(16))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        unsafe {
            let half = |at: usize| {
                let bytes = _mm_loadl_epi64(from.add(at).cast());
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
            };
            V256(half(0), half(8))
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.byte_add(32), self.1);
        }
    }
    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16) {
        unsafe {
            _mm_storeu_si128(
                to.cast(),
                _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0),
            );
            _mm_storeu_si128(
                to.byte_add(16).cast(),
                _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.1),
            );
        }
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        unsafe {
            V256(
                _mm256_fmadd_ps(self.0, b.0, c.0),
                _mm256_fmadd_ps(self.1, b.1, c.1),
            )
        }
    }
    #[inline(always)]
    fn prefetch(address: *const u8) {
        prefetch(address);
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe {
            let eight = _mm256_add_ps(self.0, self.1);
            let four = _mm_add_ps(
                _mm256_castps256_ps128(eight),
                _mm256_extractf128_ps::<1>(eight),
            );
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
}
