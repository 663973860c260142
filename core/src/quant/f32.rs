//! F32: plain little-endian floats.

use super::{Codec, Dot, Format};

pub(crate) const BYTES: usize = 4;
const _: () = assert!(BYTES == size_of::<f32>());

pub(super) const FORMAT: Format = Format {
    name: "f32",
    ggml_id: 0,
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

fn quantize(source: &[f32], blocks: &mut [u8]) {
    for (value, bytes) in source.iter().zip(blocks.as_chunks_mut::<BYTES>().0) {
        *bytes = value.to_le_bytes();
    }
}

fn dequantize(blocks: &[u8], values: &mut [f32]) {
    for (value, bytes) in values.iter_mut().zip(blocks.as_chunks::<BYTES>().0) {
        *value = f32::from_le_bytes(*bytes);
    }
}

fn quantize_dequantize(source: &[f32], rounded: &mut [f32]) {
    rounded.copy_from_slice(source);
}

fn dot(row: &[u8], x: &[f32]) -> f32 {
    super::float_dot(row.as_chunks::<BYTES>().0, x, |bytes| {
        f32::from_le_bytes(*bytes)
    })
}
