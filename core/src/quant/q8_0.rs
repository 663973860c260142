//! Q8_0: 32 signed bytes and one binary16 scale; value = scale · byte.
//!
//! Layout and rounding follow GGML's `quantize_row_q8_0_ref`: scale = max|x| / 127, halves away from zero.

use super::activation;
use super::blocks::{Kind, Part, Parts, half_at};
use super::float16::{f16_to_f32, f32_to_f16};
use super::{Codec, Dot, Format, TO_WHOLE, inverse, max_magnitude};

pub(crate) const BLOCK: usize = 32;
pub(crate) const BYTES: usize = 34;

/// One block as it lies in a file.
#[repr(C)]
#[allow(dead_code, reason = "fixes the layout that the offsets below rely on")]
struct Layout {
    scale: [u8; 2],
    values: [i8; BLOCK],
}
const _: () = assert!(
    size_of::<Layout>() == BYTES
        && align_of::<Layout>() == 1
        && std::mem::offset_of!(Layout, values) == 2
);
const _: () = assert!(BLOCK == activation::BLOCK);

pub(crate) const FORMAT: Format = Format {
    name: "q8_0",
    ggml_id: 8,
    block: BLOCK,
    block_bytes: BYTES,
    codec: Codec {
        quantize,
        dequantize,
        quantize_dequantize,
    },
    weighted: None,
    dot: Dot::Parts(Parts {
        kind: Kind::Wide,
        unpack,
    }),
};

/// The whole number nearest to a value below 2²², halves away from zero: C's `roundf`. The number below ½ keeps ½ − 2⁻²⁵ from becoming 1.
#[inline(always)]
fn round(value: f32) -> f32 {
    (value + 0.499_999_97f32.copysign(value)).trunc()
}

#[inline(always)]
pub(crate) fn quantize(source: &[f32], blocks: &mut [u8]) {
    for (source, bytes) in source
        .as_chunks::<BLOCK>()
        .0
        .iter()
        .zip(blocks.as_chunks_mut::<BYTES>().0)
    {
        let scale = max_magnitude(source) / 127.0;
        let inverse = inverse(scale);
        let (head, values) = bytes.split_at_mut(2);
        head.copy_from_slice(&f32_to_f16(scale).to_le_bytes());
        for (value, byte) in source.iter().zip(values) {
            *byte = (round(value * inverse) + TO_WHOLE).to_bits() as u8;
        }
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
        for (value, byte) in values.iter_mut().zip(&bytes[2..]) {
            *value = scale * *byte as i8 as f32;
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
        let scale = max_magnitude(source) / 127.0;
        let inverse = inverse(scale);
        let scale = f16_to_f32(f32_to_f16(scale));
        for (value, rounded) in source.iter().zip(rounded) {
            *rounded = scale * ((round(value * inverse) + TO_WHOLE) - TO_WHOLE);
        }
    }
}

fn unpack(blocks: &[u8], parts: &mut [Part]) {
    for (block, part) in blocks.as_chunks::<BYTES>().0.iter().zip(parts) {
        *part = Part {
            values: std::array::from_fn(|i| block[2 + i] as i8),
            scales: [half_at(block, 0); 2],
            minimums: [0.0; 2],
        };
    }
}
