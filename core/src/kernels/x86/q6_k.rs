//! One token's product with Q6_K, eight rows at a time, with AVX2.
//!
//! Each row's 256 values are multiplied as they lie, a part of 32 to a register. Then the sums are transposed, which are fewer than the weights; what
//! follows has one row per lane and the scalar code's order of additions. For Q4_K and Q5_K, whose values unpack more easily, this wins nothing.

use super::super::one_token::Terms;
use super::super::parts::{add_part, rows};
use super::super::product::{Rows, Tile};
use super::super::unpack::{Q6K, Scaled};
use super::prefetch;
use super::rows8::{Rows8, sum16};
use crate::quant::activation::BLOCK;
use std::arch::x86_64::*;

/// Rows of a register.
const LANES: usize = 8;
/// Values of a superblock, and its bytes.
const VALUES: usize = 256;
const BYTES: usize = 210;
/// Its blocks of activations.
const PARTS: usize = VALUES / BLOCK;

/// The 256 codes of the superblock at `row`, each 32 more than its value.
#[inline(always)]
unsafe fn codes(row: *const u8) -> [__m256i; PARTS] {
    // SAFETY: the caller's: the superblock is there.
    unsafe {
        let mut codes = [_mm256_setzero_si256(); PARTS];
        for half in 0..2 {
            // Two bits of each of four values in a byte, which go to bits 4 and 5.
            let high = _mm256_loadu_si256(row.add(128 + half * 32).cast());
            let twos = [
                _mm256_slli_epi16::<4>(high),
                _mm256_slli_epi16::<2>(high),
                high,
                _mm256_srli_epi16::<2>(high),
            ];
            let low = row.add(half * 64);
            let (first, second) = (
                _mm256_loadu_si256(low.cast()),
                _mm256_loadu_si256(low.add(32).cast()),
            );
            let fours = [
                first,
                second,
                _mm256_srli_epi16::<4>(first),
                _mm256_srli_epi16::<4>(second),
            ];
            for p in 0..4 {
                codes[half * 4 + p] = _mm256_or_si256(
                    _mm256_and_si256(fours[p], _mm256_set1_epi8(15)),
                    _mm256_and_si256(twos[p], _mm256_set1_epi8(0x30)),
                );
            }
        }
        codes
    }
}

/// The sums of a part's two scales, one row per lane, from each row's products in pairs and the part's activations.
#[inline(always)]
unsafe fn sums(products: &[__m256i; LANES], x: *const i8) -> [__m256i; 2] {
    // SAFETY: the caller's: 32 activations are there.
    unsafe {
        // Four rows' halves in the halves of a register. A pair of products is at most 2 · 63 · 127, so two of them fit 16 bits.
        let four = |r: usize| {
            let two = |r: usize| {
                let both = _mm256_hadd_epi16(products[r], products[r + 1]);
                _mm256_madd_epi16(both, _mm256_set1_epi16(1))
            };
            _mm256_hadd_epi32(two(r), two(r + 2))
        };
        let (a, b) = (four(0), four(4));
        let offset = |x| _mm256_set1_epi32(32 * sum16(x));
        [
            _mm256_sub_epi32(_mm256_permute2x128_si256::<0x20>(a, b), offset(x)),
            _mm256_sub_epi32(
                _mm256_permute2x128_si256::<0x31>(a, b),
                offset(x.add(BLOCK / 2)),
            ),
        ]
    }
}

/// The sums of eight rows' superblocks, `[part, half]`.
#[inline(always)]
unsafe fn multiply(rows: Rows, x: *const i8) -> [[__m256i; 2]; PARTS] {
    // SAFETY: the caller's: the rows' superblocks and 256 activations are there.
    unsafe {
        let zero = _mm256_setzero_si256();
        let mut products = [[zero; LANES]; PARTS];
        let ahead = (rows.first.addr() - rows.begin.addr()) * LANES;
        for r in 0..LANES {
            for line in (0..BYTES).step_by(64) {
                prefetch(rows.next.wrapping_add(ahead + r * BYTES + line));
            }
            let codes = codes(rows.row(r));
            for (p, products) in products.iter_mut().enumerate() {
                let x = _mm256_loadu_si256(x.add(p * BLOCK).cast());
                products[r] = _mm256_maddubs_epi16(codes[p], x);
            }
        }
        let mut halves = [[zero; 2]; PARTS];
        for (p, halves) in halves.iter_mut().enumerate() {
            *halves = sums(&products[p], x.add(p * BLOCK));
        }
        halves
    }
}

/// The rows that fill whole registers.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn one_token(tile: &Tile<'_>) {
    let x = &tile.int8;
    // SAFETY: the caller's: the tile has been checked, and has one token.
    unsafe {
        let mut terms = Terms::<Rows8, true, false, false>::new();
        for row in (0..tile.rows / LANES * LANES).step_by(LANES) {
            let mut total = _mm256_setzero_ps();
            for block in 0..tile.cols / VALUES {
                let rows = rows::<Rows8>(tile, row, 1, block * BYTES);
                let first = block * PARTS;
                let values = x.values.as_ptr().add(first * BLOCK);
                Q6K::scales::<Rows8, _>(rows, &mut terms);
                let sums = multiply(rows, values);
                for part in 0..PARTS {
                    total = add_part::<Rows8, true, false>(
                        total,
                        &terms.scales[part],
                        &terms.minimums[part],
                        sums[part],
                        *x.scales.get_unchecked(first + part),
                        [0; 2],
                    );
                }
            }
            _mm256_storeu_ps(tile.out.add(row), total);
        }
    }
}
