//! Weights of per-layer embeddings: see `decoder/layer_input.rs`.

use super::super::config::Config;
use super::finder::Finder;
use super::{Linear, Matrix, Norm};
use crate::Result;
use crate::gguf::names::tensor::{self, weight};

/// What makes each layer's own input of a token (per-layer embeddings).
#[derive(Clone, Debug)]
pub(crate) struct TokenInputWeights {
    pub(crate) table: Matrix, // [vocabulary, layers · length]: looked up, never multiplied
    pub(crate) projection: Linear, // [layers · length, embedding]
    pub(crate) norm: Norm,    // [length]
}

/// How a layer takes its own input of a token up: the stream += norm(projection(gelu(gate · stream) · input)).
#[derive(Clone, Debug)]
pub(crate) struct LayerInputWeights {
    pub(crate) gate: Linear,       // [length, embedding]
    pub(crate) projection: Linear, // [embedding, length]
    pub(crate) norm: Norm,         // [embedding]
}

/// What makes the inputs of all layers, each of `length` values.
pub(super) fn token_input(
    find: &mut Finder<'_>,
    config: &Config,
    length: usize,
) -> Result<TokenInputWeights> {
    let all = config.layers.len() * length;
    let table = weight(tensor::PER_LAYER_TOKEN_EMBD);
    Ok(TokenInputWeights {
        table: find.matrix(&table, config.vocabulary, all)?,
        projection: find.linear(tensor::PER_LAYER_MODEL_PROJ, all, config.embedding_length)?,
        norm: find.norm(tensor::PER_LAYER_PROJ_NORM, &[length], false)?,
    })
}

/// What one layer makes of its input of `length` values.
pub(super) fn layer_input(
    find: &mut Finder<'_>,
    config: &Config,
    prefix: &str,
    length: usize,
) -> Result<LayerInputWeights> {
    let d = config.embedding_length;
    let at = |name: &str| format!("{prefix}.{name}");
    Ok(LayerInputWeights {
        gate: find.linear(&at(tensor::PER_LAYER_INP_GATE), length, d)?,
        projection: find.linear(&at(tensor::PER_LAYER_PROJ), d, length)?,
        norm: find.norm(&at(tensor::PER_LAYER_POST_NORM), &[d], false)?,
    })
}
