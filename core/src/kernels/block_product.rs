//! The product of the formats that unpack to parts ([`crate::quant::blocks`]), written once over registers with one row per lane.
//!
//! Some rows are unpacked [`DEPTH`] parts at a time, transposed, and multiplied with all tokens while they stay in the first-level cache. The
//! order of the additions is the scalar code's.

use super::product::{Rows, Tile, Unpack};
use super::row_lanes::RowLanes;
use super::unpack::Sink;
use crate::quant::Dot;
use crate::quant::blocks::{Kind, PART, Part};
use std::ops::Range;

/// Parts that are unpacked at a time: one block of 256 values.
pub(super) const DEPTH: usize = 8;

/// Unpacked weights of a register of rows.
pub(super) struct Packed<V: RowLanes> {
    /// `[part, group]`: register `g` of a part holds values `4g .. 4g + 4`; signed ones as [`RowLanes::signed`] gives them,
    /// or [`RowLanes::plain`] for that kind
    pub(super) values: [[V::Bytes; 8]; DEPTH],
    /// `[part, half]`
    pub(super) scales: [[V::Floats; 2]; DEPTH],
    /// `[part, half]`, where the kind has minimums
    pub(super) minimums: [[V::Floats; 2]; DEPTH],
}

impl<V: RowLanes> Packed<V> {
    /// Before anything is unpacked into it.
    ///
    /// # Safety
    /// `V` may be used.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        // SAFETY: the caller's.
        let (zero, none) = unsafe { (V::splat(0.0), V::none()) };
        Packed {
            values: [[none; 8]; DEPTH],
            scales: [[zero; 2]; DEPTH],
            minimums: [[zero; 2]; DEPTH],
        }
    }
}

/// `H` registers of rows × `T` tokens at a time.
///
/// # Safety
/// `tile` has been checked, its format unpacks, by `unpack` where that is given, to parts of the kind that the constants describe, and `V` may be used.
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
    unpack: Option<Unpack>,
) {
    // SAFETY: the caller's; all indices below lie inside the checked shapes.
    unsafe {
        let mut packed: [Packed<V>; H] = std::array::from_fn(|_| Packed::new());
        let count = tile.cols / PART;
        for row in (0..tile.rows).step_by(H * V::LANES) {
            let left = tile.rows - row;
            for first in (0..count).step_by(DEPTH) {
                let depth = DEPTH.min(count - first);
                for (h, packed) in packed.iter_mut().enumerate().take(left.div_ceil(V::LANES)) {
                    let row = row + h * V::LANES;
                    unpack_rows::<V>(tile, packed, row, H, first..first + depth, unpack);
                }
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

/// Unpacks the parts in `span` of a register's rows from `row`, or of those that there are, by `unpack` if it is given and all are there. What is
/// wanted next lies `registers` registers of rows further.
///
/// # Safety
/// As for [`product`]; `span` is no longer than [`DEPTH`] and inside a row.
#[inline(always)]
pub(super) unsafe fn unpack_rows<V: RowLanes>(
    tile: &Tile<'_>,
    packed: &mut Packed<V>,
    row: usize,
    registers: usize,
    span: Range<usize>,
    unpack: Option<Unpack>,
) {
    let left = tile.rows - row;
    let at = span.start * PART / tile.format.block * tile.format.block_bytes;
    // SAFETY: the caller's.
    unsafe {
        match unpack {
            Some(unpack) if V::LANES <= left => {
                let rows = rows::<V>(tile, row, registers, at);
                let packed: *mut Packed<V> = packed;
                unpack(rows, tile.format.block_bytes, span.len(), packed.cast());
            }
            _ => {
                let start = row * tile.row_bytes + at;
                by_rows::<V>(tile, packed, start, left.min(V::LANES), span.len());
            }
        }
    }
}

/// A register of rows from `row`, at byte `at` of each. What is wanted next lies `registers` registers of rows further.
#[inline(always)]
pub(super) fn rows<V: RowLanes>(tile: &Tile<'_>, row: usize, registers: usize, at: usize) -> Rows {
    let first = tile.bytes[row * tile.row_bytes + at..].as_ptr();
    let next = (row + registers * V::LANES) * tile.row_bytes + V::LANES * at;
    Rows {
        first,
        stride: tile.row_bytes,
        begin: first,
        next: tile.bytes.as_ptr().wrapping_add(next),
    }
}

/// Unpacks `depth` parts of `count` rows by the format's scalar code; the first row's blocks begin at `start` of the tile's bytes.
#[inline(never)]
unsafe fn by_rows<V: RowLanes>(
    tile: &Tile<'_>,
    packed: &mut Packed<V>,
    start: usize,
    count: usize,
    depth: usize,
) {
    const MAX_LANES: usize = 16;
    const { assert!(V::LANES <= MAX_LANES) };
    let Dot::Parts(format) = tile.format.dot else {
        unreachable!("the caller's format unpacks to parts");
    };
    let bytes = depth * PART / tile.format.block * tile.format.block_bytes;
    let mut parts = [[Part::ZERO; DEPTH]; MAX_LANES];
    for (r, parts) in parts[..count].iter_mut().enumerate() {
        let blocks = &tile.bytes[start + r * tile.row_bytes..][..bytes];
        (format.unpack)(blocks, &mut parts[..depth]);
    }
    for at in 0..depth {
        // SAFETY: the caller's: a register has at most as many lanes as there are rows of `parts`, and 32 values lie in each.
        unsafe {
            for half in 0..2 {
                let scales = parts.each_ref().map(|parts| parts[at].scales[half]);
                let minimums = parts.each_ref().map(|parts| parts[at].minimums[half]);
                packed.scales[at][half] = V::load(scales.as_ptr());
                packed.minimums[at][half] = V::load(minimums.as_ptr());
                let first = parts[0][at].values[half * 16..].as_ptr().cast();
                let rows = Rows {
                    first,
                    stride: size_of::<[Part; DEPTH]>(),
                    begin: first,
                    next: first,
                };
                for (g, bytes) in V::bytes16(rows).into_iter().enumerate() {
                    packed.values[at][half * 4 + g] = match format.kind {
                        Kind::Plain => V::plain(bytes, 0),
                        Kind::Wide | Kind::Halves => V::signed(bytes, 0),
                        Kind::Minimums | Kind::HalvesMinimums => bytes,
                    };
                }
            }
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
    packed: &[Packed<V>; H],
    row: usize,
    span: Range<usize>,
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
        for (part, at) in span.enumerate().take(DEPTH) {
            let block: [usize; T] = std::array::from_fn(|t| (token + t) * count + at);
            let values = block.map(|block| x.values.as_ptr().add(block * PART));
            let scales = block.map(|block| *x.scales.get_unchecked(block));
            let sums = block.map(|block| *x.sums.get_unchecked(block));
            let sums: [[i32; 2]; T] =
                std::array::from_fn(|t| halves::<V, HALVES, MINIMUMS>(values[t], sums[t]));
            for h in 0..H {
                let weights = &packed[h].values[part];
                let products = dots::<V, T, HALVES, MINIMUMS, WIDE>(weights, values, sums);
                for t in 0..T {
                    totals[t][h] = add_part::<V, HALVES, MINIMUMS>(
                        totals[t][h],
                        &packed[h].scales[part],
                        &packed[h].minimums[part],
                        products[t],
                        scales[t],
                        sums[t],
                    );
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

/// What the halves of the 32 activations at `x` add up to, `sum` in all, where a part's terms need it of each; else all of it stands first.
#[inline(always)]
pub(super) unsafe fn halves<V: RowLanes, const HALVES: bool, const MINIMUMS: bool>(
    x: *const i8,
    sum: i32,
) -> [i32; 2] {
    if HALVES && (MINIMUMS || V::SUMS) {
        // SAFETY: the caller's.
        let low = unsafe { V::sum16(x) };
        return [low, sum - low];
    }
    [sum, 0]
}

/// The products of a part with the 32 activations at `x` of each token: its halves', or else all of them and nothing. Weights are signed where there
/// are no minimums.
#[inline(always)]
pub(super) unsafe fn dots<
    V: RowLanes,
    const T: usize,
    const HALVES: bool,
    const MINIMUMS: bool,
    const WIDE: bool,
>(
    weights: &[V::Bytes; 8],
    x: [*const i8; T],
    x_sums: [[i32; 2]; T],
) -> [[V::Sums; 2]; T] {
    // Not `map`, which the compiler may leave a call in these loops.
    let low_sums: [i32; T] = std::array::from_fn(|t| x_sums[t][0]);
    let high_sums: [i32; T] = std::array::from_fn(|t| x_sums[t][1]);
    // SAFETY: the caller's.
    unsafe {
        if HALVES {
            let (low, high) = weights.split_at(4);
            let x_high: [*const i8; T] = std::array::from_fn(|t| x[t].add(PART / 2));
            let (first, second) = if MINIMUMS {
                (
                    V::dots::<T, false, WIDE>(low, x, low_sums),
                    V::dots::<T, false, WIDE>(high, x_high, high_sums),
                )
            } else {
                (
                    V::dots::<T, true, WIDE>(low, x, low_sums),
                    V::dots::<T, true, WIDE>(high, x_high, high_sums),
                )
            };
            std::array::from_fn(|t| [first[t], second[t]])
        } else {
            let all = if MINIMUMS {
                V::dots32::<T, false, WIDE>(weights, x, low_sums)
            } else {
                V::dots32::<T, true, WIDE>(weights, x, low_sums)
            };
            std::array::from_fn(|t| [all[t], V::nothing()])
        }
    }
}

/// `total` and a part's terms: the products with the activations under their scales, and the minimums' shares. Without halves, all of the products
/// and of the activations' sum stand first.
#[inline(always)]
pub(super) unsafe fn add_part<V: RowLanes, const HALVES: bool, const MINIMUMS: bool>(
    total: V::Floats,
    scales: &[V::Floats; 2],
    minimums: &[V::Floats; 2],
    [first, second]: [V::Sums; 2],
    x_scale: f32,
    x_sums: [i32; 2],
) -> V::Floats {
    // SAFETY: the caller's.
    unsafe {
        let wide_scale = V::splat(x_scale);
        let mut total = total;
        if HALVES {
            total = V::add_term(total, scales[0], wide_scale, first);
            if MINIMUMS {
                total = V::add_product(total, minimums[0], V::splat(x_scale * x_sums[0] as f32));
            }
            total = V::add_term(total, scales[1], wide_scale, second);
            if MINIMUMS {
                total = V::add_product(total, minimums[1], V::splat(x_scale * x_sums[1] as f32));
            }
        } else {
            total = V::add_term(total, scales[0], wide_scale, first);
            if MINIMUMS {
                total = V::add_product(total, minimums[0], V::splat(x_scale * x_sums[0] as f32));
            }
        }
        total
    }
}

impl<V: RowLanes> Sink<V> for Packed<V> {
    #[inline(always)]
    unsafe fn scales(&mut self, part: usize, scales: [V::Floats; 2]) {
        self.scales[part] = scales;
    }
    #[inline(always)]
    unsafe fn minimums(&mut self, part: usize, minimums: [V::Floats; 2]) {
        self.minimums[part] = minimums;
    }
    #[inline(always)]
    unsafe fn values(&mut self, part: usize, values: [V::Bytes; 8]) {
        self.values[part] = values;
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
