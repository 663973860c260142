//! BERT (arXiv:1810.04805) as an encoder of texts: every position sees all others, learnt position embeddings, and norms of the residual stream itself.

use super::super::config::{Activation, Config, NormKind, Pooling, Rotation};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, shape};
use crate::Result;
use crate::gguf::names::key;
use crate::gguf::names::tensor::{self, weight};
use crate::kernels::RopeLayout;

pub(super) const FAMILY: Architecture = Architecture {
    name: "bert",
    layout: RopeLayout::Halves,
    config,
    names: &Names {
        token_types: Some(tensor::TOKEN_TYPES),
        positions: Some(tensor::POSITION_EMBD),
        embedding_norm: Some(tensor::TOKEN_EMBD_NORM),
        output_norm: None,
        mixer_norm: None,
        mixer_sum_norm: Some(tensor::ATTN_OUTPUT_NORM),
        feed_forward_norm: None,
        feed_forward_sum_norm: Some(tensor::LAYER_OUTPUT_NORM),
        gate: None,
        ..Names::LLAMA
    },
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut shape = shape(keys)?;
    for scope in shape.scopes_mut() {
        scope.rotation = Rotation::None;
    }
    let ranks = keys.file.get_tensor(&weight(tensor::CLS_OUTPUT)).is_some();
    let pooling = match shape.pooling {
        // The converter names none for rerankers.
        None if ranks => Pooling::Rank,
        // Sentence encoders that name none were trained with the mean.
        named => named.unwrap_or(Pooling::Mean),
    };
    Ok(Config {
        norm: NormKind::Layer,
        norm_epsilon: keys.positive(key::LAYER_NORM_EPSILON, None)?,
        activation: Activation::Gelu,
        causal: false,
        pooling: Some(pooling),
        ..shape
    })
}

#[cfg(feature = "folders")]
mod folder {
    use super::super::LLAMA;
    use crate::gguf::names::{key, tensor};
    use crate::model::folder::*;

    pub(super) const FOLDER: Folder = Folder {
        classes: &[
            "BertModel",
            "BertForMaskedLM",
            "BertForSequenceClassification",
        ],
        accepts: |_| true,
        model_type: "bert",
        activations: &["gelu"],
        defaults: &[
            ("layer_norm_eps", 1e-12),
            ("type_vocab_size", 2.0),
            ("max_position_embeddings", 512.0),
        ],
        tied: true,
        keys,
        top: &[
            matrix(
                "embeddings.word_embeddings",
                tensor::TOKEN_EMBD,
                Dim::Vocabulary,
                Dim::Width,
            ),
            matrix(
                "embeddings.position_embeddings",
                tensor::POSITION_EMBD,
                Dim::Context,
                Dim::Width,
            ),
            matrix(
                "embeddings.token_type_embeddings",
                tensor::TOKEN_TYPES,
                Dim::TokenTypes,
                Dim::Width,
            ),
            vector("embeddings.LayerNorm", tensor::TOKEN_EMBD_NORM, Dim::Width),
            matrix("pooler.dense", tensor::CLS, Dim::Width, Dim::Width).when_classifying(),
            matrix("classifier", tensor::CLS_OUTPUT, Dim::Labels, Dim::Width).when_classifying(),
        ],
        layer: "encoder.layer",
        parts: &[every(&[
            matrix(
                "attention.self.query",
                tensor::ATTN_Q,
                Dim::Queries,
                Dim::Width,
            ),
            matrix("attention.self.key", tensor::ATTN_K, Dim::Keys, Dim::Width),
            matrix(
                "attention.self.value",
                tensor::ATTN_V,
                Dim::Keys,
                Dim::Width,
            ),
            matrix(
                "attention.output.dense",
                tensor::ATTN_OUTPUT,
                Dim::Width,
                Dim::Queries,
            ),
            vector(
                "attention.output.LayerNorm",
                tensor::ATTN_OUTPUT_NORM,
                Dim::Width,
            ),
            matrix(
                "intermediate.dense",
                tensor::FFN_UP,
                Dim::FeedForward,
                Dim::Width,
            ),
            matrix(
                "output.dense",
                tensor::FFN_DOWN,
                Dim::Width,
                Dim::FeedForward,
            ),
            vector("output.LayerNorm", tensor::LAYER_OUTPUT_NORM, Dim::Width),
        ])],
        // Heads for training; a sentence's vector is pooled otherwise, but that of a classifier.
        unused: &[
            "pooler.",
            "cls.predictions",
            "cls.seq_relationship",
            "embeddings.position_ids",
        ],
        ..LLAMA.folder
    };

    fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        let positions = fields["position_embedding_type"]
            .as_str()
            .unwrap_or("absolute");
        ensure!(
            positions == "absolute",
            "position_embedding_type {positions:?}; the runtime has \"absolute\""
        );
        lengths(fields, shape, entries)?;
        entries.float(key::LAYER_NORM_EPSILON, fields.float("layer_norm_eps")?);
        entries.own(key::CAUSAL, false);
        entries.set(
            "tokenizer.ggml.token_type_count",
            shape.token_types as u32, // at most `MAX_LENGTH`
        );
        let labels = fields["id2label"].as_object().into_iter().flatten();
        let mut labels: Vec<_> = labels
            .filter_map(|(id, name)| Some((id, name.as_str()?)))
            .collect();
        labels.sort_unstable();
        // Two of them with the usual names are transformers' default.
        if !matches!(labels[..], [] | [(_, "LABEL_0"), _]) {
            let names = labels.iter().map(|(_, name)| (*name).to_owned());
            entries.own(key::CLASSIFIER_LABELS, names.collect::<Vec<_>>());
        }
        Ok(())
    }
}
