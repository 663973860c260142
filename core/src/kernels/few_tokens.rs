//! The product of one token or a few with the formats that unpack to parts: registers of rows go from memory straight into it, nothing is stored
//! in between. All kernels here take whole registers of rows; those that are left over are for [`super::block_product::product`].

use super::block_product::{add_part, dots, halves, rows};
use super::kinds::PartKind;
use super::product::Tile;
use super::row_lanes::RowLanes;
use super::unpack::{Lanewise, Sink, ask_ahead};
use crate::quant::blocks::PART;
use std::marker::PhantomData;

/// Parts of a superblock.
const PARTS: usize = 8;

/// From one token to `FEW`, of which several only with a format whose blocks are single parts.
///
/// # Safety
/// As for [`super::block_product::product`]; the tile has no more tokens.
#[inline(always)]
pub(super) unsafe fn few_tokens<F: Lanewise, V: RowLanes, const FEW: usize>(tile: &Tile<'_>) {
    const {
        assert!(F::PARTS == 1 && FEW <= 8 || F::PARTS == PARTS && FEW == 1);
        assert!(F::PARTS > 1 || !F::Kind::HALVES);
    }
    // SAFETY: the caller's.
    unsafe {
        match tile.tokens {
            1 if F::PARTS > 1 => superblocks::<F, V>(tile),
            2 if FEW >= 2 => single_parts::<F, V, 2>(tile),
            3 if FEW >= 3 => single_parts::<F, V, 3>(tile),
            4 if FEW >= 4 => single_parts::<F, V, 4>(tile),
            5 if FEW >= 5 => single_parts::<F, V, 5>(tile),
            6 if FEW >= 6 => single_parts::<F, V, 6>(tile),
            7 if FEW >= 7 => single_parts::<F, V, 7>(tile),
            8 if FEW >= 8 => single_parts::<F, V, 8>(tile),
            _ => single_parts::<F, V, 1>(tile),
        }
    }
}

/// `T` tokens, with a format whose blocks are single parts.
#[inline(always)]
unsafe fn single_parts<F: Lanewise, V: RowLanes, const T: usize>(tile: &Tile<'_>) {
    let (blocks, x) = (tile.cols / PART, &tile.int8);
    // SAFETY: the caller's; all indices lie inside the checked shapes.
    unsafe {
        let x_values: [*const i8; T] =
            std::array::from_fn(|t| x.values.as_ptr().add(t * tile.cols));
        let x_scales: [*const f32; T] = std::array::from_fn(|t| x.scales.as_ptr().add(t * blocks));
        let x_sums: [*const i32; T] = std::array::from_fn(|t| x.sums.as_ptr().add(t * blocks));
        for row in (0..tile.rows / V::LANES * V::LANES).step_by(V::LANES) {
            let mut totals = [V::splat(0.0); T];
            let mut rows = rows::<V>(tile, row, 1, 0);
            for block in 0..blocks {
                ask_ahead::<V>(rows, F::BYTES);
                let mut part = Products::<V, F::Kind, T> {
                    x: std::array::from_fn(|t| x_values[t].add(block * PART)),
                    x_sums: std::array::from_fn(|t| [*x_sums[t].add(block), 0]),
                    scales: [V::splat(0.0); 2],
                    minimums: [V::splat(0.0); 2],
                    products: [[V::nothing(); 2]; T],
                    kind: PhantomData,
                };
                F::block::<V, _>(rows, &mut part);
                for t in 0..T {
                    totals[t] = add_part::<V, F::Kind>(
                        totals[t],
                        &part.scales,
                        &part.minimums,
                        part.products[t],
                        *x_scales[t].add(block),
                        part.x_sums[t],
                    );
                }
                rows = rows.at(F::BYTES);
            }
            for t in 0..T {
                V::store(totals[t], tile.out.add(t * tile.stride + row));
            }
        }
    }
}

/// The products of a part without halves with `T` tokens.
struct Products<V: RowLanes, K, const T: usize> {
    /// Each token's activations
    x: [*const i8; T],
    /// What these add up to, and nothing
    x_sums: [[i32; 2]; T],
    /// `[half]`
    scales: [V::Floats; 2],
    /// `[half]`
    minimums: [V::Floats; 2],
    /// `[token, half]`
    products: [[V::Sums; 2]; T],
    kind: PhantomData<K>,
}

impl<V: RowLanes, K: PartKind, const T: usize> Sink<V> for Products<V, K, T> {
    #[inline(always)]
    unsafe fn scales(&mut self, _part: usize, scales: [V::Floats; 2]) {
        self.scales = scales;
    }
    #[inline(always)]
    unsafe fn minimums(&mut self, _part: usize, minimums: [V::Floats; 2]) {
        self.minimums = minimums;
    }
    #[inline(always)]
    unsafe fn values(&mut self, _part: usize, values: [V::Bytes; 8]) {
        // SAFETY: the caller's: every token has such a part.
        let products = unsafe { dots::<V, K, 1, T>([&values], self.x, self.x_sums) };
        for t in 0..T {
            self.products[t] = products[t][0];
        }
    }
}

/// One token, with a format whose blocks are several parts.
#[inline(always)]
unsafe fn superblocks<F: Lanewise, V: RowLanes>(tile: &Tile<'_>) {
    let x = &tile.int8;
    // SAFETY: the caller's; all indices lie inside the checked shapes.
    unsafe {
        let mut terms = Terms::<V, F::Kind>::new();
        for row in (0..tile.rows / V::LANES * V::LANES).step_by(V::LANES) {
            let mut total = V::splat(0.0);
            for block in 0..tile.cols / PART / F::PARTS {
                let first = block * F::PARTS;
                let rows = rows::<V>(tile, row, 1, block * F::BYTES);
                terms.begin(
                    x.values.as_ptr().add(first * PART),
                    &x.sums[first..][..F::PARTS],
                );
                F::block::<V, _>(rows, &mut terms);
                for part in 0..F::PARTS {
                    total = add_part::<V, F::Kind>(
                        total,
                        &terms.scales[part],
                        &terms.minimums[part],
                        terms.sums[part],
                        *x.scales.get_unchecked(first + part),
                        terms.x_sums[part],
                    );
                }
            }
            V::store(total, tile.out.add(row));
        }
    }
}

/// What the terms of a superblock's parts are made of, for one token and a register of rows.
pub(super) struct Terms<V: RowLanes, K: PartKind> {
    /// The activations of the first part
    x: *const i8,
    /// `[part, half]`, the activations' sums; where halves have no need of their own, the first stands for both
    pub(super) x_sums: [[i32; 2]; PARTS],
    /// `[part, half]`
    pub(super) scales: [[V::Floats; 2]; PARTS],
    /// `[part, half]`
    pub(super) minimums: [[V::Floats; 2]; PARTS],
    /// `[part, half]`
    pub(super) sums: [[V::Sums; 2]; PARTS],
    kind: PhantomData<K>,
}

impl<V: RowLanes, K: PartKind> Terms<V, K> {
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        // SAFETY: the caller's: `V` may be used.
        unsafe {
            let (zero, nothing) = (V::splat(0.0), V::nothing());
            Terms {
                x: std::ptr::null(),
                x_sums: [[0; 2]; PARTS],
                scales: [[zero; 2]; PARTS],
                minimums: [[zero; 2]; PARTS],
                sums: [[nothing; 2]; PARTS],
                kind: PhantomData,
            }
        }
    }

    /// Begins with `sums.len()` parts, whose activations are `x` and add up to `sums`.
    #[inline(always)]
    pub(super) unsafe fn begin(&mut self, x: *const i8, sums: &[i32]) {
        self.x = x;
        for (part, (x_sums, sum)) in self.x_sums.iter_mut().zip(sums).enumerate() {
            // SAFETY: the caller's: 32 activations for each part.
            *x_sums = unsafe { halves::<V, K>(x.add(part * PART), *sum) };
        }
    }
}

impl<V: RowLanes, K: PartKind> Sink<V> for Terms<V, K> {
    #[inline(always)]
    unsafe fn scales(&mut self, part: usize, scales: [V::Floats; 2]) {
        self.scales[part][0] = scales[0];
        if K::HALVES {
            self.scales[part][1] = scales[1];
        }
    }
    #[inline(always)]
    unsafe fn minimums(&mut self, part: usize, minimums: [V::Floats; 2]) {
        self.minimums[part][0] = minimums[0];
        if K::HALVES {
            self.minimums[part][1] = minimums[1];
        }
    }
    #[inline(always)]
    unsafe fn values(&mut self, part: usize, values: [V::Bytes; 8]) {
        // SAFETY: the caller's: 32 activations for each part.
        unsafe {
            let x = self.x.add(part * PART);
            let x_sums = self.x_sums[part];
            [[self.sums[part]]] = dots::<V, K, 1, 1>([&values], [x], [x_sums]);
        }
    }
}
