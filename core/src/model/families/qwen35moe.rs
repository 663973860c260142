//! Qwen 3.5's mixtures of experts: Qwen 3.5 with experts in every layer, and one that all tokens take, gated.

use super::super::config::{Config, ExpertScores, SharedExpert};
use super::super::keys::Keys;
use super::{Architecture, experts, qwen35, with_experts};
use crate::Result;
use crate::gguf::names::key;

pub(super) const FAMILY: Architecture = Architecture {
    name: "qwen35moe",
    config,
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
    ..qwen35::FAMILY
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut experts = experts(keys, ExpertScores::Softmax)?;
    experts.shared = Some(SharedExpert {
        length: keys.length(key::EXPERT_SHARED_FEED_FORWARD_LENGTH)?,
        gated: true,
    });
    Ok(with_experts(qwen35::config(keys)?, experts))
}

#[cfg(feature = "folders")]
mod folder {
    use super::super::qwen35;
    use super::super::qwen35::folder::{ATTENTION, DELTA_NET, NORMS};
    use crate::gguf::names::{key, tensor};
    use crate::model::folder::*;

    pub(super) const FOLDER: Folder = Folder {
        classes: &[
            "Qwen3_5MoeForCausalLM",
            "Qwen3_5MoeForConditionalGeneration",
        ],
        model_type: "qwen3_5_moe_text",
        keys,
        layers,
        feed_forward,
        parts: &[ATTENTION, DELTA_NET, EXPERTS, SHARED_EXPERT, NORMS],
        ..qwen35::FAMILY.folder
    };

    const SHARED_EXPERT: Group = only(
        Kind::Experts,
        &[
            matrix(
                "mlp.shared_expert.gate_proj",
                tensor::FFN_GATE_SHEXP,
                Dim::SharedExpert,
                Dim::Width,
            ),
            matrix(
                "mlp.shared_expert.up_proj",
                tensor::FFN_UP_SHEXP,
                Dim::SharedExpert,
                Dim::Width,
            ),
            matrix(
                "mlp.shared_expert.down_proj",
                tensor::FFN_DOWN_SHEXP,
                Dim::Width,
                Dim::SharedExpert,
            ),
            matrix(
                "mlp.shared_expert_gate",
                tensor::FFN_GATE_INP_SHEXP,
                Dim::One,
                Dim::Width,
            ),
        ],
    );

    fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        qwen35::folder::keys(fields, shape, entries)?;
        ensure!(
            shape.shared_length > 0,
            "shared_expert_intermediate_size is missing"
        );
        entries.number(key::EXPERT_SHARED_FEED_FORWARD_LENGTH, shape.shared_length)?;
        expert_keys(fields, shape, entries, true)
    }

    /// No layer has a dense part; published folders leave its length out.
    fn feed_forward(fields: &Fields) -> Result<usize> {
        match fields.opt_number("intermediate_size")? {
            Some(_) => stated(fields),
            None => fields.length("moe_intermediate_size"),
        }
    }

    /// Experts in every layer.
    fn layers(fields: &Fields, layers: usize) -> Result<Vec<Layer>> {
        let mut all = qwen35::folder::layers(fields, layers)?;
        all.iter_mut().for_each(|[_, part]| *part = Kind::Experts);
        Ok(all)
    }
}
