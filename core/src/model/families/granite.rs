//! Granite 3 and 4: Llama with scales on the embeddings, the branches, attention and the logits.

use super::super::config::{Config, Rotation};
use super::super::keys::Keys;
use super::{Architecture, LLAMA, decoder};
use crate::Result;
use crate::gguf::names::key;

pub(super) const FAMILY: Architecture = Architecture {
    name: "granite",
    config,
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
    ..LLAMA
};

pub(super) fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = decoder(keys)?;
    config.embedding_scale = keys.nonzero(key::EMBEDDING_SCALE)?.unwrap_or(1.0);
    config.residual_scale = keys.nonzero(key::RESIDUAL_SCALE)?.unwrap_or(1.0);
    config.logit_scale = 1.0 / keys.positive(key::LOGIT_SCALE, None)?;
    if let Some(scale) = keys.nonzero(key::ATTENTION_SCALE)? {
        config.attention_scale = scale;
    }
    // For this family the key says whether queries and keys are rotated at all.
    let rotated = keys.name("rope.scaling.finetuned");
    if keys.file.metadata().opt_bool(&rotated)? == Some(false) {
        for scope in config.scopes_mut() {
            scope.rotation = Rotation::None;
        }
    }
    Ok(config)
}

#[cfg(feature = "folders")]
pub(super) mod folder {
    use super::super::LLAMA;
    use crate::gguf::names::key;
    use crate::model::folder::*;

    pub(super) const FOLDER: Folder = Folder {
        classes: &["GraniteForCausalLM"],
        model_type: "granite",
        keys,
        pre: "refact",
        ..LLAMA.folder
    };

    pub(crate) fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        decoder(fields, shape, entries)?;
        entries.number(key::VOCAB_SIZE, shape.vocabulary)?;
        entries.number(key::ROPE_DIMENSION_COUNT, shape.head_dim)?;
        for (key, field) in [
            (key::ATTENTION_SCALE, "attention_multiplier"),
            (key::EMBEDDING_SCALE, "embedding_multiplier"),
            (key::RESIDUAL_SCALE, "residual_multiplier"),
            (key::LOGIT_SCALE, "logits_scaling"),
        ] {
            entries.float(
                key,
                fields
                    .opt_float(field)?
                    .filter(|&x| x != 0.0)
                    .unwrap_or(1.0),
            );
        }
        Ok(())
    }
}
