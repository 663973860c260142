//! StableLM 3B, 2 1.6B (arXiv:2402.17834), Zephyr, and 2 12B: layer norms, and part of a head rotated. The 12B model normalises each head with its own
//! weights, and its branches both read one norm; which of this a file has, its tensors say, as its keys do not.

use super::super::config::{Config, HeadNorm, NormKind, Rope};
use super::super::keys::Keys;
use super::{Architecture, LLAMA, key_length, shape};
use crate::Result;
use crate::gguf::names::key;
use crate::kernels::RopeLayout;

pub(super) const FAMILY: Architecture = Architecture {
    name: "stablelm",
    layout: RopeLayout::Halves,
    config,
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
    ..LLAMA
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let shape = shape(keys)?;
    let has = |name| keys.file.get_tensor(name).is_some();
    Ok(Config {
        norm: NormKind::Layer,
        norm_epsilon: keys.positive(key::LAYER_NORM_EPSILON, None)?,
        head_norm: has("blk.0.attn_q_norm.weight").then_some(HeadNorm::Own),
        parallel: !has("blk.0.ffn_norm.weight"),
        rope: Rope::read(keys, key_length(&shape), shape.context_length)?,
        ..shape
    })
}

#[cfg(feature = "folders")]
mod folder {
    use super::super::LLAMA;
    use crate::gguf::names::{key, tensor};
    use crate::model::folder::*;

    pub(super) const FOLDER: Folder = Folder {
        classes: &["StableLmForCausalLM", "StableLMEpochForCausalLM"],
        model_type: "stablelm",
        defaults: &[
            ("rope_theta", 10_000.0),
            ("partial_rotary_factor", 0.25),
            ("layer_norm_eps", 1e-5),
        ],
        always_tied: Some(false),
        keys,
        parts: &[ATTENTION, FEED_FORWARD, NORMS_AND_HEADS],
        qkv_bias: Need::If("use_qkv_bias", true),
        pre: "stablelm2",
        ..LLAMA.folder
    };

    const NORMS_AND_HEADS: Group = every(&[
        vector("input_layernorm", tensor::ATTN_NORM, Dim::Width),
        vector("post_attention_layernorm", tensor::FFN_NORM, Dim::Width)
            .when("use_parallel_residual", false),
        // The folder has a vector for each head.
        rows(
            "self_attn.q_layernorm.norms.*",
            tensor::ATTN_Q_NORM,
            Dim::Heads,
            Dim::Head,
        )
        .when("qk_layernorm", true),
        rows(
            "self_attn.k_layernorm.norms.*",
            tensor::ATTN_K_NORM,
            Dim::KvHeads,
            Dim::Head,
        )
        .when("qk_layernorm", true),
    ]);

    fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        lengths(fields, shape, entries)?;
        entries.number(key::ROPE_DIMENSION_COUNT, rotated(fields, shape)?)?;
        entries.own(
            key::USE_PARALLEL_RESIDUAL,
            fields.flag("use_parallel_residual"),
        );
        entries.float(key::LAYER_NORM_EPSILON, fields.float("layer_norm_eps")?);
        unusual_base(fields, entries)
    }
}
