//! Conversions by the selected instruction set.

use super::selected;
use crate::quant::Format;
use crate::quant::activation::QuantizedMut;

impl Format {
    /// Rounds `source` to blocks. `source` holds any number of whole rows.
    ///
    /// # Panics
    /// When `source` is no whole number of blocks, or `blocks` is not exactly as long as they are.
    pub fn quantize(&self, source: &[f32], blocks: &mut [u8]) {
        selected().quantize(self, source, blocks);
    }

    /// As [`Format::quantize`], but moves rounding errors to where they matter least.
    ///
    /// `source`: `[rows, cols]`; `importance`: `[cols]`, how much the squared error of a column weighs (an importance matrix holds the mean
    /// square of the activations that meet the column), finite and not negative. Formats whose rounding leaves no choice (`f32`, `f16`, `bf16`, `q8_0`) pass it over.
    ///
    /// # Panics
    /// When `source` is no whole number of rows, a row is no whole number of blocks, or `blocks` is not exactly as long as they are.
    pub fn quantize_with_importance(&self, source: &[f32], importance: &[f32], blocks: &mut [u8]) {
        let Some(weighted) = self.weighted else {
            return self.quantize(source, blocks);
        };
        let cols = importance.len();
        let row_bytes = self.bytes(cols).unwrap_or(0);
        assert!(
            cols > 0 && row_bytes > 0 && source.len().is_multiple_of(cols),
            "{}: {} values in rows of {cols}",
            self.name,
            source.len()
        );
        assert_eq!(
            self.bytes(source.len()),
            Some(blocks.len()),
            "{}: bytes of {} values",
            self.name,
            source.len()
        );
        let rows = source.chunks_exact(cols);
        for (source, blocks) in rows.zip(blocks.chunks_exact_mut(row_bytes)) {
            weighted(source, importance, blocks);
        }
    }

    /// Reads `blocks` back. `values` holds any number of whole rows.
    ///
    /// # Panics
    /// When `values` is no whole number of blocks, or `blocks` is not exactly as long as they are.
    pub fn dequantize(&self, blocks: &[u8], values: &mut [f32]) {
        selected().dequantize(self, blocks, values);
    }

    /// What [`Format::quantize`] followed by [`Format::dequantize`] gives, bit for bit, in one pass.
    ///
    /// # Panics
    /// When `source` is no whole number of blocks, or `rounded` is not as long.
    pub fn quantize_dequantize(&self, source: &[f32], rounded: &mut [f32]) {
        selected().quantize_dequantize(self, source, rounded);
    }
}

/// Rounds `source` (`[tokens, cols]`) to int8 blocks.
///
/// # Panics
/// When `source` is no whole number of blocks, or `out` does not have exactly its size.
pub fn quantize_activations(source: &[f32], out: QuantizedMut<'_>) {
    selected().quantize_activations(source, out);
}

/// What [`quantize_activations`] followed by [`dequantize`](crate::quant::activation::dequantize) gives, bit for bit, in one pass.
///
/// # Panics
/// When `source` is no whole number of blocks, or `rounded` is not as long.
pub fn round_activations(source: &[f32], rounded: &mut [f32]) {
    selected().round_activations(source, rounded);
}
