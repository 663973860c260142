//! Granite 3 and 4: Llama with scales on the embeddings, the branches, attention and the logits.

use super::super::config::{Config, Rotation};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, decoder};
use crate::Result;
use crate::kernels::Pairs;

pub(super) const FAMILY: Architecture = Architecture {
    name: "granite",
    config,
    names: &Names::LLAMA,
};

pub(super) fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = decoder(keys, Pairs::Interleaved)?;
    config.embedding_scale = keys.nonzero("embedding_scale")?.unwrap_or(1.0);
    config.residual_scale = keys.nonzero("residual_scale")?.unwrap_or(1.0);
    config.logit_scale = 1.0 / keys.positive("logit_scale", None)?;
    if let Some(scale) = keys.nonzero("attention.scale")? {
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
