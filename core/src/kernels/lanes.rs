//! Products and attention in floating point, written once over sixteen f32 lanes: one register of AVX-512, two of AVX2, four of NEON.
//!
//! The order of the additions is the scalar code's: value `i` goes to lane `i mod 16`, the lanes are added by halves at the end.

use super::product::Tile;
use crate::quant::floats::{Bf16, F16, F32};
use half::f16;

/// Sixteen f32 lanes. Every method may be called only where the processor has the implementor's instructions, from a function that is
/// compiled for them; pointers must be valid for what they say, at any alignment.
pub(super) trait Lanes: Copy {
    unsafe fn splat(value: f32) -> Self;
    /// Sixteen f32 at `from`.
    unsafe fn load(from: *const f32) -> Self;
    /// Sixteen binary16 at `from`, widened.
    unsafe fn load_f16(from: *const u16) -> Self;
    /// Sixteen bfloat16 at `from`, widened.
    unsafe fn load_bf16(from: *const u16) -> Self;
    /// Sixteen signed bytes at `from`.
    unsafe fn load_i8(from: *const i8) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// Rounded to sixteen binary16 at `to`, ties to even.
    unsafe fn store_f16(self, to: *mut u16);
    /// `self · b + c`, fused.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// Asks for the cache line at `address`, which need not be valid.
    #[inline(always)]
    fn prefetch(_address: *const u8) {}
    /// All lanes added: `i` with `i + 8`, then `i + 4`, `i + 2`, `i + 1`.
    unsafe fn sum(self) -> f32;
    /// Whether there is room for twenty of them beside what a loop needs.
    const MANY: bool = false;
}

/// How a format's values are loaded.
pub(super) trait Widen {
    type Stored: Copy + Default;
    /// Sixteen values at `from`.
    ///
    /// # Safety
    /// They are there, and [`Lanes`] may be used.
    unsafe fn load<L: Lanes>(from: *const Self::Stored) -> L;

    /// The first `count` of sixteen values at `from`, the others zero.
    ///
    /// # Safety
    /// They are there, and [`Lanes`] may be used.
    #[inline(always)]
    unsafe fn load_part<L: Lanes>(from: *const Self::Stored, count: usize) -> L {
        let mut values = [Self::Stored::default(); 16];
        // SAFETY: the caller's, and `count` is below sixteen. The copy is by bytes, so alignment does not matter.
        unsafe {
            std::ptr::copy_nonoverlapping(
                from.cast::<u8>(),
                values.as_mut_ptr().cast::<u8>(),
                count.min(16) * size_of::<Self::Stored>(),
            );
            Self::load(values.as_ptr())
        }
    }
}

impl Widen for F32 {
    type Stored = f32;
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const f32) -> L {
        // SAFETY: the caller's.
        unsafe { L::load(from) }
    }
}

impl Widen for F16 {
    type Stored = u16;
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u16) -> L {
        // SAFETY: the caller's.
        unsafe { L::load_f16(from) }
    }
}

impl Widen for Bf16 {
    type Stored = u16;
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u16) -> L {
        // SAFETY: the caller's.
        unsafe { L::load_bf16(from) }
    }
}

/// Most tokens for which the weights are waited for.
const FEW: usize = 8;

/// A product in floating point, in register tiles of `R` rows × `T` tokens.
///
/// # Safety
/// `tile` has been checked, and `L` may be used.
#[inline(always)]
pub(super) unsafe fn product<L: Lanes, W: Widen, const R: usize, const T: usize>(tile: &Tile<'_>) {
    /// Activations that stay in the second-level cache while a group of rows passes over them.
    const CACHED: usize = 64 << 10; // f32 values
    let group = (CACHED / tile.cols.max(1))
        .clamp(1, 1 << 16)
        .next_multiple_of(T);
    for first in (0..tile.tokens).step_by(group) {
        let end = tile.tokens.min(first + group);
        let mut row = 0;
        while row < tile.rows {
            // SAFETY: the caller's; each call stays inside the rows and tokens that are left.
            unsafe {
                if row + R <= tile.rows {
                    tokens::<L, W, R, T>(tile, row, first, end);
                    row += R;
                } else {
                    tokens::<L, W, 1, T>(tile, row, first, end);
                    row += 1;
                }
            }
        }
    }
}

/// Tokens of the next tile, of `left` that are left: at most `T`, and at the end two tiles of about one size, as one of a single token costs as much
/// as one of several.
#[inline(always)]
fn tile_tokens<const T: usize>(left: usize) -> usize {
    if left > T && left < 2 * T {
        left.div_ceil(2)
    } else {
        left.min(T)
    }
}

#[inline(always)]
unsafe fn tokens<L: Lanes, W: Widen, const R: usize, const T: usize>(
    tile: &Tile<'_>,
    row: usize,
    first: usize,
    end: usize,
) {
    const {
        assert!(T <= 6);
    }
    let mut token = first;
    while token < end {
        let count = tile_tokens::<T>(end - token);
        // SAFETY: the caller's.
        unsafe {
            match count {
                1 => dots::<L, W, R, 1>(tile, row, token),
                2 => dots::<L, W, R, 2>(tile, row, token),
                3 => dots::<L, W, R, 3>(tile, row, token),
                4 if T >= 4 => dots::<L, W, R, 4>(tile, row, token),
                5 if T >= 5 => dots::<L, W, R, 5>(tile, row, token),
                _ => dots::<L, W, R, T>(tile, row, token),
            }
        }
        token += count;
    }
}

/// `R` rows from `row` × `T` tokens from `token`.
#[inline(always)]
unsafe fn dots<L: Lanes, W: Widen, const R: usize, const T: usize>(
    tile: &Tile<'_>,
    row: usize,
    token: usize,
) {
    let cols = tile.cols;
    // A few tokens wait for memory: the next rows lie behind these.
    let asks = token == 0 && tile.tokens <= FEW;
    // SAFETY: the caller's: `R` rows and `T` tokens of `cols` values are there.
    unsafe {
        let weights: [*const W::Stored; R] =
            std::array::from_fn(|r| tile.bytes.as_ptr().add((row + r) * tile.row_bytes).cast());
        let x: [*const f32; T] =
            std::array::from_fn(|t| tile.float.as_ptr().add((token + t) * cols));
        let mut sums = [[L::splat(0.0); T]; R];
        let whole = cols / 16 * 16;
        let mut at = 0;
        let step = R * 16 * size_of::<W::Stored>();
        let mut next = weights[0].cast::<u8>().wrapping_add(R * tile.row_bytes);
        while at < whole {
            if asks {
                for line in (0..step).step_by(64) {
                    L::prefetch(next.wrapping_add(line));
                }
                next = next.wrapping_add(step);
            }
            let x: [L; T] = std::array::from_fn(|t| L::load(x[t].add(at)));
            for r in 0..R {
                let weight = W::load::<L>(weights[r].byte_add(at * size_of::<W::Stored>()));
                for t in 0..T {
                    sums[r][t] = weight.mul_add(x[t], sums[r][t]);
                }
            }
            at += 16;
        }
        if whole < cols {
            let count = cols - whole;
            for r in 0..R {
                let weight =
                    W::load_part::<L>(weights[r].byte_add(whole * size_of::<W::Stored>()), count);
                for t in 0..T {
                    let x = F32::load_part::<L>(x[t].add(whole), count);
                    sums[r][t] = weight.mul_add(x, sums[r][t]);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (t, sum) in sums.iter().enumerate() {
                *tile.out.add((token + t) * tile.stride + row + r) = sum.sum();
            }
        }
    }
}

/// [`super::scalar::narrow`].
///
/// # Safety
/// Lengths have been checked, and `L` may be used.
#[inline(always)]
pub(super) unsafe fn narrow<L: Lanes>(source: &[f32], out: &mut [f16]) {
    let whole = source.len() / 16 * 16;
    // SAFETY: both are as long as each other.
    unsafe {
        for at in (0..whole).step_by(16) {
            L::load(source.as_ptr().add(at)).store_f16(out.as_mut_ptr().add(at).cast());
        }
        let mut rest = [0u16; 16];
        F32::load_part::<L>(source.as_ptr().add(whole), source.len() - whole)
            .store_f16(rest.as_mut_ptr());
        for (out, bits) in out[whole..].iter_mut().zip(rest) {
            *out = f16::from_bits(bits);
        }
    }
}
