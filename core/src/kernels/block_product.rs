//! The product of the formats that unpack to parts ([`crate::quant::blocks`]), written once over registers with one row per lane.
//!
//! Some rows are unpacked [`DEPTH`] parts at a time, transposed, and multiplied with all tokens while they stay in the first-level cache. The
//! order of the additions is the scalar code's.

use super::kinds::{self, PartKind};
use super::product::{Rows, Tile, Unpack};
use super::row_lanes::RowLanes;
use super::unpack::Sink;
use crate::quant::Dot;
use crate::quant::blocks::{Kind, PART, Part};
use std::ops::Range;

/// Parts that are unpacked at a time: two blocks of 256 values.
const DEPTH: usize = 16;

/// Unpacked weights of a register of rows.
pub(super) struct Packed<V: RowLanes> {
    /// `[part, group]`: register `g` of a part holds values `4g .. 4g + 4`; signed ones as [`RowLanes::signed`] gives them
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
/// `tile` has been checked, its format unpacks, by `unpack` where that is given, to parts of kind `K`, and `V` may be used.
#[inline(always)]
pub(super) unsafe fn product<V: RowLanes, K: PartKind, const H: usize, const T: usize>(
    tile: &Tile<'_>,
    unpack: Option<Unpack>,
) {
    const { assert!(T <= 4) };
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
                    some_tokens::<V, K, H, T>(tile, &packed, row, span.clone(), token);
                    token += T;
                }
                match tile.tokens - token {
                    1 => some_tokens::<V, K, H, 1>(tile, &packed, row, span, token),
                    2 if T > 2 => some_tokens::<V, K, H, 2>(tile, &packed, row, span, token),
                    3 if T > 3 => some_tokens::<V, K, H, 3>(tile, &packed, row, span, token),
                    _ => {}
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
                unpack(rows, span.len(), packed.cast());
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
    let first = tile.bytes[row * tile.row_bytes..].as_ptr();
    Rows {
        first,
        stride: tile.row_bytes,
        at,
        next: first.wrapping_add(registers * V::LANES * tile.row_bytes),
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
                    at: 0,
                    next: first,
                };
                for (g, bytes) in V::bytes16(rows).into_iter().enumerate() {
                    packed.values[at][half * 4 + g] = match format.kind {
                        Kind::Narrow => V::signed::<kinds::Narrow>(bytes, 0),
                        Kind::Plain => V::signed::<kinds::Plain>(bytes, 0),
                        Kind::Wide => V::signed::<kinds::Wide>(bytes, 0),
                        Kind::Halves => V::signed::<kinds::Halves>(bytes, 0),
                        Kind::Minimums | Kind::HalvesMinimums => bytes,
                    };
                }
            }
        }
    }
}

/// The packed rows × `T` tokens, of the parts in `span`.
#[inline(always)]
unsafe fn some_tokens<V: RowLanes, K: PartKind, const H: usize, const T: usize>(
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
        let first: [usize; T] = std::array::from_fn(|t| (token + t) * count + span.start);
        let x_values = first.map(|first| x.values.as_ptr().add(first * PART));
        let x_scales = first.map(|first| x.scales.as_ptr().add(first));
        let x_sums = first.map(|first| x.sums.as_ptr().add(first));
        let mut totals = [[V::splat(0.0); H]; T];
        if span.start > 0 {
            for t in 0..T {
                for h in 0..H {
                    totals[t][h] = reload::<V>(out[t], tile.rows - row, h);
                }
            }
        }
        for part in 0..span.len().min(DEPTH) {
            let values: [*const i8; T] = std::array::from_fn(|t| x_values[t].add(part * PART));
            let sums: [[i32; 2]; T] =
                std::array::from_fn(|t| halves::<V, K>(values[t], *x_sums[t].add(part)));
            let weights: [&[V::Bytes; 8]; H] = std::array::from_fn(|h| &packed[h].values[part]);
            let products = dots::<V, K, H, T>(weights, values, sums);
            for t in 0..T {
                for h in 0..H {
                    totals[t][h] = add_part::<V, K>(
                        totals[t][h],
                        &packed[h].scales[part],
                        &packed[h].minimums[part],
                        products[t][h],
                        *x_scales[t].add(part),
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
pub(super) unsafe fn halves<V: RowLanes, K: PartKind>(x: *const i8, sum: i32) -> [i32; 2] {
    if K::HALVES && (K::MINIMUMS || V::SUMS) {
        // SAFETY: the caller's.
        let low = unsafe { V::sum16(x) };
        return [low, sum - low];
    }
    [sum, 0]
}

/// The products of a part of `H` registers of rows with the 32 activations at `x` of each token: its halves', or else all of them and nothing.
#[inline(always)]
pub(super) unsafe fn dots<V: RowLanes, K: PartKind, const H: usize, const T: usize>(
    weights: [&[V::Bytes; 8]; H],
    x: [*const i8; T],
    x_sums: [[i32; 2]; T],
) -> [[[V::Sums; 2]; H]; T] {
    // Not `map`, which the compiler may leave a call in these loops.
    let low_sums: [i32; T] = std::array::from_fn(|t| x_sums[t][0]);
    // SAFETY: the caller's.
    unsafe {
        let mut products = [[[V::nothing(); 2]; H]; T];
        if K::HALVES {
            let high_sums: [i32; T] = std::array::from_fn(|t| x_sums[t][1]);
            let x_high: [*const i8; T] = std::array::from_fn(|t| x[t].add(PART / 2));
            let low: [&[V::Bytes; 4]; H] = std::array::from_fn(|h| &weights[h].as_chunks().0[0]);
            let high: [&[V::Bytes; 4]; H] = std::array::from_fn(|h| &weights[h].as_chunks().0[1]);
            let first = V::dots::<K, 4, H, T>(low, x, low_sums);
            let second = V::dots::<K, 4, H, T>(high, x_high, high_sums);
            for t in 0..T {
                for h in 0..H {
                    products[t][h] = [first[t][h], second[t][h]];
                }
            }
        } else {
            let all = V::dots::<K, 8, H, T>(weights, x, low_sums);
            for t in 0..T {
                for h in 0..H {
                    products[t][h][0] = all[t][h];
                }
            }
        }
        products
    }
}

/// `total` and a part's terms: the products with the activations under their scales, and the minimums' shares. Without halves, all of the products
/// and of the activations' sum stand first.
#[inline(always)]
pub(super) unsafe fn add_part<V: RowLanes, K: PartKind>(
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
        if K::HALVES {
            total = V::add_term(total, scales[0], wide_scale, first);
            if K::MINIMUMS {
                total = V::add_product(total, minimums[0], V::splat(x_scale * x_sums[0] as f32));
            }
            total = V::add_term(total, scales[1], wide_scale, second);
            if K::MINIMUMS {
                total = V::add_product(total, minimums[1], V::splat(x_scale * x_sums[1] as f32));
            }
        } else {
            total = V::add_term(total, scales[0], wide_scale, first);
            if K::MINIMUMS {
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
