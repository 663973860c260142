//! OLMoE (arXiv:2409.02060): experts in every layer, whose scores are not normalised over those that a token takes; all heads of a token's queries or keys are
//! normalised together.

use super::super::config::{Config, ExpertScores, Experts, HeadNorm};
use super::super::keys::Keys;
use super::{Architecture, LLAMA, decoder, experts, with_experts};
use crate::Result;
use crate::gguf::names::key;
use crate::kernels::RopeLayout;

pub(super) const FAMILY: Architecture = Architecture {
    name: "olmoe",
    layout: RopeLayout::Halves,
    config,
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
    ..LLAMA
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    if let Some(clamp) = keys.nonzero(key::CLAMP_KQV)? {
        let key = keys.name(key::CLAMP_KQV);
        return Err(keys.bad(&key, "0 or absent".into(), clamp));
    }
    let config = Config {
        head_norm: Some(HeadNorm::Whole),
        ..decoder(keys)?
    };
    let experts = Experts {
        normalized: false,
        ..experts(keys, ExpertScores::Softmax)?
    };
    Ok(with_experts(config, experts))
}

#[cfg(feature = "folders")]
mod folder {
    use super::super::LLAMA;
    use crate::gguf::names::tensor;
    use crate::model::folder::*;

    pub(super) const FOLDER: Folder = Folder {
        classes: &["OlmoeForCausalLM"],
        model_type: "olmoe",
        defaults: &[("rope_theta", 10_000.0)],
        keys,
        layers: all_experts,
        expert_length: "intermediate_size",
        parts: &[ATTENTION, EXPERTS, NORMS, WHOLE_NORMS],
        pre: "olmo",
        ..LLAMA.folder
    };

    /// All heads are one vector.
    const WHOLE_NORMS: Group = every(&[
        vector("self_attn.q_norm", tensor::ATTN_Q_NORM, Dim::Queries),
        vector("self_attn.k_norm", tensor::ATTN_K_NORM, Dim::Keys),
    ]);

    fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        ensure!(
            fields["clip_qkv"].is_null(),
            "clip_qkv = {}, which the runtime's olmoe does not have",
            fields["clip_qkv"]
        );
        ensure!(
            !fields.flag("norm_topk_prob"),
            "norm_topk_prob = true; the runtime's olmoe does not normalise over the chosen experts"
        );
        decoder(fields, shape, entries)?;
        expert_counts(fields, shape, entries)
    }
}
