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

fn config(keys: &Keys<'_>) -> Result<Config> {
    with_scales(keys, decoder(keys)?)
}

pub(super) fn with_scales(keys: &Keys<'_>, mut config: Config) -> Result<Config> {
    config.embedding_scale = keys.nonzero(key::EMBEDDING_SCALE)?.unwrap_or(1.0);
    config.residual_scale = keys.nonzero(key::RESIDUAL_SCALE)?.unwrap_or(1.0);
    config.logit_scale = 1.0 / keys.positive(key::LOGIT_SCALE, None)?;
    if let Some(scale) = keys.nonzero(key::ATTENTION_SCALE)? {
        config.attention_scale = scale;
    }
    // For this family the key says whether queries and keys are rotated at all.
    let rotated = keys.name(key::ROPE_SCALING_FINETUNED);
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
    use crate::gguf::names::{key, tensor};
    use crate::model::folder::*;
    use serde_json::Value as Json;

    pub(super) const FOLDER: Folder = Folder {
        // The hybrids' class is that of Granite 4's models without state spaces too.
        classes: &["GraniteForCausalLM", HYBRID],
        accepts: |fields| !is_hybrid(fields) && !has_experts(fields),
        model_type: "granite",
        keys,
        layers,
        feed_forward,
        parts: &[ATTENTION, FEED_FORWARD, NORMS],
        pre: "refact",
        ..LLAMA.folder
    };

    pub(crate) const HYBRID: &str = "GraniteMoeHybridForCausalLM";

    const SHARED: [Dim; 2] = [Dim::FeedForward, Dim::Width];
    /// Of the hybrids' class, the expert that all tokens take, where there are no others.
    pub(crate) const FEED_FORWARD: Group = only(
        Kind::Dense,
        &[
            matrix(
                "mlp.gate_proj",
                tensor::FFN_GATE,
                Dim::FeedForward,
                Dim::Width,
            )
            .when_none("shared_intermediate_size"),
            matrix("mlp.up_proj", tensor::FFN_UP, Dim::FeedForward, Dim::Width)
                .when_none("shared_intermediate_size"),
            matrix(
                "mlp.down_proj",
                tensor::FFN_DOWN,
                Dim::Width,
                Dim::FeedForward,
            )
            .when_none("shared_intermediate_size"),
            piece("shared_mlp.input_linear", tensor::FFN_GATE, SHARED, [0, 2])
                .when_any("shared_intermediate_size"),
            piece("shared_mlp.input_linear", tensor::FFN_UP, SHARED, [1, 2])
                .when_any("shared_intermediate_size"),
            matrix(
                "shared_mlp.output_linear",
                tensor::FFN_DOWN,
                Dim::Width,
                Dim::FeedForward,
            )
            .when_any("shared_intermediate_size"),
        ],
    );

    pub(crate) fn has_experts(fields: &Fields) -> bool {
        fields.any("num_local_experts")
    }

    /// Whether some layer has a state space.
    pub(crate) fn is_hybrid(fields: &Fields) -> bool {
        let types = fields["layer_types"].as_array();
        types.is_some_and(|types| types.iter().any(is_state_space))
    }

    fn is_state_space(kind: &Json) -> bool {
        matches!(kind.as_str(), Some("mamba" | "linear_attention"))
    }

    pub(crate) fn layers(fields: &Fields, layers: usize) -> Result<Vec<Layer>> {
        let feed_forward = match has_experts(fields) {
            true => Kind::Experts,
            false => Kind::Dense,
        };
        let Some(types) = fields["layer_types"].as_array() else {
            return Ok(vec![[Kind::Attention, feed_forward]; layers]);
        };
        ensure!(
            types.len() == layers,
            "layer_types has {} entries for {layers} layers",
            types.len()
        );
        let layer = |kind: &Json| match kind.as_str() {
            Some("attention" | "full_attention") => Ok([Kind::Attention, feed_forward]),
            _ if is_state_space(kind) => Ok([Kind::StateSpace, feed_forward]),
            _ => refuse(format!(
                "layer_types has {kind}; expected \"mamba\" or \"attention\""
            )),
        };
        types.iter().map(layer).collect()
    }

    pub(crate) fn feed_forward(fields: &Fields) -> Result<usize> {
        match fields.any("shared_intermediate_size") && !has_experts(fields) {
            true => fields.length("shared_intermediate_size"),
            false => stated(fields),
        }
    }

    pub(crate) fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        decoder(fields, shape, entries)?;
        entries.number(key::VOCAB_SIZE, shape.vocabulary)?;
        entries.number(key::ROPE_DIMENSION_COUNT, shape.head_dim)?;
        if fields["model_type"] == "granitemoehybrid" {
            let rotated = fields["position_embedding_type"] == "rope";
            entries.own(key::ROPE_SCALING_FINETUNED, rotated);
            if !has_experts(fields) {
                let shared = fields.length("shared_intermediate_size")?;
                entries.number(key::EXPERT_SHARED_FEED_FORWARD_LENGTH, shared)?;
                for (key, field) in [
                    (key::EXPERT_COUNT, "num_local_experts"),
                    (key::EXPERT_USED_COUNT, "num_experts_per_tok"),
                ] {
                    entries.own(key, fields.opt_number(field)?.unwrap_or(0));
                }
            }
        }
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
