//! The tensors of the file: which weights of the folder each is made of, in which order of rows and in which format.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use dram_core::model::folder::{Family, Fields, Shape};
use dram_core::quant::Format;

use super::naming::Size;
use super::planner::{EncoderHead, Planner};
use super::source::{Source, Stored};
use crate::source_row;
use crate::write::{Payload, Plan};

/// Values converted at a time.
const CHUNK: usize = 1 << 18;

/// Every tensor of the file.
pub(super) struct Tensors<'a> {
    source: &'a Source,
    pub(super) plans: Vec<Plan>,
    makes: Vec<Make<'a>>,
}

/// What a tensor is made of.
pub(super) enum Make<'a> {
    /// These values, such as factors of RoPE.
    Values(Vec<f32>),
    Weights {
        /// One below the other.
        parts: Vec<Rows<'a>>,
        cols: usize,
        /// Rows of a head are interleaved: see [`source_row`].
        head_dim: Option<usize>,
        /// Added to every value.
        shift: f32,
    },
}

/// Rows of a weight.
pub(super) struct Rows<'a> {
    pub(super) stored: &'a Stored,
    pub(super) rows: Range<usize>,
}

impl<'a> Rows<'a> {
    /// All rows of `cols` values.
    pub(super) fn all(stored: &'a Stored, cols: usize) -> Rows<'a> {
        let rows = 0..stored.shape.iter().product::<usize>() / cols;
        Rows { stored, rows }
    }
}

impl<'a> Tensors<'a> {
    /// `format`: of matrices; vectors, norms and tables of positions are f32.
    ///
    /// # Errors
    /// Names a tensor that is missing, has another shape than `config.json` says, or is left over.
    pub(super) fn plan(
        source: &'a Source,
        family: Family,
        fields: &'a Fields,
        shape: &'a Shape,
        encoder: &EncoderHead,
        format: &'static Format,
    ) -> Result<Self> {
        let (plans, makes) = Planner::new(source, family, fields, shape, format).run(encoder)?;
        Ok(Tensors {
            source,
            plans,
            makes,
        })
    }

    /// Values in all tensors.
    pub(super) fn parameters(&self) -> usize {
        self.plans
            .iter()
            .map(|plan| plan.shape.iter().product::<u64>() as usize)
            .sum()
    }

    /// How large the model is.
    pub(super) fn size(&self) -> Size {
        let experts = |plan: &&Plan| plan.name.contains("_exps.");
        let rest = |plan: &Plan| plan.shape.iter().take(2).product::<u64>() as usize;
        let count = self.plans.iter().find(experts).map(|plan| plan.shape[2]);
        Size {
            parameters: self.parameters(),
            experts: count.map(|count| (count as usize, self.plans.iter().map(rest).sum())),
        }
    }

    /// Puts the bytes of tensor `index`.
    ///
    /// # Errors
    /// When a value is not finite, or too large for the format.
    pub(super) fn payload(&self, index: usize, out: &mut Payload<'_>) -> Result<()> {
        let to = self.plans[index].format;
        let (parts, cols, head_dim, shift) = match &self.makes[index] {
            Make::Values(values) => {
                let mut bytes = vec![0; 4 * values.len()];
                to.quantize(values, &mut bytes);
                return out.put(&bytes);
            }
            Make::Weights {
                parts,
                cols,
                head_dim,
                shift,
            } => (parts, *cols, *head_dim, *shift),
        };
        for Rows { stored, rows } in parts {
            let row_bytes = stored.format.bytes(cols).context("its size overflows")?;
            let bytes = self.source.bytes(stored);
            let bytes = &bytes[rows.start * row_bytes..rows.end * row_bytes];
            let rows = rows.len();
            let step = CHUNK.div_ceil(cols);
            let (mut picked, mut values, mut written) = (Vec::new(), Vec::new(), Vec::new());
            for start in (0..rows).step_by(step) {
                let end = (start + step).min(rows);
                let chunk = match head_dim {
                    None => &bytes[start * row_bytes..end * row_bytes],
                    Some(head_dim) => {
                        picked.clear();
                        for row in start..end {
                            let from = source_row(row, head_dim) * row_bytes;
                            picked.extend_from_slice(&bytes[from..from + row_bytes]);
                        }
                        &picked
                    }
                };
                values.resize((end - start) * cols, 0.0);
                stored.format.dequantize(chunk, &mut values);
                let largest = values.iter().fold(0f32, |most, x| {
                    if x.is_finite() {
                        most.max(x.abs())
                    } else {
                        f32::INFINITY
                    }
                });
                ensure!(largest.is_finite(), "it holds a value that is not finite");
                ensure!(
                    to.name != "f16" || largest < 65_520.0,
                    "it holds {largest}, which f16 cannot; choose --type bf16 or f32"
                );
                if to.ggml_id == stored.format.ggml_id && shift == 0.0 {
                    out.put(chunk)?;
                    continue;
                }
                // Adding 0 would lose the sign of -0.
                if shift != 0.0 {
                    values.iter_mut().for_each(|x| *x += shift);
                }
                written.resize(to.bytes(values.len()).context("its size overflows")?, 0);
                to.quantize(&values, &mut written);
                out.put(&written)?;
            }
        }
        Ok(())
    }
}
