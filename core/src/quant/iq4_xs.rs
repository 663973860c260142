//! IQ4_XS: 256 indices into IQ4_NL's table in eight sub-blocks of 32, each with a six-bit scale under a binary16 one;
//! value = scale · table[nibble]. A sub-block's sixteen bytes lie as in Q4_0.
//!
//! Layout: GGML's `block_iq4_xs`. Scales are stored plus 32: their low four bits in nibbles, their high two bits in a little-endian word.

use super::Format;
use super::blocks::{self, Block, Kind, Part, half_at, look_up, nibbles, put_half, put_nibbles};
use super::iq4_nl::{TABLE, nearest_entry, nearest_index, targets};
use super::superblock::{VALUES, round_scaled};

pub(crate) const BYTES: usize = 136;

/// One block as it lies in a file.
#[repr(C)]
#[allow(dead_code, reason = "fixes the layout that the offsets below rely on")]
struct Layout {
    scale: [u8; 2],
    high_bits: [u8; 2],
    low_bits: [u8; 4],
    nibbles: [u8; VALUES / 2],
}
const _: () = assert!(
    size_of::<Layout>() == BYTES
        && std::mem::offset_of!(Layout, high_bits) == 2
        && std::mem::offset_of!(Layout, low_bits) == 4
        && std::mem::offset_of!(Layout, nibbles) == 8
);

pub(super) const FORMAT: Format = blocks::format::<Iq4Xs, VALUES, BYTES>("iq4_xs", 23);

pub(crate) struct Iq4Xs;

impl Block<VALUES, BYTES> for Iq4Xs {
    const KIND: Kind = Kind::Wide;

    #[inline(always)]
    fn unpack(block: &[u8; BYTES], index: usize) -> Part {
        let low = (block[4 + index / 2] >> (index % 2 * 4)) & 15;
        let high = (block[2 + index / 4] >> (index % 4 * 2)) & 3;
        let scale = (low | (high << 4)) as i8 - 32;
        Part {
            values: look_up(&TABLE, &nibbles(&block[8 + index * 16..][..16])),
            scales: [half_at(block, 0) * scale as f32; 2],
            minimums: [0.0; 2],
        }
    }

    fn quantize(
        source: &[f32; VALUES],
        importance: Option<&[f32; VALUES]>,
        block: &mut [u8; BYTES],
    ) {
        let made = round_scaled::<32>(
            source,
            importance,
            32.0,
            targets(),
            nearest_entry,
            |_, x| x * x,
        );
        put_half(block, 0, made.scale);
        let scales = made.scales.map(|scale| (scale + 32) as u8);
        for j in 0..2 {
            block[2 + j] = (0..4).fold(0, |byte, k| byte | (scales[j * 4 + k] >> 4 << (k * 2)));
        }
        for j in 0..4 {
            block[4 + j] = (scales[j * 2] & 15) | (scales[j * 2 + 1] << 4);
        }
        for (bytes, codes) in block[8..]
            .chunks_exact_mut(16)
            .zip(made.codes.chunks_exact(32))
        {
            put_nibbles(bytes, |i| nearest_index(codes[i] as f32));
        }
    }
}
