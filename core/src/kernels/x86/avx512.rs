//! AVX-512 with VNNI.

use super::super::instantiate::table;
use super::super::lanes::Lanes;
use super::limits::Dpbusd;
use super::superblocks;
use super::unpacked_avx512::Rows16;
use crate::prefetch::prefetch;
use std::arch::x86_64::*;

table!("avx512vnni", "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c", V512, [4, 6], int8: [], parts: [Rows16, 2, 4], few: 8, one_token: [(12, superblocks::one_token_q4_k), (13, superblocks::one_token_q5_k), (14, superblocks::one_token_q6_k)], most: [Dpbusd, 16]);

/// One register of sixteen f32.
#[derive(Clone, Copy)]
pub(super) struct V512(__m512);

// SAFETY (every block below): the trait's contract is that the caller has the instructions and valid pointers.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason for all, above"
)]
impl Lanes for V512 {
    const MANY: bool = true;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { V512(_mm512_set1_ps(value)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { V512(_mm512_loadu_ps(from)) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        unsafe { V512(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            V512(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        unsafe {
            let wide = _mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()));
            V512(_mm512_cvtepi32_ps(wide))
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16) {
        unsafe {
            let narrow =
                _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0);
            _mm256_storeu_si256(to.cast(), narrow);
        }
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        unsafe { V512(_mm512_fmadd_ps(self.0, b.0, c.0)) }
    }
    #[inline(always)]
    fn prefetch(address: *const u8) {
        prefetch(address);
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe {
            let low = _mm512_castps512_ps256(self.0);
            let high = _mm512_extractf32x8_ps::<1>(self.0);
            let eight = _mm256_add_ps(low, high);
            let four = _mm_add_ps(
                _mm256_castps256_ps128(eight),
                _mm256_extractf128_ps::<1>(eight),
            );
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
}
