//! One token's product with the formats that unpack to parts: registers of rows go from memory straight into it.

use super::block_product::{DEPTH, add_part, dots, halves, rows};
use super::product::Tile;
use super::row_lanes::RowLanes;
use super::unpack::{Lanewise, Sink, blocks};
use crate::quant::blocks::{Kind, PART};

/// One token's product with whole registers of rows, which a kernel for [`Lanewise`] format `F` unpacks straight into it: nothing is stored in
/// between. The rows that are left over are for [`super::block_product::product`].
///
/// # Safety
/// As for [`super::block_product::product`]; the tile has one token.
#[inline(always)]
pub(super) unsafe fn one_token<
    F: Lanewise,
    V: RowLanes,
    const HALVES: bool,
    const MINIMUMS: bool,
    const WIDE: bool,
>(
    tile: &Tile<'_>,
) {
    const {
        assert!(F::KIND.halves() == HALVES && F::KIND.minimums() == MINIMUMS);
        assert!(matches!(F::KIND, Kind::Wide) == WIDE);
    }
    let (count, x) = (tile.cols / PART, &tile.int8);
    let bytes = |parts: usize| parts * PART / tile.format.block * tile.format.block_bytes;
    // SAFETY: the caller's; all indices lie inside the checked shapes.
    unsafe {
        let mut terms = Terms::<V, HALVES, MINIMUMS, WIDE>::new();
        for row in (0..tile.rows / V::LANES * V::LANES).step_by(V::LANES) {
            let mut total = V::splat(0.0);
            for first in (0..count).step_by(DEPTH) {
                let depth = DEPTH.min(count - first);
                let rows = rows::<V>(tile, row, 1, bytes(first));
                terms.begin(
                    x.values.as_ptr().add(first * PART),
                    &x.sums[first..][..depth],
                );
                blocks::<F, V, _>(rows, tile.format.block_bytes, depth, &mut terms);
                for part in 0..depth {
                    total = add_part::<V, HALVES, MINIMUMS>(
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

/// What a part's terms are made of, for one token and a register of rows.
pub(super) struct Terms<V: RowLanes, const HALVES: bool, const MINIMUMS: bool, const WIDE: bool> {
    /// The activations of the first part
    x: *const i8,
    /// `[part, half]`, the activations' sums; where halves have no need of their own, the first stands for both
    pub(super) x_sums: [[i32; 2]; DEPTH],
    /// `[part, half]`
    pub(super) scales: [[V::Floats; 2]; DEPTH],
    /// `[part, half]`
    pub(super) minimums: [[V::Floats; 2]; DEPTH],
    /// `[part, half]`
    pub(super) sums: [[V::Sums; 2]; DEPTH],
}

impl<V: RowLanes, const HALVES: bool, const MINIMUMS: bool, const WIDE: bool>
    Terms<V, HALVES, MINIMUMS, WIDE>
{
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        // SAFETY: the caller's: `V` may be used.
        unsafe {
            let (zero, nothing) = (V::splat(0.0), V::nothing());
            Terms {
                x: std::ptr::null(),
                x_sums: [[0; 2]; DEPTH],
                scales: [[zero; 2]; DEPTH],
                minimums: [[zero; 2]; DEPTH],
                sums: [[nothing; 2]; DEPTH],
            }
        }
    }

    /// Begins with `sums.len()` parts, whose activations are `x` and add up to `sums`.
    #[inline(always)]
    pub(super) unsafe fn begin(&mut self, x: *const i8, sums: &[i32]) {
        self.x = x;
        for (part, (x_sums, sum)) in self.x_sums.iter_mut().zip(sums).enumerate() {
            // SAFETY: the caller's: 32 activations for each part.
            *x_sums = unsafe { halves::<V, HALVES, MINIMUMS>(x.add(part * PART), *sum) };
        }
    }
}

impl<V: RowLanes, const HALVES: bool, const MINIMUMS: bool, const WIDE: bool> Sink<V>
    for Terms<V, HALVES, MINIMUMS, WIDE>
{
    #[inline(always)]
    unsafe fn scales(&mut self, part: usize, scales: [V::Floats; 2]) {
        self.scales[part][0] = scales[0];
        if HALVES {
            self.scales[part][1] = scales[1];
        }
    }
    #[inline(always)]
    unsafe fn minimums(&mut self, part: usize, minimums: [V::Floats; 2]) {
        self.minimums[part][0] = minimums[0];
        if HALVES {
            self.minimums[part][1] = minimums[1];
        }
    }
    #[inline(always)]
    unsafe fn values(&mut self, part: usize, values: [V::Bytes; 8]) {
        // SAFETY: the caller's: 32 activations for each part.
        unsafe {
            let x = self.x.add(part * PART);
            let x_sums = self.x_sums[part];
            [self.sums[part]] = dots::<V, 1, HALVES, MINIMUMS, WIDE>(&values, [x], [x_sums]);
        }
    }
}
