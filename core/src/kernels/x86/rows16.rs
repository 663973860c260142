//! Unpacked parts with AVX-512 VNNI: sixteen rows to a register.
//!
//! `vpdpbusd` takes unsigned weights. Signed ones are shifted by 128, which comes back out through the sum of the activations.

use super::super::parts::RowLanes;
use super::avx512::Rows;
use super::prefetch;
use super::rows8::sum16;
use std::arch::x86_64::*;

pub(super) struct Rows16;

// SAFETY (every block below): the trait's contract is that the caller has the instructions and valid pointers.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason for all, above"
)]
impl RowLanes for Rows16 {
    const LANES: usize = 16;
    const SUMS: bool = true;
    type Bytes = __m512i;
    type Sums = __m512i;
    type Floats = __m512;

    #[inline(always)]
    unsafe fn transpose<const SIGNED: bool>(from: *const i8, stride: usize) -> [__m512i; 8] {
        unsafe {
            let rows = Rows {
                first: from.cast(),
                row_bytes: stride,
                count: Self::LANES,
            };
            let (low, high) = (rows.transposed::<true>(0), rows.transposed::<true>(16));
            let sign = _mm512_set1_epi8(if SIGNED { -128 } else { 0 });
            std::array::from_fn(|g| {
                _mm512_xor_si512(if g < 4 { low[g] } else { high[g - 4] }, sign)
            })
        }
    }
    #[inline(always)]
    unsafe fn dots<const T: usize, const SIGNED: bool, const WIDE: bool>(
        weights: &[__m512i],
        x: [*const i8; T],
        x_sums: [i32; T],
    ) -> [__m512i; T] {
        unsafe {
            let mut sums =
                x_sums.map(|x_sum| _mm512_set1_epi32(if SIGNED { -128 * x_sum } else { 0 }));
            for (g, w) in weights.iter().enumerate() {
                for t in 0..T {
                    let x = _mm512_set1_epi32(x[t].add(g * 4).cast::<i32>().read_unaligned());
                    sums[t] = _mm512_dpbusd_epi32(sums[t], *w, x);
                }
            }
            sums
        }
    }
    #[inline(always)]
    unsafe fn add(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(values: __m512, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, values) }
    }
    #[inline(always)]
    unsafe fn add_term(total: __m512, scale: __m512, x_scale: __m512, sum: __m512i) -> __m512 {
        unsafe {
            let scale = _mm512_mul_ps(scale, x_scale);
            _mm512_add_ps(total, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sum)))
        }
    }
    #[inline(always)]
    unsafe fn add_product(total: __m512, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(total, _mm512_mul_ps(a, b)) }
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
