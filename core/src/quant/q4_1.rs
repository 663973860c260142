//! Q4_1: 32 four-bit values, a binary16 scale and a binary16 minimum; value = scale · nibble + minimum. Byte `i` of the nibbles holds value
//! `i` below and value `i + 16` above.
//!
//! Layout and rounding follow GGML's `quantize_row_q4_1_ref`: scale = (max − min) / 15, nibble = min(15, ⌊(x − min) / scale + ½⌋).

use super::blocks::{self, Block, Kind, Part, half_at, nibbles, put_half, put_nibbles};
use super::search::{affine, mean_square, nearest, weights};
use super::{Format, inverse};

const BLOCK: usize = 32;
pub(crate) const BYTES: usize = 20;

/// One block as it lies in a file.
#[repr(C)]
#[allow(dead_code, reason = "fixes the layout that the offsets below rely on")]
struct Layout {
    scale: [u8; 2],
    minimum: [u8; 2],
    nibbles: [u8; BLOCK / 2],
}
const _: () = assert!(size_of::<Layout>() == BYTES && std::mem::offset_of!(Layout, nibbles) == 4);

pub(super) const FORMAT: Format = blocks::format::<Q4_1, BLOCK, BYTES>("q4_1", 3);

pub(crate) struct Q4_1;

impl Block<BLOCK, BYTES> for Q4_1 {
    const KIND: Kind = Kind::Minimums;

    #[inline(always)]
    fn unpack(block: &[u8; BYTES], _index: usize) -> Part {
        let codes = nibbles(&block[4..]);
        Part {
            values: std::array::from_fn(|i| codes[i] as i8),
            scales: [half_at(block, 0); 2],
            minimums: [half_at(block, 2); 2],
        }
    }

    fn quantize(source: &[f32; BLOCK], importance: Option<&[f32; BLOCK]>, block: &mut [u8; BYTES]) {
        let codes = round_affine(source, importance, 15.0, block);
        put_nibbles(&mut block[4..], |i| codes[i]);
    }
}

/// Rounds to codes from 0 to `top` and writes scale and minimum, which begin a block of Q4_1 and Q5_1.
pub(super) fn round_affine(
    source: &[f32; BLOCK],
    importance: Option<&[f32; BLOCK]>,
    top: f32,
    block: &mut [u8],
) -> [u8; BLOCK] {
    let (scale, minimum) = match importance {
        Some(_) => {
            let mean = mean_square(source);
            let weights: [f32; BLOCK] =
                weights(source, importance.map(|all| &all[..]), mean, |_, _| 1.0);
            affine(source, &weights, top, f32::INFINITY)
        }
        None => {
            let low = source.iter().fold(f32::INFINITY, |low, x| low.min(*x));
            let high = source
                .iter()
                .fold(f32::NEG_INFINITY, |high, x| high.max(*x));
            ((high - low) / top, low)
        }
    };
    let (stored_scale, stored_minimum) = (put_half(block, 0, scale), put_half(block, 2, minimum));
    if importance.is_some() {
        let inverse = inverse(stored_scale);
        source.map(|x| nearest((x - stored_minimum) * inverse, 0.0, top) as u8)
    } else {
        let inverse = inverse(scale);
        source.map(|x| ((x - minimum) * inverse + 0.5).min(top) as u8)
    }
}
