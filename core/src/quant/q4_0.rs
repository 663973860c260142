//! Q4_0: 32 four-bit values and one binary16 scale; value = scale · (nibble − 8). Byte `i` holds value `i` below and value `i + 16` above.
//!
//! Layout and rounding follow GGML's `quantize_row_q4_0_ref`: scale = m / −8 with m the value of greatest magnitude, sign kept
//! (the first one on a tie); nibble = min(15, ⌊x / scale + 8.5⌋) with the scale before it is rounded to binary16. With an importance matrix, the scale is searched.

use super::activation;
use super::blocks::{self, Kind, Part, Parts, half_at, put_nibbles};
use super::float16::{f16_to_f32, f32_to_f16};
use super::q5_0::round_symmetric;
use super::{Codec, Dot, Format, TO_WHOLE, inverse};

pub(crate) const BLOCK: usize = 32;
pub(crate) const BYTES: usize = 18;

/// One block as it lies in a file.
#[repr(C)]
#[allow(dead_code, reason = "fixes the layout that the offsets below rely on")]
struct Layout {
    scale: [u8; 2],
    nibbles: [u8; BLOCK / 2],
}
const _: () = assert!(
    size_of::<Layout>() == BYTES
        && align_of::<Layout>() == 1
        && std::mem::offset_of!(Layout, nibbles) == 2
);
const _: () = assert!(BLOCK == activation::BLOCK);

pub(super) const FORMAT: Format = Format {
    name: "q4_0",
    ggml_id: 2,
    block: BLOCK,
    block_bytes: BYTES,
    codec: Codec {
        quantize,
        dequantize,
        quantize_dequantize,
    },
    weighted: Some(quantize_weighted),
    dot: Dot::Parts(Parts {
        kind: Kind::Narrow,
        unpack,
    }),
};

/// The scale before it is rounded to binary16.
#[inline(always)]
fn scale(block: &[f32; BLOCK]) -> f32 {
    const SIGN: u32 = 1 << 31;
    // Floats of one sign are ordered as their bits are, so the greatest of each sign are maxima of signed and unsigned integers.
    let plus = block
        .iter()
        .fold(0, |most, value| (value.to_bits() as i32).max(most)) as u32;
    let minus = block
        .iter()
        .fold(SIGN, |most, value| value.to_bits().max(most))
        ^ SIGN;
    let extreme = if plus == minus {
        *block
            .iter()
            .find(|value| value.abs().to_bits() == plus && plus > 0)
            .unwrap_or(&0.0)
    } else {
        f32::from_bits(if plus > minus { plus } else { minus | SIGN })
    };
    extreme / -8.0
}

/// A value as a nibble, still in floating point: 0 to 15.
#[inline(always)]
fn nibble(value: f32, inverse: f32) -> f32 {
    let shifted = (value * inverse + 8.5).trunc();
    if shifted < 15.0 { shifted } else { 15.0 }
}

#[inline(always)]
pub(crate) fn quantize(source: &[f32], blocks: &mut [u8]) {
    for (source, bytes) in source
        .as_chunks::<BLOCK>()
        .0
        .iter()
        .zip(blocks.as_chunks_mut::<BYTES>().0)
    {
        let scale = scale(source);
        let inverse = inverse(scale);
        let (head, nibbles) = bytes.split_at_mut(2);
        head.copy_from_slice(&f32_to_f16(scale).to_le_bytes());
        let (low, high) = source.split_at(BLOCK / 2);
        for ((low, high), byte) in low.iter().zip(high).zip(nibbles) {
            let whole = |value: f32| (nibble(value, inverse) + TO_WHOLE).to_bits() as u8;
            *byte = whole(*low) | (whole(*high) << 4);
        }
    }
}

fn quantize_weighted(source: &[f32], importance: &[f32], blocks: &mut [u8]) {
    let sources = source.as_chunks::<BLOCK>().0.iter();
    let weighted = sources.zip(importance.as_chunks::<BLOCK>().0);
    for ((source, importance), bytes) in weighted.zip(blocks.as_chunks_mut::<BYTES>().0) {
        let codes = round_symmetric(source, Some(importance), 8.0, bytes);
        put_nibbles(&mut bytes[2..], |i| codes[i]);
    }
}

#[inline(always)]
pub(crate) fn dequantize(blocks: &[u8], values: &mut [f32]) {
    for (bytes, values) in blocks
        .as_chunks::<BYTES>()
        .0
        .iter()
        .zip(values.as_chunks_mut::<BLOCK>().0)
    {
        let scale = f16_to_f32(u16::from_le_bytes([bytes[0], bytes[1]]));
        let (low, high) = values.split_at_mut(BLOCK / 2);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(&bytes[2..]) {
            *low = scale * ((byte & 15) as i32 - 8) as f32;
            *high = scale * ((byte >> 4) as i32 - 8) as f32;
        }
    }
}

#[inline(always)]
pub(crate) fn quantize_dequantize(source: &[f32], rounded: &mut [f32]) {
    for (source, rounded) in source
        .as_chunks::<BLOCK>()
        .0
        .iter()
        .zip(rounded.as_chunks_mut::<BLOCK>().0)
    {
        let scale = scale(source);
        let inverse = inverse(scale);
        let scale = f16_to_f32(f32_to_f16(scale));
        for (value, rounded) in source.iter().zip(rounded) {
            *rounded = scale * (nibble(*value, inverse) - 8.0);
        }
    }
}

fn unpack(blocks: &[u8], parts: &mut [Part]) {
    for (block, part) in blocks.as_chunks::<BYTES>().0.iter().zip(parts) {
        let codes = blocks::nibbles(&block[2..]);
        *part = Part {
            values: codes.map(|code| code as i8 - 8),
            scales: [half_at(block, 0); 2],
            minimums: [0.0; 2],
        };
    }
}
