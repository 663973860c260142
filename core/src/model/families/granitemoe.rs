//! Granite's mixtures of experts: Granite with experts in every layer, and in some models one that all tokens take.

use super::super::config::{Config, ExpertScores};
use super::super::keys::Keys;
use super::{Architecture, decoder, experts, granite, with_experts};
use crate::Result;

pub(super) const FAMILY: Architecture = Architecture {
    name: "granitemoe",
    config,
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
    ..granite::FAMILY
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let experts = experts(keys, ExpertScores::Softmax)?;
    Ok(with_experts(
        granite::with_scales(keys, decoder(keys)?)?,
        experts,
    ))
}

#[cfg(feature = "folders")]
pub(super) mod folder {
    use super::super::granite;
    use super::super::granite::folder::{HYBRID, has_experts, is_hybrid};
    use crate::gguf::names::{key, tensor};
    use crate::model::folder::*;

    pub(super) const FOLDER: Folder = Folder {
        classes: &[
            "GraniteMoeForCausalLM",
            "GraniteMoeSharedForCausalLM",
            HYBRID,
        ],
        accepts: |fields| has_experts(fields) && !is_hybrid(fields),
        model_type: "granitemoe",
        keys,
        layers: all_experts,
        expert_length: "intermediate_size",
        shared_length: "shared_intermediate_size",
        parts: &[ATTENTION, EXPERTS, SHARED_EXPERT, NORMS],
        ..granite::FAMILY.folder
    };

    const INPUT: &str = "block_sparse_moe.input_linear";
    const OUTPUT: &str = "block_sparse_moe.output_linear";
    pub(crate) const EXPERTS: Group = only(
        Kind::Experts,
        &[
            matrix(
                "block_sparse_moe.router.layer",
                tensor::FFN_GATE_INP,
                Dim::Experts,
                Dim::Width,
            ),
            experts(
                INPUT,
                tensor::FFN_GATE_EXPS,
                [Dim::Expert, Dim::Width],
                ("block_sparse_moe.input_linear.weight", 0, 2),
            ),
            experts(
                INPUT,
                tensor::FFN_UP_EXPS,
                [Dim::Expert, Dim::Width],
                ("block_sparse_moe.input_linear.weight", 1, 2),
            ),
            experts(
                OUTPUT,
                tensor::FFN_DOWN_EXPS,
                [Dim::Width, Dim::Expert],
                ("block_sparse_moe.output_linear.weight", 0, 1),
            ),
        ],
    );
    const SHARED: [Dim; 2] = [Dim::SharedExpert, Dim::Width];
    pub(crate) const SHARED_EXPERT: Group = only(
        Kind::Experts,
        &[
            piece(
                "shared_mlp.input_linear",
                tensor::FFN_GATE_SHEXP,
                SHARED,
                [0, 2],
            )
            .when_any("shared_intermediate_size"),
            piece(
                "shared_mlp.input_linear",
                tensor::FFN_UP_SHEXP,
                SHARED,
                [1, 2],
            )
            .when_any("shared_intermediate_size"),
            matrix(
                "shared_mlp.output_linear",
                tensor::FFN_DOWN_SHEXP,
                Dim::Width,
                Dim::SharedExpert,
            )
            .when_any("shared_intermediate_size"),
        ],
    );

    pub(crate) fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        granite::folder::keys(fields, shape, entries)?;
        if shape.shared_length > 0 {
            entries.number(key::EXPERT_SHARED_FEED_FORWARD_LENGTH, shape.shared_length)?;
        }
        expert_counts(fields, shape, entries)
    }
}
