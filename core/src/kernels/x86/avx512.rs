//! AVX-512 with VNNI.
//!
//! Int8 products keep one row per 32-bit lane: the blocks of sixteen rows are transposed in units of four values, so that
//! `vpdpbusd` multiplies them with four activations that are broadcast to all lanes. A block's integer sum then needs no addition across lanes, and
//! the f32 accumulation over blocks is the scalar code's. `vpdpbusd` takes unsigned weights; the offset that makes them so comes back out
//! through the activation block's sum.

use super::super::instantiate::table;
use super::super::lanes::Lanes;
use super::super::product::{ROWS, Tile};
use super::limits::Dpbusd;
use super::superblocks;
use super::unpacked_avx512::Rows16;
use crate::prefetch::prefetch;
use crate::quant::activation::BLOCK;
use crate::quant::{q4_0, q8_0};
use std::arch::x86_64::*;

table!("avx512vnni", "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c", V512, [4, 6], int8: [(8, product_q8_0), (2, product_q4_0)], parts: [Rows16, 2, 4], one_token: [(12, superblocks::one_token_q4_k), (13, superblocks::one_token_q5_k), (14, superblocks::one_token_q6_k)], most: [Dpbusd, 16]);

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

/// Sixteen rows of weights, of which the last may be repeated.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) first: *const u8,
    pub(super) row_bytes: usize,
    /// How many there are, at most sixteen.
    pub(super) count: usize,
}

impl Rows {
    /// Row `index`, or the last one.
    #[inline(always)]
    fn row<const ALL: bool>(&self, index: usize) -> *const u8 {
        let index = if ALL {
            index
        } else {
            index.min(self.count - 1)
        };
        self.first.wrapping_add(index * self.row_bytes)
    }

    /// The scales of block `block`, which begin each block as binary16, one row per lane.
    #[inline(always)]
    unsafe fn scales<const ALL: bool>(&self, at: usize) -> __m512 {
        // SAFETY: the caller's: `at` is where a block begins in every row.
        unsafe {
            let scales: [u16; ROWS] =
                std::array::from_fn(|r| self.row::<ALL>(r).add(at).cast::<u16>().read_unaligned());
            _mm512_cvtph_ps(_mm256_loadu_si256(scales.as_ptr().cast()))
        }
    }

    /// Sixteen bytes at `at` of every row, transposed: register `j` holds bytes `4j .. 4j + 4`, one row per lane.
    #[inline(always)]
    pub(super) unsafe fn transposed<const ALL: bool>(&self, at: usize) -> [__m512i; 4] {
        // SAFETY: the caller's: every row has sixteen bytes at `at`.
        unsafe {
            let load = |r: usize| _mm_loadu_si128(self.row::<ALL>(r).add(at).cast());
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
}

/// A format with blocks of 32 small integers and one binary16 scale before them.
trait Block {
    const BYTES: usize;
    /// What is added to a weight to make it unsigned.
    const OFFSET: i32;
    /// The weights of the block that begins at `at`, made unsigned: register `g` holds values `4g .. 4g + 4`, one row per lane.
    unsafe fn groups<const ALL: bool>(rows: &Rows, at: usize) -> [__m512i; 8];
}

struct Q8_0;
impl Block for Q8_0 {
    const BYTES: usize = q8_0::BYTES;
    const OFFSET: i32 = 128;
    #[inline(always)]
    unsafe fn groups<const ALL: bool>(rows: &Rows, at: usize) -> [__m512i; 8] {
        // SAFETY: the caller's; a block's 32 values follow its scale.
        unsafe {
            let (low, high) = (
                rows.transposed::<ALL>(at + 2),
                rows.transposed::<ALL>(at + 18),
            );
            let sign = _mm512_set1_epi8(-128);
            std::array::from_fn(|g| {
                _mm512_xor_si512(if g < 4 { low[g] } else { high[g - 4] }, sign)
            })
        }
    }
}

struct Q4_0;
impl Block for Q4_0 {
    const BYTES: usize = q4_0::BYTES;
    const OFFSET: i32 = 8;
    #[inline(always)]
    unsafe fn groups<const ALL: bool>(rows: &Rows, at: usize) -> [__m512i; 8] {
        // SAFETY: the caller's; a block's sixteen bytes follow its scale.
        unsafe {
            let bytes = rows.transposed::<ALL>(at + 2);
            let nibble = _mm512_set1_epi8(15);
            std::array::from_fn(|g| {
                let byte = if g < 4 {
                    bytes[g]
                } else {
                    _mm512_srli_epi16::<4>(bytes[g - 4])
                };
                _mm512_and_si512(byte, nibble)
            })
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn product_q8_0(tile: &Tile<'_>) {
    // SAFETY: the caller's.
    unsafe { product::<Q8_0>(tile) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn product_q4_0(tile: &Tile<'_>) {
    // SAFETY: the caller's.
    unsafe { product::<Q4_0>(tile) }
}

#[inline(always)]
unsafe fn product<F: Block>(tile: &Tile<'_>) {
    let rows = |row: usize| Rows {
        first: tile.bytes[row * tile.row_bytes..].as_ptr(),
        row_bytes: tile.row_bytes,
        count: (tile.rows - row).min(ROWS),
    };
    // SAFETY: the caller's: the tile has been checked.
    unsafe {
        if tile.tokens == 1 {
            for row in (0..tile.rows).step_by(ROWS) {
                let rows = rows(row);
                if rows.count == ROWS {
                    one_token::<F, true>(tile, &rows, row);
                } else {
                    one_token::<F, false>(tile, &rows, row);
                }
            }
        } else {
            let mut packed = Packed::new();
            for row in (0..tile.rows).step_by(ROWS * 2) {
                let second = (row + ROWS < tile.rows).then(|| rows(row + ROWS));
                many_tokens::<F>(tile, &mut packed, [Some(rows(row)), second], row);
            }
        }
    }
}

/// Sixteen rows × one token: weights go from memory through the transposition straight into the product.
#[inline(always)]
unsafe fn one_token<F: Block, const ALL: bool>(tile: &Tile<'_>, rows: &Rows, row: usize) {
    let x = &tile.int8;
    let blocks = tile.cols / BLOCK;
    let ahead = ROWS * F::BYTES; // the next sixteen rows lie behind these
    // SAFETY: the caller's; `block < blocks`.
    unsafe {
        let mut total = _mm512_setzero_ps();
        let mut next = rows.first.wrapping_add(ROWS * rows.row_bytes);
        for block in 0..blocks {
            for line in (0..ahead).step_by(64) {
                prefetch(next.wrapping_add(line));
            }
            next = next.wrapping_add(ahead);
            let at = block * F::BYTES;
            let groups = F::groups::<ALL>(rows, at);
            let values = x.values.as_ptr().add(block * BLOCK).cast::<i32>();
            // Two chains, so that one does not wait for the other.
            let mut even = _mm512_set1_epi32(-F::OFFSET * *x.sums.get_unchecked(block));
            let mut odd = _mm512_setzero_si512();
            for g in (0..8).step_by(2) {
                even = _mm512_dpbusd_epi32(
                    even,
                    groups[g],
                    _mm512_set1_epi32(values.add(g).read_unaligned()),
                );
                odd = _mm512_dpbusd_epi32(
                    odd,
                    groups[g + 1],
                    _mm512_set1_epi32(values.add(g + 1).read_unaligned()),
                );
            }
            let sum = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
            let scale = _mm512_mul_ps(
                rows.scales::<ALL>(at),
                _mm512_set1_ps(*x.scales.get_unchecked(block)),
            );
            total = _mm512_add_ps(total, _mm512_mul_ps(scale, sum));
        }
        _mm512_mask_storeu_ps(tile.out.add(row), mask(rows.count), total);
    }
}

fn mask(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as __mmask16
}

/// Blocks that are unpacked at a time.
const DEPTH: usize = 16;

/// Unpacked weights: twice sixteen rows × [`DEPTH`] blocks, 18 KB of stack that stay in the first-level cache while all tokens pass.
struct Packed {
    /// `[block, half, group, row, 4]`
    values: [[[__m512i; 8]; 2]; DEPTH],
    /// `[block, half, row]`
    scales: [[__m512; 2]; DEPTH],
}

impl Packed {
    #[inline(always)]
    unsafe fn new() -> Self {
        // SAFETY: the caller's.
        unsafe {
            Packed {
                values: [[[_mm512_setzero_si512(); 8]; 2]; DEPTH],
                scales: [[_mm512_setzero_ps(); 2]; DEPTH],
            }
        }
    }
}

/// Up to 32 rows × all tokens.
#[inline(always)]
unsafe fn many_tokens<F: Block>(
    tile: &Tile<'_>,
    packed: &mut Packed,
    halves: [Option<Rows>; 2],
    row: usize,
) {
    let blocks = tile.cols / BLOCK;
    // The next rows lie behind these. They are asked for bit by bit while the tokens pass, or, where those are few, while these are unpacked.
    let ask_now = tile.tokens < 8;
    let mut next = tile
        .bytes
        .as_ptr()
        .wrapping_add((row + 2 * ROWS) * tile.row_bytes);
    let masks = halves.map(|half| half.map_or(0, |rows| mask(rows.count)));
    for first in (0..blocks).step_by(DEPTH) {
        let depth = DEPTH.min(blocks - first);
        // SAFETY: the caller's; `first + depth <= blocks`.
        unsafe {
            for (half, rows) in halves.iter().enumerate() {
                let Some(rows) = rows else { continue };
                for block in 0..depth {
                    if ask_now {
                        for line in (0..ROWS * F::BYTES).step_by(64) {
                            prefetch(next.wrapping_add(line));
                        }
                        next = next.wrapping_add(ROWS * F::BYTES);
                    }
                    let at = (first + block) * F::BYTES;
                    let (groups, scales) = if rows.count == ROWS {
                        (F::groups::<true>(rows, at), rows.scales::<true>(at))
                    } else {
                        (F::groups::<false>(rows, at), rows.scales::<false>(at))
                    };
                    packed.values[block][half] = groups;
                    packed.scales[block][half] = scales;
                }
            }
            let span = Span {
                row,
                masks,
                first,
                depth,
                offset: -F::OFFSET,
            };
            let mut token = 0;
            let ahead = 2 * ROWS * depth * F::BYTES;
            let step = (ahead / tile.tokens.div_ceil(4)).next_multiple_of(64);
            let end = next.wrapping_add(if ask_now { 0 } else { ahead });
            while token + 4 <= tile.tokens {
                let mut line = 0;
                while line < step && next < end {
                    prefetch(next);
                    next = next.wrapping_add(64);
                    line += 64;
                }
                some_tokens::<4>(tile, packed, &span, token);
                token += 4;
            }
            next = end;
            match tile.tokens - token {
                1 => some_tokens::<1>(tile, packed, &span, token),
                2 => some_tokens::<2>(tile, packed, &span, token),
                3 => some_tokens::<3>(tile, packed, &span, token),
                _ => {}
            }
        }
    }
}

/// Which part of a product [`Packed`] holds.
struct Span {
    row: usize,
    /// Rows that exist, in each half.
    masks: [__mmask16; 2],
    first: usize,
    depth: usize,
    /// Times an activation block's sum: what takes the weights' offset out.
    offset: i32,
}

/// 32 packed rows × `T` tokens.
#[inline(always)]
unsafe fn some_tokens<const T: usize>(tile: &Tile<'_>, packed: &Packed, span: &Span, token: usize) {
    let blocks = tile.cols / BLOCK;
    // SAFETY: the caller's; all indices lie inside the checked shapes.
    unsafe {
        let out: [*mut f32; T] =
            std::array::from_fn(|t| tile.out.add((token + t) * tile.stride + span.row));
        let values: [*const i8; T] = std::array::from_fn(|t| {
            tile.int8
                .values
                .as_ptr()
                .add((token + t) * tile.cols + span.first * BLOCK)
        });
        let scales: [*const f32; T] = std::array::from_fn(|t| {
            tile.int8
                .scales
                .as_ptr()
                .add((token + t) * blocks + span.first)
        });
        let sums: [*const i32; T] = std::array::from_fn(|t| {
            tile.int8
                .sums
                .as_ptr()
                .add((token + t) * blocks + span.first)
        });
        let mut totals = [[_mm512_setzero_ps(); 2]; T];
        if span.first > 0 {
            for t in 0..T {
                for half in 0..2 {
                    totals[t][half] =
                        _mm512_maskz_loadu_ps(span.masks[half], out[t].wrapping_add(half * ROWS));
                }
            }
        }
        for block in 0..span.depth {
            let mut products: [[__m512i; 2]; T] =
                std::array::from_fn(|t| [_mm512_set1_epi32(span.offset * *sums[t].add(block)); 2]);
            for g in 0..8 {
                let weights = [packed.values[block][0][g], packed.values[block][1][g]];
                for t in 0..T {
                    let x = _mm512_set1_epi32(
                        values[t]
                            .add(block * BLOCK + g * 4)
                            .cast::<i32>()
                            .read_unaligned(),
                    );
                    for half in 0..2 {
                        products[t][half] =
                            _mm512_dpbusd_epi32(products[t][half], weights[half], x);
                    }
                }
            }
            for t in 0..T {
                let x_scale = _mm512_set1_ps(*scales[t].add(block));
                for half in 0..2 {
                    let scale = _mm512_mul_ps(packed.scales[block][half], x_scale);
                    let product = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(products[t][half]));
                    totals[t][half] = _mm512_add_ps(totals[t][half], product);
                }
            }
        }
        for t in 0..T {
            for half in 0..2 {
                _mm512_mask_storeu_ps(
                    out[t].wrapping_add(half * ROWS),
                    span.masks[half],
                    totals[t][half],
                );
            }
        }
    }
}
