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
mod elementwise;
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
pub use elementwise::{MAX_STATE_COLS, StateToken};
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
    delta_rule: unsafe fn(&mut [f32], StateToken<'_>, &mut [f32]),
    state_space: unsafe fn(&mut [f32], StateToken<'_>, &mut [f32]),
    gelu_mul: unsafe fn(&mut [f32], &[f32]),
    gelu: unsafe fn(&mut [f32]),
    soft_cap: unsafe fn(&mut [f32], f32),
    add: unsafe fn(&mut [f32], &[f32]),
    scale: unsafe fn(&mut [f32], f32),
    rope: unsafe fn(&mut [f32], usize, &[f32], &[f32], RopeLayout),
    read: unsafe fn(&[Words]) -> f32,
    multiply_adds: unsafe fn(usize) -> u64,
}

/// Which values of a head RoPE rotates together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeLayout {
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
}
