//! Q2_K: 256 two-bit values in sixteen sub-blocks of sixteen, each with a four-bit scale and a four-bit minimum under two binary16 ones;
//! value = scale · code − minimum. 32 bytes hold 128 values: byte `i` those at `i`, `i + 32`, `i + 64` and `i + 96`, from the low bits up.
//!
//! Layout: GGML's `block_q2_K`.

use super::Format;
use super::blocks::{self, Block, Kind, Part, half_at, put_half};
use super::superblock::{VALUES, put_two_bits, round_affine, two_bits};

pub(crate) const BYTES: usize = 84;

/// One block as it lies in a file.
#[repr(C)]
#[allow(dead_code, reason = "fixes the layout that the offsets below rely on")]
struct Layout {
    /// The scale below, the minimum above.
    scales: [u8; VALUES / 16],
    codes: [u8; VALUES / 4],
    scale: [u8; 2],
    minimum: [u8; 2],
}
const _: () = assert!(
    size_of::<Layout>() == BYTES
        && std::mem::offset_of!(Layout, codes) == 16
        && std::mem::offset_of!(Layout, scale) == 80
);

pub(super) const FORMAT: Format = blocks::format::<Q2K, VALUES, BYTES>("q2_k", 10);

pub(crate) struct Q2K;

impl Block<VALUES, BYTES> for Q2K {
    const KIND: Kind = Kind::HalvesMinimums;

    #[inline(always)]
    fn unpack(block: &[u8; BYTES], index: usize) -> Part {
        let (scale, minimum) = (half_at(block, 80), half_at(block, 82));
        let scales = [block[index * 2], block[index * 2 + 1]];
        let codes = two_bits(&block[16..80], index);
        Part {
            values: std::array::from_fn(|i| codes[i] as i8),
            scales: scales.map(|byte| scale * (byte & 15) as f32),
            minimums: scales.map(|byte| -(minimum * (byte >> 4) as f32)),
        }
    }

    fn quantize(
        source: &[f32; VALUES],
        importance: Option<&[f32; VALUES]>,
        block: &mut [u8; BYTES],
    ) {
        let made = round_affine::<16>(source, importance, [3.0, 15.0], |_, x| x.abs());
        for (byte, (scale, minimum)) in block.iter_mut().zip(made.scales.iter().zip(made.minimums))
        {
            *byte = scale | (minimum << 4);
        }
        put_two_bits(&mut block[16..80], &made.codes);
        put_half(block, 80, made.scale);
        put_half(block, 82, made.minimum);
    }
}
