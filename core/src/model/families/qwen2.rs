//! Qwen 2 and 2.5 (arXiv:2407.10671): biases beside q, k and v, which every family's file may have.

use super::super::config::Config;
use super::super::keys::Keys;
use super::{Architecture, LLAMA, decoder};
use crate::Result;
use crate::kernels::RopeLayout;

pub(super) const FAMILY: Architecture = Architecture {
    name: "qwen2",
    layout: RopeLayout::Halves,
    config,
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
    ..LLAMA
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    decoder(keys)
}

#[cfg(feature = "folders")]
pub(super) mod folder {
    use super::super::LLAMA;
    use crate::model::folder::*;

    pub(super) const FOLDER: Folder = Folder {
        classes: &["Qwen2ForCausalLM", "Qwen2Model"],
        model_type: "qwen2",
        keys,
        qkv_bias: Need::Always,
        pre: "qwen2",
        ..LLAMA.folder
    };

    pub(crate) fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        let windowed = fields
            .local_layers(shape.layers.len())?
            .is_some_and(|local| local.contains(&true));
        ensure!(
            !(fields.flag("use_sliding_window") && windowed),
            "use_sliding_window asks for a window in some layers, which the runtime's {} does not have",
            entries.architecture()
        );
        decoder(fields, shape, entries)?;
        named_head_lengths(fields, shape, entries)
    }
}
