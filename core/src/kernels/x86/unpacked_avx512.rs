//! Unpacked parts with AVX-512 VNNI: sixteen rows to a register.
//!
//! `vpdpbusd` multiplies unsigned weights with four activations that are broadcast to all lanes. Signed ones are shifted, which comes back out through
//! the sum of the activations.

use super::super::kinds::PartKind;
use super::super::product::Rows;
use super::super::row_lanes::RowLanes;
use super::unpacked_avx2::{sum16, two_heads};
use crate::prefetch::prefetch;
use crate::quant::blocks::Kind;
use std::arch::x86_64::*;

pub(super) struct Rows16;

/// What makes weights of a kind unsigned.
const fn shift(kind: Kind) -> u8 {
    match kind {
        Kind::Narrow => 8,
        Kind::Plain | Kind::Wide | Kind::Halves => 128,
        Kind::Minimums | Kind::HalvesMinimums => 0,
    }
}

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
            let load = |r: usize| _mm_loadu_si128(rows.row(r).cast());
            // Register r: rows r, r + 4, r + 8, r + 12 in its quarters.
            let quarters = |r: usize| {
                let low =
                    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(load(r)), load(r + 4));
                let high =
                    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(load(r + 8)), load(r + 12));
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
            };
            let (a, b, c, d) = (quarters(0), quarters(1), quarters(2), quarters(3));
            let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(ab_low, cd_low),
                _mm512_unpackhi_epi64(ab_low, cd_low),
                _mm512_unpacklo_epi64(ab_high, cd_high),
                _mm512_unpackhi_epi64(ab_high, cd_high),
            ]
        }
    }
    #[inline(always)]
    unsafe fn half(rows: Rows) -> __m512 {
        unsafe {
            let halves: [u16; 16] =
                std::array::from_fn(|r| rows.row(r).cast::<u16>().read_unaligned());
            _mm512_cvtph_ps(_mm256_loadu_si256(halves.as_ptr().cast()))
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
    unsafe fn signed<K: PartKind>(bytes: __m512i, offset: u8) -> __m512i {
        let shift = const { shift(K::KIND) };
        unsafe { _mm512_add_epi8(bytes, _mm512_set1_epi8(shift.wrapping_sub(offset) as i8)) }
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
    unsafe fn dots<K: PartKind, const N: usize, const H: usize, const T: usize>(
        weights: [&[__m512i; N]; H],
        x: [*const i8; T],
        x_sums: [i32; T],
    ) -> [[__m512i; H]; T] {
        // A single sum takes turns with another, so that a product does not wait for the last one.
        let turns = H * T == 1;
        unsafe {
            let zero = _mm512_setzero_si512();
            let (mut sums, mut others) = ([[zero; H]; T], [[zero; H]; T]);
            for t in 0..T {
                let shift = const { shift(K::KIND) };
                sums[t] = [_mm512_set1_epi32(-i32::from(shift) * x_sums[t]); H];
            }
            for g in 0..N {
                for t in 0..T {
                    let x = _mm512_set1_epi32(x[t].add(g * 4).cast::<i32>().read_unaligned());
                    for h in 0..H {
                        let sum = if turns && g % 2 == 1 {
                            &mut others[t][h]
                        } else {
                            &mut sums[t][h]
                        };
                        *sum = _mm512_dpbusd_epi32(*sum, weights[h][g], x);
                    }
                }
            }
            if turns {
                sums[0][0] = _mm512_add_epi32(sums[0][0], others[0][0]);
            }
            sums
        }
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
