//! Gemma 2 (arXiv:2408.00118): norms before and after each branch, GeGLU, soft caps, and a window in every other layer. The converter adds the 1 that
//! Gemma's norms add to their weights.

use super::super::config::{Activation, Config, Rotation};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, decoder, windowed};
use crate::Result;
use crate::gguf::names::{key, tensor};
use crate::kernels::RopeLayout;

pub(super) const FAMILY: Architecture = Architecture {
    name: "gemma2",
    layout: RopeLayout::Halves,
    config,
    names: &NAMES,
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
};

pub(super) const NAMES: Names = Names {
    mixer_post_norm: Some(tensor::POST_ATTENTION_NORM),
    feed_forward_post_norm: Some(tensor::POST_FFW_NORM),
    ..Names::LLAMA
};

/// Layers of the 27B model, whose attention is scaled by the embedding's length per head instead of the head's own. No key says so.
const LAYERS_27B: usize = 46;

fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = gemma(keys, LAYERS_27B)?;
    let window = keys.nonzero_length(key::SLIDING_WINDOW)?.unwrap_or(4096);
    let local = keys.local_layers(config.layers.len(), 2)?;
    windowed(&mut config, &local, window, Rotation::Global);
    config.attention_cap = Some(keys.positive(key::ATTENTION_CAP, Some(50.0))?);
    config.logit_cap = Some(keys.positive(key::LOGIT_CAP, Some(30.0))?);
    Ok(config)
}

/// What the Gemmas share.
pub(super) fn gemma(keys: &Keys<'_>, layers_27b: usize) -> Result<Config> {
    let mut config = decoder(keys)?;
    config.activation = Activation::GeluGated;
    config.embedding_scale = (config.embedding_length as f32).sqrt();
    if config.layers.len() == layers_27b {
        let heads = config.heads().map_or(1, |heads| heads.queries);
        let length = config.embedding_length / heads;
        config.attention_scale = 1.0 / (length.max(1) as f32).sqrt();
    }
    Ok(config)
}

#[cfg(feature = "folders")]
pub(super) mod folder {
    use super::super::LLAMA;
    use super::LAYERS_27B;
    use crate::gguf::names::key;
    use crate::model::folder::*;

    pub(super) const FOLDER: Folder = Folder {
        classes: &["Gemma2ForCausalLM"],
        model_type: "gemma2",
        activations: &["gelu_pytorch_tanh", "gelu"],
        defaults: &[
            ("head_dim", 256.0),
            ("rope_theta", 10_000.0),
            ("query_pre_attn_scalar", 256.0),
            ("attn_logit_softcapping", 50.0),
            ("final_logit_softcapping", 30.0),
            ("sliding_window", 4096.0),
        ],
        tied: true,
        always_tied: Some(true),
        keys,
        parts: &[ATTENTION, FEED_FORWARD, GEMMA_NORMS, POST_NORMS],
        shifted_norms: true,
        ..LLAMA.folder
    };

    fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        lengths(fields, shape, entries)?;
        entries.float(key::RMS_NORM_EPSILON, fields.float("rms_norm_eps")?);
        gemma(fields, shape, entries, LAYERS_27B)?;
        entries.float(key::ATTENTION_CAP, fields.float("attn_logit_softcapping")?);
        entries.own(key::SLIDING_WINDOW, fields.number("sliding_window")?);
        unusual_base(fields, entries)?;
        unusual_pattern(fields, shape, entries, 2)
    }

    /// What the Gemmas share; `layers` of the 27B model, whose attention is scaled by the embedding's length for each head.
    pub(crate) fn gemma(
        fields: &Fields,
        shape: &Shape,
        entries: &mut Entries,
        layers_27b: usize,
    ) -> Result<()> {
        head_lengths(shape, entries)?;
        let length = if shape.layers.len() == layers_27b {
            shape.width / shape.heads
        } else {
            shape.head_dim
        };
        let scalar = fields.float("query_pre_attn_scalar")?;
        ensure!(
            scalar == length as f64,
            "query_pre_attn_scalar is {scalar}; the runtime scales attention in a {} of {} layers by {length}",
            entries.architecture(),
            shape.layers.len()
        );
        if let Some(cap) = fields.opt_float("final_logit_softcapping")? {
            entries.float(key::LOGIT_CAP, cap);
        }
        Ok(())
    }
}
