//! Unpacked parts with AVX-512 VNNI: sixteen rows to a register.
//!
//! `vpdpbusd` takes unsigned weights. Signed ones are shifted by 128, which comes back out through the sum of the activations.

use super::super::product::Rows;
use super::super::row_lanes::RowLanes;
use super::avx512;
use super::unpacked_avx2::{sum16, two_heads};
use crate::prefetch::prefetch;
use std::arch::x86_64::*;

pub(super) struct Rows16;

/// What makes a signed weight unsigned.
const SHIFT: u8 = 128;

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
    unsafe fn none() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn nothing() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn bytes16(rows: Rows) -> [__m512i; 4] {
        unsafe {
            let rows = avx512::Rows {
                first: rows.first,
                row_bytes: rows.stride,
                count: Self::LANES,
            };
            rows.transposed::<true>(0)
        }
    }
    #[inline(always)]
    unsafe fn bytes4(rows: Rows) -> __m512i {
        unsafe {
            let words: [u32; 16] =
                std::array::from_fn(|r| rows.row(r).cast::<u32>().read_unaligned());
            _mm512_loadu_si512(words.as_ptr().cast())
        }
    }
    #[inline(always)]
    unsafe fn bytes8(rows: Rows) -> [__m512i; 2] {
        unsafe {
            let (first, second) = (every_other_two(rows, 0), every_other_two(rows, 2));
            [
                _mm512_castps_si512(_mm512_shuffle_ps::<0x88>(first, second)),
                _mm512_castps_si512(_mm512_shuffle_ps::<0xdd>(first, second)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn and(bytes: __m512i, mask: u8) -> __m512i {
        unsafe { _mm512_and_si512(bytes, _mm512_set1_epi8(mask as i8)) }
    }
    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn left(bytes: __m512i, bits: u32) -> __m512i {
        unsafe { _mm512_sllv_epi32(bytes, _mm512_set1_epi32(bits as i32)) }
    }
    #[inline(always)]
    unsafe fn right(bytes: __m512i, bits: u32) -> __m512i {
        unsafe { _mm512_srlv_epi32(bytes, _mm512_set1_epi32(bits as i32)) }
    }
    #[inline(always)]
    unsafe fn triple(bytes: __m512i) -> __m512i {
        unsafe { _mm512_add_epi8(_mm512_add_epi8(bytes, bytes), bytes) }
    }
    #[inline(always)]
    unsafe fn carried(bytes: __m512i) -> __m512i {
        unsafe {
            // One from 256 / 3 on, and one from 512 / 3 on.
            let one = _mm512_set1_epi8(1);
            let first = _mm512_min_epu8(_mm512_subs_epu8(bytes, _mm512_set1_epi8(85)), one);
            let second =
                _mm512_min_epu8(_mm512_subs_epu8(bytes, _mm512_set1_epi8(170_u8 as i8)), one);
            _mm512_add_epi8(first, second)
        }
    }
    #[inline(always)]
    unsafe fn signed(bytes: __m512i, offset: u8) -> __m512i {
        unsafe { _mm512_add_epi8(bytes, _mm512_set1_epi8(SHIFT.wrapping_sub(offset) as i8)) }
    }
    #[inline(always)]
    unsafe fn look_up(table: &[i8; 16], bytes: __m512i) -> __m512i {
        unsafe {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_shuffle_epi8(table, bytes)
        }
    }
    #[inline(always)]
    unsafe fn spread(bits: __m512i, first: u32, value: u8) -> __m512i {
        unsafe {
            let byte = first as i32 / 8 * 0x0101_0101;
            let lanes = _mm_add_epi32(
                _mm_setr_epi32(0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c),
                _mm_set1_epi32(byte),
            );
            let copies = _mm512_shuffle_epi8(bits, _mm512_broadcast_i32x4(lanes));
            let each = _mm512_set1_epi32(0x0804_0201 << (first % 8));
            _mm512_maskz_set1_epi8(_mm512_test_epi8_mask(copies, each), value as i8)
        }
    }
    #[inline(always)]
    unsafe fn whole(bytes: __m512i, index: usize, offset: i32) -> __m512 {
        unsafe {
            let byte =
                _mm512_and_si512(Self::right(bytes, index as u32 * 8), _mm512_set1_epi32(255));
            _mm512_cvtepi32_ps(_mm512_sub_epi32(byte, _mm512_set1_epi32(offset)))
        }
    }
    #[inline(always)]
    unsafe fn signed_whole(bytes: __m512i, index: usize) -> __m512 {
        unsafe {
            let top = Self::left(bytes, 24 - index as u32 * 8);
            _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(top))
        }
    }
    #[inline(always)]
    unsafe fn halves(bytes: __m512i) -> [__m512; 2] {
        unsafe {
            let (low, high) = (bytes, _mm512_srli_epi32::<16>(bytes));
            [
                _mm512_cvtph_ps(_mm512_cvtepi32_epi16(low)),
                _mm512_cvtph_ps(_mm512_cvtepi32_epi16(high)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn dots<const T: usize, const SIGNED: bool, const WIDE: bool>(
        weights: &[__m512i],
        x: [*const i8; T],
        x_sums: [i32; T],
    ) -> [__m512i; T] {
        unsafe {
            let mut sums = x_sums
                .map(|x_sum| _mm512_set1_epi32(if SIGNED { -i32::from(SHIFT) * x_sum } else { 0 }));
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
    unsafe fn dots32<const T: usize, const SIGNED: bool, const WIDE: bool>(
        weights: &[__m512i; 8],
        x: [*const i8; T],
        x_sums: [i32; T],
    ) -> [__m512i; T] {
        unsafe { Self::dots::<T, SIGNED, WIDE>(weights, x, x_sums) }
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

/// Eight bytes of each of the rows `row`, `row + 1`, `row + 4`, `row + 5` and so on.
#[inline(always)]
unsafe fn every_other_two(rows: Rows, row: usize) -> __m512 {
    // SAFETY: the caller's: the bytes are there, and the processor has the instructions.
    unsafe {
        let zero = _mm512_castsi128_si512(two_heads(rows, row));
        let one = _mm512_inserti32x4::<1>(zero, two_heads(rows, row + 4));
        let two = _mm512_inserti32x4::<2>(one, two_heads(rows, row + 8));
        _mm512_castsi512_ps(_mm512_inserti32x4::<3>(two, two_heads(rows, row + 12)))
    }
}
