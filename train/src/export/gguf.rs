//! Between the decoder's flat parameters and a GGUF file of its family, with the names and keys of the family's description. Of families that
//! rotate adjacent pairs, the rows of q and k change places ([`source_row`]).

use std::collections::HashSet;

use anyhow::{Context, Result, bail, ensure};
use dram_core::gguf::File;
use dram_core::gguf::names::tensor::{self, weight};
use dram_core::model::folder::{Entries, Family, Fields};
use dram_core::quant::{Format, format_by_name};
use dram_files::write::{Entry, Plan};
use dram_files::{file_type, source_row};
use serde_json::Value as Json;

use crate::student::{Biases, Config, Layout, Parameter, Role, Scheme};

/// The format of a tensor; norms are always f32.
fn format_of(scheme: &Scheme, role: Role) -> Result<&'static Format> {
    match scheme.format(role) {
        Some(format) => Ok(format),
        None => format_by_name("f32").context("no format f32"),
    }
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
            let (rows, cols) = (parameter.rows as u64, parameter.cols as u64);
            let shape = if parameter.is_vector() {
                vec![cols]
            } else {
                vec![cols, rows]
            };
            let plan = Plan {
                name: parameter.gguf.clone(),
                shape,
                format: format_of(scheme, parameter.role)?,
            };
            plan.bytes()?;
            plans.push(plan);
        }
        if holds_factors(config) {
            let shape = vec![config.rope_factors.len() as u64];
            plans.push(Plan {
                name: ROPE_FREQS.into(),
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
        if !parameter.interleaved {
            plan.format.quantize(values, &mut bytes);
            return Ok(bytes);
        }
        let cols = row_length(parameter);
        let row_bytes = bytes.len() / (values.len() / cols);
        for (row, out) in bytes.chunks_exact_mut(row_bytes).enumerate() {
            let from = source_row(row, self.config.head_dim) * cols;
            plan.format.quantize(&values[from..from + cols], out);
        }
        Ok(bytes)
    }
}

/// Values that change places together: a matrix's row, or one value of its bias.
fn row_length(parameter: &Parameter) -> usize {
    if parameter.is_vector() {
        1
    } else {
        parameter.cols
    }
}

/// Whether factors of the rotary frequencies are a tensor of the file; in others the metadata have them, all alike.
fn holds_factors(config: &Config) -> bool {
    config.family == Family::llama() && !config.rope_factors.is_empty()
}

/// Metadata that describes the model: what a folder of it would be converted to.
pub(super) fn metadata(config: &Config, scheme: &Scheme, name: &str) -> Result<Vec<Entry>> {
    let mut json = config.to_hugging_face();
    if holds_factors(config) {
        json["rope_scaling"] = Json::Null;
    }
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
        let name = &parameter.gguf;
        let format = file.tensor(name)?.format();
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
            Role::Embedding | Role::Norm | Role::Bias => {}
        }
    }
    Ok(scheme)
}

/// Reads a GGUF file back into the decoder's shape and flat parameters, dequantised.
///
/// # Errors
/// When the model has something the decoder does not (YaRN, experts, an encoder), or a tensor is missing or misshapen.
pub fn import(file: &File, runtime: &dram_core::Config) -> Result<(Config, Vec<f32>)> {
    let config = config_of(file, runtime).with_context(|| file.name().to_owned())?;
    let layout = Layout::new(&config);
    let known: HashSet<&str> = (layout.parameters.iter().map(|p| &*p.gguf))
        .chain([ROPE_FREQS])
        .collect();
    if let Some(other) = file.tensors().find(|t| !known.contains(t.name())) {
        bail!(
            "{}: the decoder has nothing like tensor {}",
            file.name(),
            other.name()
        );
    }
    let mut flat = vec![0f32; layout.total];
    for parameter in &layout.parameters {
        let name = &parameter.gguf;
        let tensor = file.tensor(name)?;
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
        if !parameter.interleaved {
            tensor.format().dequantize(tensor.bytes(), out);
            continue;
        }
        let cols = row_length(parameter);
        let row_bytes = tensor.bytes().len() / (out.len() / cols);
        for (row, bytes) in tensor.bytes().chunks_exact(row_bytes).enumerate() {
            let to = source_row(row, config.head_dim) * cols;
            tensor.format().dequantize(bytes, &mut out[to..to + cols]);
        }
    }
    Ok((config, flat))
}

/// Factors that the frequencies of rotation are divided by.
const ROPE_FREQS: &str = "rope_freqs.weight";

fn config_of(file: &File, c: &dram_core::Config) -> Result<Config> {
    let architecture = file.metadata().str("general.architecture")?;
    let family = Family::all().find(|family| family.name == architecture);
    let family = family.with_context(|| format!("{architecture} is not known"))?;
    let mut config = Config::of(family, c)?;
    config.tied_embeddings = file.get_tensor(&weight(tensor::OUTPUT)).is_none();
    let has_bias = |name: &str| file.get_tensor(&format!("blk.0.{name}.bias")).is_some();
    config.options.biases = Biases {
        qkv: has_bias(tensor::ATTN_Q),
        output: has_bias(tensor::ATTN_OUTPUT),
        feed_forward: has_bias(tensor::FFN_UP),
    };
    if let Some(tensor) = file.get_tensor(ROPE_FREQS) {
        config.rope_factors = tensor.dequantize();
    }
    if c.rope.scale != 1.0 {
        if config.rope_factors.is_empty() {
            config.rope_factors = vec![1.0; config.rotated() / 2];
        }
        let factors = config.rope_factors.iter_mut();
        factors.for_each(|f| *f /= c.rope.scale);
    }
    config.check()?;
    Ok(config)
}
