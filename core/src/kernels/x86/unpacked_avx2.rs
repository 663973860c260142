//! Unpacked parts with AVX2: eight rows to a register.
//!
//! `vpmaddubsw` multiplies unsigned by signed bytes and adds pairs in 16 bits. Signed weights give their sign to the activation, but for the narrow and
//! the plain kind: those are shifted, which comes back out through the sum of the activations. Narrow weights are so small that the pairs of a whole
//! part fit 16-bit sums (8 · 2 · 15 · 127 < 2¹⁵), others up to 32 that those of half a part do (4 · 2 · 32 · 127); wide ones are widened group by
//! group (2 · 128 · 127).

use super::super::kinds::PartKind;
use super::super::product::Rows;
use super::super::row_lanes::RowLanes;
use crate::prefetch::prefetch;
use crate::quant::blocks::Kind;
use std::arch::asm;
use std::arch::x86_64::*;

/// What makes weights of a kind unsigned, where that is done.
const fn shift(kind: Kind) -> Option<u8> {
    match kind {
        Kind::Narrow => Some(8),
        Kind::Plain => Some(16),
        _ => None,
    }
}

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
    unsafe fn none() -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn nothing() -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn bytes16(rows: Rows) -> [__m256i; 4] {
        unsafe {
            let load = |r: usize| _mm_loadu_si128(row(rows, r).cast());
            // Register r: rows r and r + 4 in its halves.
            let halves = |r: usize| {
                _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(load(r)), load(r + 4))
            };
            let (a, b, c, d) = (halves(0), halves(1), halves(2), halves(3));
            let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
            [
                _mm256_unpacklo_epi64(ab_low, cd_low),
                _mm256_unpackhi_epi64(ab_low, cd_low),
                _mm256_unpacklo_epi64(ab_high, cd_high),
                _mm256_unpackhi_epi64(ab_high, cd_high),
            ]
        }
    }
    #[inline(always)]
    unsafe fn half(rows: Rows) -> __m256 {
        unsafe {
            let half = |r: usize| i32::from(row(rows, r).cast::<u16>().read_unaligned());
            let halves = _mm_loadu_si128(row(rows, 0).cast());
            let halves = _mm_insert_epi16::<1>(halves, half(1));
            let halves = _mm_insert_epi16::<2>(halves, half(2));
            let halves = _mm_insert_epi16::<3>(halves, half(3));
            let halves = _mm_insert_epi16::<4>(halves, half(4));
            let halves = _mm_insert_epi16::<5>(halves, half(5));
            let halves = _mm_insert_epi16::<6>(halves, half(6));
            _mm256_cvtph_ps(_mm_insert_epi16::<7>(halves, half(7)))
        }
    }
    #[inline(always)]
    unsafe fn bytes4(rows: Rows) -> __m256i {
        unsafe {
            let words: [u32; 8] =
                std::array::from_fn(|r| row(rows, r).cast::<u32>().read_unaligned());
            _mm256_loadu_si256(words.as_ptr().cast())
        }
    }
    #[inline(always)]
    unsafe fn bytes8(rows: Rows) -> [__m256i; 2] {
        unsafe {
            let [a, b, c, d] = [
                two_heads(rows, 0),
                two_heads(rows, 2),
                two_heads(rows, 4),
                two_heads(rows, 6),
            ];
            let first = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), c);
            let second = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(b), d);
            let (first, second) = (_mm256_castsi256_ps(first), _mm256_castsi256_ps(second));
            [
                _mm256_castps_si256(_mm256_shuffle_ps::<0x88>(first, second)),
                _mm256_castps_si256(_mm256_shuffle_ps::<0xdd>(first, second)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn and(bytes: __m256i, mask: u8) -> __m256i {
        unsafe { _mm256_and_si256(bytes, _mm256_set1_epi8(mask as i8)) }
    }
    #[inline(always)]
    unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_or_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn left(bytes: __m256i, bits: u32) -> __m256i {
        unsafe { _mm256_sllv_epi32(bytes, _mm256_set1_epi32(bits as i32)) }
    }
    #[inline(always)]
    unsafe fn right(bytes: __m256i, bits: u32) -> __m256i {
        unsafe { _mm256_srlv_epi32(bytes, _mm256_set1_epi32(bits as i32)) }
    }
    #[inline(always)]
    unsafe fn triple(bytes: __m256i) -> __m256i {
        unsafe { _mm256_add_epi8(_mm256_add_epi8(bytes, bytes), bytes) }
    }
    #[inline(always)]
    unsafe fn carried(bytes: __m256i) -> __m256i {
        unsafe {
            // One from 256 / 3 on, and one from 512 / 3 on.
            let one = _mm256_set1_epi8(1);
            let first = _mm256_min_epu8(_mm256_subs_epu8(bytes, _mm256_set1_epi8(85)), one);
            let second =
                _mm256_min_epu8(_mm256_subs_epu8(bytes, _mm256_set1_epi8(170_u8 as i8)), one);
            _mm256_add_epi8(first, second)
        }
    }
    #[inline(always)]
    unsafe fn signed<K: PartKind>(bytes: __m256i, offset: u8) -> __m256i {
        let shift = const { shift(K::KIND) }.unwrap_or(0);
        unsafe { _mm256_add_epi8(bytes, _mm256_set1_epi8(shift.wrapping_sub(offset) as i8)) }
    }
    #[inline(always)]
    unsafe fn look_up(table: &[i8; 16], bytes: __m256i) -> __m256i {
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_shuffle_epi8(table, bytes)
        }
    }
    #[inline(always)]
    unsafe fn spread(bits: __m256i, first: u32, value: u8) -> __m256i {
        unsafe {
            let byte = first as i32 / 8 * 0x0101_0101;
            let lanes = _mm_add_epi32(
                _mm_setr_epi32(0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c),
                _mm_set1_epi32(byte),
            );
            let copies = _mm256_shuffle_epi8(bits, _mm256_broadcastsi128_si256(lanes));
            let set = _mm256_and_si256(copies, _mm256_set1_epi32(0x0804_0201 << (first % 8)));
            let value = _mm256_set1_epi8(value as i8);
            if first.is_multiple_of(8) {
                _mm256_sign_epi8(value, set) // of bits 0 to 3, which are positive
            } else {
                _mm256_min_epu8(value, set) // of bits 4 to 7, which are no less than `value`
            }
        }
    }
    #[inline(always)]
    unsafe fn whole(bytes: __m256i, index: usize, offset: i32) -> __m256 {
        unsafe {
            let byte =
                _mm256_and_si256(Self::right(bytes, index as u32 * 8), _mm256_set1_epi32(255));
            _mm256_cvtepi32_ps(_mm256_sub_epi32(byte, _mm256_set1_epi32(offset)))
        }
    }
    #[inline(always)]
    unsafe fn signed_whole(bytes: __m256i, index: usize) -> __m256 {
        unsafe {
            let top = Self::left(bytes, 24 - index as u32 * 8);
            _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(top))
        }
    }
    #[inline(always)]
    unsafe fn halves(bytes: __m256i) -> [__m256; 2] {
        unsafe {
            let low = _mm256_and_si256(bytes, _mm256_set1_epi32(0xffff));
            // In each half four of the low ones, then four of the high ones.
            let both = _mm256_packus_epi32(low, _mm256_srli_epi32::<16>(bytes));
            let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(both);
            [
                _mm256_cvtph_ps(_mm256_castsi256_si128(both)),
                _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(both)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn dots<K: PartKind, const N: usize, const H: usize, const T: usize>(
        weights: [&[__m256i; N]; H],
        x: [*const i8; T],
        x_sums: [i32; T],
    ) -> [[__m256i; H]; T] {
        // Groups whose pairs fit 16-bit sums.
        let fit = match K::KIND {
            Kind::Narrow => 8,
            Kind::Wide => 1,
            _ => 4,
        };
        unsafe {
            let (zero, ones) = (_mm256_setzero_si256(), _mm256_set1_epi16(1));
            let mut sums = [[zero; H]; T];
            for first in (0..N).step_by(fit) {
                let mut pairs = [[zero; H]; T];
                for g in first..N.min(first + fit) {
                    for t in 0..T {
                        let x = _mm256_set1_epi32(x[t].add(g * 4).cast::<i32>().read_unaligned());
                        for h in 0..H {
                            let products = pairs_of_products::<K>(weights[h][g], x);
                            if fit == 1 {
                                let wide = _mm256_madd_epi16(products, ones);
                                sums[t][h] = _mm256_add_epi32(sums[t][h], wide);
                            } else {
                                pairs[t][h] = _mm256_add_epi16(pairs[t][h], products);
                            }
                        }
                    }
                }
                for t in 0..T {
                    for h in 0..H {
                        if fit > 1 {
                            let wide = _mm256_madd_epi16(pairs[t][h], ones);
                            sums[t][h] = _mm256_add_epi32(sums[t][h], wide);
                        }
                    }
                }
            }
            if let Some(shift) = const { shift(K::KIND) } {
                for t in 0..T {
                    let shifts = _mm256_set1_epi32(-i32::from(shift) * x_sums[t]);
                    for h in 0..H {
                        sums[t][h] = _mm256_add_epi32(sums[t][h], shifts);
                    }
                }
            }
            sums
        }
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

/// Products of bytes, added in pairs.
#[inline(always)]
unsafe fn pairs_of_products<K: PartKind>(weights: __m256i, x: __m256i) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        match K::KIND {
            Kind::Wide | Kind::Halves => {
                _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(x, weights))
            }
            _ => _mm256_maddubs_epi16(weights, x),
        }
    }
}

/// [`Rows::row`], from where the row begins. The compiler does not know that for a sum, or a loop over blocks would count further for every row instead
/// of once.
#[allow(clippy::pointers_in_nomem_asm_block, reason = "nothing is read there")]
#[inline(always)]
fn row(rows: Rows, index: usize) -> *const u8 {
    let mut begin = rows.first.wrapping_add(index * rows.stride);
    // SAFETY: no instruction at all.
    unsafe {
        asm!("/* {0} */", inout(reg) begin, options(pure, nomem, nostack, preserves_flags));
    }
    begin.wrapping_add(rows.at)
}

/// Eight bytes of row `row`, and of the next one.
#[inline(always)]
pub(super) unsafe fn two_heads(rows: Rows, row: usize) -> __m128i {
    // SAFETY: the caller's: the bytes are there. The instructions are part of x86-64.
    unsafe {
        let (a, b) = (rows.row(row).cast(), rows.row(row + 1).cast());
        _mm_unpacklo_epi64(_mm_loadl_epi64(a), _mm_loadl_epi64(b))
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
