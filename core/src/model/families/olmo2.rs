//! OLMo 2 (arXiv:2501.00656) and 3: norms after each branch and none before, and all heads of a token's queries or keys normalised together. OLMo 3 has
//! a window in three of four layers, and scales only the others' rotation.

use super::super::config::{Config, HeadNorm, Rotation};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, decoder, windowed};
use crate::Result;
use crate::gguf::names::{key, tensor};
use crate::kernels::RopeLayout;

pub(super) const FAMILY: Architecture = Architecture {
    name: "olmo2",
    layout: RopeLayout::Halves,
    config,
    names: &Names {
        mixer_norm: None,
        mixer_post_norm: Some(tensor::POST_ATTENTION_NORM),
        feed_forward_norm: None,
        feed_forward_post_norm: Some(tensor::POST_FFW_NORM),
        ..Names::LLAMA
    },
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = decoder(keys)?;
    config.head_norm = Some(HeadNorm::Whole);
    if let Some(window) = keys.nonzero_length(key::SLIDING_WINDOW)? {
        let local = keys.local_layers(config.layers.len(), 4)?;
        windowed(&mut config, &local, window, Rotation::Local);
        config.local_rope = Some(config.rope.local(keys, config.rope.base)?);
    }
    Ok(config)
}

#[cfg(feature = "folders")]
mod folder {
    use super::super::LLAMA;
    use crate::gguf::names::{key, tensor};
    use crate::model::folder::*;

    pub(super) const FOLDER: Folder = Folder {
        classes: &["Olmo2ForCausalLM", "Olmo3ForCausalLM"],
        model_type: "olmo2",
        defaults: &[],
        always_tied: Some(false),
        keys,
        parts: &[
            ATTENTION,
            FEED_FORWARD,
            POST_NORMS,
            // All heads are one vector.
            every(&[
                vector("self_attn.q_norm", tensor::ATTN_Q_NORM, Dim::Queries),
                vector("self_attn.k_norm", tensor::ATTN_K_NORM, Dim::Keys),
            ]),
        ],
        pre: "dbrx",
        ..LLAMA.folder
    };

    fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        decoder(fields, shape, entries)?;
        named_head_lengths(fields, shape, entries)?;
        if let Some(window) = fields.opt_number("sliding_window")? {
            entries.own(key::SLIDING_WINDOW, window);
            let usual = || {
                (1..=shape.layers.len())
                    .map(|layer| layer % 4 != 0)
                    .collect()
            };
            let local = fields
                .local_layers(shape.layers.len())?
                .unwrap_or_else(usual);
            entries.own(key::SLIDING_WINDOW_PATTERN, local);
        }
        Ok(())
    }
}
