//! Gemma 3 (arXiv:2503.19786): Gemma 2 with normalised heads instead of attention's cap, and five layers with a window, which rotate from a base of
//! their own, for each that sees everything.

use super::super::config::{Config, HeadNorm, Rotation};
use super::super::keys::Keys;
use super::{Architecture, gemma2, windowed};
use crate::Result;
use crate::gguf::names::key;

pub(super) const FAMILY: Architecture = Architecture {
    name: "gemma3",
    config,
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
    ..gemma2::FAMILY
};

/// See [`gemma2`].
const LAYERS_27B: usize = 62;

fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = gemma2::gemma(keys, LAYERS_27B)?;
    config.head_norm = Some(HeadNorm::Shared);
    config.logit_cap = keys.nonzero(key::LOGIT_CAP)?;
    if let Some(window) = keys.nonzero_length(key::SLIDING_WINDOW)? {
        let local = keys.local_layers(config.layers.len(), 6)?;
        windowed(&mut config, &local, window, Rotation::Local);
        config.local_rope = Some(config.rope.local(keys, 10_000.0)?);
    }
    Ok(config)
}

#[cfg(feature = "folders")]
mod folder {
    use super::super::gemma2;
    use super::LAYERS_27B;
    use crate::gguf::names::key;
    use crate::model::folder::*;

    pub(super) const FOLDER: Folder = Folder {
        classes: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
        model_type: "gemma3_text",
        // Folders with vision leave out most of them.
        defaults: &[
            ("vocab_size", 262_208.0),
            ("num_attention_heads", 8.0),
            ("num_key_value_heads", 4.0),
            ("head_dim", 256.0),
            ("query_pre_attn_scalar", 256.0),
            ("max_position_embeddings", 131_072.0),
            ("rms_norm_eps", 1e-6),
            ("rope_theta", 1_000_000.0),
            ("rope_local_base_freq", 10_000.0),
            ("sliding_window", 4096.0),
        ],
        keys,
        always_tied: None,
        parts: &[ATTENTION, FEED_FORWARD, GEMMA_NORMS, POST_NORMS, HEAD_NORMS],
        unused: &["vision_tower.", "multi_modal_projector."],
        ..gemma2::FAMILY.folder
    };

    fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        ensure!(
            fields.opt_float("attn_logit_softcapping")?.is_none(),
            "attn_logit_softcapping, which Gemma 3 does not have"
        );
        decoder(fields, shape, entries)?;
        gemma2::folder::gemma(fields, shape, entries, LAYERS_27B)?;
        if fields["sliding_window_pattern"] != 1 {
            entries.own(key::SLIDING_WINDOW, fields.number("sliding_window")?);
            unusual_pattern(fields, shape, entries, 6)?;
        }
        Ok(())
    }
}
