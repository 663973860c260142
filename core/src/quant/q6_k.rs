//! Q6_K: 256 six-bit values in sixteen sub-blocks of sixteen, each with a signed eight-bit scale under a binary16 one;
//! value = scale · (code − 32). For each 128 values, 64 bytes hold the low four bits (values 0 to 63 below, 64 to 127 above) and 32 bytes
//! the high two (byte `i`: values `i`, `i + 32`, `i + 64`, `i + 96`, from the low bits up).
//!
//! Layout: GGML's `block_q6_K`.

use super::Format;
use super::blocks::{self, Block, Kind, Part, half_at, put_half};
use super::search::nearest;
use super::superblock::{VALUES, round_scaled};

pub(crate) const BYTES: usize = 210;

/// One block as it lies in a file.
#[repr(C)]
#[allow(dead_code, reason = "fixes the layout that the offsets below rely on")]
struct Layout {
    low_bits: [u8; VALUES / 2],
    high_bits: [u8; VALUES / 4],
    scales: [i8; VALUES / 16],
    scale: [u8; 2],
}
const _: () = assert!(
    size_of::<Layout>() == BYTES
        && std::mem::offset_of!(Layout, high_bits) == 128
        && std::mem::offset_of!(Layout, scales) == 192
        && std::mem::offset_of!(Layout, scale) == 208
);

pub(super) const FORMAT: Format = blocks::format::<Q6K, VALUES, BYTES>("q6_k", 14);

pub(crate) struct Q6K;

impl Block<VALUES, BYTES> for Q6K {
    const KIND: Kind = Kind::Halves;

    #[inline(always)]
    fn unpack(block: &[u8; BYTES], index: usize) -> Part {
        let (eighth, quarter) = (index / 4, index % 4);
        let low = &block[eighth * 64 + quarter % 2 * 32..][..32];
        let high = &block[128 + eighth * 32..][..32];
        let scale = half_at(block, 208);
        let scales = [block[192 + index * 2], block[193 + index * 2]];
        Part {
            values: std::array::from_fn(|i| {
                let low = (low[i] >> (quarter / 2 * 4)) & 15;
                (low | ((high[i] >> (quarter * 2) & 3) << 4)) as i8 - 32
            }),
            scales: scales.map(|byte| scale * byte as i8 as f32),
            minimums: [0.0; 2],
        }
    }

    fn quantize(
        source: &[f32; VALUES],
        importance: Option<&[f32; VALUES]>,
        block: &mut [u8; BYTES],
    ) {
        let targets = (-9..=9).map(|step| -32.0 - 0.1 * step as f32);
        let round = |x: f32| nearest(x, -32.0, 31.0);
        let made = round_scaled::<16>(source, importance, 128.0, targets, round, |_, x| x * x);
        let code = |at: usize| (made.codes[at] + 32) as u8;
        for (at, byte) in block[..128].iter_mut().enumerate() {
            let first = at / 64 * 128 + at % 64;
            *byte = (code(first) & 15) | (code(first + 64) << 4);
        }
        for (at, byte) in block[128..192].iter_mut().enumerate() {
            let first = at / 32 * 128 + at % 32;
            *byte = (0..4).fold(0, |byte, k| byte | (code(first + k * 32) >> 4 << (k * 2)));
        }
        block[192..208].copy_from_slice(&made.scales.map(|scale| scale as u8));
        put_half(block, 208, made.scale);
    }
}
