//! Llama 1 to 3, Mistral, SmolLM, TinyLlama and the students that Dram makes. The converter writes the rows of q and k permuted, so that pairs to
//! rotate are adjacent.

use super::super::config::{Config, Rotation};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, decoder, windowed};
use crate::Result;
use crate::gguf::names::key;
use crate::kernels::RopeLayout;

pub(super) const FAMILY: Architecture = Architecture {
    name: "llama",
    layout: RopeLayout::Interleaved,
    config,
    names: &Names::LLAMA,
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = decoder(keys)?;
    // Mistral's first models (arXiv:2310.06825): a window in every layer.
    if let Some(window) = keys.nonzero_length(key::SLIDING_WINDOW)? {
        let all = vec![true; config.layers.len()];
        windowed(&mut config, &all, window, Rotation::Global);
    }
    Ok(config)
}

#[cfg(feature = "folders")]
mod folder {
    use crate::gguf::names::key;
    use crate::model::folder::*;

    pub(super) const FOLDER: Folder = Folder {
        classes: &[
            "LlamaForCausalLM",
            "LLaMAForCausalLM",
            "MistralForCausalLM",
            "LlamaModel",
        ],
        accepts: |_| true,
        model_type: "llama",
        activations: &["silu", "swish"],
        defaults: &[("rope_theta", 10_000.0)],
        tied: false,
        always_tied: None,
        keys,
        top: TOP,
        layer: "layers",
        layers: alike,
        layer_shape: same_shape,
        feed_forward: stated,
        expert_length: "moe_intermediate_size",
        shared_length: "shared_expert_intermediate_size",
        parts: &[ATTENTION, FEED_FORWARD, NORMS],
        qkv_bias: Need::If("attention_bias", true),
        unused: &[],
        dense: false,
        shifted_norms: false,
        pre: "llama-bpe",
    };

    fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        decoder(fields, shape, entries)?;
        head_lengths(shape, entries)?;
        entries.number(key::VOCAB_SIZE, shape.vocabulary)?;
        entries.number(key::ROPE_DIMENSION_COUNT, shape.head_dim)?;
        if let Some(window @ 1..) = fields.opt_number("sliding_window")? {
            entries.own(key::SLIDING_WINDOW, window);
        }
        Ok(())
    }
}
