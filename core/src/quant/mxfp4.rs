//! MXFP4: 32 four-bit floats (E2M1) and one power of two (E8M0); value = 2^(exponent − 127) · float. Nibbles lie as in Q4_0.
//!
//! Open Compute Project, Microscaling Formats (MX) Specification 1.0, 2023; layout of GGML's `block_mxfp4`. The table below holds the floats
//! doubled, so the scale is halved. Rounding follows GGML's `quantize_row_mxfp4_ref`: exponent = ⌊log₂ max|x|⌋ − 2, nearest float, the
//! smaller magnitude on a tie.

use super::Format;
use super::blocks::{self, Block, Kind, Part, look_up, nibbles, put_nibbles};
use super::search::extreme;

const BLOCK: usize = 32;
pub(crate) const BYTES: usize = 17;

/// One block as it lies in a file.
#[repr(C)]
#[allow(dead_code, reason = "fixes the layout that the offsets below rely on")]
struct Layout {
    exponent: u8,
    nibbles: [u8; BLOCK / 2],
}
const _: () = assert!(size_of::<Layout>() == BYTES && std::mem::offset_of!(Layout, nibbles) == 1);

pub(super) const FORMAT: Format = blocks::format::<Mxfp4, BLOCK, BYTES>("mxfp4", 39);

/// Twice the values that the nibbles stand for.
pub(crate) const TABLE: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of 2^(exponent − 127).
#[inline(always)]
pub(crate) fn scale(exponent: u8) -> f32 {
    f32::from_bits(if exponent < 2 {
        0x0020_0000 << exponent
    } else {
        (exponent as u32 - 1) << 23
    })
}

/// The nibble of the float nearest to `value`, which is in units of the scale.
fn nearest_index(value: f32) -> u8 {
    let magnitude = value.abs();
    let pairs = TABLE[..8].iter().zip(&TABLE[1..8]);
    let index: u8 = pairs
        .map(|(low, high)| u8::from(magnitude > (low + high) as f32 * 0.5))
        .sum();
    if value < 0.0 && index > 0 {
        index + 8
    } else {
        index
    }
}

pub(crate) struct Mxfp4;

impl Block<BLOCK, BYTES> for Mxfp4 {
    const KIND: Kind = Kind::Plain;

    #[inline(always)]
    fn unpack(block: &[u8; BYTES], _index: usize) -> Part {
        Part {
            values: look_up(&TABLE, &nibbles(&block[1..])),
            scales: [scale(block[0]); 2],
            minimums: [0.0; 2],
        }
    }

    /// With an importance, the next exponent is tried as well: it does not cut off the greatest values.
    fn quantize(source: &[f32; BLOCK], importance: Option<&[f32; BLOCK]>, block: &mut [u8; BYTES]) {
        let most = (extreme(source).to_bits() >> 23) as u8; // the exponent's bits; the sign bit falls off
        let plain = most.saturating_sub(2);
        let exponent = match importance {
            Some(importance) => {
                let error = |exponent: u8| -> f32 {
                    let scale = scale(exponent);
                    let pairs = source.iter().zip(importance);
                    pairs
                        .map(|(x, weight)| {
                            let stored = TABLE[nearest_index(x / scale) as usize & 15];
                            weight * (scale * stored as f32 - x).powi(2)
                        })
                        .sum()
                };
                let next = plain + 1;
                if error(next) < error(plain) {
                    next
                } else {
                    plain
                }
            }
            None => plain,
        };
        block[0] = exponent;
        let scale = scale(exponent);
        put_nibbles(&mut block[1..], |i| nearest_index(source[i] / scale));
    }
}
