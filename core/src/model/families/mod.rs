//! The families of models that the runtime reads: one file and one row each, with all that is said of a family anywhere. Keys and names of tensors are those
//! that llama.cpp's converter writes.

mod bert;
mod gemma2;
mod gemma3;
mod gemma4;
mod gemma_embedding;
mod granite;
mod granitehybrid;
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
    Activation, Config, ExpertScores, Experts, FeedForward, Heads, LayerSpec, LinearAttention,
    Mixer, NormKind, Rope, Rotation, Scope, SharedExpert, StateRule,
};
#[cfg(feature = "folders")]
use super::folder::Folder;
use super::keys::Keys;
use super::weights::Names;
use crate::Result;
use crate::gguf::names::key;
use crate::kernels::{MAX_STATE_COLS, RopeLayout};

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
    gemma4::FAMILY,
    phi3::FAMILY,
    smollm3::FAMILY,
    stablelm::FAMILY,
    olmo2::FAMILY,
    olmoe::FAMILY,
    granite::FAMILY,
    granitemoe::FAMILY,
    granitehybrid::FAMILY,
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
        rope: Rope::read(keys, key_length(&shape), shape.context_length)?,
        ..shape
    })
}

/// Length of one query or key head of the first layer with attention.
fn key_length(config: &Config) -> usize {
    config.heads().map_or(0, |heads| heads.key_length)
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

    let heads = Heads {
        queries: heads,
        kv: kv_heads,
        key_length,
        value_length,
    };
    let layer = |length: usize| LayerSpec {
        mixer: Mixer::Attention(Scope::all(heads)),
        feed_forward: FeedForward::Dense { length },
    };
    Ok(Config {
        layers: dense_lengths(keys)?.into_iter().map(layer).collect(),
        embedding_length,
        vocabulary,
        context_length: keys.length(key::CONTEXT_LENGTH)?,
        norm: NormKind::Rms,
        norm_epsilon: 0.0,
        head_norm: None,
        value_norm: false,
        gated_attention: false,
        parallel: false,
        activation: Activation::SiluGated,
        rope: Rope::none(),
        local_rope: None,
        causal: true,
        embedding_scale: 1.0,
        per_layer_input: None,
        attention_scale: 1.0 / (key_length as f32).sqrt(),
        residual_scale: 1.0,
        logit_scale: 1.0,
        attention_cap: None,
        logit_cap: None,
        pooling: keys.pooling()?,
    })
}

/// Heads of keys and values in each layer, `[layers]`, where some layers have none because they have no attention; and how many the others have.
fn kv_heads_by_layer(keys: &Keys<'_>) -> Result<(Vec<usize>, Option<usize>)> {
    let heads = keys.lengths(key::HEAD_COUNT_KV)?;
    let kv_heads = heads.iter().copied().max().filter(|heads| *heads > 0);
    if let Some(other) = heads.iter().find(|n| **n != 0 && Some(**n) != kv_heads) {
        let key = keys.name(key::HEAD_COUNT_KV);
        let expected = format!("0 or {} in each layer", kv_heads.unwrap_or_default());
        return Err(keys.bad(&key, expected, other));
    }
    Ok((heads, kv_heads))
}

/// Longest state of a state space's value: models have 128 or 256. The whole state is as long as no tensor, so the file's size does not bound it.
const MAX_STATE_ROWS: usize = 1024;

/// The linear attention of which the metadata tells.
fn linear_attention(keys: &Keys<'_>, rule: StateRule) -> Result<LinearAttention> {
    let key_length = keys.length(key::SSM_STATE_SIZE)?;
    let key_heads = keys.length(key::SSM_GROUP_COUNT)?;
    let value_heads = keys.length(key::SSM_TIME_STEP_RANK)?;
    let inner = keys.length(key::SSM_INNER_SIZE)?;
    let (value_length, length_key) = match rule {
        StateRule::GatedDelta => (key_length, key::SSM_STATE_SIZE),
        StateRule::StateSpace => (inner / value_heads, key::SSM_INNER_SIZE),
    };
    if value_length > MAX_STATE_COLS {
        let expected = format!("at most {MAX_STATE_COLS} values a head");
        return Err(keys.bad(&keys.name(length_key), expected, value_length));
    }
    if key_length > MAX_STATE_ROWS {
        let key = keys.name(key::SSM_STATE_SIZE);
        return Err(keys.bad(&key, format!("at most {MAX_STATE_ROWS}"), key_length));
    }
    if !value_heads.is_multiple_of(key_heads) {
        let key = keys.name(key::SSM_TIME_STEP_RANK);
        let expected = format!("a multiple of the {key_heads} key heads");
        return Err(keys.bad(&key, expected, value_heads));
    }
    if value_length == 0 || inner != value_heads * value_length {
        let key = keys.name(key::SSM_INNER_SIZE);
        let expected = format!("{value_heads} heads of {}", value_length.max(1));
        return Err(keys.bad(&key, expected, inner));
    }
    Ok(LinearAttention {
        rule,
        kernel: keys.kernel(key::SSM_CONV_KERNEL)?,
        key_heads,
        value_heads,
        key_length,
        value_length,
    })
}

/// The inner length of each layer's dense feed-forward part, `[layers]`; models with experts alone may leave it out.
fn dense_lengths(keys: &Keys<'_>) -> Result<Vec<usize>> {
    let has = |key| keys.file.metadata().get(&keys.name(key)).is_some();
    let of_experts = !has(key::FEED_FORWARD_LENGTH) && has(key::EXPERT_FEED_FORWARD_LENGTH);
    let key = match of_experts {
        true => key::EXPERT_FEED_FORWARD_LENGTH,
        false => key::FEED_FORWARD_LENGTH,
    };
    let lengths = keys.lengths(key)?;
    if lengths.contains(&0) {
        return Err(keys.bad(&keys.name(key), "numbers from 1".into(), 0));
    }
    Ok(lengths)
}

/// The layers named by `local` see a window and rotate as `rotation` says.
fn windowed(config: &mut Config, local: &[bool], window: usize, rotation: Rotation) {
    for (scope, _) in config.scopes_mut().zip(local).filter(|(_, local)| **local) {
        scope.window = Some(window);
        scope.rotation = rotation;
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
