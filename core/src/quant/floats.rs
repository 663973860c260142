//! F32, F16 (IEEE binary16) and BF16 (bfloat16, the upper half of an f32): little-endian, a value to a block.

use super::float16::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use super::{Codec, Dot, Format};

/// How a value lies in a file.
pub(crate) trait Float<const BYTES: usize> {
    fn narrow(value: f32) -> [u8; BYTES];
    fn widen(bytes: [u8; BYTES]) -> f32;
}

pub(crate) struct F32;
impl Float<4> for F32 {
    #[inline(always)]
    fn narrow(value: f32) -> [u8; 4] {
        value.to_le_bytes()
    }
    #[inline(always)]
    fn widen(bytes: [u8; 4]) -> f32 {
        f32::from_le_bytes(bytes)
    }
}

pub(crate) struct F16;
impl Float<2> for F16 {
    #[inline(always)]
    fn narrow(value: f32) -> [u8; 2] {
        f32_to_f16(value).to_le_bytes()
    }
    #[inline(always)]
    fn widen(bytes: [u8; 2]) -> f32 {
        f16_to_f32(u16::from_le_bytes(bytes))
    }
}

pub(crate) struct Bf16;
impl Float<2> for Bf16 {
    #[inline(always)]
    fn narrow(value: f32) -> [u8; 2] {
        f32_to_bf16(value).to_le_bytes()
    }
    #[inline(always)]
    fn widen(bytes: [u8; 2]) -> f32 {
        bf16_to_f32(u16::from_le_bytes(bytes))
    }
}

pub(super) const F32_FORMAT: Format = format::<F32, 4>("f32", 0);
pub(super) const F16_FORMAT: Format = format::<F16, 2>("f16", 1);
pub(super) const BF16_FORMAT: Format = format::<Bf16, 2>("bf16", 30);

const fn format<F: Float<BYTES>, const BYTES: usize>(name: &'static str, ggml_id: u32) -> Format {
    Format {
        name,
        ggml_id,
        block: 1,
        block_bytes: BYTES,
        codec: Codec {
            quantize: quantize::<F, BYTES>,
            dequantize: dequantize::<F, BYTES>,
            quantize_dequantize: quantize_dequantize::<F, BYTES>,
        },
        weighted: None,
        dot: Dot::Float(dot::<F, BYTES>),
    }
}

#[inline(always)]
pub(crate) fn quantize<F: Float<BYTES>, const BYTES: usize>(source: &[f32], blocks: &mut [u8]) {
    for (value, bytes) in source.iter().zip(blocks.as_chunks_mut::<BYTES>().0) {
        *bytes = F::narrow(*value);
    }
}

#[inline(always)]
pub(crate) fn dequantize<F: Float<BYTES>, const BYTES: usize>(blocks: &[u8], values: &mut [f32]) {
    for (value, bytes) in values.iter_mut().zip(blocks.as_chunks::<BYTES>().0) {
        *value = F::widen(*bytes);
    }
}

#[inline(always)]
pub(crate) fn quantize_dequantize<F: Float<BYTES>, const BYTES: usize>(
    source: &[f32],
    rounded: &mut [f32],
) {
    for (value, rounded) in source.iter().zip(rounded) {
        *rounded = F::widen(F::narrow(*value));
    }
}

fn dot<F: Float<BYTES>, const BYTES: usize>(row: &[u8], x: &[f32]) -> f32 {
    super::float_dot(row.as_chunks::<BYTES>().0, x, |bytes| F::widen(*bytes))
}
