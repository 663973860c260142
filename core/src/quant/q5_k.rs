//! Q5_K: Q4_K with a fifth bit for each value. Bit `s` of byte `i` of these is value `i` of sub-block `s`.
//!
//! Layout: GGML's `block_q5_K`.

use super::Format;
use super::blocks::{self, Block, Kind, Part, half_at, put_half};
use super::superblock::{VALUES, put_scales_and_minimums, round_affine, scale_and_minimum};

pub(crate) const BYTES: usize = 176;

/// One block as it lies in a file.
#[repr(C)]
#[allow(dead_code, reason = "fixes the layout that the offsets below rely on")]
struct Layout {
    scale: [u8; 2],
    minimum: [u8; 2],
    scales: [u8; 12],
    fifth_bits: [u8; VALUES / 8],
    nibbles: [u8; VALUES / 2],
}
const _: () = assert!(
    size_of::<Layout>() == BYTES
        && std::mem::offset_of!(Layout, fifth_bits) == 16
        && std::mem::offset_of!(Layout, nibbles) == 48
);

pub(super) const FORMAT: Format = blocks::format::<Q5K, VALUES, BYTES>("q5_k", 13);

pub(crate) struct Q5K;

impl Block<VALUES, BYTES> for Q5K {
    const KIND: Kind = Kind::Minimums;

    #[inline(always)]
    fn unpack(block: &[u8; BYTES], index: usize) -> Part {
        let bytes = &block[48 + index / 2 * 32..][..32];
        let fifth = &block[16..48];
        let (scale, minimum) = scale_and_minimum(&block[4..16], index);
        Part {
            values: std::array::from_fn(|i| {
                let low = (bytes[i] >> (index % 2 * 4)) & 15;
                (low | ((fifth[i] >> index & 1) << 4)) as i8
            }),
            scales: [half_at(block, 0) * scale as f32; 2],
            minimums: [-(half_at(block, 2) * minimum as f32); 2],
        }
    }

    fn quantize(
        source: &[f32; VALUES],
        importance: Option<&[f32; VALUES]>,
        block: &mut [u8; BYTES],
    ) {
        let made = round_affine::<32>(source, importance, [31.0, 63.0], |mean_square, x| {
            mean_square.sqrt() + x.abs()
        });
        put_half(block, 0, made.scale);
        put_half(block, 2, made.minimum);
        put_scales_and_minimums(&mut block[4..16], &made.scales, &made.minimums);
        let (fifth, nibbles) = block[16..].split_at_mut(VALUES / 8);
        for (at, byte) in fifth.iter_mut().enumerate() {
            *byte = (0..8).fold(0, |byte, sub| {
                byte | (made.codes[sub * 32 + at] >> 4 << sub)
            });
        }
        for (at, byte) in nibbles.iter_mut().enumerate() {
            let codes = &made.codes[at / 32 * 64 + at % 32..];
            *byte = (codes[0] & 15) | (codes[32] << 4);
        }
    }
}
