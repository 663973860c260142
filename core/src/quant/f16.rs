//! F16: IEEE binary16, little-endian.

use super::float16::{f16_to_f32, f32_to_f16};
use super::{Codec, Dot, Format};

pub(crate) const BYTES: usize = 2;
const _: () = assert!(BYTES == size_of::<half::f16>());

pub(super) const FORMAT: Format = Format {
    name: "f16",
    ggml_id: 1,
    block: 1,
    block_bytes: BYTES,
    codec: Codec {
        quantize,
        dequantize,
        quantize_dequantize,
    },
    weighted: None,
    dot: Dot::Float(dot),
};

#[inline(always)]
pub(crate) fn quantize(source: &[f32], blocks: &mut [u8]) {
    for (value, bytes) in source.iter().zip(blocks.as_chunks_mut::<BYTES>().0) {
        *bytes = f32_to_f16(*value).to_le_bytes();
    }
}

#[inline(always)]
pub(crate) fn dequantize(blocks: &[u8], values: &mut [f32]) {
    for (value, bytes) in values.iter_mut().zip(blocks.as_chunks::<BYTES>().0) {
        *value = f16_to_f32(u16::from_le_bytes(*bytes));
    }
}

#[inline(always)]
pub(crate) fn quantize_dequantize(source: &[f32], rounded: &mut [f32]) {
    for (value, rounded) in source.iter().zip(rounded) {
        *rounded = f16_to_f32(f32_to_f16(*value));
    }
}

fn dot(row: &[u8], x: &[f32]) -> f32 {
    super::float_dot(row.as_chunks::<BYTES>().0, x, |bytes| {
        f16_to_f32(u16::from_le_bytes(*bytes))
    })
}
