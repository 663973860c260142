//! The families of models that the runtime reads: one file and one row each. Keys and names of tensors are those that llama.cpp's converter writes.

mod bert;
mod gemma2;
mod gemma3;
mod granite;
mod llama;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod smollm3;
mod stablelm;

use super::config::{Activation, Config, NormKind, Rope, Rotation, Scope};
use super::keys::Keys;
use super::weights::Names;
use crate::Result;
use crate::kernels::Pairs;

/// A family of models: how its metadata becomes a [`Config`], and what it calls its tensors.
pub(super) struct Architecture {
    /// `general.architecture`.
    pub(super) name: &'static str,
    pub(super) config: fn(&Keys<'_>) -> Result<Config>,
    pub(super) names: &'static Names,
}

/// Every family.
pub(super) static ARCHITECTURES: &[Architecture] = &[
    llama::FAMILY,
    qwen2::FAMILY,
    qwen3::FAMILY,
    gemma2::FAMILY,
    gemma3::FAMILY,
    phi3::FAMILY,
    smollm3::FAMILY,
    stablelm::FAMILY,
    olmo2::FAMILY,
    granite::FAMILY,
    bert::FAMILY,
];

/// The decoder that most families vary: RMS norms, SwiGLU, rotated queries and keys, every layer sees all positions before it.
fn decoder(keys: &Keys<'_>, pairs: Pairs) -> Result<Config> {
    let shape = shape(keys)?;
    Ok(Config {
        norm_epsilon: keys.positive("attention.layer_norm_rms_epsilon", None)?,
        rope: Rope::read(keys, shape.key_length, shape.context_length, pairs)?,
        scopes: vec![
            Scope {
                window: None,
                rotation: Rotation::Global
            };
            shape.layers
        ],
        ..shape
    })
}

/// What every family's metadata says of sizes. Norms' epsilon, rotation and scopes are the caller's to fill in.
fn shape(keys: &Keys<'_>) -> Result<Config> {
    let metadata = keys.file.metadata();
    let experts = keys.name("expert_count");
    if let Some(n @ 1..) = metadata.opt_u32(&experts)? {
        let expected = "0 or absent: mixtures of experts are not supported";
        return Err(keys.bad(&experts, expected.into(), n));
    }

    let embedding_length = keys.length("embedding_length")?;
    let heads = keys.length("attention.head_count")?;
    let kv_heads = keys.opt_length("attention.head_count_kv")?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        let key = keys.name("attention.head_count_kv");
        let expected = format!("a divisor of the {heads} query heads");
        return Err(keys.bad(&key, expected, kv_heads));
    }
    let per_head = || -> Result<usize> {
        if embedding_length.is_multiple_of(heads) {
            return Ok(embedding_length / heads);
        }
        let key = keys.name("attention.head_count");
        Err(keys.bad(&key, format!("a divisor of embedding_length {embedding_length}, or a file with attention.key_length and attention.value_length"), heads))
    };
    let key_length = keys
        .opt_length("attention.key_length")?
        .map_or_else(per_head, Ok)?;
    let value_length = keys
        .opt_length("attention.value_length")?
        .map_or_else(per_head, Ok)?;
    let vocabulary = metadata.strings("tokenizer.ggml.tokens")?.len();
    if vocabulary == 0 {
        return Err(keys.bad("tokenizer.ggml.tokens", "at least one token".into(), "none"));
    }

    Ok(Config {
        layers: keys.layers()?,
        embedding_length,
        heads,
        kv_heads,
        key_length,
        value_length,
        feed_forward_length: keys.length("feed_forward_length")?,
        vocabulary,
        context_length: keys.length("context_length")?,
        norm: NormKind::Rms,
        norm_epsilon: 0.0,
        head_norm: None,
        parallel: false,
        activation: Activation::SiluGated,
        rope: Rope::none(),
        local_rope: None,
        scopes: Vec::new(),
        causal: true,
        embedding_scale: 1.0,
        attention_scale: 1.0 / (key_length as f32).sqrt(),
        residual_scale: 1.0,
        logit_scale: 1.0,
        attention_cap: None,
        logit_cap: None,
        pooling: None,
    })
}

/// Scopes where the layers named by `local` see a window and rotate as `rotation` says, and the others see everything.
fn scopes(local: &[bool], window: usize, rotation: Rotation) -> Vec<Scope> {
    let scope = |&local: &bool| Scope {
        window: local.then_some(window),
        rotation: if local { rotation } else { Rotation::Global },
    };
    local.iter().map(scope).collect()
}
