//! Rounding as the runtime rounds, for quantisation-aware training.
//!
//! Weights pass through core's block formats, the inputs of products with quantised weights through core's int8 activations, keys and
//! values through f16. Gradients pass straight through (Bengio et al., 2013): the weights before rounding are the ones that are trained.

use anyhow::{Context, Result, ensure};
use dram_core::quant::{self, Format};
use dram_files::parallel;

use super::engine::Rounding;
use super::layout::{Layout, Role};
use super::ops::per_isa;

/// Whether a forward pass rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QuantMode {
    #[default]
    Off,
    On,
}

/// The block format of each kind of tensor; norms and biases stay f32.
#[derive(Debug, Clone, Copy)]
pub struct Scheme {
    /// Matrices of the layers.
    pub linear: &'static Format,
    /// Embeddings, which are the output matrix too when tied.
    pub embedding: &'static Format,
    /// The output matrix when not tied.
    pub head: &'static Format,
}

impl Scheme {
    /// Looks the formats up by name.
    ///
    /// # Errors
    /// With the list of known names.
    pub fn by_name(linear: &str, embedding: &str, head: &str) -> Result<Self> {
        let find = |name: &str| {
            quant::format_by_name(name).with_context(|| {
                let known: Vec<_> = quant::FORMATS.iter().map(|f| f.name).collect();
                format!(
                    "block format {name:?} is not known; known are {}",
                    known.join(", ")
                )
            })
        };
        Ok(Scheme {
            linear: find(linear)?,
            embedding: find(embedding)?,
            head: find(head)?,
        })
    }

    /// The format of a tensor; `None` for norms and biases.
    pub fn format(&self, role: Role) -> Option<&'static Format> {
        match role {
            Role::Embedding => Some(self.embedding),
            Role::Head => Some(self.head),
            Role::Linear => Some(self.linear),
            Role::Norm | Role::Bias => None,
        }
    }

    /// # Errors
    /// When rows of a tensor are no whole number of blocks.
    pub fn check(&self, layout: &Layout) -> Result<()> {
        for p in &layout.parameters {
            if let Some(format) = self.format(p.role) {
                let (name, cols, block) = (&p.name, p.cols, format.block);
                ensure!(
                    cols.is_multiple_of(block),
                    "{name}: rows of {cols} values do not divide into {} blocks of {block}; choose widths that are multiples of {block}, or f16",
                    format.name
                );
            }
        }
        Ok(())
    }

    pub(super) fn rounding(&self, tied: bool) -> Rounding {
        let head = if tied { self.embedding } else { self.head };
        Rounding {
            linear: self.linear.takes_int8(),
            head: head.takes_int8(),
            cache: true,
        }
    }

    /// `rounded = dequantise(quantise(weights))` for every tensor, on `threads` threads.
    pub fn round_weights(
        &self,
        layout: &Layout,
        weights: &[f32],
        rounded: &mut [f32],
        threads: usize,
    ) {
        // Work in pieces of whole rows, so that threads share large tensors.
        let mut pieces: Vec<(&[f32], &mut [f32], Option<&'static Format>)> = Vec::new();
        let mut rest = rounded;
        for p in &layout.parameters {
            let (mine, after) = std::mem::take(&mut rest).split_at_mut(p.range.len());
            rest = after;
            let piece = (PIECE / p.cols).max(1) * p.cols;
            let format = self.format(p.role);
            pieces.extend(
                weights[p.range.clone()]
                    .chunks(piece)
                    .zip(mine.chunks_mut(piece))
                    .map(|(from, to)| (from, to, format)),
            );
        }
        parallel::for_each(threads, pieces, |(from, to, format)| match format {
            Some(format) => format.quantize_dequantize(from, to),
            None => to.copy_from_slice(from),
        });
    }
}

/// Values per unit of parallel work.
const PIECE: usize = 1 << 16;

/// In place: to int8 blocks of 32 and back. Rows are whole blocks.
pub(super) fn round_activations(x: &mut [f32]) {
    let mut copy = [0f32; 1024];
    for x in x.chunks_mut(copy.len()) {
        let copy = &mut copy[..x.len()];
        copy.copy_from_slice(x);
        dram_core::kernels::round_activations(copy, x);
    }
}

per_isa! {
    /// In place: to f16 and back, nearest, ties to even, in branch-free arithmetic that vectorises.
    pub(super) fn round_f16(x: &mut [f32]) {
        const SIGN: u32 = 1 << 31;
        for x in x.iter_mut() {
            let bits = x.to_bits();
            let magnitude = f32::from_bits(bits & !SIGN);
            // Subnormal halves are multiples of 2^-24, which is the spacing of f32 at 0.5.
            let small = ((magnitude + 0.5) - 0.5).to_bits();
            // Others keep 10 of 23 mantissa bits.
            let normal = ((bits & !SIGN) + 0xfff + ((bits >> 13) & 1)) & !0x1fff;
            let half = if magnitude < 6.103_515_6e-5 { small } else { normal };
            let half = if magnitude >= 65520.0 { f32::INFINITY.to_bits() } else { half };
            let half = if magnitude.is_nan() { bits & !SIGN } else { half };
            *x = f32::from_bits(half | (bits & SIGN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_rounding_equals_half() {
        let mut bits = 0u32;
        let mut values = Vec::new();
        while let Some(next) = bits.checked_add(9973) {
            values.push(f32::from_bits(bits));
            bits = next;
        }
        values.extend([
            65519.996,
            65520.0,
            -65504.0,
            6.103_515_6e-5,
            2.9e-8,
            2.98e-8,
            5.97e-8,
        ]);
        let mut rounded = values.clone();
        round_f16(&mut rounded);
        for (x, y) in values.iter().zip(&rounded) {
            let want = half::f16::from_f32(*x).to_f32();
            assert!(
                y.to_bits() == want.to_bits() || (want.is_nan() && y.is_nan()),
                "{x:e}: {y:e}, expected {want:e}"
            );
        }
    }
}
