//! The steps that the forward pass is told in: kernels with the rounding of activations, the unpacking of vectors and the pool's threads around them.

use super::parallel::{each, pieces, rows_per_job};
use super::weights::{Linear, Matrix};
use crate::gguf;
use crate::kernels::{self, Activations, Kernels, Product};
use crate::quant::activation::{Buffer, Quantized, QuantizedMut};
use crate::threads::Pool;

/// What every step needs.
#[derive(Clone, Copy)]
pub(crate) struct Operations<'a> {
    file: &'a gguf::File,
    pub(crate) kernels: &'static Kernels,
    pub(crate) pool: &'a Pool,
}

impl<'a> Operations<'a> {
    pub(crate) fn new(file: &'a gguf::File, pool: &'a Pool) -> Self {
        Operations {
            file,
            kernels: kernels::selected(),
            pool,
        }
    }

    /// Row `row` of `matrix` as f32, to `out` `[cols]`.
    pub(crate) fn unpack_row(&self, matrix: &Matrix, row: usize, out: &mut [f32]) {
        let weight = matrix.view(self.file);
        self.kernels.dequantize(weight.format, weight.row(row), out);
    }

    /// A vector's values as f32, to the front of `out`.
    pub(crate) fn unpack(&self, vector: &Matrix, out: &mut [f32]) {
        let weight = vector.view(self.file);
        self.kernels.dequantize(
            weight.format,
            weight.bytes,
            &mut out[..weight.rows * weight.cols],
        );
    }

    /// RMS norm of `x` `[tokens, cols]` by `weight` `[cols]`, to the front of `out` and, where a reader takes int8, of `int8`.
    pub(crate) fn normalise<'o>(
        &self,
        x: &[f32],
        weight: &[f32],
        epsilon: f32,
        out: &'o mut [f32],
        int8: &'o mut Buffer,
        readers: &[&Matrix],
    ) -> Activations<'o> {
        let cols = weight.len();
        let out = &mut out[..x.len()];
        let per = cols * rows_per_job(self.pool, x.len() / cols, 2 * cols * size_of::<f32>());
        let rounded = pieces(wanted(int8, x.len(), readers), per, x.len().div_ceil(per));
        each(
            self.pool,
            x.chunks(per).zip(out.chunks_mut(per)).zip(rounded),
            |_, ((x, out), rounded)| {
                for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(cols)) {
                    self.kernels.rms_norm(x, weight, epsilon, out);
                }
                self.quantize(out, rounded);
            },
        );
        activations(out, int8, cols)
    }

    /// `gate` `[tokens, cols]` = silu(gate) · up, and rounded to `int8` where the reader takes that.
    pub(crate) fn gated<'o>(
        &self,
        gate: &'o mut [f32],
        up: &[f32],
        int8: &'o mut Buffer,
        reader: &Matrix,
    ) -> Activations<'o> {
        let cols = reader.cols;
        let per = cols * rows_per_job(self.pool, gate.len() / cols, 2 * cols * size_of::<f32>());
        let rounded = pieces(
            wanted(int8, gate.len(), &[reader]),
            per,
            gate.len().div_ceil(per),
        );
        each(
            self.pool,
            gate.chunks_mut(per).zip(up.chunks(per)).zip(rounded),
            |_, ((gate, up), rounded)| {
                self.kernels.silu_mul(gate, up);
                self.quantize(gate, rounded);
            },
        );
        activations(gate, int8, cols)
    }

    /// `x` `[tokens, cols]` as the reader takes it.
    pub(crate) fn round<'o>(
        &self,
        x: &'o [f32],
        int8: &'o mut Buffer,
        reader: &Matrix,
    ) -> Activations<'o> {
        let cols = reader.cols;
        let per = cols * rows_per_job(self.pool, x.len() / cols, cols * size_of::<f32>());
        let rounded = pieces(wanted(int8, x.len(), &[reader]), per, x.len().div_ceil(per));
        each(self.pool, x.chunks(per).zip(rounded), |_, (x, rounded)| {
            self.quantize(x, rounded)
        });
        activations(x, int8, cols)
    }

    fn quantize(&self, x: &[f32], out: Option<QuantizedMut<'_>>) {
        if let Some(out) = out {
            self.kernels.quantize_activations(x, out);
        }
    }

    /// One product, `[tokens, rows]`, to the front of `out`.
    pub(crate) fn product(&self, x: Activations<'_>, matrix: &Matrix, out: &mut [f32]) {
        let out = &mut out[..x.tokens * matrix.rows];
        self.kernels
            .product(self.pool, x, matrix.view(self.file), out);
    }

    /// Several products of one input in one parallel region, each with its bias, `[tokens, rows]` each, to the front of its output.
    pub(crate) fn project<const N: usize>(
        &self,
        x: Activations<'_>,
        mut outputs: [(&Linear, &mut [f32]); N],
        vector: &mut [f32],
    ) {
        let products = outputs.each_mut().map(|(linear, out)| {
            let weight = linear.matrix.view(self.file);
            Product {
                weight,
                out: &mut out[..x.tokens * weight.rows],
            }
        });
        self.kernels.products(self.pool, x, products);
        for (linear, out) in outputs {
            let Some(bias) = &linear.bias else { continue };
            self.unpack(bias, vector);
            let rows = linear.matrix.rows;
            for out in out[..x.tokens * rows].chunks_exact_mut(rows) {
                self.kernels.add(out, &vector[..rows]);
            }
        }
    }
}

/// Room for `values` rounded values, if a reader takes them.
fn wanted<'o>(
    int8: &'o mut Buffer,
    values: usize,
    readers: &[&Matrix],
) -> Option<QuantizedMut<'o>> {
    readers
        .iter()
        .any(|matrix| matrix.format.takes_int8())
        .then(|| int8.view_mut(values))
}

/// What a product reads: `float` `[tokens, cols]` and its rounded twin. Where no reader takes int8 the twin is left over from before, and not looked at.
fn activations<'o>(float: &'o [f32], int8: &'o Buffer, cols: usize) -> Activations<'o> {
    let int8 = if cols.is_multiple_of(crate::quant::activation::BLOCK) {
        int8.view(float.len())
    } else {
        Quantized::default()
    };
    Activations {
        tokens: float.len() / cols,
        float,
        int8,
    }
}
