//! TQ1_0: 256 ternary values, five to a byte, and one binary16 scale; value = scale · (digit − 1).
//!
//! Layout and rounding follow GGML's `quantize_row_tq1_0_ref`: a byte is ⌈256 · d / 243⌉ for the five digits' number d in base 3, first digit
//! highest; digit `n` is then the upper byte of 3 · (byte · 3ⁿ mod 256). Of 32 bytes, byte `i` holds values `i + 32 n`; of the next sixteen,
//! values `160 + i + 16 n`; of the last four, four digits each, values `240 + i + 4 n`.

use super::Format;
use super::blocks::{self, Block, Kind, PART, Part, half_at, put_half};
use super::superblock::VALUES;
use super::tq2_0::round_ternary;

pub(crate) const BYTES: usize = 54;

/// One block as it lies in a file.
#[repr(C)]
#[allow(dead_code, reason = "fixes the layout that the offsets below rely on")]
struct Layout {
    fives: [u8; 48],
    fours: [u8; 4],
    scale: [u8; 2],
}
const _: () = assert!(
    size_of::<Layout>() == BYTES
        && std::mem::offset_of!(Layout, fours) == 48
        && std::mem::offset_of!(Layout, scale) == 52
);

pub(super) const FORMAT: Format = blocks::format::<Tq1_0, VALUES, BYTES>("tq1_0", 34);

const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// The byte and the digit that hold value `at`.
#[inline(always)]
fn place(at: usize) -> (usize, usize) {
    match at {
        0..160 => (at % 32, at / 32),
        160..240 => (32 + at % 16, (at - 160) / 16),
        _ => (48 + at % 4, (at - 240) / 4 % 4),
    }
}

pub(crate) struct Tq1_0;

impl Block<VALUES, BYTES> for Tq1_0 {
    const KIND: Kind = Kind::Narrow;

    #[inline(always)]
    fn unpack(block: &[u8; BYTES], index: usize) -> Part {
        let mut values = [0; PART];
        for (half, values) in values.chunks_exact_mut(16).enumerate() {
            // Sixteen values of one digit lie in sixteen bytes; only the last sixteen of a block share four bytes.
            let (byte, digit) = place(index * PART + half * 16);
            let mut bytes = [0; 16];
            if byte < 48 {
                bytes.copy_from_slice(&block[byte..byte + 16]);
                let power = POWERS[digit];
                bytes
                    .iter_mut()
                    .for_each(|byte| *byte = byte.wrapping_mul(power));
            } else {
                for (at, byte) in bytes.iter_mut().enumerate() {
                    *byte = block[48 + at % 4].wrapping_mul(POWERS[at / 4]);
                }
            }
            for (value, rest) in values.iter_mut().zip(bytes) {
                *value = ((rest as u16 * 3) >> 8) as i8 - 1;
            }
        }
        Part {
            values,
            scales: [half_at(block, 52); 2],
            minimums: [0.0; 2],
        }
    }

    fn quantize(
        source: &[f32; VALUES],
        importance: Option<&[f32; VALUES]>,
        block: &mut [u8; BYTES],
    ) {
        let (scale, codes) = round_ternary(source, importance);
        let mut numbers = [0u16; 52];
        for (at, code) in codes.iter().enumerate() {
            let (byte, digit) = place(at);
            numbers[byte] += *code as u16 * POWERS[4 - digit] as u16;
        }
        for (byte, number) in block.iter_mut().zip(numbers) {
            *byte = (number * 256).div_ceil(243) as u8;
        }
        put_half(block, 52, scale);
    }
}
