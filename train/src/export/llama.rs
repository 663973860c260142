//! Between the decoder's flat parameters and the `llama` architecture of GGUF, with the names and keys of the family's description. The rows of q and k change
//! places ([`source_row`]).

use anyhow::{Context, Result, ensure};
use dram_core::gguf::File;
use dram_core::gguf::names::tensor::{self, weight};
use dram_core::model::folder::{Entries, Family, Fields};
use dram_core::quant::{Format, format_by_name};
use dram_files::write::{Entry, Plan};
use dram_files::{file_type, source_row};
use serde_json::Value as Json;

use crate::student::{Config, Layout, Parameter, Role, Scheme};

/// The format of a tensor; norms are always f32.
fn format_of(scheme: &Scheme, role: Role) -> Result<&'static Format> {
    match scheme.format(role) {
        Some(format) => Ok(format),
        None => format_by_name("f32").context("no format f32"),
    }
}

/// GGUF's name of a parameter.
fn name_of(parameter: &Parameter) -> Result<String> {
    let name = Family::llama().tensor(&parameter.name);
    name.with_context(|| format!("tensor {} has no name in GGUF", parameter.name))
}

/// Whether the rows of the file's matrix change places.
fn is_interleaved(name: &str) -> bool {
    let is = |part| name.ends_with(&format!(".{}", weight(part)));
    is(tensor::ATTN_Q) || is(tensor::ATTN_K)
}

/// Every tensor of the file, and where it comes from.
pub(super) struct Tensors<'a> {
    config: &'a Config,
    flat: &'a [f32], // laid out by `layout`
    pub(super) plans: Vec<Plan>,
    parameters: Vec<Parameter>,
}

impl<'a> Tensors<'a> {
    pub(super) fn new(
        config: &'a Config,
        layout: &Layout,
        flat: &'a [f32],
        scheme: &Scheme,
    ) -> Result<Self> {
        ensure!(
            flat.len() == layout.total,
            "expected {} parameters, got {}",
            layout.total,
            flat.len()
        );
        let mut plans = Vec::with_capacity(layout.parameters.len() + 1);
        for parameter in &layout.parameters {
            let name = name_of(parameter)?;
            let (rows, cols) = (parameter.rows as u64, parameter.cols as u64);
            let shape = if parameter.role == Role::Norm {
                vec![cols]
            } else {
                vec![cols, rows]
            };
            let plan = Plan {
                name,
                shape,
                format: format_of(scheme, parameter.role)?,
            };
            plan.bytes()?;
            plans.push(plan);
        }
        if !config.rope_factors.is_empty() {
            let shape = vec![config.rope_factors.len() as u64];
            plans.push(Plan {
                name: weight(tensor::ROPE_FREQS),
                shape,
                format: format_of(scheme, Role::Norm)?,
            });
        }
        Ok(Self {
            config,
            flat,
            plans,
            parameters: layout.parameters.clone(),
        })
    }

    /// The bytes of tensor `index`: its rows in the file's order, rounded by the runtime's own quantiser.
    pub(super) fn payload(&self, index: usize) -> Result<Vec<u8>> {
        let plan = &self.plans[index];
        let mut bytes = vec![0; plan.bytes()?];
        let Some(parameter) = self.parameters.get(index) else {
            plan.format.quantize(&self.config.rope_factors, &mut bytes);
            return Ok(bytes);
        };
        let values = &self.flat[parameter.range.clone()]; // [rows, cols]
        ensure!(
            values.iter().all(|v| v.is_finite()),
            "{} holds a value that is not finite: the training diverged",
            parameter.name
        );
        if plan.format.name == "f16" {
            let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
            ensure!(
                largest <= 65504.0,
                "{} holds {largest}, which f16 cannot; choose f32",
                parameter.name
            );
        }
        match is_interleaved(&plan.name) {
            false => plan.format.quantize(values, &mut bytes),
            true => {
                let row_bytes = bytes.len() / parameter.rows;
                for (row, out) in bytes.chunks_exact_mut(row_bytes).enumerate() {
                    let from = source_row(row, self.config.head_dim) * parameter.cols;
                    plan.format
                        .quantize(&values[from..from + parameter.cols], out);
                }
            }
        }
        Ok(bytes)
    }
}

/// Metadata that describes the model: what a folder of it would be converted to.
pub(super) fn metadata(config: &Config, scheme: &Scheme, name: &str) -> Result<Vec<Entry>> {
    let mut json = config.to_hugging_face();
    json["rope_scaling"] = Json::Null; // the factors are a tensor
    let (fields, family) = Fields::of(json)?;
    let mut entries = Entries::new(family.name);
    (family.keys)(&fields, &fields.shape(family)?, &mut entries)?;
    let file_type = file_type(scheme.linear.name).context("a format without a file type")?;
    let label = size_label(config.parameters());
    entries.set("general.name", name);
    entries.set("general.size_label", label);
    entries.set("general.file_type", file_type);
    entries.set("general.quantization_version", 2u32);
    Ok(entries.into_entries())
}

/// 1_234_567 → "1.2M".
fn size_label(parameters: usize) -> String {
    let n = parameters as f64;
    match n {
        _ if n >= 1e9 => format!("{:.1}B", n / 1e9),
        _ if n >= 1e6 => format!("{:.1}M", n / 1e6),
        _ => format!("{:.0}K", n / 1e3),
    }
}

/// The formats of a file's tensors, kind by kind.
///
/// # Errors
/// When tensors of one kind are stored in different formats: the decoder rounds each kind in one.
pub fn scheme_of(file: &File, config: &Config) -> Result<Scheme> {
    let embedding = file.tensor(&weight(tensor::TOKEN_EMBD))?.format();
    let mut scheme = Scheme {
        linear: embedding,
        embedding,
        head: embedding,
    };
    let mut first: Option<&'static Format> = None;
    for parameter in Layout::new(config).parameters {
        let name = name_of(&parameter)?;
        let format = file.tensor(&name)?.format();
        match parameter.role {
            Role::Linear => {
                let linear = *first.get_or_insert(format);
                ensure!(
                    linear.name == format.name,
                    "{}: {name} is {}, other matrices are {}; expected one format for all",
                    file.name(),
                    format.name,
                    linear.name
                );
                scheme.linear = linear;
            }
            Role::Head => scheme.head = format,
            Role::Embedding | Role::Norm => {}
        }
    }
    Ok(scheme)
}

/// Reads a `llama` GGUF back into the decoder's shape and flat parameters, dequantised.
///
/// # Errors
/// When the model has something the decoder does not (biases, partial rotation, another architecture), or a tensor is missing or misshapen.
pub fn import(file: &File, runtime: &dram_core::Config) -> Result<(Config, Vec<f32>)> {
    let c = runtime;
    let architecture = file.metadata().str("general.architecture")?;
    let plain = architecture == Family::llama().name && c.is_plain();
    let heads = c.heads().filter(|_| plain).with_context(|| {
        format!(
            "{}: the decoder is that of the llama family without windows or YaRN; this is {architecture}",
            file.name()
        )
    })?;
    ensure!(
        heads.key_length == heads.value_length && c.rope.dimensions == heads.key_length,
        "{}: heads of {} keys, {} values and {} rotated dimensions; the decoder has one length for all three",
        file.name(),
        heads.key_length,
        heads.value_length,
        c.rope.dimensions
    );
    if let Some(bias) = file.tensors().find(|t| t.name().ends_with(".bias")) {
        anyhow::bail!(
            "{}: the decoder has no biases, but the file holds {}",
            file.name(),
            bias.name()
        );
    }
    let mut rope_factors = match file.get_tensor(&weight(tensor::ROPE_FREQS)) {
        Some(tensor) => tensor.dequantize(),
        None => Vec::new(),
    };
    if c.rope.scale != 1.0 {
        rope_factors = if rope_factors.is_empty() {
            vec![1.0; heads.key_length / 2]
        } else {
            rope_factors
        };
        rope_factors.iter_mut().for_each(|f| *f /= c.rope.scale);
    }
    let config = Config {
        vocabulary: c.vocabulary,
        embedding_length: c.embedding_length,
        layers: c.layers.len(),
        heads: heads.queries,
        kv_heads: heads.kv,
        head_dim: heads.key_length,
        feed_forward_length: c.feed_forward_length(),
        context_length: c.context_length,
        rope_base: c.rope.base,
        rope_factors,
        norm_eps: c.norm_epsilon,
        tied_embeddings: file.get_tensor(&weight(tensor::OUTPUT)).is_none(),
    };
    config.check().with_context(|| file.name().to_owned())?;
    let layout = Layout::new(&config);
    let mut flat = vec![0f32; layout.total];
    for parameter in &layout.parameters {
        let name = name_of(parameter)?;
        let tensor = file.tensor(&name)?;
        ensure!(
            (tensor.rows(), tensor.cols()) == (parameter.rows, parameter.cols),
            "{}: tensor {name}: expected {} rows of {}, got {} of {}",
            file.name(),
            parameter.rows,
            parameter.cols,
            tensor.rows(),
            tensor.cols()
        );
        let out = &mut flat[parameter.range.clone()];
        match is_interleaved(&name) {
            false => tensor.format().dequantize(tensor.bytes(), out),
            true => {
                let row_bytes = tensor.bytes().len() / parameter.rows;
                for (row, bytes) in tensor.bytes().chunks_exact(row_bytes).enumerate() {
                    let to = source_row(row, config.head_dim) * parameter.cols;
                    tensor
                        .format()
                        .dequantize(bytes, &mut out[to..to + parameter.cols]);
                }
            }
        }
    }
    Ok((config, flat))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_has_a_name() {
        let layout = Layout::new(&Config {
            tied_embeddings: false,
            ..Config::default()
        });
        for parameter in &layout.parameters {
            assert!(name_of(parameter).is_ok(), "{}", parameter.name);
        }
    }
}
