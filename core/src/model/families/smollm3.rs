//! SmolLM 3: Llama whose every fourth layer does not rotate (arXiv:2501.18795).

use super::super::config::{Config, Rotation};
use super::super::keys::Keys;
use super::{Architecture, LLAMA, decoder};
use crate::Result;

pub(super) const FAMILY: Architecture = Architecture {
    name: "smollm3",
    config,
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
    ..LLAMA
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = decoder(keys)?;
    for scope in config.scopes_mut().skip(3).step_by(4) {
        scope.rotation = Rotation::None;
    }
    Ok(config)
}

#[cfg(feature = "folders")]
mod folder {
    use super::super::LLAMA;
    use crate::gguf::names::key;
    use crate::model::folder::*;
    use serde_json::Value as Json;

    pub(super) const FOLDER: Folder = Folder {
        classes: &["SmolLM3ForCausalLM"],
        model_type: "smollm3",
        defaults: &[],
        keys,
        ..LLAMA.folder
    };

    fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        let usual =
            |(i, rotates): (usize, &Json)| rotates.as_u64() == Some(u64::from((i + 1) % 4 != 0));
        let rotating = fields["no_rope_layers"].as_array();
        ensure!(
            rotating.is_none_or(|layers| layers.iter().enumerate().all(usual)),
            "no_rope_layers: expected every fourth layer to go without rotation"
        );
        decoder(fields, shape, entries)?;
        named_head_lengths(fields, shape, entries)?;
        entries.number(key::VOCAB_SIZE, shape.vocabulary)?;
        entries.number(key::ROPE_DIMENSION_COUNT, shape.head_dim)
    }
}
