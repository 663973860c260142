//! The product of the formats that unpack to parts ([`crate::quant::blocks`]), written once over registers with one row per lane.
//!
//! Some rows are unpacked [`DEPTH`] parts at a time, transposed, and multiplied with all tokens while they stay in the first-level cache. The
//! order of the additions is the scalar code's.

use super::product::Tile;
use crate::quant::blocks::{PART, Part, Unpack};

/// Registers with one row per 32-bit lane. Every method may be called only where the processor has the implementor's instructions, from a
/// function that is compiled for them; pointers must be valid for what they say, at any alignment.
pub(super) trait RowLanes {
    /// Rows of a register.
    const LANES: usize;
    /// Whether [`RowLanes::dots`] needs the sums of the activations where weights are signed.
    const SUMS: bool;
    /// Four bytes of each row.
    type Bytes: Copy;
    /// An i32 for each row.
    type Sums: Copy;
    /// An f32 for each row.
    type Floats: Copy;

    /// 32 values of each row, rows `stride` bytes apart: register `g` holds values `4g .. 4g + 4`.
    unsafe fn transpose<const SIGNED: bool>(from: *const i8, stride: usize) -> [Self::Bytes; 8];
    /// The products of sixteen weights (of the registers `4 half ..`) with the sixteen activations at `x` of each token; `x_sums` holds these
    /// activations' sums where [`RowLanes::SUMS`] asks for them.
    unsafe fn dots<const T: usize, const SIGNED: bool, const WIDE: bool>(
        weights: &[Self::Bytes],
        x: [*const i8; T],
        x_sums: [i32; T],
    ) -> [Self::Sums; T];
    unsafe fn add(a: Self::Sums, b: Self::Sums) -> Self::Sums;
    unsafe fn splat(value: f32) -> Self::Floats;
    unsafe fn load(from: *const f32) -> Self::Floats;
    unsafe fn store(values: Self::Floats, to: *mut f32);
    /// `total + scale · x_scale · sum`, each step rounded.
    unsafe fn add_term(
        total: Self::Floats,
        scale: Self::Floats,
        x_scale: Self::Floats,
        sum: Self::Sums,
    ) -> Self::Floats;
    /// `total + a · b`, each step rounded.
    unsafe fn add_product(total: Self::Floats, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The sum of the sixteen values at `x`.
    #[inline(always)]
    unsafe fn sum16(x: *const i8) -> i32 {
        // SAFETY: the caller's.
        let x = unsafe { x.cast::<[i8; 16]>().read_unaligned() };
        x.iter().map(|x| i32::from(*x)).sum()
    }
    /// Asks for the cache line at `address`, which need not be valid.
    #[inline(always)]
    fn prefetch(_address: *const u8) {}
}

/// Parts that are unpacked at a time: one block of 256 values.
const DEPTH: usize = 8;

/// Rows that are unpacked at a time, at most.
const MOST_ROWS: usize = 32;

/// Unpacked weights of `H` registers of rows.
struct Packed<V: RowLanes, const H: usize> {
    /// `[part, register, group]`, as [`RowLanes::transpose`] gives them
    values: [[[V::Bytes; 8]; H]; DEPTH],
    /// `[part, half, register]`
    scales: [[[V::Floats; H]; 2]; DEPTH],
    /// `[part, half, register]`
    minimums: [[[V::Floats; H]; 2]; DEPTH],
}

/// `H` registers of rows × `T` tokens at a time.
///
/// # Safety
/// `tile` has been checked, its format unpacks by `unpack` to parts of the kind that the constants describe, and `V` may be used.
#[inline(always)]
pub(super) unsafe fn product<
    V: RowLanes,
    const H: usize,
    const T: usize,
    const HALVES: bool,
    const MINIMUMS: bool,
    const WIDE: bool,
>(
    tile: &Tile<'_>,
    unpack: Unpack,
) {
    const { assert!(H * V::LANES <= MOST_ROWS) };
    let mut parts = [[Part::ZERO; DEPTH]; MOST_ROWS];
    // SAFETY: the caller's; all indices below lie inside the checked shapes.
    unsafe {
        let zero = V::splat(0.0);
        let mut packed = Packed::<V, H> {
            values: [[V::transpose::<false>([0; PART * 16].as_ptr(), PART); H]; DEPTH],
            scales: [[[zero; H]; 2]; DEPTH],
            minimums: [[[zero; H]; 2]; DEPTH],
        };
        let count = tile.cols / PART;
        for row in (0..tile.rows).step_by(H * V::LANES) {
            for first in (0..count).step_by(DEPTH) {
                let depth = DEPTH.min(count - first);
                unpack_rows::<V, H>(tile, unpack, &mut parts, row, first..first + depth);
                pack::<V, H, HALVES, MINIMUMS>(&parts, &mut packed, depth);
                let mut token = 0;
                let span = first..first + depth;
                while token + T <= tile.tokens {
                    some_tokens::<V, H, T, HALVES, MINIMUMS, WIDE>(
                        tile,
                        &packed,
                        row,
                        span.clone(),
                        token,
                    );
                    token += T;
                }
                while token < tile.tokens {
                    some_tokens::<V, H, 1, HALVES, MINIMUMS, WIDE>(
                        tile,
                        &packed,
                        row,
                        span.clone(),
                        token,
                    );
                    token += 1;
                }
            }
        }
    }
}

/// Unpacks the parts in `span` of up to `H` registers of rows from `row`.
#[inline(always)]
unsafe fn unpack_rows<V: RowLanes, const H: usize>(
    tile: &Tile<'_>,
    unpack: Unpack,
    parts: &mut [[Part; DEPTH]; MOST_ROWS],
    row: usize,
    span: std::ops::Range<usize>,
) {
    let at = span.start * PART / tile.format.block * tile.format.block_bytes;
    let bytes = span.len() * PART / tile.format.block * tile.format.block_bytes;
    let count = (H * V::LANES).min(tile.rows - row);
    for (r, parts) in parts[..count].iter_mut().enumerate() {
        let start = (row + r) * tile.row_bytes + at;
        if tile.tokens == 1 {
            // A single token waits for memory: this row's next bytes are wanted soon.
            for line in (0..bytes).step_by(64) {
                V::prefetch(tile.bytes.as_ptr().wrapping_add(start + bytes + line));
            }
        }
        // SAFETY: the caller's: the processor has what `unpack` was compiled for.
        unsafe { unpack(&tile.bytes[start..][..bytes], &mut parts[..span.len()]) };
    }
}

/// Transposes `depth` parts of every row.
#[inline(always)]
unsafe fn pack<V: RowLanes, const H: usize, const HALVES: bool, const MINIMUMS: bool>(
    parts: &[[Part; DEPTH]; MOST_ROWS],
    packed: &mut Packed<V, H>,
    depth: usize,
) {
    let stride = size_of::<[Part; DEPTH]>();
    for part in 0..depth {
        for register in 0..H {
            let rows = &parts[register * V::LANES..][..V::LANES];
            for half in 0..if HALVES { 2 } else { 1 } {
                let (mut scales, mut minimums) = ([0f32; 16], [0f32; 16]);
                for (r, row) in rows.iter().enumerate() {
                    scales[r] = row[part].scales[half];
                    minimums[r] = row[part].minimums[half];
                }
                // SAFETY: the caller's: a register has at most sixteen lanes.
                unsafe {
                    packed.scales[part][half][register] = V::load(scales.as_ptr());
                    if MINIMUMS {
                        packed.minimums[part][half][register] = V::load(minimums.as_ptr());
                    }
                }
            }
            // SAFETY: the caller's: each of the rows has 32 values there.
            packed.values[part][register] = unsafe {
                let values = rows.as_ptr().cast::<Part>().add(part);
                let values = (&raw const (*values).values).cast::<i8>();
                if MINIMUMS {
                    V::transpose::<false>(values, stride)
                } else {
                    V::transpose::<true>(values, stride)
                }
            };
        }
    }
}

/// The packed rows × `T` tokens, of the parts in `span`.
#[inline(always)]
unsafe fn some_tokens<
    V: RowLanes,
    const H: usize,
    const T: usize,
    const HALVES: bool,
    const MINIMUMS: bool,
    const WIDE: bool,
>(
    tile: &Tile<'_>,
    packed: &Packed<V, H>,
    row: usize,
    span: std::ops::Range<usize>,
    token: usize,
) {
    let count = tile.cols / PART;
    let x = &tile.int8;
    // SAFETY: the caller's; all indices lie inside the checked shapes.
    unsafe {
        let out: [*mut f32; T] =
            std::array::from_fn(|t| tile.out.add((token + t) * tile.stride + row));
        let mut totals = [[V::splat(0.0); H]; T];
        if span.start > 0 {
            for t in 0..T {
                for h in 0..H {
                    totals[t][h] = reload::<V>(out[t], tile.rows - row, h);
                }
            }
        }
        for (part, at) in span.enumerate() {
            let block: [usize; T] = std::array::from_fn(|t| (token + t) * count + at);
            let low = block.map(|block| x.values.as_ptr().add(block * PART));
            let high = low.map(|x| x.add(PART / 2));
            let scales = block.map(|block| *x.scales.get_unchecked(block));
            let sums = block.map(|block| *x.sums.get_unchecked(block));
            let need_halves = MINIMUMS && HALVES || !MINIMUMS && V::SUMS;
            let low_sums = if need_halves {
                low.map(|x| V::sum16(x))
            } else {
                [0; T]
            };
            let high_sums: [i32; T] = std::array::from_fn(|t| sums[t] - low_sums[t]);
            for h in 0..H {
                let weights = &packed.values[part][h];
                // The constants' branches differ in one thing each: whether weights are signed, which is where there are no minimums.
                let (first, second) = if MINIMUMS {
                    (
                        V::dots::<T, false, WIDE>(&weights[..4], low, low_sums),
                        V::dots::<T, false, WIDE>(&weights[4..], high, high_sums),
                    )
                } else {
                    (
                        V::dots::<T, true, WIDE>(&weights[..4], low, low_sums),
                        V::dots::<T, true, WIDE>(&weights[4..], high, high_sums),
                    )
                };
                let scale = |half: usize| packed.scales[part][half][h];
                let minimum = |half: usize| packed.minimums[part][half][h];
                for t in 0..T {
                    let x_scale = V::splat(scales[t]);
                    let least = |x_sum: i32| V::splat(scales[t] * x_sum as f32);
                    let mut total = totals[t][h];
                    if HALVES {
                        total = V::add_term(total, scale(0), x_scale, first[t]);
                        if MINIMUMS {
                            total = V::add_product(total, minimum(0), least(low_sums[t]));
                        }
                        total = V::add_term(total, scale(1), x_scale, second[t]);
                        if MINIMUMS {
                            total = V::add_product(total, minimum(1), least(high_sums[t]));
                        }
                    } else {
                        let sum = V::add(first[t], second[t]);
                        total = V::add_term(total, scale(0), x_scale, sum);
                        if MINIMUMS {
                            total = V::add_product(total, minimum(0), least(sums[t]));
                        }
                    }
                    totals[t][h] = total;
                }
            }
        }
        for t in 0..T {
            for h in 0..H {
                store::<V>(out[t], tile.rows - row, h, totals[t][h]);
            }
        }
    }
}

/// Writes the lanes of register `register` whose rows exist; `count` rows begin at `out`.
#[inline(always)]
unsafe fn store<V: RowLanes>(out: *mut f32, count: usize, register: usize, values: V::Floats) {
    let first = register * V::LANES;
    // SAFETY: the caller's: `count` outputs are there.
    unsafe {
        if first + V::LANES <= count {
            V::store(values, out.add(first));
        } else if first < count {
            let mut lanes = [0f32; 16];
            V::store(values, lanes.as_mut_ptr());
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), out.add(first), count - first);
        }
    }
}

/// Reads what [`store`] wrote.
#[inline(always)]
unsafe fn reload<V: RowLanes>(out: *const f32, count: usize, register: usize) -> V::Floats {
    let first = register * V::LANES;
    // SAFETY: the caller's: `count` outputs are there.
    unsafe {
        if first + V::LANES <= count {
            return V::load(out.add(first));
        }
        let mut lanes = [0f32; 16];
        if first < count {
            std::ptr::copy_nonoverlapping(out.add(first), lanes.as_mut_ptr(), count - first);
        }
        V::load(lanes.as_ptr())
    }
}
