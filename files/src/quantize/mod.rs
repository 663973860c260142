//! `dram quantize`: a file of floating-point weights becomes one of blocks.

mod importance;
mod mixture;
mod rule;

use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use dram_core::gguf::names::{
    key,
    tensor::{self, weight},
};
use dram_core::gguf::{File, Tensor, Value};
use dram_core::quant::{Format, format_by_name};

use crate::parallel::for_each;
use crate::write::{Plan, write_copy};
use crate::{file_type, write_beside};
pub use importance::Importance;
pub use mixture::Mixture;
use mixture::Place;
pub use rule::Rule;

/// A conversion to be made.
pub struct Requantize<'a> {
    pub mixture: &'a Mixture,
    /// Exceptions by name.
    pub rules: &'a [Rule],
    pub importance: Option<&'a Importance>,
    pub threads: usize,
}

/// A finished tensor, for progress and reports.
#[derive(Debug, Clone, Copy)]
pub struct Done<'a> {
    pub name: &'a str,
    pub from: &'static Format,
    pub to: &'static Format,
    pub bytes: usize,
    /// Root mean square of the rounding errors over that of the values.
    pub error: f64,
}

impl Requantize<'_> {
    /// Writes `target` from the open `source`. Vectors, norms and position tables stay as they are; everything else of two dimensions is
    /// rounded. A matrix too narrow for 256-value blocks gets the next format with blocks of 32, as llama.cpp chooses it.
    ///
    /// # Errors
    /// When a tensor to be rounded is not in floating point, an importance matrix does not fit, a rule matches nothing, or the disk refuses.
    pub fn run(&self, source: &File, target: &Path, each: &mut dyn FnMut(Done<'_>)) -> Result<()> {
        let tensors: Vec<Tensor<'_>> = source.tensors().collect();
        for rule in self.rules {
            ensure!(
                tensors.iter().any(|t| rule.matches(t.name())),
                "no tensor is called {}; `dram inspect` lists them",
                rule.pattern
            );
        }
        let plans = self.plan(source, &tensors)?;
        let file_type = file_type(&self.mixture.name).context("a mixture without a file type")?;
        let changed = [
            ("general.file_type", Value::U32(file_type)),
            ("general.quantization_version", Value::U32(2)),
        ];
        write_beside(target, |beside| {
            write_copy(beside, source, &changed, &plans, &mut |index| {
                let (tensor, plan) = (tensors[index], &plans[index]);
                let (bytes, error) = self.convert(tensor, plan.format)?;
                each(Done {
                    name: tensor.name(),
                    from: tensor.format(),
                    to: plan.format,
                    bytes: bytes.len(),
                    error,
                });
                Ok(bytes)
            })
        })
    }

    fn plan(&self, source: &File, tensors: &[Tensor<'_>]) -> Result<Vec<Plan>> {
        let metadata = source.metadata();
        let architecture = metadata.str("general.architecture")?;
        let number = |key: &str| -> Result<Option<usize>> {
            Ok(metadata
                .opt_u32(&format!("{architecture}.{key}"))?
                .map(|n| n as usize))
        };
        let layers = number(key::BLOCK_COUNT)?.unwrap_or(0);
        let heads = number(key::HEAD_COUNT)?.unwrap_or(1);
        // One number, or one for each layer, of which llama.cpp takes the first; 0 is a layer without attention.
        let kv_heads = match metadata.get(&format!("{architecture}.{}", key::HEAD_COUNT_KV)) {
            Some(Value::Array(layers)) => layers.iter().next(),
            value => value,
        };
        let kv_heads = kv_heads
            .and_then(|n| usize::try_from(n.as_integer()?).ok())
            .unwrap_or(heads);
        let group = heads.checked_div(kv_heads).unwrap_or(0);
        let of_values = |tensor: &&Tensor<'_>| tensor.name().ends_with(".attn_v.weight");
        let mut values: Vec<_> = tensors.iter().filter(of_values).collect();
        values.sort_by_key(|tensor| layer_of(tensor.name()));
        let tied = !tensors.iter().any(|t| t.name() == weight(tensor::OUTPUT));
        tensors
            .iter()
            .map(|tensor| {
                let own = values.iter().position(|v| v.name() == tensor.name());
                let place = layer_of(tensor.name()).map(|layer| Place {
                    layer: own.unwrap_or(layer),
                    layers: own.map_or(layers, |_| values.len()),
                    group,
                });
                let format = self.choose(*tensor, place, tied)?;
                Ok(Plan {
                    name: tensor.name().into(),
                    shape: tensor.shape().iter().map(|&n| n as u64).collect(),
                    format,
                })
            })
            .collect()
    }

    fn choose(
        &self,
        tensor: Tensor<'_>,
        place: Option<Place>,
        tied: bool,
    ) -> Result<&'static Format> {
        let name = tensor.name();
        if let Some(rule) = self.rules.iter().find(|rule| rule.matches(name)) {
            ensure!(
                tensor.cols().is_multiple_of(rule.format.block),
                "{name}: rows of {} values do not divide into {} blocks of {}",
                tensor.cols(),
                rule.format.name,
                rule.format.block
            );
            return Ok(rule.format);
        }
        let kept = tensor.shape().len() < 2 || !name.ends_with(".weight") || stays_float(name);
        if kept || name == weight(tensor::PER_LAYER_MODEL_PROJ) {
            return Ok(tensor.format());
        }
        let tables = [tensor::TOKEN_EMBD, tensor::PER_LAYER_TOKEN_EMBD];
        let is_embedding = tables.iter().any(|table| name == weight(table));
        let head = name == weight(tensor::OUTPUT) || tied && is_embedding;
        let base = self.mixture.base;
        let wanted = match place {
            _ if !base.takes_int8() => base.name,
            _ if head && base.name != "q8_0" => "q6_k",
            _ if is_embedding && base.name.starts_with("tq") => "q4_k",
            Some(place) => {
                let kind = name.split('.').nth(2).unwrap_or_default();
                let kind = kind.trim_end_matches("_exps").trim_end_matches("_shexp");
                self.mixture.format_of(kind, place)
            }
            None => base.name,
        };
        let wanted = if format(wanted)?.block <= 32 || tensor.cols().is_multiple_of(256) {
            wanted
        } else {
            match wanted {
                "q2_k" | "q3_k" | "tq1_0" | "tq2_0" => "q4_0",
                "iq4_xs" => "iq4_nl",
                "q4_k" => "q5_0",
                "q5_k" => "q5_1",
                _ => "q8_0",
            }
        };
        let wanted = format(wanted)?;
        if tensor.cols().is_multiple_of(wanted.block) {
            Ok(wanted)
        } else {
            format("f16")
        }
    }

    /// The blocks of one tensor, and the relative error.
    fn convert(&self, tensor: Tensor<'_>, to: &'static Format) -> Result<(Vec<u8>, f64)> {
        let from = tensor.format();
        if from.ggml_id == to.ggml_id {
            return Ok((tensor.bytes().to_vec(), 0.0));
        }
        if from.takes_int8() {
            bail!(
                "it is {} already: a second rounding adds to the first; start from a file in f32, f16 or bf16",
                from.name
            );
        }
        let cols = tensor.cols();
        let matrices = tensor.shape().get(2).copied().unwrap_or(1); // experts
        let importance = self.importance.and_then(|all| all.0.get(tensor.name()));
        if let Some(importance) = importance {
            ensure!(
                importance.len() == cols * matrices,
                "the importance matrix has {} columns for it, the model {}",
                importance.len(),
                cols * matrices
            );
        }
        let too_large = "its size overflows";
        let (from_row, to_row) = (
            from.bytes(cols).context(too_large)?,
            to.bytes(cols).context(too_large)?,
        );
        // Some hundred thousand values of one matrix at a time.
        let rows = tensor.rows() / matrices;
        let most = (1usize << 18).div_ceil(cols.max(1));
        let mut blocks = vec![0; tensor.rows() * to_row];
        let whole = tensor
            .bytes()
            .chunks(rows * from_row)
            .zip(blocks.chunks_mut(rows * to_row));
        let pieces: Vec<_> = whole
            .enumerate()
            .flat_map(|(matrix, (source, target))| {
                let importance = importance.map(|all| &all[matrix * cols..][..cols]);
                let parts = source
                    .chunks(most * from_row)
                    .zip(target.chunks_mut(most * to_row));
                parts.map(move |(source, target)| (source, target, importance))
            })
            .collect();
        let sums = Mutex::new((0.0f64, 0.0f64));
        for_each(self.threads, pieces, |(source, target, importance)| {
            let count = source.len() / from_row * cols;
            let (mut values, mut back) = (vec![0.0; count], vec![0.0; count]);
            from.dequantize(source, &mut values);
            match importance {
                Some(importance) => to.quantize_with_importance(&values, importance, target),
                None => to.quantize(&values, target),
            }
            to.dequantize(target, &mut back);
            let square = |x: f32| f64::from(x) * f64::from(x);
            let error: f64 = values.iter().zip(&back).map(|(a, b)| square(a - b)).sum();
            let size: f64 = values.iter().map(|x| square(*x)).sum();
            let mut sums = sums.lock().unwrap_or_else(|e| e.into_inner());
            *sums = (sums.0 + error, sums.1 + size);
        });
        let (error, size) = sums.into_inner().unwrap_or_else(|e| e.into_inner());
        ensure!(size.is_finite(), "it holds a value that is not finite");
        Ok((blocks, (error / size.max(f64::MIN_POSITIVE)).sqrt()))
    }
}

/// Whether a tensor is of those that stay in floating point, though they are matrices.
pub(crate) fn stays_float(name: &str) -> bool {
    const KEPT: [&str; 7] = [
        "_norm.",
        tensor::POSITION_EMBD,
        tensor::TOKEN_TYPES,
        tensor::FFN_GATE_INP,
        tensor::SHORTCONV_CONV,
        tensor::SSM_CONV1D,
        "rope_",
    ];
    !name.ends_with(".weight") || KEPT.iter().any(|part| name.contains(part))
}

pub(crate) fn format(name: &str) -> Result<&'static Format> {
    format_by_name(name).with_context(|| format!("no format {name}"))
}

/// `blk.3.attn_v.weight` → 3
fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}
