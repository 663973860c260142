//! AVX2 with FMA and F16C.
//!
//! Int8 products as in the AVX-512 file, with eight rows to a register: `vpmaddubsw` multiplies unsigned by signed bytes and adds pairs in
//! 16 bits. Q4_0's nibbles are so small that all eight groups of a block fit 16-bit sums (8 · 2 · 15 · 127 < 2¹⁵). Q8_0 gives the
//! weight's sign to the activation (2 · 128 · 127 < 2¹⁵) and widens each group.

use super::super::instantiate::table;
use super::super::lanes::Lanes;
use super::super::product::{ROWS, Tile};
use super::few_tokens_avx2::{FEW, few_tokens};
use super::limits::Maddubs;
use super::q6_k;
use super::unpacked_avx2::Rows8;
use crate::prefetch::prefetch;
use crate::quant::activation::BLOCK;
use crate::quant::{q4_0, q8_0};
use std::arch::x86_64::*;

table!("avx2", "avx2,fma,f16c", V256, [2, 3], int8: [(8, product_q8_0), (2, product_q4_0)], parts: [Rows8, 1, 4], one_token: [(14, q6_k::one_token)], most: [Maddubs, 8]);

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

/// A format with blocks of 32 small integers and one binary16 scale before them.
pub(super) trait Block {
    const BYTES: usize;
    /// The weights of the block at each of eight `rows`: register `g` holds values `4g .. 4g + 4`, one row per lane.
    unsafe fn groups(rows: &[*const u8; 8]) -> [__m256i; 8];
    /// Adds the products of a group with four activations in every lane.
    unsafe fn step(sum: __m256i, weights: __m256i, x: __m256i) -> __m256i;
    /// The block's product as 32-bit lanes, from the steps' sum and the sum of the block's activations.
    unsafe fn finish(sum: __m256i, x_sum: i32) -> __m256i;
}

struct Q8_0;
impl Block for Q8_0 {
    const BYTES: usize = q8_0::BYTES;
    #[inline(always)]
    unsafe fn groups(rows: &[*const u8; 8]) -> [__m256i; 8] {
        // SAFETY: the caller's; a block's 32 values follow its scale.
        unsafe {
            let (low, high) = (transposed(rows, 2), transposed(rows, 18));
            std::array::from_fn(|g| if g < 4 { low[g] } else { high[g - 4] })
        }
    }
    #[inline(always)]
    unsafe fn step(sum: __m256i, weights: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe {
            let pairs =
                _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(x, weights));
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
    #[inline(always)]
    unsafe fn finish(sum: __m256i, _x_sum: i32) -> __m256i {
        sum
    }
}

struct Q4_0;
impl Block for Q4_0 {
    const BYTES: usize = q4_0::BYTES;
    #[inline(always)]
    unsafe fn groups(rows: &[*const u8; 8]) -> [__m256i; 8] {
        // SAFETY: the caller's; a block's sixteen bytes follow its scale.
        unsafe {
            let bytes = transposed(rows, 2);
            std::array::from_fn(|g| {
                let byte = if g < 4 {
                    bytes[g]
                } else {
                    _mm256_srli_epi16::<4>(bytes[g - 4])
                };
                _mm256_and_si256(byte, _mm256_set1_epi8(15))
            })
        }
    }
    #[inline(always)]
    unsafe fn step(sum: __m256i, weights: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_add_epi16(sum, _mm256_maddubs_epi16(weights, x)) }
    }
    #[inline(always)]
    unsafe fn finish(sum: __m256i, x_sum: i32) -> __m256i {
        // SAFETY: the caller's.
        unsafe {
            _mm256_add_epi32(
                _mm256_madd_epi16(sum, _mm256_set1_epi16(1)),
                _mm256_set1_epi32(-8 * x_sum),
            )
        }
    }
}

/// Sixteen bytes at `at` of eight rows, transposed: register `j` holds bytes `4j .. 4j + 4`, one row per lane.
#[inline(always)]
pub(super) unsafe fn transposed(rows: &[*const u8; 8], at: usize) -> [__m256i; 4] {
    // SAFETY: the caller's: every row has sixteen bytes at `at`.
    unsafe {
        let load = |r: usize| _mm_loadu_si128(rows[r].add(at).cast());
        // Register r: rows r and r + 4 in its halves.
        let halves =
            |r: usize| _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(load(r)), load(r + 4));
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

/// The scales that begin the blocks of eight rows, one row per lane.
#[inline(always)]
pub(super) unsafe fn scales(rows: &[*const u8; 8]) -> __m256 {
    // SAFETY: the caller's: a block begins at each of `rows`.
    unsafe {
        let scales: [u16; 8] = std::array::from_fn(|r| rows[r].cast::<u16>().read_unaligned());
        _mm256_cvtph_ps(_mm_loadu_si128(scales.as_ptr().cast()))
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn product_q8_0(tile: &Tile<'_>) {
    // SAFETY: the caller's.
    unsafe { product::<Q8_0>(tile) }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn product_q4_0(tile: &Tile<'_>) {
    // SAFETY: the caller's.
    unsafe { product::<Q4_0>(tile) }
}

/// Rows of one register.
pub(super) const LANES: usize = ROWS / 2;

#[inline(always)]
unsafe fn product<F: Block>(tile: &Tile<'_>) {
    // SAFETY: the caller's: the tile has been checked.
    unsafe {
        if tile.tokens <= FEW {
            for row in (0..tile.rows).step_by(LANES) {
                few_tokens::<F>(tile, row);
            }
        } else {
            let mut packed = Packed {
                values: [[[_mm256_setzero_si256(); 8]; 2]; DEPTH],
                scales: [[_mm256_setzero_ps(); 2]; DEPTH],
            };
            for row in (0..tile.rows).step_by(ROWS) {
                many_tokens::<F>(tile, &mut packed, row);
            }
        }
    }
}

/// Where eight rows from `row` begin; the last row stands in for those that are not there.
#[inline(always)]
pub(super) fn row_starts(tile: &Tile<'_>, row: usize) -> [*const u8; 8] {
    let bytes = tile.row_bytes;
    match tile.bytes.get(row * bytes..(row + 8) * bytes) {
        Some(rows) => std::array::from_fn(|r| rows.as_ptr().wrapping_add(r * bytes)),
        None => {
            std::array::from_fn(|r| tile.bytes[(row + r).min(tile.rows - 1) * bytes..].as_ptr())
        }
    }
}

/// Writes the lanes of the rows that exist.
#[inline(always)]
pub(super) unsafe fn store(out: *mut f32, count: usize, values: __m256) {
    // SAFETY: the caller's: `count` outputs are there.
    unsafe {
        if count >= LANES {
            _mm256_storeu_ps(out, values);
        } else {
            let mut lanes = [0f32; LANES];
            _mm256_storeu_ps(lanes.as_mut_ptr(), values);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), out, count);
        }
    }
}

/// Reads what [`store`] wrote.
#[inline(always)]
unsafe fn reload(out: *const f32, count: usize) -> __m256 {
    // SAFETY: the caller's: `count` outputs are there.
    unsafe {
        if count >= LANES {
            return _mm256_loadu_ps(out);
        }
        let mut lanes = [0f32; LANES];
        std::ptr::copy_nonoverlapping(out, lanes.as_mut_ptr(), count);
        _mm256_loadu_ps(lanes.as_ptr())
    }
}

/// Four activations from `x` in every lane.
#[inline(always)]
pub(super) unsafe fn broadcast(x: *const i8) -> __m256i {
    // SAFETY: the caller's: four values are there.
    unsafe { _mm256_set1_epi32(x.cast::<i32>().read_unaligned()) }
}

/// Blocks that are unpacked at a time.
const DEPTH: usize = 16;

/// Unpacked weights: sixteen rows × [`DEPTH`] blocks, 9 KB of stack that stay in the first-level cache while all tokens pass.
struct Packed {
    /// `[block, half, group, row, 4]`
    values: [[[__m256i; 8]; 2]; DEPTH],
    /// `[block, half, row]`
    scales: [[__m256; 2]; DEPTH],
}

/// Up to sixteen rows × all tokens.
#[inline(always)]
unsafe fn many_tokens<F: Block>(tile: &Tile<'_>, packed: &mut Packed, row: usize) {
    let blocks = tile.cols / BLOCK;
    let starts = [row_starts(tile, row), row_starts(tile, row + LANES)];
    for first in (0..blocks).step_by(DEPTH) {
        let depth = DEPTH.min(blocks - first);
        // SAFETY: the caller's; `first + depth <= blocks`.
        unsafe {
            for block in 0..depth {
                for (half, rows) in starts.iter().enumerate() {
                    let rows = rows.map(|row| row.wrapping_add((first + block) * F::BYTES));
                    packed.values[block][half] = F::groups(&rows);
                    packed.scales[block][half] = scales(&rows);
                }
            }
            let mut token = 0;
            while token + 4 <= tile.tokens {
                some_tokens::<F, 4>(tile, packed, row, first..first + depth, token);
                token += 4;
            }
            while token < tile.tokens {
                some_tokens::<F, 1>(tile, packed, row, first..first + depth, token);
                token += 1;
            }
        }
    }
}

/// Sixteen packed rows × `T` tokens, of the blocks in `span`.
#[inline(always)]
unsafe fn some_tokens<F: Block, const T: usize>(
    tile: &Tile<'_>,
    packed: &Packed,
    row: usize,
    span: std::ops::Range<usize>,
    token: usize,
) {
    let blocks = tile.cols / BLOCK;
    let counts = [tile.rows - row, (tile.rows - row).saturating_sub(LANES)];
    // SAFETY: the caller's; all indices lie inside the checked shapes.
    unsafe {
        let out: [*mut f32; T] =
            std::array::from_fn(|t| tile.out.add((token + t) * tile.stride + row));
        let values: [*const i8; T] = std::array::from_fn(|t| {
            tile.int8
                .values
                .as_ptr()
                .add((token + t) * tile.cols + span.start * BLOCK)
        });
        let scales: [*const f32; T] = std::array::from_fn(|t| {
            tile.int8
                .scales
                .as_ptr()
                .add((token + t) * blocks + span.start)
        });
        let sums: [*const i32; T] = std::array::from_fn(|t| {
            tile.int8
                .sums
                .as_ptr()
                .add((token + t) * blocks + span.start)
        });
        let mut totals = [[_mm256_setzero_ps(); 2]; T];
        if span.start > 0 {
            for t in 0..T {
                for half in 0..2 {
                    totals[t][half] = reload(out[t].wrapping_add(half * LANES), counts[half]);
                }
            }
        }
        for block in 0..span.len() {
            let mut products = [[_mm256_setzero_si256(); 2]; T];
            for g in 0..8 {
                for t in 0..T {
                    let x = broadcast(values[t].add(block * BLOCK + g * 4));
                    for half in 0..2 {
                        products[t][half] =
                            F::step(products[t][half], packed.values[block][half][g], x);
                    }
                }
            }
            for t in 0..T {
                let x_scale = _mm256_set1_ps(*scales[t].add(block));
                for half in 0..2 {
                    let scale = _mm256_mul_ps(packed.scales[block][half], x_scale);
                    let product =
                        _mm256_cvtepi32_ps(F::finish(products[t][half], *sums[t].add(block)));
                    totals[t][half] = _mm256_add_ps(totals[t][half], _mm256_mul_ps(scale, product));
                }
            }
        }
        for t in 0..T {
            for half in 0..2 {
                store(
                    out[t].wrapping_add(half * LANES),
                    counts[half],
                    totals[t][half],
                );
            }
        }
    }
}
