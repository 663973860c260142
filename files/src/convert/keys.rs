//! The metadata that describe a model: each family's keys, as llama.cpp's converter writes them.
//!
//! Beyond it: Mistral's window, and a base of RoPE or a pattern of windows that is not the family's usual one, where the converter leaves it out and
//! the runtime reads it. What the runtime could not follow is refused.

use anyhow::{Context, Result, bail, ensure};
use dram_core::gguf::File;

use super::config::{Fields, Shape};
use super::layers::Layer;
use super::parts::Kind;
use crate::write::Head;
use crate::write::Value;

/// Metadata of a file to be written; setting a key again replaces its value.
pub(super) struct Keys {
    architecture: &'static str,
    entries: Vec<(String, Value)>,
}

impl Keys {
    pub(super) fn new(architecture: &'static str) -> Keys {
        let mut keys = Keys {
            architecture,
            entries: Vec::new(),
        };
        keys.set("general.architecture", Value::Text(architecture.into()));
        keys.set("general.type", Value::Text("model".into()));
        keys
    }

    pub(super) fn into_entries(self) -> Vec<(String, Value)> {
        self.entries
    }

    pub(super) fn set(&mut self, key: &str, value: Value) {
        match self.entries.iter_mut().find(|(other, _)| other == key) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key.to_owned(), value)),
        }
    }

    /// Sets a key under the architecture's name.
    fn own(&mut self, key: &str, value: Value) {
        self.set(&format!("{}.{key}", self.architecture), value);
    }

    pub(super) fn number(&mut self, key: &str, value: usize) -> Result<()> {
        let value = u32::try_from(value)
            .with_context(|| format!("{key} = {value} does not fit 32 bits"))?;
        self.own(key, Value::Number(value));
        Ok(())
    }

    fn float(&mut self, key: &str, value: f64) {
        self.own(key, Value::Float(value as f32));
    }

    /// All of them, and the tokenizer's keys of `other` where the folder has no tokenizer of its own.
    pub(super) fn head(&self, other: Option<&File>) -> Result<Head> {
        let mut head = Head::default();
        self.entries
            .iter()
            .for_each(|(key, value)| head.put(key, value));
        for (key, value) in other.iter().flat_map(|file| file.metadata().iter()) {
            if key.starts_with("tokenizer.") {
                head.copy(key, value)?;
            }
        }
        Ok(head)
    }
}

/// Lengths and counts, which every family has.
fn lengths(fields: &Fields, shape: &Shape, keys: &mut Keys) -> Result<()> {
    keys.number("block_count", shape.layers.len())?;
    keys.number("context_length", shape.context)?;
    keys.number("embedding_length", shape.width)?;
    keys.number("feed_forward_length", shape.feed_forward)?;
    keys.number("attention.head_count", shape.heads)?;
    // BERT's own folders have no such thing.
    if keys.architecture != "bert" || fields.opt_number("num_key_value_heads")?.is_some() {
        keys.number("attention.head_count_kv", shape.kv_heads)?;
    }
    Ok(())
}

/// What most families have besides: RMS norms, and a rotation of whole heads with its scaling.
fn decoder(fields: &Fields, shape: &Shape, keys: &mut Keys) -> Result<()> {
    lengths(fields, shape, keys)?;
    norm_and_rope(fields, keys, "rms_norm_eps")
}

fn norm_and_rope(fields: &Fields, keys: &mut Keys, epsilon: &str) -> Result<()> {
    keys.float("attention.layer_norm_rms_epsilon", fields.float(epsilon)?);
    let rope = fields.rope();
    scaling(&rope.full, keys)?;
    keys.float(
        "rope.freq_base",
        rope.full.float("rope_theta").context("RoPE")?,
    );
    if let Some(base) = rope.local_base {
        keys.float("rope.freq_base_swa", base);
    }
    Ok(())
}

fn head_lengths(shape: &Shape, keys: &mut Keys) -> Result<()> {
    keys.number("attention.key_length", shape.head_dim)?;
    keys.number("attention.value_length", shape.head_dim)
}

/// Of families whose folders say so only where it is not width / heads.
fn named_head_lengths(fields: &Fields, shape: &Shape, keys: &mut Keys) -> Result<()> {
    if fields.opt_number("head_dim")?.is_some() {
        head_lengths(shape, keys)
    } else {
        Ok(())
    }
}

/// Whether a `longrope` entry has the same factors for short and long texts, and scales nothing else.
#[must_use]
pub fn same_for_all_lengths(rope: &serde_json::Value) -> bool {
    rope["short_factor"] == rope["long_factor"] && rope["attention_factor"] == 1.0
}

/// What kind of scaling a folder asks for.
pub(super) fn rope_type(rope: &Fields) -> &str {
    rope.0["rope_type"].as_str().unwrap_or("default")
}

fn scaling(rope: &Fields, keys: &mut Keys) -> Result<()> {
    let kind = rope_type(rope);
    match kind {
        // Llama 3's and a student's are tensors.
        "default" | "none" | "llama3" | "factors" => {}
        "linear" | "yarn" => {
            keys.own("rope.scaling.type", Value::Text(kind.into()));
            keys.float("rope.scaling.factor", rope.float("factor").context("RoPE")?);
        }
        "longrope" if same_for_all_lengths(&rope.0) => {}
        "longrope" | "su" => keys.own("rope.scaling.type", Value::Text("longrope".into())),
        other => bail!(
            "config.json: RoPE scaling {other:?} is not known; known are linear, yarn, llama3 and longrope"
        ),
    }
    if kind == "yarn" {
        let original = rope
            .number("original_max_position_embeddings")
            .context("RoPE")?;
        keys.own(
            "rope.scaling.original_context_length",
            Value::Number(original),
        );
        for (key, fields) in [
            ("yarn_ext_factor", ["extrapolation_factor"; 2]),
            ("yarn_attn_factor", ["attention_factor", "attn_factor"]),
            ("yarn_beta_fast", ["beta_fast"; 2]),
            ("yarn_beta_slow", ["beta_slow"; 2]),
        ] {
            let value = rope.opt_float(fields[0])?.or(rope.opt_float(fields[1])?);
            if let Some(value) = value {
                keys.float(&format!("rope.scaling.{key}"), value);
            }
        }
    }
    Ok(())
}

/// Writes which layers see a window where it is not all but the last of every `period`.
fn unusual_pattern(fields: &Fields, shape: &Shape, keys: &mut Keys, period: usize) -> Result<()> {
    let usual = |local: &[bool]| {
        local
            .iter()
            .enumerate()
            .all(|(i, &local)| local == ((i + 1) % period != 0))
    };
    if let Some(local) = fields
        .local_layers(shape.layers.len())?
        .filter(|local| !usual(local))
    {
        keys.own("attention.sliding_window_pattern", Value::Flags(local));
    }
    Ok(())
}

pub(super) fn llama(fields: &Fields, shape: &Shape, keys: &mut Keys) -> Result<()> {
    decoder(fields, shape, keys)?;
    head_lengths(shape, keys)?;
    keys.number("vocab_size", shape.vocabulary)?;
    keys.number("rope.dimension_count", shape.head_dim)?;
    if let Some(window @ 1..) = fields.opt_number("sliding_window")? {
        keys.own("attention.sliding_window", Value::Number(window));
    }
    Ok(())
}

pub(super) fn qwen2(fields: &Fields, shape: &Shape, keys: &mut Keys) -> Result<()> {
    let windowed = fields
        .local_layers(shape.layers.len())?
        .is_some_and(|local| local.contains(&true));
    ensure!(
        !(fields.flag("use_sliding_window") && windowed),
        "config.json: use_sliding_window asks for a window in some layers, which the runtime's {} does not have",
        keys.architecture
    );
    decoder(fields, shape, keys)?;
    named_head_lengths(fields, shape, keys)
}

/// What a folder says of experts; `normalized`: whether the scores of those that are chosen are divided by their sum where it does not say.
fn experts(fields: &Fields, shape: &Shape, keys: &mut Keys, normalized: bool) -> Result<()> {
    keys.number("expert_count", shape.experts)?;
    keys.number("expert_used_count", fields.length("num_experts_per_tok")?)?;
    keys.number("expert_feed_forward_length", shape.expert_length)?;
    // The converter leaves it out: llama.cpp always divides.
    if !fields.0["norm_topk_prob"].as_bool().unwrap_or(normalized) {
        keys.own("expert_weights_norm", Value::Flag(false));
    }
    Ok(())
}

pub(super) fn qwen3moe(fields: &Fields, shape: &Shape, keys: &mut Keys) -> Result<()> {
    qwen2(fields, shape, keys)?;
    experts(fields, shape, keys, false)
}

pub(super) fn lfm2(fields: &Fields, shape: &Shape, keys: &mut Keys) -> Result<()> {
    ensure!(
        !fields.flag("conv_bias"),
        "config.json: conv_bias, which the runtime's {} does not have",
        keys.architecture
    );
    lengths(fields, shape, keys)?;
    norm_and_rope(fields, keys, "norm_eps")?;
    let kv_heads = i32::try_from(shape.kv_heads)?;
    let heads = |[mixer, _]: &Layer| {
        if *mixer == Kind::Attention {
            kv_heads
        } else {
            0
        }
    };
    keys.own(
        "attention.head_count_kv",
        Value::Integers(shape.layers.iter().map(heads).collect()),
    );
    keys.number("vocab_size", shape.vocabulary)?;
    keys.number("shortconv.l_cache", fields.length("conv_L_cache")?)
}

pub(super) fn lfm2moe(fields: &Fields, shape: &Shape, keys: &mut Keys) -> Result<()> {
    const SIGMOID: usize = 2;
    lfm2(fields, shape, keys)?;
    experts(fields, shape, keys, true)?;
    keys.number("expert_gating_func", SIGMOID)?;
    keys.own(
        "leading_dense_block_count",
        Value::Number(fields.number("num_dense_layers")?),
    );
    // The converter leaves it out.
    match fields.opt_float("routed_scaling_factor")? {
        Some(scale) if scale != 1.0 => keys.float("expert_weights_scale", scale),
        _ => {}
    }
    Ok(())
}

pub(super) fn smollm3(fields: &Fields, shape: &Shape, keys: &mut Keys) -> Result<()> {
    let usual = |(i, rotates): (usize, &serde_json::Value)| {
        rotates.as_u64() == Some(u64::from((i + 1) % 4 != 0))
    };
    let rotating = fields.0["no_rope_layers"].as_array();
    ensure!(
        rotating.is_none_or(|layers| layers.iter().enumerate().all(usual)),
        "config.json: no_rope_layers: expected every fourth layer to go without rotation"
    );
    decoder(fields, shape, keys)?;
    named_head_lengths(fields, shape, keys)?;
    keys.number("vocab_size", shape.vocabulary)?;
    keys.number("rope.dimension_count", shape.head_dim)
}

pub(super) fn granite(fields: &Fields, shape: &Shape, keys: &mut Keys) -> Result<()> {
    decoder(fields, shape, keys)?;
    keys.number("vocab_size", shape.vocabulary)?;
    keys.number("rope.dimension_count", shape.head_dim)?;
    for (key, field) in [
        ("attention.scale", "attention_multiplier"),
        ("embedding_scale", "embedding_multiplier"),
        ("residual_scale", "residual_multiplier"),
        ("logit_scale", "logits_scaling"),
    ] {
        keys.float(
            key,
            fields
                .opt_float(field)?
                .filter(|&x| x != 0.0)
                .unwrap_or(1.0),
        );
    }
    Ok(())
}

pub(super) fn olmo2(fields: &Fields, shape: &Shape, keys: &mut Keys) -> Result<()> {
    decoder(fields, shape, keys)?;
    named_head_lengths(fields, shape, keys)?;
    if let Some(window) = fields.opt_number("sliding_window")? {
        keys.own("attention.sliding_window", Value::Number(window));
        let usual = || {
            (1..=shape.layers.len())
                .map(|layer| layer % 4 != 0)
                .collect()
        };
        let local = fields
            .local_layers(shape.layers.len())?
            .unwrap_or_else(usual);
        keys.own("attention.sliding_window_pattern", Value::Flags(local));
    }
    Ok(())
}

/// What the Gemmas share; `layers` of the 27B model, whose attention is scaled by the embedding's length for each head.
fn gemma(fields: &Fields, shape: &Shape, keys: &mut Keys, layers_27b: usize) -> Result<()> {
    head_lengths(shape, keys)?;
    let length = if shape.layers.len() == layers_27b {
        shape.width / shape.heads
    } else {
        shape.head_dim
    };
    let scalar = fields.float("query_pre_attn_scalar")?;
    ensure!(
        scalar == length as f64,
        "config.json: query_pre_attn_scalar is {scalar}; the runtime scales attention in a {} of {} layers by {length}",
        keys.architecture,
        shape.layers.len()
    );
    if let Some(cap) = fields.opt_float("final_logit_softcapping")? {
        keys.float("final_logit_softcapping", cap);
    }
    Ok(())
}

pub(super) fn gemma2(fields: &Fields, shape: &Shape, keys: &mut Keys) -> Result<()> {
    lengths(fields, shape, keys)?;
    keys.float(
        "attention.layer_norm_rms_epsilon",
        fields.float("rms_norm_eps")?,
    );
    gemma(fields, shape, keys, 46)?;
    keys.float(
        "attn_logit_softcapping",
        fields.float("attn_logit_softcapping")?,
    );
    keys.own(
        "attention.sliding_window",
        Value::Number(fields.number("sliding_window")?),
    );
    unusual_base(fields, keys)?;
    unusual_pattern(fields, shape, keys, 2)
}

pub(super) fn gemma3(fields: &Fields, shape: &Shape, keys: &mut Keys) -> Result<()> {
    ensure!(
        fields.opt_float("attn_logit_softcapping")?.is_none(),
        "config.json: attn_logit_softcapping, which Gemma 3 does not have"
    );
    decoder(fields, shape, keys)?;
    gemma(fields, shape, keys, 62)?;
    if fields.0["sliding_window_pattern"] != 1 {
        keys.own(
            "attention.sliding_window",
            Value::Number(fields.number("sliding_window")?),
        );
        unusual_pattern(fields, shape, keys, 6)?;
    }
    Ok(())
}

/// For families whose key the converter leaves out: the runtimes take 10,000.
fn unusual_base(fields: &Fields, keys: &mut Keys) -> Result<()> {
    let rope = fields.rope().full;
    ensure!(
        rope_type(&rope) == "default",
        "config.json: RoPE scaling {:?}, which the runtime's {} does not have",
        rope_type(&rope),
        keys.architecture
    );
    let base = rope.float("rope_theta").context("RoPE")?;
    if base != 10_000.0 {
        keys.float("rope.freq_base", base);
    }
    Ok(())
}

/// The rotated part of a head.
fn rotated(fields: &Fields, shape: &Shape) -> Result<usize> {
    let share = fields
        .rope()
        .full
        .opt_float("partial_rotary_factor")?
        .unwrap_or(1.0);
    ensure!(
        (0.0..=1.0).contains(&share),
        "config.json: partial_rotary_factor = {share}"
    );
    Ok((share * shape.width as f64) as usize / shape.heads)
}

pub(super) fn stablelm(fields: &Fields, shape: &Shape, keys: &mut Keys) -> Result<()> {
    lengths(fields, shape, keys)?;
    keys.number("rope.dimension_count", rotated(fields, shape)?)?;
    keys.own(
        "use_parallel_residual",
        Value::Flag(fields.flag("use_parallel_residual")),
    );
    keys.float(
        "attention.layer_norm_epsilon",
        fields.float("layer_norm_eps")?,
    );
    unusual_base(fields, keys)
}

pub(super) fn phi3(fields: &Fields, shape: &Shape, keys: &mut Keys) -> Result<()> {
    lengths(fields, shape, keys)?;
    let rope = fields.rope().full;
    let original = rope
        .number("original_max_position_embeddings")
        .context("RoPE")?;
    keys.own(
        "rope.scaling.original_context_length",
        Value::Number(original),
    );
    keys.float(
        "attention.layer_norm_rms_epsilon",
        fields.float("rms_norm_eps")?,
    );
    keys.number("rope.dimension_count", rotated(fields, shape)?)?;
    keys.float("rope.freq_base", rope.float("rope_theta").context("RoPE")?);
    // The runtimes tell Phi 4 by a window of 0.
    keys.own(
        "attention.sliding_window",
        Value::Number(fields.opt_number("sliding_window")?.unwrap_or(0)),
    );
    match rope_type(&rope) {
        "default" => {}
        "longrope" | "su" => {
            // LongRoPE (arXiv:2402.13753), section 4.2
            let scale = shape.context as f64 / f64::from(original.max(2));
            let factor = if scale > 1.0 {
                (1.0 + scale.ln() / f64::from(original.max(2)).ln()).sqrt()
            } else {
                1.0
            };
            keys.float("rope.scaling.attn_factor", factor);
        }
        other => bail!("config.json: RoPE scaling {other:?}; the runtime's phi3 has longrope"),
    }
    Ok(())
}

pub(super) fn bert(fields: &Fields, shape: &Shape, keys: &mut Keys) -> Result<()> {
    let positions = fields.0["position_embedding_type"]
        .as_str()
        .unwrap_or("absolute");
    ensure!(
        positions == "absolute",
        "config.json: position_embedding_type {positions:?}; the runtime has \"absolute\""
    );
    lengths(fields, shape, keys)?;
    keys.float(
        "attention.layer_norm_epsilon",
        fields.float("layer_norm_eps")?,
    );
    keys.own("attention.causal", Value::Flag(false));
    keys.set(
        "tokenizer.ggml.token_type_count",
        Value::Number(u32::try_from(shape.token_types)?),
    );
    Ok(())
}
