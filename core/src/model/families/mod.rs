//! The families of models that the runtime reads: one file and one row each, with all that is said of a family anywhere. Keys and names of tensors are those
//! that llama.cpp's converter writes.

mod bert;
mod gemma2;
mod gemma3;
mod gemma_embedding;
mod granite;
mod granitemoe;
mod lfm2;
mod lfm2moe;
mod llama;
mod modern_bert;
mod olmo2;
mod olmoe;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen35;
mod qwen35moe;
mod qwen3moe;
mod smollm3;
mod stablelm;

use super::config::{
    Activation, Config, ExpertScores, Experts, FeedForward, LayerSpec, Mixer, NormKind, Rope,
    Rotation, Scope, SharedExpert,
};
#[cfg(feature = "folders")]
use super::folder::Folder;
use super::keys::Keys;
use super::weights::Names;
use crate::Result;
use crate::gguf::names::key;
use crate::kernels::RopeLayout;

/// A family of models: how its metadata becomes a [`Config`], and what it calls its tensors.
pub(super) struct Architecture {
    /// `general.architecture`.
    pub(super) name: &'static str,
    /// Which values of a head make a pair to rotate.
    pub(super) layout: RopeLayout,
    pub(super) config: fn(&Keys<'_>) -> Result<Config>,
    pub(super) names: &'static Names,
    #[cfg(feature = "folders")]
    pub(super) folder: Folder,
}

/// What most families vary.
pub(super) const LLAMA: Architecture = llama::FAMILY;

/// Every family.
pub(super) static ARCHITECTURES: &[Architecture] = &[
    llama::FAMILY,
    qwen2::FAMILY,
    qwen3::FAMILY,
    qwen3moe::FAMILY,
    qwen35::FAMILY,
    qwen35moe::FAMILY,
    gemma2::FAMILY,
    gemma3::FAMILY,
    phi3::FAMILY,
    smollm3::FAMILY,
    stablelm::FAMILY,
    olmo2::FAMILY,
    olmoe::FAMILY,
    granite::FAMILY,
    granitemoe::FAMILY,
    lfm2::FAMILY,
    lfm2moe::FAMILY,
    bert::FAMILY,
    gemma_embedding::FAMILY,
    modern_bert::FAMILY,
];

/// The decoder that most families vary: RMS norms, SwiGLU, rotated queries and keys, every layer sees all positions before it.
fn decoder(keys: &Keys<'_>) -> Result<Config> {
    rms_and_rope(keys, shape(keys)?)
}

fn rms_and_rope(keys: &Keys<'_>, shape: Config) -> Result<Config> {
    Ok(Config {
        norm_epsilon: keys.positive(key::RMS_NORM_EPSILON, None)?,
        rope: Rope::read(keys, shape.key_length, shape.context_length)?,
        ..shape
    })
}

/// What every family's metadata says of sizes. Norms' epsilon and rotation are the caller's to fill in; every layer has attention over all positions and a
/// dense feed-forward part.
fn shape(keys: &Keys<'_>) -> Result<Config> {
    shape_of(keys, keys.opt_length(key::HEAD_COUNT_KV)?)
}

/// [`shape`] with as many heads of keys and values, in the layers that have any.
fn shape_of(keys: &Keys<'_>, kv_heads: Option<usize>) -> Result<Config> {
    let metadata = keys.file.metadata();
    let embedding_length = keys.length(key::EMBEDDING_LENGTH)?;
    let heads = keys.length(key::HEAD_COUNT)?;
    let kv_heads = kv_heads.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        let key = keys.name(key::HEAD_COUNT_KV);
        let expected = format!("a divisor of the {heads} query heads");
        return Err(keys.bad(&key, expected, kv_heads));
    }
    let per_head = || -> Result<usize> {
        if embedding_length.is_multiple_of(heads) {
            return Ok(embedding_length / heads);
        }
        let key = keys.name(key::HEAD_COUNT);
        Err(keys.bad(&key, format!("a divisor of embedding_length {embedding_length}, or a file with attention.key_length and attention.value_length"), heads))
    };
    let key_length = keys
        .opt_length(key::KEY_LENGTH)?
        .map_or_else(per_head, Ok)?;
    let value_length = keys
        .opt_length(key::VALUE_LENGTH)?
        .map_or_else(per_head, Ok)?;
    let vocabulary = metadata.strings("tokenizer.ggml.tokens")?.len();
    if vocabulary == 0 {
        return Err(keys.bad("tokenizer.ggml.tokens", "at least one token".into(), "none"));
    }

    let layer = LayerSpec {
        mixer: Mixer::Attention(Scope::ALL),
        feed_forward: FeedForward::Dense {
            length: dense_length(keys)?,
        },
    };
    Ok(Config {
        layers: vec![layer; keys.layers()?],
        embedding_length,
        heads,
        kv_heads,
        key_length,
        value_length,
        vocabulary,
        context_length: keys.length(key::CONTEXT_LENGTH)?,
        norm: NormKind::Rms,
        norm_epsilon: 0.0,
        head_norm: None,
        gated_attention: false,
        parallel: false,
        activation: Activation::SiluGated,
        rope: Rope::none(),
        local_rope: None,
        causal: true,
        embedding_scale: 1.0,
        attention_scale: 1.0 / (key_length as f32).sqrt(),
        residual_scale: 1.0,
        logit_scale: 1.0,
        attention_cap: None,
        logit_cap: None,
        pooling: keys.pooling()?,
    })
}

/// The inner length of a dense feed-forward part; models with experts alone may leave it out.
fn dense_length(keys: &Keys<'_>) -> Result<usize> {
    let own = keys.opt_length(key::FEED_FORWARD_LENGTH)?;
    match own.or(keys.opt_length(key::EXPERT_FEED_FORWARD_LENGTH)?) {
        Some(length) => Ok(length),
        None => keys.length(key::FEED_FORWARD_LENGTH),
    }
}

/// The layers named by `local` see a window and rotate as `rotation` says.
fn windowed(config: &mut Config, local: &[bool], window: usize, rotation: Rotation) {
    for (scope, _) in config.scopes_mut().zip(local).filter(|(_, local)| **local) {
        *scope = Scope {
            window: Some(window),
            rotation,
        };
    }
}

/// The experts of which the metadata tells.
fn experts(keys: &Keys<'_>, scores: ExpertScores) -> Result<Experts> {
    let (count, used) = (
        keys.length(key::EXPERT_COUNT)?,
        keys.length(key::EXPERT_USED_COUNT)?,
    );
    if used > count {
        let key = keys.name(key::EXPERT_USED_COUNT);
        return Err(keys.bad(&key, format!("at most the {count} experts"), used));
    }
    let gating = keys.name(key::EXPERT_GATING_FUNC);
    let expected = match scores {
        ExpertScores::Softmax => 1,
        ExpertScores::Sigmoid => 2,
    };
    // Some families' files lack it; 0 says nothing.
    match keys.file.metadata().opt_u32(&gating)? {
        Some(other) if other != 0 && other != expected => {
            return Err(keys.bad(&gating, expected.to_string(), other));
        }
        _ => {}
    }
    let normalized = keys.name(key::EXPERT_WEIGHTS_NORM);
    let length = match keys.opt_length(key::EXPERT_FEED_FORWARD_LENGTH)? {
        Some(length) => length,
        None => keys.length(key::FEED_FORWARD_LENGTH)?,
    };
    let shared = keys.nonzero_length(key::EXPERT_SHARED_FEED_FORWARD_LENGTH)?;
    Ok(Experts {
        count,
        used,
        length,
        scores,
        normalized: keys.file.metadata().opt_bool(&normalized)?.unwrap_or(true),
        scale: keys.nonzero(key::EXPERT_WEIGHTS_SCALE)?.unwrap_or(1.0),
        shared: shared.map(|length| SharedExpert {
            length,
            gated: false,
        }),
    })
}

/// These experts in every layer.
fn with_experts(mut config: Config, experts: Experts) -> Config {
    for layer in &mut config.layers {
        layer.feed_forward = FeedForward::Experts(experts.clone());
    }
    config
}
