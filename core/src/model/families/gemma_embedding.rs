//! EmbeddingGemma (arXiv:2509.20354): Gemma 3 whose positions see both sides, as an encoder of texts. Two matrices make the text's vector of the tokens' mean.

use super::super::config::{Config, HeadNorm, Pooling, Rotation};
use super::super::keys::Keys;
use super::{Architecture, gemma2, gemma3, windowed};
use crate::Result;
use crate::gguf::names::key;

pub(super) const FAMILY: Architecture = Architecture {
    name: "gemma-embedding",
    config,
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
    ..gemma3::FAMILY
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = gemma2::gemma(keys, usize::MAX)?;
    config.head_norm = Some(HeadNorm::Shared);
    config.causal = false;
    config.pooling = config.pooling.or(Some(Pooling::Mean));
    // Half of it lies on each side.
    let window = keys.length(key::SLIDING_WINDOW)? / 2 + 1;
    let local = keys.local_layers(config.layers.len(), 6)?;
    windowed(&mut config, &local, window, Rotation::Local);
    config.local_rope = Some(config.rope.local(keys, 10_000.0)?);
    Ok(config)
}

#[cfg(feature = "folders")]
mod folder {
    use super::super::gemma3;
    use crate::model::folder::*;

    pub(super) const FOLDER: Folder = Folder {
        classes: &["Gemma3TextModel"],
        // Folders say gemma3_text, as Gemma 3's do: the class tells.
        model_type: "gemma_embedding",
        dense: true,
        keys,
        ..gemma3::FAMILY.folder
    };

    fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        ensure!(
            fields.flag("use_bidirectional_attention"),
            "use_bidirectional_attention is not true: Gemma3TextModel is converted as EmbeddingGemma, whose positions see both sides"
        );
        (gemma3::FAMILY.folder.keys)(fields, shape, entries)
    }
}
