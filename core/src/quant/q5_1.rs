//! Q5_1: 32 five-bit values, a binary16 scale and a binary16 minimum; value = scale · code + minimum. The fifth bits lie in 32 bits of their
//! own, the others as in Q4_1.
//!
//! Layout and rounding follow GGML's `quantize_row_q5_1_ref`, which is Q4_1's with codes up to 31.

use super::Format;
use super::blocks::{self, Block, Kind, Part, half_at, put_nibbles};
use super::q4_1::round_affine;
use super::q5_0::{fifth_bits, five_bits};

const BLOCK: usize = 32;
pub(crate) const BYTES: usize = 24;

/// One block as it lies in a file.
#[repr(C)]
#[allow(dead_code, reason = "fixes the layout that the offsets below rely on")]
struct Layout {
    scale: [u8; 2],
    minimum: [u8; 2],
    fifth_bits: [u8; BLOCK / 8],
    nibbles: [u8; BLOCK / 2],
}
const _: () = assert!(
    size_of::<Layout>() == BYTES
        && std::mem::offset_of!(Layout, fifth_bits) == 4
        && std::mem::offset_of!(Layout, nibbles) == 8
);

pub(super) const FORMAT: Format = blocks::format::<Q5_1, BLOCK, BYTES>("q5_1", 7);

pub(crate) struct Q5_1;

impl Block<BLOCK, BYTES> for Q5_1 {
    const KIND: Kind = Kind::Minimums;

    #[inline(always)]
    fn unpack(block: &[u8; BYTES], _index: usize) -> Part {
        let codes = five_bits(&block[4..]);
        Part {
            values: std::array::from_fn(|i| codes[i] as i8),
            scales: [half_at(block, 0); 2],
            minimums: [half_at(block, 2); 2],
        }
    }

    fn quantize(source: &[f32; BLOCK], importance: Option<&[f32; BLOCK]>, block: &mut [u8; BYTES]) {
        let codes = round_affine(source, importance, 31.0, block);
        block[4..8].copy_from_slice(&fifth_bits(&codes));
        put_nibbles(&mut block[8..], |i| codes[i]);
    }
}
