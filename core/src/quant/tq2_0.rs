//! TQ2_0: 256 ternary values of two bits and one binary16 scale; value = scale · (code − 1). Codes lie as in Q2_K. A code of 3, which no
//! writer makes, stands for 2 · scale.
//!
//! Layout and rounding follow GGML's `quantize_row_tq2_0_ref`: scale = max|x|, halves away from zero.

use super::blocks::{self, Block, Kind, Part, half_at, put_half};
use super::search::{extreme, mean_square, nearest, scale, weights};
use super::superblock::{VALUES, put_two_bits, two_bits};
use super::{Format, inverse};

pub(crate) const BYTES: usize = 66;

/// One block as it lies in a file.
#[repr(C)]
#[allow(dead_code, reason = "fixes the layout that the offsets below rely on")]
struct Layout {
    codes: [u8; VALUES / 4],
    scale: [u8; 2],
}
const _: () = assert!(size_of::<Layout>() == BYTES && std::mem::offset_of!(Layout, scale) == 64);

pub(super) const FORMAT: Format = blocks::format::<Tq2_0, VALUES, BYTES>("tq2_0", 35);

pub(crate) struct Tq2_0;

impl Block<VALUES, BYTES> for Tq2_0 {
    const KIND: Kind = Kind::Narrow;

    #[inline(always)]
    fn unpack(block: &[u8; BYTES], index: usize) -> Part {
        let codes = two_bits(block, index);
        Part {
            values: std::array::from_fn(|i| codes[i] as i8 - 1),
            scales: [half_at(block, 64); 2],
            minimums: [0.0; 2],
        }
    }

    fn quantize(
        source: &[f32; VALUES],
        importance: Option<&[f32; VALUES]>,
        block: &mut [u8; BYTES],
    ) {
        let (scale, codes) = round_ternary(source, importance);
        put_two_bits(block, &codes);
        put_half(block, 64, scale);
    }
}

/// The scale, and codes from 0 to 2. With an importance the scale is the best one in the least-squares sense.
pub(super) fn round_ternary(
    source: &[f32; VALUES],
    importance: Option<&[f32; VALUES]>,
) -> (f32, [u8; VALUES]) {
    let scale = match importance {
        Some(all) => {
            let weights: [f32; VALUES] =
                weights(source, Some(all), mean_square(source), |_, _| 1.0);
            let targets = (0..=40).map(|step| 1.0 + 0.1 * step as f32);
            scale(source, &weights, targets, |x| nearest(x, -1.0, 1.0)).abs()
        }
        None => extreme(source).abs(),
    };
    let inverse = inverse(scale);
    let code = |x: f32| match x * inverse {
        x if x >= 0.5 => 2,
        x if x <= -0.5 => 0,
        _ => 1,
    };
    (scale, source.map(code))
}
