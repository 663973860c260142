//! Gemma 2 (arXiv:2408.00118): norms before and after each branch, GeGLU, soft caps, and a window in every other layer. The converter adds the 1 that
//! Gemma's norms add to their weights.

use super::super::config::{Activation, Config, Rotation};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, decoder, windowed};
use crate::Result;
use crate::kernels::Pairs;

pub(super) const FAMILY: Architecture = Architecture {
    name: "gemma2",
    config,
    names: &NAMES,
};

pub(super) const NAMES: Names = Names {
    mixer_post_norm: Some("post_attention_norm"),
    feed_forward_post_norm: Some("post_ffw_norm"),
    ..Names::LLAMA
};

/// Layers of the 27B model, whose attention is scaled by the embedding's length per head instead of the head's own. No key says so.
const LAYERS_27B: usize = 46;

fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = gemma(keys, LAYERS_27B)?;
    let window = keys
        .nonzero_length("attention.sliding_window")?
        .unwrap_or(4096);
    let local = keys.local_layers(config.layers.len(), 2)?;
    windowed(&mut config, &local, window, Rotation::Global);
    config.attention_cap = Some(keys.positive("attn_logit_softcapping", Some(50.0))?);
    config.logit_cap = Some(keys.positive("final_logit_softcapping", Some(30.0))?);
    Ok(config)
}

/// What the Gemmas share.
pub(super) fn gemma(keys: &Keys<'_>, layers_27b: usize) -> Result<Config> {
    let mut config = decoder(keys, Pairs::Halves)?;
    config.activation = Activation::GeluGated;
    config.embedding_scale = (config.embedding_length as f32).sqrt();
    if config.layers.len() == layers_27b {
        let length = config.embedding_length / config.heads;
        config.attention_scale = 1.0 / (length.max(1) as f32).sqrt();
    }
    Ok(config)
}
