//! Qwen 3 (arXiv:2505.09388): each head of queries and keys is normalised.

use super::super::config::{Config, HeadNorm};
use super::super::keys::Keys;
use super::{Architecture, LLAMA, decoder};
use crate::Result;
use crate::kernels::RopeLayout;

pub(super) const FAMILY: Architecture = Architecture {
    name: "qwen3",
    layout: RopeLayout::Halves,
    config,
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
    ..LLAMA
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    Ok(Config {
        head_norm: Some(HeadNorm::Shared),
        ..decoder(keys)?
    })
}

#[cfg(feature = "folders")]
mod folder {
    use super::super::{LLAMA, qwen2};
    use crate::model::folder::*;

    pub(super) const FOLDER: Folder = Folder {
        classes: &["Qwen3ForCausalLM", "Qwen3Model"],
        model_type: "qwen3",
        defaults: &[("head_dim", 128.0)],
        parts: &[ATTENTION, FEED_FORWARD, NORMS, HEAD_NORMS],
        qkv_bias: LLAMA.folder.qkv_bias,
        ..qwen2::FAMILY.folder
    };
}
