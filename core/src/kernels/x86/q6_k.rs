//! One token's product with Q6_K, eight rows at a time, with AVX2.
//!
//! Each row's values are multiplied as they lie, a part of 32 to a register. Then the sums are transposed, which are fewer than the weights; what
//! follows has one row per lane and the scalar code's order of additions. For Q4_K and Q5_K, whose values unpack more easily, this wins nothing.

use super::super::block_product::{add_part, rows};
use super::super::few_tokens::Terms;
use super::super::kinds::Halves;
use super::super::product::{Rows, Tile};
use super::super::unpack::{Q6K, Scaled, ask_ahead};
use super::unpacked_avx2::Rows8;
use crate::quant::activation::BLOCK;
use std::arch::x86_64::*;

/// Rows of a register.
const LANES: usize = 8;
/// Values of a superblock, and its bytes.
const VALUES: usize = 256;
const BYTES: usize = 210;
/// Its blocks of activations.
const PARTS: usize = VALUES / BLOCK;

/// The 32 codes of part `part` of the superblock at `row`, each 32 more than its value.
#[inline(always)]
unsafe fn codes(row: *const u8, part: usize) -> __m256i {
    let (half, quarter) = (part / 4, part % 4);
    // SAFETY: the caller's: the superblock is there.
    unsafe {
        let low = _mm256_loadu_si256(row.add(half * 64 + quarter % 2 * 32).cast());
        let four = match quarter {
            0 | 1 => low,
            _ => _mm256_srli_epi16::<4>(low),
        };
        // Two bits of each of four values in a byte, which go to bits 4 and 5.
        let high = _mm256_loadu_si256(row.add(128 + half * 32).cast());
        let two = match quarter {
            0 => _mm256_slli_epi16::<4>(high),
            1 => _mm256_slli_epi16::<2>(high),
            2 => high,
            _ => _mm256_srli_epi16::<2>(high),
        };
        _mm256_or_si256(
            _mm256_and_si256(four, _mm256_set1_epi8(15)),
            _mm256_and_si256(two, _mm256_set1_epi8(0x30)),
        )
    }
}

/// The sums of a part's two scales, one row per lane. `x`: the part's activations.
#[inline(always)]
unsafe fn sums(rows: Rows, part: usize, x: *const i8) -> [__m256i; 2] {
    // SAFETY: the caller's: the superblocks are there, and 32 activations.
    unsafe {
        let x = _mm256_loadu_si256(x.cast());
        // Pairs of products less their offset. Of a scale's eight, four fit 16 bits: 8 · 32 · 127 < 2¹⁵.
        let offset = _mm256_maddubs_epi16(_mm256_set1_epi8(32), x);
        let mut pairs = [offset; LANES];
        for (r, pairs) in pairs.iter_mut().enumerate() {
            let products = _mm256_maddubs_epi16(codes(rows.row(r), part), x);
            *pairs = _mm256_sub_epi16(products, offset);
        }
        let [a, b, c, d, e, f, g, h] = pairs;
        let (low, high) = (
            four_rows(two_rows(a, b), two_rows(c, d)),
            four_rows(two_rows(e, f), two_rows(g, h)),
        );
        [
            _mm256_permute2x128_si256::<0x20>(low, high),
            _mm256_permute2x128_si256::<0x31>(low, high),
        ]
    }
}

/// The pairs of two rows' halves added up to four sums each, the rows in turns.
#[inline(always)]
unsafe fn two_rows(a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_add_epi16(_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)) }
}

/// The halves' sums of four rows, from those of two and two.
#[inline(always)]
unsafe fn four_rows(a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let sums = _mm256_add_epi16(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        // Two are left of each row, which here come to lie side by side.
        let order = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
        let sums = _mm256_shuffle_epi8(sums, _mm256_broadcastsi128_si256(order));
        _mm256_madd_epi16(sums, _mm256_set1_epi16(1))
    }
}

/// The rows that fill whole registers.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn one_token(tile: &Tile<'_>) {
    let x = &tile.int8;
    // SAFETY: the caller's: the tile has been checked, and has one token.
    unsafe {
        let mut terms = Terms::<Rows8, Halves>::new();
        for row in (0..tile.rows / LANES * LANES).step_by(LANES) {
            let mut total = _mm256_setzero_ps();
            for block in 0..tile.cols / VALUES {
                let rows = rows::<Rows8>(tile, row, 1, block * BYTES);
                ask_ahead::<Rows8>(rows, BYTES);
                Q6K::scales::<Rows8, _>(rows, &mut terms);
                for part in 0..PARTS {
                    let at = block * PARTS + part;
                    total = add_part::<Rows8, Halves>(
                        total,
                        &terms.scales[part],
                        &terms.minimums[part],
                        sums(rows, part, x.values.as_ptr().add(at * BLOCK)),
                        *x.scales.get_unchecked(at),
                        [0; 2],
                    );
                }
            }
            _mm256_storeu_ps(tile.out.add(row), total);
        }
    }
}
