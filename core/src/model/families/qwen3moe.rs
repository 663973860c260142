//! Qwen 3's mixtures of experts (arXiv:2505.09388): Qwen 3 with experts in every layer, whose softmax is normalised over those that a token takes.

use super::super::config::{Config, ExpertScores, HeadNorm};
use super::super::keys::Keys;
use super::{Architecture, LLAMA, decoder, experts, with_experts};
use crate::Result;
use crate::kernels::RopeLayout;

pub(super) const FAMILY: Architecture = Architecture {
    name: "qwen3moe",
    layout: RopeLayout::Halves,
    config,
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
    ..LLAMA
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let config = Config {
        head_norm: Some(HeadNorm::Shared),
        ..decoder(keys)?
    };
    Ok(with_experts(config, experts(keys, ExpertScores::Softmax)?))
}

#[cfg(feature = "folders")]
mod folder {
    use super::super::{LLAMA, qwen2};
    use crate::model::folder::*;

    pub(super) const FOLDER: Folder = Folder {
        classes: &["Qwen3MoeForCausalLM"],
        model_type: "qwen3_moe",
        defaults: &[],
        keys,
        layers,
        parts: &[ATTENTION, EXPERTS, NORMS, HEAD_NORMS],
        qkv_bias: LLAMA.folder.qkv_bias,
        ..qwen2::FAMILY.folder
    };

    fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        qwen2::folder::keys(fields, shape, entries)?;
        expert_keys(fields, shape, entries, false)
    }

    /// Experts in every layer.
    fn layers(fields: &Fields, layers: usize) -> Result<Vec<Layer>> {
        let step = fields.opt_number("decoder_sparse_step")?.unwrap_or(1);
        ensure!(
            step == 1,
            "decoder_sparse_step is {step}; the runtime's qwen3moe has experts in every layer"
        );
        let dense = &fields["mlp_only_layers"];
        ensure!(
            dense.as_array().is_none_or(Vec::is_empty),
            "mlp_only_layers is {dense}; the runtime's qwen3moe has experts in every layer"
        );
        Ok(vec![[Kind::Attention, Kind::Experts]; layers])
    }
}
