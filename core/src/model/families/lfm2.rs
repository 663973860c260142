//! LFM2 and 2.5 (arXiv:2511.23404): gated short convolutions, and attention with normalised heads in some layers.

use super::super::config::{Config, HeadNorm, Mixer};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, kv_heads_by_layer, rms_and_rope, shape_of};
use crate::Result;
use crate::gguf::names::{key, tensor};
use crate::kernels::RopeLayout;

pub(super) const FAMILY: Architecture = Architecture {
    name: "lfm2",
    layout: RopeLayout::Halves,
    config,
    names: &NAMES,
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
};

pub(super) const NAMES: Names = Names {
    output_norm: Some(tensor::TOKEN_EMBD_NORM), // the converter's name for the norm at the end
    ..Names::LLAMA
};

/// A layer with no heads of keys and values has a convolution.
pub(super) fn config(keys: &Keys<'_>) -> Result<Config> {
    // Encoders and audio models under the same name.
    let causal = keys.name(key::CAUSAL);
    if keys.file.metadata().opt_bool(&causal)? == Some(false) {
        return Err(keys.bad(&causal, "true or absent".into(), false));
    }
    if let Some(window) = keys.nonzero_length(key::SLIDING_WINDOW)? {
        let key = keys.name(key::SLIDING_WINDOW);
        return Err(keys.bad(&key, "0 or absent".into(), window));
    }
    let (heads, kv_heads) = kv_heads_by_layer(keys)?;
    let shape = shape_of(keys, kv_heads)?;
    let mut config = rms_and_rope(keys, shape)?;
    config.head_norm = Some(HeadNorm::Shared);
    let kernel = keys.kernel(key::SHORTCONV_L_CACHE)?;
    for (layer, heads) in config.layers.iter_mut().zip(heads) {
        if heads == 0 {
            layer.mixer = Mixer::ShortConv { kernel };
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
        classes: &["Lfm2ForCausalLM", "LFM2ForCausalLM"],
        model_type: "lfm2",
        defaults: &[
            ("norm_eps", 1e-5),
            ("rope_theta", 1_000_000.0),
            ("conv_L_cache", 3.0),
            ("block_multiple_of", 256.0),
            ("block_ffn_dim_multiplier", 1.0),
        ],
        tied: true,
        keys,
        top: &[
            matrix(
                "embed_tokens",
                tensor::TOKEN_EMBD,
                Dim::Vocabulary,
                Dim::Width,
            ),
            vector("embedding_norm", tensor::TOKEN_EMBD_NORM, Dim::Width), // the norm at the end
        ],
        layers,
        feed_forward,
        parts: PARTS,
        pre: "lfm2",
        ..LLAMA.folder
    };

    const PARTS: &[Group] = &[
        every(&[
            vector("operator_norm", tensor::ATTN_NORM, Dim::Width),
            vector("ffn_norm", tensor::FFN_NORM, Dim::Width),
        ]),
        only(
            Kind::Attention,
            &[
                matrix("self_attn.q_proj", tensor::ATTN_Q, Dim::Queries, Dim::Width),
                matrix("self_attn.k_proj", tensor::ATTN_K, Dim::Keys, Dim::Width),
                matrix("self_attn.v_proj", tensor::ATTN_V, Dim::Keys, Dim::Width),
                matrix(
                    "self_attn.out_proj",
                    tensor::ATTN_OUTPUT,
                    Dim::Width,
                    Dim::Queries,
                ),
                vector("self_attn.q_layernorm", tensor::ATTN_Q_NORM, Dim::Head),
                vector("self_attn.k_layernorm", tensor::ATTN_K_NORM, Dim::Head),
            ],
        ),
        only(
            Kind::ShortConv,
            &[
                matrix(
                    "conv.in_proj",
                    tensor::SHORTCONV_IN_PROJ,
                    Dim::ConvInput,
                    Dim::Width,
                ),
                kernels("conv.conv", tensor::SHORTCONV_CONV, Dim::Width, Dim::Kernel),
                matrix(
                    "conv.out_proj",
                    tensor::SHORTCONV_OUT_PROJ,
                    Dim::Width,
                    Dim::Width,
                ),
            ],
        ),
        only(
            Kind::Dense,
            &[
                matrix(
                    "feed_forward.w1",
                    tensor::FFN_GATE,
                    Dim::FeedForward,
                    Dim::Width,
                ),
                matrix(
                    "feed_forward.w3",
                    tensor::FFN_UP,
                    Dim::FeedForward,
                    Dim::Width,
                ),
                matrix(
                    "feed_forward.w2",
                    tensor::FFN_DOWN,
                    Dim::Width,
                    Dim::FeedForward,
                ),
            ],
        ),
        only(
            Kind::Experts,
            &[
                matrix(
                    "feed_forward.gate",
                    tensor::FFN_GATE_INP,
                    Dim::Experts,
                    Dim::Width,
                ),
                bias(
                    "feed_forward.expert_bias",
                    tensor::EXP_PROBS_B,
                    Dim::Experts,
                )
                .unless("use_expert_bias"),
                experts(
                    "feed_forward.experts.*.w1",
                    tensor::FFN_GATE_EXPS,
                    [Dim::Expert, Dim::Width],
                    ("feed_forward.experts.gate_up_proj", 0, 2),
                ),
                experts(
                    "feed_forward.experts.*.w3",
                    tensor::FFN_UP_EXPS,
                    [Dim::Expert, Dim::Width],
                    ("feed_forward.experts.gate_up_proj", 1, 2),
                ),
                experts(
                    "feed_forward.experts.*.w2",
                    tensor::FFN_DOWN_EXPS,
                    [Dim::Width, Dim::Expert],
                    ("feed_forward.experts.down_proj", 0, 1),
                ),
            ],
        ),
    ];

    pub(crate) fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        ensure!(
            !fields.flag("conv_bias"),
            "conv_bias, which the runtime's {} does not have",
            entries.architecture()
        );
        lengths(fields, shape, entries)?;
        norm_and_rope(fields, entries, "norm_eps")?;
        let kv_heads = shape.kv_heads as i32; // at most `MAX_LENGTH`
        let heads = |[mixer, _]: &Layer| {
            if *mixer == Kind::Attention {
                kv_heads
            } else {
                0
            }
        };
        entries.own(
            key::HEAD_COUNT_KV,
            shape.layers.iter().map(heads).collect::<Vec<i32>>(),
        );
        entries.number(key::VOCAB_SIZE, shape.vocabulary)?;
        entries.number(key::SHORTCONV_L_CACHE, fields.length("conv_L_cache")?)
    }

    /// Short convolutions and attention in the order that the folder says.
    pub(crate) fn layers(fields: &Fields, layers: usize) -> Result<Vec<Layer>> {
        if let Some(types) = fields["layer_types"].as_array() {
            ensure!(
                types.len() == layers,
                "layer_types has {} entries for {layers} layers",
                types.len()
            );
            let kind = |name: &Json| match name.as_str() {
                Some("conv") => Ok([Kind::ShortConv, Kind::Dense]),
                Some("full_attention") => Ok([Kind::Attention, Kind::Dense]),
                _ => refuse(format!(
                    "layer_types has {name}; expected \"conv\" or \"full_attention\""
                )),
            };
            return types.iter().map(kind).collect();
        }
        let Some(numbers) = fields["full_attn_idxs"].as_array() else {
            return refuse("layer_types is missing".into());
        };
        let kind = |layer| match numbers.iter().any(|n| n.as_u64() == Some(layer)) {
            true => [Kind::Attention, Kind::Dense],
            false => [Kind::ShortConv, Kind::Dense],
        };
        Ok((0..layers as u64).map(kind).collect())
    }

    /// Two thirds of what the folder says, rounded up to a multiple, unless it says otherwise.
    fn feed_forward(fields: &Fields) -> Result<usize> {
        let length = match fields.opt_number("block_ff_dim")? {
            Some(_) => fields.length("block_ff_dim")?,
            None => stated(fields)?,
        };
        if fields["block_auto_adjust_ff_dim"] == false {
            return Ok(length);
        }
        let factor = fields.float("block_ffn_dim_multiplier")?;
        let adjusted = factor * (2 * length / 3) as f64;
        ensure!(
            (1.0..=MAX_LENGTH as f64).contains(&adjusted),
            "block_ffn_dim_multiplier {factor} makes the feed-forward part {adjusted} long; expected 1 to {MAX_LENGTH}"
        );
        Ok((adjusted as usize).next_multiple_of(fields.length("block_multiple_of")?))
    }
}
