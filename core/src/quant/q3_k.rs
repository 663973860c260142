//! Q3_K: 256 three-bit values in sixteen sub-blocks of sixteen, each with a six-bit scale under a binary16 one; value = scale · (code − 4).
//! The low two bits lie as in Q2_K; bit `p` of byte `i` of the mask is the high bit of value `32 p + i`.
//!
//! Layout: GGML's `block_q3_K`. Scales are stored plus 32: the low four bits of scale `j` in nibble `j / 8` of byte `j mod 8`, the high two
//! in bits `2 (j / 4)` of byte `8 + j mod 4`.

use super::Format;
use super::blocks::{self, Block, Kind, Part, half_at, put_half};
use super::search::nearest;
use super::superblock::{VALUES, put_two_bits, round_scaled, two_bits};

pub(crate) const BYTES: usize = 110;

/// One block as it lies in a file.
#[repr(C)]
#[allow(dead_code, reason = "fixes the layout that the offsets below rely on")]
struct Layout {
    high_bits: [u8; VALUES / 8],
    low_bits: [u8; VALUES / 4],
    scales: [u8; 12],
    scale: [u8; 2],
}
const _: () = assert!(
    size_of::<Layout>() == BYTES
        && std::mem::offset_of!(Layout, low_bits) == 32
        && std::mem::offset_of!(Layout, scales) == 96
        && std::mem::offset_of!(Layout, scale) == 108
);

pub(super) const FORMAT: Format = blocks::format::<Q3K, VALUES, BYTES>("q3_k", 11);

pub(crate) struct Q3K;

impl Block<VALUES, BYTES> for Q3K {
    const KIND: Kind = Kind::Halves;

    #[inline(always)]
    fn unpack(block: &[u8; BYTES], index: usize) -> Part {
        let low = two_bits(&block[32..96], index);
        let scales = &block[96..108];
        let scale = |j: usize| {
            let low = (scales[j % 8] >> (j / 8 * 4)) & 15;
            let high = (scales[8 + j % 4] >> (j / 4 * 2)) & 3;
            half_at(block, 108) * ((low | (high << 4)) as i8 - 32) as f32
        };
        Part {
            values: std::array::from_fn(|i| (low[i] | ((block[i] >> index & 1) << 2)) as i8 - 4),
            scales: [scale(index * 2), scale(index * 2 + 1)],
            minimums: [0.0; 2],
        }
    }

    fn quantize(
        source: &[f32; VALUES],
        importance: Option<&[f32; VALUES]>,
        block: &mut [u8; BYTES],
    ) {
        let targets = (-9..=9).map(|step| -4.0 - 0.1 * step as f32);
        let round = |x: f32| nearest(x, -4.0, 3.0);
        let made = round_scaled::<16>(source, importance, 32.0, targets, round, |_, x| x * x);
        let codes = made.codes.map(|code| (code + 4) as u8);
        for (at, byte) in block[..32].iter_mut().enumerate() {
            *byte = (0..8).fold(0, |byte, part| byte | (codes[part * 32 + at] >> 2 << part));
        }
        put_two_bits(&mut block[32..96], &codes);
        let scales = made.scales.map(|scale| (scale + 32) as u8);
        for j in 0..8 {
            block[96 + j] = (scales[j] & 15) | (scales[j + 8] << 4);
        }
        for j in 0..4 {
            block[104 + j] = (0..4).fold(0, |byte, k| byte | (scales[k * 4 + j] >> 4 << (k * 2)));
        }
        put_half(block, 108, made.scale);
    }
}
