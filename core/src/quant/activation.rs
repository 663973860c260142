//! The one activation format: int8 in blocks of 32, made anew for every product with a quantised weight.
//!
//! scale = max|x| / 127 in f32; value = x / scale to nearest, ties to even; the integer sum of each block is kept beside it, because
//! weights with an offset (Q4_0's −8) and unsigned multiply instructions need it. A block whose scale would be subnormal counts as zero;
//! one that holds an infinity or a NaN comes back as NaN, so that divergence shows.

use super::{TO_WHOLE, max_magnitude};

/// Values per block.
pub const BLOCK: usize = 32;

/// Quantised activations of one or more tokens, each with `cols` values, `cols` a multiple of 32.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantized<'a> {
    /// `[tokens, cols]`
    pub values: &'a [i8],
    /// `[tokens, cols / 32]`
    pub scales: &'a [f32],
    /// `[tokens, cols / 32]`: the sum of each block's values
    pub sums: &'a [i32],
}

/// Where quantised activations go.
#[derive(Debug, Default)]
pub struct QuantizedMut<'a> {
    /// `[tokens, cols]`
    pub values: &'a mut [i8],
    /// `[tokens, cols / 32]`
    pub scales: &'a mut [f32],
    /// `[tokens, cols / 32]`
    pub sums: &'a mut [i32],
}

/// Owned room for quantised activations, sized once and reused.
#[derive(Clone, Debug, Default)]
pub struct Buffer {
    values: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
}

impl Buffer {
    /// Room for `values` values (tokens × cols), rounded up to whole blocks.
    #[must_use]
    pub fn new(values: usize) -> Self {
        let blocks = values.div_ceil(BLOCK);
        Buffer {
            values: vec![0; blocks * BLOCK],
            scales: vec![0.0; blocks],
            sums: vec![0; blocks],
        }
    }

    /// Bytes that a buffer for `values` values takes.
    #[must_use]
    pub const fn bytes(values: usize) -> usize {
        values.div_ceil(BLOCK) * (BLOCK + size_of::<f32>() + size_of::<i32>())
    }

    /// The first `values` values, a whole number of blocks.
    ///
    /// # Panics
    /// When the buffer is smaller.
    #[must_use]
    pub fn view(&self, values: usize) -> Quantized<'_> {
        let blocks = values / BLOCK;
        Quantized {
            values: &self.values[..blocks * BLOCK],
            scales: &self.scales[..blocks],
            sums: &self.sums[..blocks],
        }
    }

    /// The first `values` values, a whole number of blocks, to write.
    ///
    /// # Panics
    /// When the buffer is smaller.
    pub fn view_mut(&mut self, values: usize) -> QuantizedMut<'_> {
        let blocks = values / BLOCK;
        QuantizedMut {
            values: &mut self.values[..blocks * BLOCK],
            scales: &mut self.scales[..blocks],
            sums: &mut self.sums[..blocks],
        }
    }
}

/// Reads quantised activations back.
///
/// # Panics
/// When the lengths do not agree.
pub fn dequantize(blocks: Quantized<'_>, values: &mut [f32]) {
    assert!(
        blocks.values.len() == values.len() && blocks.scales.len() * BLOCK == values.len(),
        "as many values out as in, in whole blocks"
    );
    let blocks = blocks
        .values
        .as_chunks::<BLOCK>()
        .0
        .iter()
        .zip(blocks.scales);
    for ((block, scale), values) in blocks.zip(values.as_chunks_mut::<BLOCK>().0) {
        for (byte, value) in block.iter().zip(values) {
            *value = scale * *byte as f32;
        }
    }
}

/// The scale, and what values are multiplied with before they are rounded.
#[inline(always)]
fn scale(block: &[f32; BLOCK]) -> (f32, f32) {
    let scale = max_magnitude(block) / 127.0;
    if scale < f32::MIN_POSITIVE {
        (0.0, 0.0)
    } else {
        (scale, 1.0 / scale)
    }
}

#[inline(always)]
pub(crate) fn quantize_blocks(source: &[f32], out: QuantizedMut<'_>) {
    let outs = out
        .values
        .as_chunks_mut::<BLOCK>()
        .0
        .iter_mut()
        .zip(out.scales)
        .zip(out.sums);
    for (source, ((bytes, out_scale), out_sum)) in source.as_chunks::<BLOCK>().0.iter().zip(outs) {
        let (scale, inverse) = scale(source);
        let mut sum = 0;
        for (value, byte) in source.iter().zip(bytes) {
            let whole = (value * inverse + TO_WHOLE).to_bits() as i8;
            *byte = whole;
            sum += whole as i32;
        }
        *out_scale = scale;
        *out_sum = sum;
    }
}

#[inline(always)]
pub(crate) fn round_blocks(source: &[f32], rounded: &mut [f32]) {
    for (source, rounded) in source
        .as_chunks::<BLOCK>()
        .0
        .iter()
        .zip(rounded.as_chunks_mut::<BLOCK>().0)
    {
        let (scale, inverse) = scale(source);
        for (value, rounded) in source.iter().zip(rounded) {
            *rounded = scale * ((value * inverse + TO_WHOLE) - TO_WHOLE);
        }
    }
}
