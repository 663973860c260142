//! IQ4_NL: 32 four-bit indices into a table of uneven steps and one binary16 scale; value = scale · table[nibble]. Nibbles lie as in Q4_0.
//!
//! Layout and table: GGML's `block_iq4_nl` and `kvalues_iq4nl`.

use super::blocks::{self, Block, Kind, Part, half_at, look_up, nibbles, put_half, put_nibbles};
use super::search::{mean_square, scale, weights};
use super::{Format, inverse};

const BLOCK: usize = 32;
pub(crate) const BYTES: usize = 18;

/// One block as it lies in a file.
#[repr(C)]
#[allow(dead_code, reason = "fixes the layout that the offsets below rely on")]
struct Layout {
    scale: [u8; 2],
    nibbles: [u8; BLOCK / 2],
}
const _: () = assert!(size_of::<Layout>() == BYTES && std::mem::offset_of!(Layout, nibbles) == 2);

pub(super) const FORMAT: Format = blocks::format::<Iq4Nl, BLOCK, BYTES>("iq4_nl", 20);

/// What the nibbles stand for.
pub(crate) const TABLE: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// Where the greatest magnitude of a block may lie: near either end of the table.
pub(super) fn targets() -> impl Iterator<Item = f32> + Clone {
    let ends = [TABLE[0], TABLE[15]].into_iter();
    ends.flat_map(|end| (-4..=4).map(move |step| (end as i32 + 2 * step) as f32))
}

/// The index of the entry nearest to `value`, the higher one on a tie; NaN gives 0.
#[inline(always)]
pub(super) fn nearest_index(value: f32) -> u8 {
    let pairs = TABLE.iter().zip(&TABLE[1..]);
    pairs
        .map(|(low, high)| u8::from(value >= (*low as i32 + *high as i32) as f32 * 0.5))
        .sum()
}

/// The entry nearest to `value`.
#[inline(always)]
pub(super) fn nearest_entry(value: f32) -> f32 {
    TABLE[nearest_index(value) as usize & 15] as f32
}

pub(crate) struct Iq4Nl;

impl Block<BLOCK, BYTES> for Iq4Nl {
    const KIND: Kind = Kind::Wide;

    #[inline(always)]
    fn unpack(block: &[u8; BYTES], _index: usize) -> Part {
        Part {
            values: look_up(&TABLE, &nibbles(&block[2..])),
            scales: [half_at(block, 0); 2],
            minimums: [0.0; 2],
        }
    }

    fn quantize(source: &[f32; BLOCK], importance: Option<&[f32; BLOCK]>, block: &mut [u8; BYTES]) {
        let importance = importance.map(|all| &all[..]);
        let weights: [f32; BLOCK] = weights(source, importance, mean_square(source), |_, x| x * x);
        let stored = put_half(block, 0, scale(source, &weights, targets(), nearest_entry));
        let inverse = inverse(stored);
        put_nibbles(&mut block[2..], |i| nearest_index(source[i] * inverse));
    }
}
