//! The arithmetic of a forward pass, once per instruction set, chosen once at run time.
//!
//! The scalar code is the specification: every instruction set gives the same bits, so a result depends neither on the machine, nor on the
//! number of threads, nor on how many tokens are evaluated together.
#![allow(
    clippy::needless_range_loop,
    reason = "tiles are indexed by lane, row and token"
)]

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod attention;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod attention_lanes;
pub(crate) mod attention_q8_0;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod block_product;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod few_tokens;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod format;
mod instantiate;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod kinds;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod lanes;
mod limits;
mod product;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod row_lanes;
mod scalar;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod unpack;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use attention::{KEYS, Scores, WeightedSum};
pub use format::{quantize_activations, round_activations};
pub(crate) use limits::Words;
pub use product::{Activations, Product, Weight};

use crate::quant::activation::{BLOCK, QuantizedMut};
use crate::quant::{Codec, Format};
use crate::{Error, Result};
use half::f16;
use std::sync::LazyLock;

/// One instruction set's kernels. A value is handed out only where the processor has the instructions.
pub struct Kernels {
    name: &'static str,
    /// Conversions by GGML number; a format that is not listed takes its own scalar code.
    codecs: &'static [(u32, Codec)],
    /// Products by GGML number; a format that is not listed takes its own scalar code.
    products: &'static [(u32, product::Kernel)],
    /// Products with one token, of whole registers of rows, by GGML number; a format that is not listed takes [`product::Unpacker::few_tokens`].
    one_token: &'static [(u32, product::Kernel)],
    /// Unpacking to parts by GGML number; a format that is not listed takes its own scalar code.
    unpackers: &'static [product::Unpacker],
    /// Products of unpacked parts, one for each [`crate::quant::blocks::Kind`], in its order.
    parts: [product::PartsKernel; 6],
    quantize_activations: unsafe fn(&[f32], QuantizedMut<'_>),
    round_activations: unsafe fn(&[f32], &mut [f32]),
    scores: unsafe fn(Scores<'_>),
    weighted_sum: unsafe fn(WeightedSum<'_>),
    scores_q8_0: unsafe fn(Scores<'_, u8>),
    weighted_sum_q8_0: unsafe fn(WeightedSum<'_, u8>),
    narrow: unsafe fn(&[f32], &mut [f16]),
    rms_norm: unsafe fn(&[f32], &[f32], f32, &mut [f32]),
    rms_norm_in_place: unsafe fn(&mut [f32], &[f32], f32),
    layer_norm: unsafe fn(&mut [f32], &[f32], &[f32], f32),
    softmax_exp: unsafe fn(&mut [f32], &mut [f32; 2]),
    softmax_merge: unsafe fn(&mut [f32], &mut [f32; 2], &[f32]),
    silu: unsafe fn(&mut [f32]),
    silu_mul: unsafe fn(&mut [f32], &[f32]),
    sigmoid_mul: unsafe fn(&mut [f32], &[f32]),
    delta_rule: unsafe fn(&mut [f32], DeltaToken<'_>, &mut [f32]),
    gelu_mul: unsafe fn(&mut [f32], &[f32]),
    gelu: unsafe fn(&mut [f32]),
    soft_cap: unsafe fn(&mut [f32], f32),
    add: unsafe fn(&mut [f32], &[f32]),
    scale: unsafe fn(&mut [f32], f32),
    rope: unsafe fn(&mut [f32], usize, &[f32], &[f32], Pairs),
    read: unsafe fn(&[Words]) -> f32,
    multiply_adds: unsafe fn(usize) -> u64,
}

/// What one token brings to one head of a gated delta net.
#[derive(Clone, Copy, Debug)]
pub struct DeltaToken<'a> {
    /// `[key_length]`
    pub query: &'a [f32],
    /// `[key_length]`
    pub key: &'a [f32],
    /// `[value_length]`
    pub value: &'a [f32],
    /// Multiplies what the state has.
    pub decay: f32,
    /// How much of the value's change is written.
    pub beta: f32,
}

/// Longest value head of a gated delta net.
pub const MAX_DELTA_COLS: usize = 256;

/// Which values of a head RoPE rotates together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// `(2i, 2i + 1)`, as GGUF files of the llama family hold their rows.
    Interleaved,
    /// `(i, i + d / 2)`, as Hugging Face checkpoints and the NeoX family do.
    Halves,
}

/// A table of kernels, and the test that the processor has its instructions.
type Row = (&'static Kernels, fn() -> bool);

/// The instruction sets of this build, best first. Scalar comes last and is always there.
static TABLE: &[Row] = &[
    #[cfg(target_arch = "x86_64")]
    (&x86::avx512::KERNELS, x86::has_avx512),
    #[cfg(target_arch = "x86_64")]
    (&x86::avx2::KERNELS, x86::has_avx2),
    #[cfg(target_arch = "aarch64")]
    (&aarch64::i8mm::KERNELS, aarch64::has_i8mm),
    #[cfg(target_arch = "aarch64")]
    (&aarch64::dotprod::KERNELS, aarch64::has_dotprod),
    #[cfg(target_arch = "aarch64")]
    (&aarch64::neon::KERNELS, || true),
    (&scalar::KERNELS, || true),
];

/// The names of the instruction sets that this machine has and this build knows, best first.
#[must_use]
pub fn available() -> Vec<&'static str> {
    every().map(|kernels| kernels.name).collect()
}

/// The kernels of every instruction set that this machine has, best first.
pub fn every() -> impl Iterator<Item = &'static Kernels> {
    TABLE.iter().filter(|row| row.1()).map(|row| row.0)
}

/// The kernels in use: the best that the machine has, or the one that the environment variable `DRAM_ISA` names.
///
/// # Errors
/// [`Error::InstructionSet`] when `DRAM_ISA` names one that is not [`available`]. [`selected`] then stays with the best one.
pub fn check_selected() -> Result<&'static Kernels> {
    static CHOICE: LazyLock<Result<&'static Kernels, String>> =
        LazyLock::new(|| match std::env::var("DRAM_ISA") {
            Ok(wanted) if !wanted.is_empty() => {
                every().find(|kernels| kernels.name == wanted).ok_or(wanted)
            }
            _ => Ok(best()),
        });
    CHOICE
        .as_ref()
        .copied()
        .map_err(|wanted| Error::InstructionSet {
            wanted: wanted.clone(),
            available: available().join(", "),
        })
}

/// The kernels in use; see [`check_selected`], which says when `DRAM_ISA` could not be followed.
#[must_use]
pub fn selected() -> &'static Kernels {
    static SELECTED: LazyLock<&'static Kernels> =
        LazyLock::new(|| check_selected().unwrap_or_else(|_| best()));
    *SELECTED
}

fn best() -> &'static Kernels {
    every().next().unwrap_or(&scalar::KERNELS)
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernels({})", self.name)
    }
}

/// All methods panic when lengths do not agree with what is written beside the arguments.
impl Kernels {
    /// The instruction set's name: `scalar`, `avx2`, `avx512vnni`, `neon`, `dotprod` or `i8mm`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    fn codec(&self, format: &Format) -> Codec {
        self.codecs
            .iter()
            .find(|row| row.0 == format.ggml_id)
            .map_or(format.codec, |row| row.1)
    }

    /// [`Format::quantize`] on this instruction set. `source`: `[values]`.
    pub fn quantize(&self, format: &Format, source: &[f32], blocks: &mut [u8]) {
        assert_eq!(
            format.bytes(source.len()),
            Some(blocks.len()),
            "{}: bytes of {} values",
            format.name,
            source.len()
        );
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.codec(format).quantize)(source, blocks) }
    }

    /// [`Format::dequantize`] on this instruction set. `values`: `[values]`.
    pub fn dequantize(&self, format: &Format, blocks: &[u8], values: &mut [f32]) {
        assert_eq!(
            format.bytes(values.len()),
            Some(blocks.len()),
            "{}: bytes of {} values",
            format.name,
            values.len()
        );
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.codec(format).dequantize)(blocks, values) }
    }

    /// [`Format::quantize_dequantize`] on this instruction set. `source`, `rounded`: `[values]`.
    pub fn quantize_dequantize(&self, format: &Format, source: &[f32], rounded: &mut [f32]) {
        assert!(
            source.len().is_multiple_of(format.block),
            "{}: {} values are no whole number of blocks",
            format.name,
            source.len()
        );
        assert_eq!(
            source.len(),
            rounded.len(),
            "{}: as many values out as in",
            format.name
        );
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.codec(format).quantize_dequantize)(source, rounded) }
    }

    /// Rounds `source`, `[tokens, cols]`, to int8 blocks of 32.
    pub fn quantize_activations(&self, source: &[f32], out: QuantizedMut<'_>) {
        assert!(
            source.len().is_multiple_of(BLOCK) && out.values.len() == source.len(),
            "as many values out as in, in whole blocks"
        );
        assert!(
            out.scales.len() * BLOCK == source.len() && out.sums.len() * BLOCK == source.len(),
            "one scale and one sum per block"
        );
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.quantize_activations)(source, out) }
    }

    /// Rounds `source`, `[values]`, to int8 blocks and back.
    pub fn round_activations(&self, source: &[f32], rounded: &mut [f32]) {
        assert!(
            source.len().is_multiple_of(BLOCK) && source.len() == rounded.len(),
            "as many values out as in, in whole blocks"
        );
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.round_activations)(source, rounded) }
    }

    /// Attention's scores; see [`Scores`].
    pub fn scores(&self, scores: Scores<'_>) {
        scores.check();
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.scores)(scores) }
    }

    /// Attention's weighted sums; see [`WeightedSum`].
    pub fn weighted_sum(&self, weighted_sum: WeightedSum<'_>) {
        weighted_sum.check();
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.weighted_sum)(weighted_sum) }
    }

    /// Attention's scores over a Q8_0 cache; see [`Scores`].
    pub fn scores_q8_0(&self, scores: Scores<'_, u8>) {
        scores.check();
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.scores_q8_0)(scores) }
    }

    /// Attention's weighted sums over a Q8_0 cache; see [`WeightedSum`].
    pub fn weighted_sum_q8_0(&self, weighted_sum: WeightedSum<'_, u8>) {
        weighted_sum.check();
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.weighted_sum_q8_0)(weighted_sum) }
    }

    /// f32 to f16, nearest, ties to even. Both `[values]`.
    pub fn narrow(&self, source: &[f32], out: &mut [f16]) {
        assert_eq!(source.len(), out.len(), "as many values out as in");
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.narrow)(source, out) }
    }

    /// RMSNorm: `out = x / √(mean(x²) + epsilon) · weight`. All `[cols]`. Zhang and Sennrich, 2019 (arXiv 1910.07467).
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        assert!(
            x.len() == weight.len() && x.len() == out.len(),
            "x, weight and out of one length"
        );
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.rms_norm)(x, weight, epsilon, out) }
    }

    /// [`Kernels::rms_norm`] in place. `x`, `weight`: `[cols]`.
    pub fn rms_norm_in_place(&self, x: &mut [f32], weight: &[f32], epsilon: f32) {
        assert_eq!(x.len(), weight.len(), "x and weight of one length");
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.rms_norm_in_place)(x, weight, epsilon) }
    }

    /// Layer norm in place: `x = (x - mean) / √(variance + epsilon) · weight + bias`. All `[cols]`; `bias` may be empty. Ba et al., 2016
    /// (arXiv 1607.06450).
    pub fn layer_norm(&self, x: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
        assert!(
            x.len() == weight.len() && (bias.is_empty() || bias.len() == x.len()),
            "x, weight and bias of one length"
        );
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.layer_norm)(x, weight, bias, epsilon) }
    }

    /// Softmax but for its division, in place: `value = exp(value - most)`. `values`: `[values]`, of which there may be none. Returns the greatest
    /// value and the sum of the exponentials.
    pub fn softmax_exp(&self, values: &mut [f32]) -> [f32; 2] {
        let mut found = [0.0; 2];
        // SAFETY: the processor has this table's instructions.
        unsafe { (self.softmax_exp)(values, &mut found) }
        found
    }

    /// Joins what attention found in some positions to `out` `[head_dim]` and `state`, what it found in those before: a greatest score and a sum of
    /// weights, at first −∞ and 0. `part`: `[head_dim + 2]`, values under their weights, then such a pair. Milakov and Gimelshein, 2018
    /// (arXiv 1805.02867).
    pub fn softmax_merge(&self, out: &mut [f32], state: &mut [f32; 2], part: &[f32]) {
        assert_eq!(out.len() + 2, part.len(), "values, a score and a sum");
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.softmax_merge)(out, state, part) }
    }

    /// SiLU in place: `x = x · sigmoid(x)`. `[values]`. Hendrycks and Gimpel, 2016 (arXiv 1606.08415).
    pub fn silu(&self, x: &mut [f32]) {
        // SAFETY: the processor has this table's instructions.
        unsafe { (self.silu)(x) }
    }

    /// `x *= sigmoid(gate)`. Both `[values]`.
    pub fn sigmoid_mul(&self, x: &mut [f32], gate: &[f32]) {
        assert_eq!(x.len(), gate.len(), "x and gate of one length");
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.sigmoid_mul)(x, gate) }
    }

    /// One token of a gated delta net in one head: `S = decay · S`, `S += k · (beta · (v − Sᵀk))ᵀ`, `out = Sᵀq`. `state`: S `[key_length, value_length]`;
    /// `out`: `[value_length]`. Yang et al., 2024 (arXiv 2412.06464).
    pub fn delta_rule(&self, state: &mut [f32], token: DeltaToken<'_>, out: &mut [f32]) {
        let (rows, cols) = (token.key.len(), token.value.len());
        assert!(
            token.query.len() == rows && state.len() == rows * cols && out.len() == cols,
            "a state of keys and values"
        );
        assert!((1..=MAX_DELTA_COLS).contains(&cols), "a value's length");
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.delta_rule)(state, token, out) }
    }

    /// SwiGLU's product in place: `gate = gate · sigmoid(gate) · up`. Both `[values]`. Shazeer, 2020 (arXiv 2002.05202).
    pub fn silu_mul(&self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "gate and up of one length");
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.silu_mul)(gate, up) }
    }

    /// GeGLU's product in place: `gate = gelu(gate) · up`, with `gelu(x) = x · (1 + tanh(√(2/π) · (x + 0.044715 · x³))) / 2`. Both `[values]`.
    /// Shazeer, 2020 (arXiv 2002.05202); Hendrycks and Gimpel, 2016 (arXiv 1606.08415).
    pub fn gelu_mul(&self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "gate and up of one length");
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.gelu_mul)(gate, up) }
    }

    /// GELU in place: `x = x · Φ(x)`, Φ being the normal distribution's function. `[values]`. Hendrycks and Gimpel, 2016 (arXiv 1606.08415).
    pub fn gelu(&self, x: &mut [f32]) {
        // SAFETY: the processor has this table's instructions.
        unsafe { (self.gelu)(x) }
    }

    /// `x = cap · tanh(x / cap)`. `[values]`. Gemma Team, 2024 (arXiv 2408.00118).
    pub fn soft_cap(&self, x: &mut [f32], cap: f32) {
        // SAFETY: the processor has this table's instructions.
        unsafe { (self.soft_cap)(x, cap) }
    }

    /// `x *= factor`. `[values]`.
    pub fn scale(&self, x: &mut [f32], factor: f32) {
        // SAFETY: the processor has this table's instructions.
        unsafe { (self.scale)(x, factor) }
    }

    /// `x += y`. Both `[values]`.
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "x and y of one length");
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.add)(x, y) }
    }

    /// Rotates the heads of one token in place. Su et al., 2021 (arXiv 2104.09864).
    ///
    /// `x`: `[heads, head_dim]`; `cos`, `sin`: `[rotated / 2]`, the angle of each pair at this position. The first `rotated` values of a
    /// head are rotated, the others stay.
    pub fn rope(&self, x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32], pairs: Pairs) {
        assert!(
            head_dim > 0 && x.len().is_multiple_of(head_dim),
            "whole heads"
        );
        assert!(
            cos.len() == sin.len() && cos.len() * 2 <= head_dim,
            "one angle per pair, within a head"
        );
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.rope)(x, head_dim, cos, sin, pairs) }
    }
}
