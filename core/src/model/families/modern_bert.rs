//! ModernBERT (arXiv:2412.13663) as an encoder of texts: rotated positions, GeGLU, norms without biases before each branch, and two layers with a window on both
//! sides for each that sees everything, which rotate from a base of their own.

use super::super::config::{Activation, Config, NormKind, Pooling, Rope, Rotation};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, shape, windowed};
use crate::Result;
use crate::gguf::names::{key, tensor};
use crate::kernels::RopeLayout;

pub(super) const FAMILY: Architecture = Architecture {
    name: "modern-bert",
    layout: RopeLayout::Halves,
    config,
    names: &Names {
        embedding_norm: Some(tensor::TOKEN_EMBD_NORM),
        first_mixer_norm: false,
        norm_biases: false,
        gate: None,
        ..Names::LLAMA
    },
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
};

/// One of as many layers sees everything, the first among them, where the file does not say otherwise.
const PERIOD: usize = 3;

fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = shape(keys)?;
    config.norm = NormKind::Layer;
    // Of folders that newer transformers wrote, the converter takes it for an RMS norm's.
    config.norm_epsilon = match keys.opt_positive(key::LAYER_NORM_EPSILON)? {
        Some(epsilon) => epsilon,
        None => keys.positive(key::RMS_NORM_EPSILON, None)?,
    };
    config.causal = false;
    config.pooling = config.pooling.or(Some(Pooling::Mean));
    let activation = keys.name(key::HIDDEN_ACTIVATION);
    config.activation = match keys.file.metadata().opt_str(&activation)? {
        None | Some("gelu") => Activation::GeluErfGated,
        Some("silu") => Activation::SiluGated,
        Some(other) => return Err(keys.bad(&activation, "gelu or silu".into(), other)),
    };
    let length = config.longest(|heads| heads.key_length);
    config.rope = Rope::read(keys, length, config.context_length)?;
    if let Some(window) = keys.nonzero_length(key::SLIDING_WINDOW)? {
        let layers = config.layers.len();
        let local = keys.local_layers_but(layers, PERIOD, |_| 0)?;
        // Half of it lies on each side.
        windowed(&mut config, &local, window / 2 + 1, Rotation::Local);
        config.local_rope = Some(config.rope.local(keys, 10_000.0)?);
    }
    Ok(config)
}

#[cfg(feature = "folders")]
mod folder {
    use super::super::LLAMA;
    use crate::gguf::names::{key, tensor};
    use crate::model::folder::*;

    pub(super) const FOLDER: Folder = Folder {
        classes: &["ModernBertModel", "ModernBertForMaskedLM"],
        model_type: "modernbert",
        activations: &["gelu", "silu"],
        defaults: &[
            ("norm_eps", 1e-5),
            ("local_attention", 128.0),
            ("max_position_embeddings", 8192.0),
            ("global_rope_theta", 160_000.0),
            ("local_rope_theta", 10_000.0),
        ],
        tied: true,
        keys,
        top: &[
            matrix(
                "embeddings.tok_embeddings",
                tensor::TOKEN_EMBD,
                Dim::Vocabulary,
                Dim::Width,
            ),
            vector("embeddings.norm", tensor::TOKEN_EMBD_NORM, Dim::Width),
            vector("final_norm", tensor::OUTPUT_NORM, Dim::Width),
        ],
        parts: &[every(&[
            vector("attn_norm", tensor::ATTN_NORM, Dim::Width).after_first(),
            matrix("attn.Wqkv", tensor::ATTN_QKV, Dim::Joined, Dim::Width),
            matrix("attn.Wo", tensor::ATTN_OUTPUT, Dim::Width, Dim::Queries),
            vector("mlp_norm", tensor::FFN_NORM, Dim::Width),
            matrix("mlp.Wi", tensor::FFN_UP, Dim::Gated, Dim::Width),
            matrix("mlp.Wo", tensor::FFN_DOWN, Dim::Width, Dim::FeedForward),
        ])],
        pre: "modern-bert",
        // The head for training.
        unused: &["head.", "decoder."],
        ..LLAMA.folder
    };

    fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        lengths(fields, shape, entries)?;
        entries.number(key::VOCAB_SIZE, shape.vocabulary)?;
        let epsilon = fields.float("norm_eps")?;
        entries.float(key::RMS_NORM_EPSILON, epsilon);
        entries.float(key::LAYER_NORM_EPSILON, epsilon);
        let rope = fields.rope();
        ensure!(
            rope_type(&rope.full) == "default",
            "RoPE scaling {:?}, which the runtime's modern-bert does not have",
            rope_type(&rope.full)
        );
        let base = match rope.full.opt_float("rope_theta")? {
            Some(base) => base,
            None => fields.float("global_rope_theta")?,
        };
        entries.float(key::ROPE_FREQ_BASE, base);
        let local = rope
            .local_base
            .map_or_else(|| fields.float("local_rope_theta"), Ok);
        entries.float(key::ROPE_FREQ_BASE_LOCAL, local?);
        entries.own(key::ROPE_SCALING_TYPE, "none");
        entries.own(key::CAUSAL, false);
        entries.own(key::SLIDING_WINDOW, fields.number("local_attention")?);
        if let Some(period) = fields.opt_number("global_attn_every_n_layers")? {
            entries.own(key::SLIDING_WINDOW_PATTERN, period);
        } else if let Some(local) = fields.local_layers(shape.layers.len())? {
            entries.own(key::SLIDING_WINDOW_PATTERN, local);
        }
        match fields["classifier_pooling"].as_str() {
            None => {}
            Some("mean") => entries.own(key::CLASSIFIER_POOLING_TYPE, 1u32),
            Some("cls") => entries.own(key::CLASSIFIER_POOLING_TYPE, 2u32),
            Some(other) => {
                return refuse(format!(
                    "classifier_pooling {other:?}; known are mean and cls"
                ));
            }
        }
        if let Some(activation) = fields["hidden_activation"].as_str() {
            entries.own(key::HIDDEN_ACTIVATION, activation);
        }
        Ok(())
    }
}
