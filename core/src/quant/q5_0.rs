//! Q5_0: 32 five-bit values and one binary16 scale; value = scale · (code − 16). Bit `i` of a little-endian word holds the fifth bit of value
//! `i`; the others lie as in Q4_0.
//!
//! Layout and rounding follow GGML's `quantize_row_q5_0_ref`: scale = m / −16 with m the value of greatest magnitude, sign kept;
//! code = min(31, ⌊x / scale + 16.5⌋).

use super::blocks::{self, Block, Kind, Part, half_at, put_half, put_nibbles};
use super::search::{extreme, mean_square, nearest, symmetric, weights};
use super::{Format, inverse};

const BLOCK: usize = 32;
pub(crate) const BYTES: usize = 22;

/// One block as it lies in a file.
#[repr(C)]
#[allow(dead_code, reason = "fixes the layout that the offsets below rely on")]
struct Layout {
    scale: [u8; 2],
    fifth_bits: [u8; BLOCK / 8],
    nibbles: [u8; BLOCK / 2],
}
const _: () = assert!(
    size_of::<Layout>() == BYTES
        && std::mem::offset_of!(Layout, fifth_bits) == 2
        && std::mem::offset_of!(Layout, nibbles) == 6
);

pub(super) const FORMAT: Format = blocks::format::<Q5_0, BLOCK, BYTES>("q5_0", 6);

pub(crate) struct Q5_0;

impl Block<BLOCK, BYTES> for Q5_0 {
    const KIND: Kind = Kind::Plain;

    #[inline(always)]
    fn unpack(block: &[u8; BYTES], _index: usize) -> Part {
        let codes = five_bits(&block[2..]);
        Part {
            values: std::array::from_fn(|i| codes[i] as i8 - 16),
            scales: [half_at(block, 0); 2],
            minimums: [0.0; 2],
        }
    }

    fn quantize(source: &[f32; BLOCK], importance: Option<&[f32; BLOCK]>, block: &mut [u8; BYTES]) {
        let codes = round_symmetric(source, importance, 16.0, block);
        block[2..6].copy_from_slice(&fifth_bits(&codes));
        put_nibbles(&mut block[6..], |i| codes[i]);
    }
}

/// Rounds to codes from 0 to `2 · levels − 1` and writes the scale, which begins a block of Q4_0 and Q5_0.
pub(super) fn round_symmetric(
    source: &[f32; BLOCK],
    importance: Option<&[f32; BLOCK]>,
    levels: f32,
    block: &mut [u8],
) -> [u8; BLOCK] {
    if importance.is_some() {
        let mean = mean_square(source);
        let weights: [f32; BLOCK] =
            weights(source, importance.map(|all| &all[..]), mean, |_, _| 1.0);
        let stored = put_half(block, 0, symmetric(source, &weights, levels));
        let inverse = inverse(stored);
        source.map(|x| (nearest(x * inverse, -levels, levels - 1.0) + levels) as u8)
    } else {
        let scale = extreme(source) / -levels;
        put_half(block, 0, scale);
        let inverse = inverse(scale);
        source.map(|x| (x * inverse + (levels + 0.5)).min(2.0 * levels - 1.0) as u8)
    }
}

/// 32 five-bit codes: their fifth bits in four bytes, then their nibbles.
#[inline(always)]
pub(super) fn five_bits(bytes: &[u8]) -> [u8; BLOCK] {
    let mut codes = blocks::nibbles(&bytes[4..]);
    let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    for (code, bit) in codes.iter_mut().zip(0u32..) {
        *code |= ((word >> bit) as u8 & 1) << 4;
    }
    codes
}

/// The fifth bits of 32 codes.
pub(super) fn fifth_bits(codes: &[u8; BLOCK]) -> [u8; 4] {
    let word = (0..BLOCK).fold(0u32, |word, i| word | (u32::from(codes[i] >> 4 & 1) << i));
    word.to_le_bytes()
}
