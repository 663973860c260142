//! Q4_K: 256 four-bit values in eight sub-blocks of 32, each with a six-bit scale and a six-bit minimum under two binary16 ones;
//! value = scale · nibble − minimum. 32 bytes hold two sub-blocks: the first below, the second above.
//!
//! Layout: GGML's `block_q4_K`.

use super::Format;
use super::blocks::{self, Block, Kind, Part, half_at, put_half};
use super::superblock::{VALUES, put_scales_and_minimums, round_affine, scale_and_minimum};

pub(crate) const BYTES: usize = 144;

/// One block as it lies in a file.
#[repr(C)]
#[allow(dead_code, reason = "fixes the layout that the offsets below rely on")]
struct Layout {
    scale: [u8; 2],
    minimum: [u8; 2],
    scales: [u8; 12],
    nibbles: [u8; VALUES / 2],
}
const _: () = assert!(
    size_of::<Layout>() == BYTES
        && std::mem::offset_of!(Layout, scales) == 4
        && std::mem::offset_of!(Layout, nibbles) == 16
);

pub(super) const FORMAT: Format = blocks::format::<Q4K, VALUES, BYTES>("q4_k", 12);

pub(crate) struct Q4K;

impl Block<VALUES, BYTES> for Q4K {
    const KIND: Kind = Kind::Minimums;

    #[inline(always)]
    fn unpack(block: &[u8; BYTES], index: usize) -> Part {
        let bytes = &block[16 + index / 2 * 32..][..32];
        let (scale, minimum) = scale_and_minimum(&block[4..16], index);
        Part {
            values: std::array::from_fn(|i| ((bytes[i] >> (index % 2 * 4)) & 15) as i8),
            scales: [half_at(block, 0) * scale as f32; 2],
            minimums: [-(half_at(block, 2) * minimum as f32); 2],
        }
    }

    fn quantize(
        source: &[f32; VALUES],
        importance: Option<&[f32; VALUES]>,
        block: &mut [u8; BYTES],
    ) {
        let made = round_affine::<32>(source, importance, [15.0, 63.0], |mean_square, x| {
            mean_square.sqrt() + x.abs()
        });
        put_half(block, 0, made.scale);
        put_half(block, 2, made.minimum);
        put_scales_and_minimums(&mut block[4..16], &made.scales, &made.minimums);
        for (at, byte) in block[16..].iter_mut().enumerate() {
            let codes = &made.codes[at / 32 * 64 + at % 32..];
            *byte = codes[0] | (codes[32] << 4);
        }
    }
}
