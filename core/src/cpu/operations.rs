//! Kernels with the rounding of activations, the unpacking of vectors and the pool's threads around them.

use super::adapters::Adapters;
use super::importance::Importance;
use super::parallel::{each, pieces, rows_per_job};
use crate::gguf;
use crate::kernels::{self, Activations, Kernels, Product};
use crate::model::weights::{Linear, Matrix, Norm};
use crate::model::{Activation, Config, Model, NormKind};
use crate::quant::activation::{Buffer, Quantized, QuantizedMut};
use crate::threads::Pool;

/// What a session does beside the products of its model; nothing, as a rule.
#[derive(Default)]
pub(super) struct Hooks {
    pub(super) adapters: Adapters,
    pub(super) importance: Option<Importance>,
}

impl Hooks {
    /// `out` `[tokens, rows]` has become the product of `matrix` with `x`.
    fn product(
        &mut self,
        o: &Operations<'_>,
        x: Activations<'_>,
        matrix: &Matrix,
        out: &mut [f32],
    ) {
        if let Some(importance) = &mut self.importance {
            importance.add(matrix, x);
        }
        self.adapters.apply(o, x, matrix, out);
    }
}

/// What every step needs.
#[derive(Clone, Copy)]
pub(super) struct Operations<'a> {
    model: &'a Model,
    file: &'a gguf::File,
    pub(super) config: &'a Config,
    pub(super) kernels: &'static Kernels,
    pub(super) pool: &'a Pool,
}

impl<'a> Operations<'a> {
    pub(super) fn new(model: &'a Model, pool: &'a Pool) -> Self {
        Operations {
            model,
            file: model.gguf(),
            config: model.config(),
            kernels: kernels::selected(),
            pool,
        }
    }

    /// The tokens' embeddings `[vocabulary, embedding]`.
    pub(super) fn embedding(&self) -> &'a Matrix {
        &self.model.weights().embedding
    }

    /// Row `row` of `matrix` as f32, to `out` `[cols]`.
    pub(super) fn unpack_row(&self, matrix: &Matrix, row: usize, out: &mut [f32]) {
        let weight = matrix.view(self.file);
        self.kernels.dequantize(weight.format, weight.row(row), out);
    }

    /// A vector's values as f32, to the front of `out`.
    pub(super) fn unpack(&self, vector: &Matrix, out: &mut [f32]) {
        let weight = vector.view(self.file);
        self.kernels.dequantize(
            weight.format,
            weight.bytes,
            &mut out[..weight.rows * weight.cols],
        );
    }

    /// A norm's weights and bias as f32 in `vector` `[2, widest]`; no bias is empty.
    fn unpack_norm<'v>(&self, norm: &Norm, vector: &'v mut [f32]) -> [&'v [f32]; 2] {
        let (weight, bias) = vector.split_at_mut(vector.len() / 2);
        self.unpack(&norm.weight, weight);
        let cols = norm.weight.rows * norm.weight.cols;
        match &norm.bias {
            Some(matrix) => {
                self.unpack(matrix, bias);
                [&weight[..cols], &bias[..cols]]
            }
            None => [&weight[..cols], &[]],
        }
    }

    /// `out` = the norm of `x` `[tokens, embedding]`, rounded to the front of `int8` where a reader takes int8. `vector`: `[2, widest]`.
    pub(super) fn normalise(
        &self,
        norm: &Norm,
        x: &[f32],
        out: &mut [f32],
        int8: &mut Buffer,
        vector: &mut [f32],
        readers: &[&Matrix],
    ) {
        let [weight, bias] = self.unpack_norm(norm, vector);
        let (cols, epsilon) = (weight.len(), self.config.norm_epsilon);
        let per = cols * rows_per_job(self.pool, x.len() / cols, 2 * cols * size_of::<f32>());
        let rounded = pieces(wanted(int8, x.len(), readers), per, x.len().div_ceil(per));
        each(
            self.pool,
            x.chunks(per).zip(out.chunks_mut(per)).zip(rounded),
            |_, ((x, out), rounded)| {
                for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(cols)) {
                    match self.config.norm {
                        NormKind::Rms => self.kernels.rms_norm(x, weight, epsilon, out),
                        NormKind::Layer => {
                            out.copy_from_slice(x);
                            self.kernels.layer_norm(out, weight, bias, epsilon);
                        }
                    }
                }
                self.quantize(out, rounded);
            },
        );
    }

    /// Normalises `x` in place: every `cols` values together, by the norm's weights, which begin again where `x` is longer. `vector`: `[2, widest]`.
    pub(super) fn normalise_in_place(
        &self,
        norm: &Norm,
        cols: usize,
        x: &mut [f32],
        vector: &mut [f32],
    ) {
        let [weight, bias] = self.unpack_norm(norm, vector);
        let (row, epsilon) = (weight.len(), self.config.norm_epsilon);
        let per = row * rows_per_job(self.pool, x.len() / row, 2 * row * size_of::<f32>());
        each(self.pool, x.chunks_mut(per), |_, x| {
            for (x, weight) in x
                .chunks_exact_mut(cols)
                .zip(weight.chunks_exact(cols).cycle())
            {
                match self.config.norm {
                    NormKind::Rms => self.kernels.rms_norm_in_place(x, weight, epsilon),
                    NormKind::Layer => self.kernels.layer_norm(x, weight, bias, epsilon),
                }
            }
        });
    }

    /// `gate` `[tokens, cols]` = the activation of it, times `up` where that is gated, and rounded to `int8` where the reader takes that.
    pub(super) fn activate(
        &self,
        gate: &mut [f32],
        up: &[f32],
        int8: &mut Buffer,
        reader: &Matrix,
    ) {
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
                match self.config.activation {
                    Activation::SiluGated => self.kernels.silu_mul(gate, up),
                    Activation::GeluGated => self.kernels.gelu_mul(gate, up),
                    Activation::GeluErfGated => {
                        self.kernels.gelu(gate);
                        gate.iter_mut().zip(up).for_each(|(gate, up)| *gate *= up);
                    }
                    Activation::Gelu => self.kernels.gelu(gate),
                }
                self.quantize(gate, rounded);
            },
        );
    }

    /// Rounds `x` `[tokens, cols]` to `int8` where a reader takes int8.
    pub(super) fn round(&self, x: &[f32], int8: &mut Buffer, readers: &[&Matrix]) {
        let cols = readers[0].cols;
        let per = cols * rows_per_job(self.pool, x.len() / cols, cols * size_of::<f32>());
        let rounded = pieces(wanted(int8, x.len(), readers), per, x.len().div_ceil(per));
        each(self.pool, x.chunks(per).zip(rounded), |_, (x, rounded)| {
            self.quantize(x, rounded)
        });
    }

    fn quantize(&self, x: &[f32], out: Option<QuantizedMut<'_>>) {
        if let Some(out) = out {
            self.kernels.quantize_activations(x, out);
        }
    }

    /// One product, `[tokens, rows]`, to the front of `out`.
    pub(super) fn product(
        &self,
        x: Activations<'_>,
        matrix: &Matrix,
        out: &mut [f32],
        hooks: &mut Hooks,
    ) {
        let out = &mut out[..x.tokens * matrix.rows];
        self.prefetch(x.tokens, matrix);
        self.kernels
            .product(self.pool, x, matrix.view(self.file), out);
        hooks.product(self, x, matrix, out);
    }

    /// Lets the threads ask for what is read after the product with `matrix`. A product with many tokens leaves them no time for it.
    fn prefetch(&self, tokens: usize, matrix: &Matrix) {
        if tokens == 1 && !matrix.prefetch.is_empty() {
            let then = matrix.prefetch.iter().map(|matrix| matrix.view(self.file));
            self.kernels.prefetch(self.pool, then);
        }
    }

    /// Several products of one input in one parallel region, each with its bias, `[tokens, rows]` each, to the front of its output.
    pub(super) fn project<const N: usize>(
        &self,
        x: Activations<'_>,
        mut outputs: [(&Linear, &mut [f32]); N],
        vector: &mut [f32],
        hooks: &mut Hooks,
    ) {
        let last = &outputs[N - 1].0.matrix;
        let products = outputs.each_mut().map(|(linear, out)| {
            let weight = linear.matrix.view(self.file);
            Product {
                weight,
                out: &mut out[..x.tokens * weight.rows],
            }
        });
        self.prefetch(x.tokens, last);
        self.kernels.products(self.pool, x, products);
        for (linear, out) in outputs {
            let rows = linear.matrix.rows;
            let out = &mut out[..x.tokens * rows];
            hooks.product(self, x, &linear.matrix, out);
            let Some(bias) = &linear.bias else { continue };
            self.unpack(bias, vector);
            for out in out.chunks_exact_mut(rows) {
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
pub(super) fn activations<'o>(float: &'o [f32], int8: &'o Buffer, cols: usize) -> Activations<'o> {
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
