//! The differentiable decoder of every dense family that the runtime reads: students, teachers whose hidden states are wanted, and the fake-quantised twin of the runtime.
//!
//! Parameters are one flat buffer ([`Layout`] says where each tensor lies). The forward and backward passes are written out on slices
//! (`engine`), because candle's general autograd costs more than the arithmetic at these sizes; its plain form in candle operations is the
//! test.

mod config;
mod engine;
pub mod fakequant;
mod files;
mod layout;
pub mod ops;
mod rows;

use std::borrow::Cow;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, ensure};

pub use config::{Biases, Config, Options, families};
pub(crate) use engine::Tape;
pub use fakequant::{QuantMode, Scheme};
pub use layout::{Layout, Parameter, Role};

use dram_files::Rng;
use engine::{Net, Rounding};
pub use ops::bf16::native as bf16_is_native;
pub use ops::gemm::Products;
use ops::rope::Table;
use rows::Rows;

/// What a forward pass is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputSpec {
    /// Flat positions in the batch whose logits are wanted, ascending.
    pub positions: Vec<usize>,
    /// Layers whose hidden states are wanted at these positions: 0 the embeddings, `layers` the last.
    pub hidden_layers: Vec<usize>,
}

/// What a forward pass gives. s: number of positions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    /// [s, vocabulary]
    pub logits: Vec<f32>,
    /// For each layer asked for, [s, embedding_length]: the residual stream after that many layers (0: the embeddings), before the final norm.
    pub hidden: Vec<Vec<f32>>,
}

/// A decoder with f32 master weights.
#[derive(Debug, Clone)]
pub struct Decoder {
    config: Config,
    layout: Layout,
    parameters: Vec<f32>,
    rope: Table,
    local_rope: Option<Table>,
    scheme: Option<Scheme>,
    products: Products,
}

impl Decoder {
    /// From parameters laid out by [`Layout::new`].
    ///
    /// # Errors
    /// When the shape is impossible or the number of parameters is another.
    pub fn new(config: Config, parameters: Vec<f32>) -> Result<Self> {
        config.check()?;
        let layout = Layout::new(&config);
        ensure!(
            parameters.len() == layout.total,
            "expected {} parameters, got {}",
            layout.total,
            parameters.len()
        );
        let table = |f: &[f64]| Table::new(f, config.head_dim, config.context_length);
        let rope = table(&config.rope_frequencies());
        let local_rope = config.local_rope_frequencies().map(|f| table(&f));
        Ok(Decoder {
            config,
            layout,
            parameters,
            rope,
            local_rope,
            scheme: None,
            products: Products::F32,
        })
    }

    /// Random weights: normal with standard deviation 0.02 for embeddings, 1/√(columns) for matrices, those that write to the residual
    /// stream smaller by √(2·layers) (as in GPT-2); norms 1, biases 0.
    ///
    /// # Errors
    /// When the shape is impossible.
    pub fn random(config: Config, seed: u64) -> Result<Self> {
        config.check()?;
        let layout = Layout::new(&config);
        let mut parameters = vec![0f32; layout.total];
        for (index, p) in layout.parameters.iter().enumerate() {
            let values = &mut parameters[p.range.clone()];
            let residual =
                p.name.ends_with("o_proj.weight") || p.name.ends_with("down_proj.weight");
            let std = match p.role {
                Role::Norm => {
                    values.fill(1.0);
                    continue;
                }
                Role::Bias => continue,
                Role::Embedding | Role::Head => 0.02,
                Role::Linear if residual => (1.0 / (p.cols * 2 * config.layers) as f64).sqrt(),
                Role::Linear => (1.0 / p.cols as f64).sqrt(),
            };
            fill_normal(
                values,
                std,
                &mut Rng::new(&[seed, 0x0069_6e69_7400, index as u64]),
            );
        }
        Decoder::new(config, parameters)
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The flat buffer that [`Decoder::layout`] describes.
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    pub fn parameters_mut(&mut self) -> &mut [f32] {
        &mut self.parameters
    }

    /// A tensor by its Hugging Face name, [rows, cols].
    pub fn tensor(&self, name: &str) -> Option<&[f32]> {
        self.layout
            .find(name)
            .map(|p| &self.parameters[p.range.clone()])
    }

    /// The block formats that [`QuantMode::On`] rounds to.
    pub fn scheme(&self) -> Option<&Scheme> {
        self.scheme.as_ref()
    }

    /// # Errors
    /// When rows do not divide into blocks.
    pub fn set_scheme(&mut self, scheme: Option<Scheme>) -> Result<()> {
        if let Some(scheme) = &scheme {
            scheme.check(&self.layout)?;
        }
        self.scheme = scheme;
        Ok(())
    }

    /// What products are computed with from now on; f32 until then. Rounded forward passes ([`QuantMode::On`]) stay with f32, because there
    /// the numbers are those of the runtime; their backward passes follow.
    pub fn set_products(&mut self, products: Products) {
        self.products = products;
    }

    /// The decoder ready to run, its weights rounded (on `threads` threads) when `mode` says so.
    ///
    /// # Errors
    /// When rounding is asked for and no scheme is set.
    pub fn prepare(&self, mode: QuantMode, threads: usize) -> Result<Prepared<'_>> {
        let mut weights = Vec::new();
        let rounding = self.round_into(mode, threads, &mut weights)?;
        let weights = if mode == QuantMode::On {
            Cow::Owned(weights)
        } else {
            Cow::Borrowed(&self.parameters[..])
        };
        Ok(Prepared {
            decoder: self,
            weights,
            rounding,
            products: self.forward_products(mode),
            perturbed: false,
        })
    }

    /// Leaves rounded weights in `weights` when `mode` says so.
    pub(crate) fn round_into(
        &self,
        mode: QuantMode,
        threads: usize,
        weights: &mut Vec<f32>,
    ) -> Result<Rounding> {
        if mode == QuantMode::Off {
            return Ok(Rounding::default());
        }
        let Some(scheme) = &self.scheme else {
            anyhow::bail!(
                "quantised forward pass of a decoder without block formats; set them first"
            );
        };
        weights.resize(self.layout.total, 0.0);
        scheme.round_weights(&self.layout, &self.parameters, weights, threads);
        Ok(scheme.rounding(self.config.tied_embeddings))
    }

    /// The decoder on weights that [`Decoder::round_into`] made.
    pub(crate) fn prepared<'a>(
        &'a self,
        mode: QuantMode,
        rounded: &'a [f32],
        rounding: Rounding,
    ) -> Prepared<'a> {
        let weights = if mode == QuantMode::On {
            rounded
        } else {
            &self.parameters
        };
        Prepared {
            decoder: self,
            weights: Cow::Borrowed(weights),
            rounding,
            products: self.forward_products(mode),
            perturbed: false,
        }
    }

    fn forward_products(&self, mode: QuantMode) -> Products {
        if mode == QuantMode::On {
            Products::F32
        } else {
            self.products
        }
    }

    /// One unrounded forward pass on the calling thread; `ids`: [batch, length], right-padded.
    ///
    /// # Errors
    /// When positions, layers or tokens are out of range.
    pub fn forward(&self, ids: &[u32], length: usize, outputs: &OutputSpec) -> Result<Output> {
        self.prepare(QuantMode::Off, 1)?
            .forward(ids, length, outputs)
    }
}

/// A [`Decoder`] whose weights are as its products see them.
pub struct Prepared<'a> {
    decoder: &'a Decoder,
    weights: Cow<'a, [f32]>, // laid out like the decoder's parameters
    rounding: Rounding,
    products: Products,
    perturbed: bool,
}

impl Prepared<'_> {
    /// The same, but between its layers values change by 2⁻²¹ of themselves, about as much as sums in another order do. How far the logits move says
    /// what float rounding is worth in this model: little, unless activations are rounded to int8, where it may decide between two values.
    #[must_use]
    pub fn perturbed(&self) -> Prepared<'_> {
        Prepared {
            weights: Cow::Borrowed(&self.weights),
            perturbed: true,
            ..*self
        }
    }

    pub fn decoder(&self) -> &Decoder {
        self.decoder
    }

    /// The weights in use, rounded or not.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// One forward pass on the calling thread; `ids`: [batch, length], right-padded.
    ///
    /// # Errors
    /// When positions, layers or tokens are out of range.
    pub fn forward(&self, ids: &[u32], length: usize, outputs: &OutputSpec) -> Result<Output> {
        let mut tape = Tape::default();
        self.run(ids, length, outputs, false, &mut tape)?;
        Ok(Output {
            logits: tape.logits,
            hidden: tape.hidden,
        })
    }

    /// Leaves logits and hidden states in `tape`, and with `keep` what [`Prepared::backward`] needs.
    pub(crate) fn run(
        &self,
        ids: &[u32],
        length: usize,
        outputs: &OutputSpec,
        keep: bool,
        tape: &mut Tape,
    ) -> Result<()> {
        let c = &self.decoder.config;
        for &layer in &outputs.hidden_layers {
            ensure!(
                layer <= c.layers,
                "hidden state {layer} of a decoder with {} layers (0 is the embeddings)",
                c.layers
            );
        }
        let rows = self.rows(ids, length, &outputs.positions)?;
        self.net().forward(rows, &outputs.hidden_layers, keep, tape);
        Ok(())
    }

    /// Logits at `positions` (ascending flat indices into `ids`: [batch, length]) on the calling thread, at most `most` positions at a time, with
    /// the index of the first of them: `[up to most, vocabulary]`.
    ///
    /// # Errors
    /// When positions or tokens are out of range, `each` fails, or `stop` is set ([`crate::stop::Stopped`], within one layer's work).
    pub fn forward_in_portions(
        &self,
        (ids, length): (&[u32], usize),
        positions: &[usize],
        most: usize,
        stop: &AtomicBool,
        each: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let rows = self.rows(ids, length, positions)?;
        self.net().forward_in_portions(rows, most, stop, each)
    }

    fn rows(&self, ids: &[u32], length: usize, positions: &[usize]) -> Result<Rows> {
        let c = &self.decoder.config;
        Rows::new(
            ids,
            length,
            positions,
            c.heads,
            c.vocabulary,
            c.context_length,
        )
    }

    /// Adds the gradient of every parameter to `gradient`, from those of the logits [s, vocabulary] and hidden states.
    pub(crate) fn backward(
        &self,
        tape: &mut Tape,
        dlogits: &[f32],
        dhidden: &[Vec<f32>],
        gradient: &mut [f32],
    ) {
        self.net().backward(tape, dlogits, dhidden, gradient);
    }

    fn net(&self) -> Net<'_> {
        let d = self.decoder;
        Net {
            config: &d.config,
            layout: &d.layout,
            rope: &d.rope,
            local_rope: d.local_rope.as_ref(),
            weights: &self.weights,
            rounding: self.rounding,
            products: self.products,
            backward_products: d.products,
            perturbed: self.perturbed,
        }
    }
}

/// Box–Muller.
pub(crate) fn fill_normal(values: &mut [f32], std: f64, rng: &mut Rng) {
    let mut uniform = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    for pair in values.chunks_mut(2) {
        let (radius, angle) = (
            (-2.0 * (1.0 - uniform()).ln()).sqrt(),
            2.0 * std::f64::consts::PI * uniform(),
        );
        pair[0] = (radius * angle.cos() * std) as f32;
        if let Some(second) = pair.get_mut(1) {
            *second = (radius * angle.sin() * std) as f32;
        }
    }
}

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod tests;
