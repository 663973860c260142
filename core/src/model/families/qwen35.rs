//! Qwen 3.5, text: gated delta nets (arXiv:2412.06464), and gated attention in every fourth layer.

use super::super::config::{Config, HeadNorm, Mixer, StateRule};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, decoder, linear_attention};
use crate::Result;
use crate::gguf::names::{key, tensor};
use crate::kernels::RopeLayout;

pub(super) const FAMILY: Architecture = Architecture {
    name: "qwen35",
    layout: RopeLayout::Halves,
    config,
    names: &Names {
        feed_forward_norm: Some(tensor::POST_ATTENTION_NORM),
        ..Names::LLAMA
    },
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
};

pub(super) fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = Config {
        head_norm: Some(HeadNorm::Shared),
        gated_attention: true,
        ..decoder(keys)?
    };
    let net = linear_attention(keys, StateRule::GatedDelta)?;
    let recurrent = keys.flags(key::RECURRENT_LAYERS)?;
    let every = keys.opt_length(key::FULL_ATTENTION_INTERVAL)?.unwrap_or(4);
    for (number, layer) in config.layers.iter_mut().enumerate() {
        let is_recurrent = match &recurrent {
            Some(layers) => layers[number],
            None => (number + 1) % every != 0,
        };
        if is_recurrent {
            layer.mixer = Mixer::LinearAttention(net);
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
        classes: &["Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"],
        model_type: "qwen3_5_text",
        defaults: &[
            ("head_dim", 256.0),
            ("num_key_value_heads", 4.0),
            ("rms_norm_eps", 1e-6),
            ("partial_rotary_factor", 0.25),
            ("linear_conv_kernel_dim", 4.0),
            ("linear_key_head_dim", 128.0),
            ("linear_value_head_dim", 128.0),
            ("linear_num_key_heads", 16.0),
            ("linear_num_value_heads", 32.0),
            ("full_attention_interval", 4.0),
        ],
        keys,
        layers,
        parts: &[ATTENTION, DELTA_NET, FEED_FORWARD, NORMS],
        // Vision, and the layers that predict more tokens than the next.
        unused: &["visual.", "mtp."],
        shifted_norms: true,
        pre: "qwen35",
        ..LLAMA.folder
    };

    pub(crate) const ATTENTION: Group = only(
        Kind::Attention,
        &[
            matrix(
                "self_attn.q_proj",
                tensor::ATTN_Q,
                Dim::GatedQueries,
                Dim::Width,
            ),
            matrix("self_attn.k_proj", tensor::ATTN_K, Dim::Keys, Dim::Width),
            matrix("self_attn.v_proj", tensor::ATTN_V, Dim::Keys, Dim::Width),
            matrix(
                "self_attn.o_proj",
                tensor::ATTN_OUTPUT,
                Dim::Width,
                Dim::Queries,
            ),
            vector("self_attn.q_norm", tensor::ATTN_Q_NORM, Dim::Head),
            vector("self_attn.k_norm", tensor::ATTN_K_NORM, Dim::Head),
        ],
    );
    pub(crate) const DELTA_NET: Group = only(
        Kind::DeltaNet,
        &[
            negative_exp("linear_attn.A_log", tensor::SSM_A, Dim::DeltaHeads).heads(Heads::Rows),
            kernels(
                "linear_attn.conv1d",
                tensor::SSM_CONV1D,
                Dim::DeltaConv,
                Dim::Kernel,
            )
            .heads(Heads::Rows),
            bias("linear_attn.dt_bias", tensor::SSM_DT, Dim::DeltaHeads).heads(Heads::Rows),
            matrix(
                "linear_attn.in_proj_a",
                tensor::SSM_ALPHA,
                Dim::DeltaHeads,
                Dim::Width,
            )
            .heads(Heads::Rows),
            matrix(
                "linear_attn.in_proj_b",
                tensor::SSM_BETA,
                Dim::DeltaHeads,
                Dim::Width,
            )
            .heads(Heads::Rows),
            matrix(
                "linear_attn.in_proj_qkv",
                tensor::ATTN_QKV,
                Dim::DeltaConv,
                Dim::Width,
            )
            .heads(Heads::Rows),
            matrix(
                "linear_attn.in_proj_z",
                tensor::ATTN_GATE,
                Dim::DeltaValues,
                Dim::Width,
            )
            .heads(Heads::Rows),
            vector("linear_attn.norm", tensor::SSM_NORM, Dim::DeltaHead),
            matrix(
                "linear_attn.out_proj",
                tensor::SSM_OUT,
                Dim::Width,
                Dim::DeltaValues,
            )
            .heads(Heads::Cols),
        ],
    );
    pub(crate) const NORMS: Group = every(&[
        vector("input_layernorm", tensor::ATTN_NORM, Dim::Width),
        vector(
            "post_attention_layernorm",
            tensor::POST_ATTENTION_NORM,
            Dim::Width,
        ),
    ]);

    pub(crate) fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        ensure!(
            fields["attn_output_gate"] != false,
            "attn_output_gate = false; the runtime's {} has the gate",
            entries.architecture()
        );
        let (keys, values) = (shape.delta_key_heads, shape.delta_value_heads);
        let length = fields.length("linear_key_head_dim")?;
        if keys > 0 {
            ensure!(
                values.is_multiple_of(keys),
                "linear_num_value_heads = {values}: expected a multiple of the {keys} key heads"
            );
            ensure!(
                length == shape.delta_head,
                "linear_value_head_dim = {}: expected linear_key_head_dim, {length}",
                shape.delta_head
            );
        }
        decoder(fields, shape, entries)?;
        head_lengths(shape, entries)?;
        let rope = fields.rope().full;
        let sections: Option<Vec<i32>> = rope["mrope_section"].as_array().and_then(|list| {
            let number = |n: &Json| i32::try_from(n.as_i64()?).ok();
            list.iter().map(number).collect()
        });
        // Of text, all sections' positions are the same; transformers' default.
        let mut sections = sections.unwrap_or_else(|| vec![11, 11, 10]);
        sections.resize(4, 0);
        entries.own(key::ROPE_DIMENSION_SECTIONS, sections);
        let share = rope.opt_float("partial_rotary_factor")?.unwrap_or(0.25);
        ensure!(
            (0.0..=1.0).contains(&share),
            "partial_rotary_factor = {share}"
        );
        let rotated = (share * shape.head_dim as f64) as usize;
        entries.number(key::ROPE_DIMENSION_COUNT, rotated)?;
        entries.number(
            key::SSM_CONV_KERNEL,
            fields.length("linear_conv_kernel_dim")?,
        )?;
        entries.number(key::SSM_STATE_SIZE, length)?;
        entries.number(key::SSM_GROUP_COUNT, fields.length("linear_num_key_heads")?)?;
        let values = fields.length("linear_num_value_heads")?;
        entries.number(key::SSM_TIME_STEP_RANK, values)?;
        entries.number(key::SSM_INNER_SIZE, values * length)?;
        let is_net = |[mixer, _]: &Layer| *mixer == Kind::DeltaNet;
        entries.own(
            key::RECURRENT_LAYERS,
            shape.layers.iter().map(is_net).collect::<Vec<_>>(),
        );
        entries.number(
            key::FULL_ATTENTION_INTERVAL,
            fields.length("full_attention_interval")?,
        )
    }

    pub(crate) fn layers(fields: &Fields, layers: usize) -> Result<Vec<Layer>> {
        let of = |is_net: bool| match is_net {
            true => [Kind::DeltaNet, Kind::Dense],
            false => [Kind::Attention, Kind::Dense],
        };
        let Some(types) = fields["layer_types"].as_array() else {
            let every = fields.length("full_attention_interval")?;
            return Ok((1..=layers).map(|number| of(number % every != 0)).collect());
        };
        ensure!(
            types.len() == layers,
            "layer_types has {} entries for {layers} layers",
            types.len()
        );
        let layer = |name: &Json| match name.as_str() {
            Some("linear_attention") => Ok(of(true)),
            Some("full_attention") => Ok(of(false)),
            _ => refuse(format!(
                "layer_types has {name}; expected \"linear_attention\" or \"full_attention\""
            )),
        };
        types.iter().map(layer).collect()
    }
}
