//! BERT (arXiv:1810.04805) as an encoder of texts: every position sees all others, learnt position embeddings, and norms of the residual stream itself.

use super::super::config::{Activation, Config, NormKind, Pooling, Rotation};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, shape};
use crate::Result;

pub(super) const FAMILY: Architecture = Architecture {
    name: "bert",
    config,
    names: &Names {
        token_types: Some("token_types.weight"),
        positions: Some("position_embd.weight"),
        embedding_norm: Some("token_embd_norm"),
        output_norm: None,
        mixer_norm: None,
        mixer_sum_norm: Some("attn_output_norm"),
        feed_forward_norm: None,
        feed_forward_sum_norm: Some("layer_output_norm"),
        gate: None,
        ..Names::LLAMA
    },
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut shape = shape(keys)?;
    for scope in shape.scopes_mut() {
        scope.rotation = Rotation::None;
    }
    let pooling = keys.name("pooling_type");
    let pooling = match keys.file.metadata().opt_u32(&pooling)? {
        // Sentence encoders that name none were trained with the mean.
        None | Some(0 | 1) => Pooling::Mean,
        Some(2) => Pooling::Cls,
        Some(other) => {
            let expected = "0 or 1 (mean) or 2 (the first token)";
            return Err(keys.bad(&pooling, expected.into(), other));
        }
    };
    Ok(Config {
        norm: NormKind::Layer,
        norm_epsilon: keys.positive("attention.layer_norm_epsilon", None)?,
        activation: Activation::Gelu,
        causal: false,
        pooling: Some(pooling),
        ..shape
    })
}
