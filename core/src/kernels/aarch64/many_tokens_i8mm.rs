//! Products of several tokens with the int8 matrix multiply. Sums stay as it gives them, two rows × two tokens to a register, through all blocks:
//! scales come in the same order, so that nothing is rearranged before a row's sums are stored.

use super::super::block_product::{Packed, unpack_rows};
use super::super::kinds::PartKind;
use super::super::product::{Tile, Unpack};
use super::dotprod::DotProduct;
use super::i8mm::smmla;
use super::row_pairs::{Block, scales};
use super::unpacked_neon::Rows4;
use super::{Mantissas, Sums, row_starts, store};
use crate::quant::activation::BLOCK;
use std::arch::aarch64::*;
use std::marker::PhantomData;

/// Rows that are unpacked together: so many that the activations, which are rearranged for them anew, cost little beside the products.
const ROWS: usize = 32;
/// Blocks that are unpacked at a time.
const DEPTH: usize = 8;
/// Rows of a register tile.
const TILE: usize = super::ROWS;

/// Unpacked weights; with the activations they stay in the first-level cache. `a` and `b` are the rows of a pair.
pub(super) struct Panel {
    /// `[block, pair, group]`: values `8g .. 8g + 8` of `a`, then of `b`
    values: [[[int8x16_t; 4]; ROWS / 2]; DEPTH],
    /// `[block, pair, half]`: `a a b b`
    scales: [[[float32x4_t; 2]; ROWS / 2]; DEPTH],
    /// `[block, pair, half]`: `a a b b`
    minimums: [[[float32x4_t; 2]; ROWS / 2]; DEPTH],
}

/// The activations of up to four tokens. `a` and `b` are the tokens of a pair.
struct Activations {
    /// `[block, pair, group]`: values `8g .. 8g + 8` of `a`, then of `b`
    values: [[[int8x16_t; 4]; 2]; DEPTH],
    /// `[block, pair]`: `a b a b`
    scales: [[float32x4_t; 2]; DEPTH],
    /// `[block, pair, half]`: `a b a b`, the scale times the values' sum
    sums: [[[float32x4_t; 2]; 2]; DEPTH],
}

/// Where a panel comes from.
pub(super) trait Source {
    /// Unpacks blocks `first .. first + depth` of the rows from `row` that there are, at most [`ROWS`].
    ///
    /// # Safety
    /// The tile has been checked and has these blocks, and the processor has the instructions.
    unsafe fn fill(
        &self,
        tile: &Tile<'_>,
        panel: &mut Panel,
        row: usize,
        first: usize,
        depth: usize,
    );
}

/// Blocks with one scale.
pub(super) struct Blocks<F>(PhantomData<F>);

impl<F> Blocks<F> {
    pub(super) const NEW: Self = Blocks(PhantomData);
}

impl<F: Block> Source for Blocks<F> {
    #[inline(always)]
    unsafe fn fill(
        &self,
        tile: &Tile<'_>,
        panel: &mut Panel,
        row: usize,
        first: usize,
        depth: usize,
    ) {
        for eight in (0..ROWS.min(tile.rows - row)).step_by(TILE) {
            let starts = row_starts(tile, row + eight);
            for block in 0..depth {
                let rows = starts.map(|row| row.wrapping_add((first + block) * F::BYTES));
                for four in [0, 4] {
                    let rows = &rows[four..four + 4];
                    let pair = (eight + four) / 2;
                    // SAFETY: the caller's.
                    unsafe {
                        let [[a, b, c, d], [e, f, g, h]] = F::unpack(rows);
                        panel.values[block][pair] = [a, b, e, f];
                        panel.values[block][pair + 1] = [c, d, g, h];
                        let [a, b] = twice(scales(rows));
                        panel.scales[block][pair][0] = a;
                        panel.scales[block][pair + 1][0] = b;
                    }
                }
            }
        }
    }
}

/// Formats that unpack to parts, by the function given or else by their own scalar code.
pub(super) struct Parts(Option<Unpack>);

impl Source for Parts {
    #[inline(always)]
    unsafe fn fill(
        &self,
        tile: &Tile<'_>,
        panel: &mut Panel,
        row: usize,
        first: usize,
        depth: usize,
    ) {
        for four in (0..ROWS.min(tile.rows - row)).step_by(4) {
            // SAFETY: the caller's.
            unsafe {
                let mut packed = Packed::<Rows4<DotProduct>>::new();
                unpack_rows(
                    tile,
                    &mut packed,
                    row + four,
                    ROWS / 4,
                    first..first + depth,
                    self.0,
                );
                let pair = four / 2;
                for block in 0..depth {
                    for group in 0..4 {
                        // Four bytes of four rows each.
                        let [low, high] = [0, 1].map(|word| {
                            vreinterpretq_s32_s8(packed.values[block][group * 2 + word])
                        });
                        panel.values[block][pair][group] =
                            vreinterpretq_s8_s32(vzip1q_s32(low, high));
                        panel.values[block][pair + 1][group] =
                            vreinterpretq_s8_s32(vzip2q_s32(low, high));
                    }
                    for half in 0..2 {
                        let [a, b] = twice(packed.scales[block][half]);
                        panel.scales[block][pair][half] = a;
                        panel.scales[block][pair + 1][half] = b;
                        let [a, b] = twice(packed.minimums[block][half]);
                        panel.minimums[block][pair][half] = a;
                        panel.minimums[block][pair + 1][half] = b;
                    }
                }
            }
        }
    }
}

/// [`super::super::block_product::product`].
///
/// # Safety
/// The same.
#[inline(always)]
pub(super) unsafe fn product_of_parts<K: PartKind>(tile: &Tile<'_>, unpack: Option<Unpack>) {
    // SAFETY: the caller's.
    unsafe { product::<_, K>(tile, &Parts(unpack)) }
}

/// # Safety
/// The tile has been checked, its format is the source's, and the processor has the instructions.
#[inline(always)]
pub(super) unsafe fn product<S: Source, K: PartKind>(tile: &Tile<'_>, source: &S) {
    let count = tile.cols / BLOCK;
    // SAFETY: the caller's; all indices lie inside the checked shapes.
    unsafe {
        let (none, zero) = (vdupq_n_s8(0), vdupq_n_f32(0.0));
        let mut panel = Panel {
            values: [[[none; 4]; ROWS / 2]; DEPTH],
            scales: [[[zero; 2]; ROWS / 2]; DEPTH],
            minimums: [[[zero; 2]; ROWS / 2]; DEPTH],
        };
        let mut x = Activations {
            values: [[[none; 4]; 2]; DEPTH],
            scales: [[zero; 2]; DEPTH],
            sums: [[[zero; 2]; 2]; DEPTH],
        };
        for row in (0..tile.rows).step_by(ROWS) {
            for first in (0..count).step_by(DEPTH) {
                let depth = DEPTH.min(count - first);
                source.fill(tile, &mut panel, row, first, depth);
                for token in (0..tile.tokens).step_by(4) {
                    let left = tile.tokens - token;
                    for pair in 0..left.min(4).div_ceil(2) {
                        rearrange::<K>(tile, &mut x, pair, token, first, depth);
                    }
                    for eight in (0..ROWS.min(tile.rows - row)).step_by(TILE) {
                        let at = At {
                            row,
                            eight,
                            token,
                            first,
                            depth,
                        };
                        if left > 2 {
                            some_tokens::<K, 2>(tile, &panel, &x, at);
                        } else {
                            some_tokens::<K, 1>(tile, &panel, &x, at);
                        }
                    }
                }
            }
        }
    }
}

/// The activations of pair `pair` of the tokens from `token`. A last one without another is its own.
#[inline(always)]
unsafe fn rearrange<K: PartKind>(
    tile: &Tile<'_>,
    x: &mut Activations,
    pair: usize,
    token: usize,
    first: usize,
    depth: usize,
) {
    let count = tile.cols / BLOCK;
    let last = tile.tokens - 1;
    let tokens = [0, 1].map(|side| (token + pair * 2 + side).min(last));
    // SAFETY: the caller's.
    unsafe {
        for block in 0..depth {
            let at = tokens.map(|token| token * count + first + block);
            let values = at.map(|at| tile.int8.values.as_ptr().add(at * BLOCK));
            for half in 0..2 {
                let [a, b] = values.map(|from| vld1q_s8(from.add(half * 16)));
                let [low, high] = combine(a, b);
                x.values[block][pair][half * 2] = low;
                x.values[block][pair][half * 2 + 1] = high;
            }
            let scales = at.map(|at| *tile.int8.scales.get_unchecked(at));
            x.scales[block][pair] = in_turn(scales);
            if K::MINIMUMS {
                let all = at.map(|at| *tile.int8.sums.get_unchecked(at));
                let mut sums = [all, [0; 2]];
                if K::HALVES {
                    sums[0] = values.map(|from| i32::from(vaddlvq_s8(vld1q_s8(from))));
                    sums[1] = [all[0] - sums[0][0], all[1] - sums[0][1]];
                }
                for half in 0..2 {
                    let [a, b] = sums[half];
                    x.sums[block][pair][half] =
                        in_turn([scales[0] * a as f32, scales[1] * b as f32]);
                }
            }
        }
    }
}

/// Where a register tile lies: tile row `eight` of the panel that begins at row `row`.
#[derive(Clone, Copy)]
struct At {
    row: usize,
    eight: usize,
    token: usize,
    first: usize,
    depth: usize,
}

/// Eight rows × `P` pairs of tokens.
#[inline(always)]
unsafe fn some_tokens<K: PartKind, const P: usize>(
    tile: &Tile<'_>,
    panel: &Panel,
    x: &Activations,
    at: At,
) {
    let row = at.row + at.eight;
    let count = tile.rows - row;
    // SAFETY: the caller's; a last token without another is computed twice.
    unsafe {
        let out: [[*mut f32; 2]; P] = std::array::from_fn(|p| {
            [0, 1].map(|side| {
                let token = (at.token + p * 2 + side).min(tile.tokens - 1);
                tile.out.add(token * tile.stride + row)
            })
        });
        let nothing = Mantissas::nothing();
        let mut totals = [[vdupq_n_f32(0.0); TILE / 2]; P];
        if at.first > 0 {
            for p in 0..P {
                let [a, b] = out[p].map(|out| reload(out, count));
                for four in 0..2 {
                    totals[p][four * 2] = vzip1q_f32(a[four], b[four]);
                    totals[p][four * 2 + 1] = vzip2q_f32(a[four], b[four]);
                }
            }
        }
        for block in 0..at.depth {
            let x_values = &x.values[block];
            for pair in 0..TILE / 2 {
                let from = at.eight / 2 + pair;
                let weights = &panel.values[block][from];
                let scales = &panel.scales[block][from];
                let minimums = &panel.minimums[block][from];
                for p in 0..P {
                    let mut sum = nothing;
                    let mut total = totals[p][pair];
                    for half in 0..2 {
                        sum = smmla(sum, weights[half * 2], x_values[p][half * 2]);
                        sum = smmla(sum, weights[half * 2 + 1], x_values[p][half * 2 + 1]);
                        if K::HALVES || half == 1 {
                            let which = if K::HALVES { half } else { 0 };
                            let scale = vmulq_f32(scales[which], x.scales[block][p]);
                            total = vaddq_f32(total, vmulq_f32(scale, Mantissas::float(sum)));
                            if K::MINIMUMS {
                                let share = vmulq_f32(minimums[which], x.sums[block][p][which]);
                                total = vaddq_f32(total, share);
                            }
                            sum = nothing;
                        }
                    }
                    totals[p][pair] = total;
                }
            }
        }
        for p in 0..P {
            let [a, b, c, d] = totals[p];
            store(out[p][0], count, [vuzp1q_f32(a, b), vuzp1q_f32(c, d)]);
            store(out[p][1], count, [vuzp2q_f32(a, b), vuzp2q_f32(c, d)]);
        }
    }
}

/// The first eight bytes of both, and the last eight bytes of both.
#[inline(always)]
pub(super) unsafe fn combine(a: int8x16_t, b: int8x16_t) -> [int8x16_t; 2] {
    // SAFETY: NEON is part of aarch64.
    unsafe {
        let (a, b) = (vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b));
        [
            vreinterpretq_s8_s64(vtrn1q_s64(a, b)),
            vreinterpretq_s8_s64(vtrn2q_s64(a, b)),
        ]
    }
}

/// Each lane twice.
#[inline(always)]
unsafe fn twice(four: float32x4_t) -> [float32x4_t; 2] {
    // SAFETY: NEON is part of aarch64.
    unsafe { [vzip1q_f32(four, four), vzip2q_f32(four, four)] }
}

/// Both, and both again.
#[inline(always)]
unsafe fn in_turn(both: [f32; 2]) -> float32x4_t {
    // SAFETY: NEON is part of aarch64.
    unsafe {
        let both = vld1_f32(both.as_ptr());
        vcombine_f32(both, both)
    }
}

/// Reads what [`store`] wrote.
#[inline(always)]
unsafe fn reload(out: *const f32, count: usize) -> [float32x4_t; 2] {
    // SAFETY: the caller's: `count` outputs are there.
    unsafe {
        let mut lanes = [0f32; TILE];
        let from = if count >= TILE {
            out
        } else {
            std::ptr::copy_nonoverlapping(out, lanes.as_mut_ptr(), count);
            lanes.as_ptr()
        };
        [vld1q_f32(from), vld1q_f32(from.add(4))]
    }
}
