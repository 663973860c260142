//! Finds a layer's tensors.

use super::super::config::{
    Config, DeltaNet, Experts, FeedForward, HeadNorm, LayerSpec, Mixer, NormKind, Scope,
};
use super::finder::Finder;
use super::names::Names;
use super::{
    AttentionWeights, DeltaNetWeights, ExpertsWeights, FeedForwardWeights, Layer, Linear,
    MixerWeights, MlpWeights, SharedExpertWeights, ShortConvWeights,
};
use crate::Result;

/// The layer that comes after `before`.
pub(super) fn layer(
    find: &mut Finder<'_>,
    config: &Config,
    names: &Names,
    spec: &LayerSpec,
    before: &[Layer],
) -> Result<Layer> {
    let d = config.embedding_length;
    let prefix = format!("blk.{}", before.len());
    let biased = config.norm == NormKind::Layer;
    let mut norm = |name: Option<&str>| {
        name.map(|name| find.norm(&format!("{prefix}.{name}"), &[d], biased))
            .transpose()
    };
    let mixer_norm = norm(names.mixer_norm)?;
    let mixer_post_norm = norm(names.mixer_post_norm)?;
    let mixer_sum_norm = norm(names.mixer_sum_norm)?;
    let feed_forward_norm = if config.parallel {
        None
    } else {
        norm(names.feed_forward_norm)?
    };
    let feed_forward_post_norm = norm(names.feed_forward_post_norm)?;
    let feed_forward_sum_norm = norm(names.feed_forward_sum_norm)?;
    let is_attention = |layer: &&Layer| matches!(layer.mixer, MixerWeights::Attention(_));
    let attentions = before.iter().filter(is_attention).count();
    let mixer = match spec.mixer {
        Mixer::Attention(scope) => MixerWeights::Attention(Box::new(attention(
            find, config, &prefix, scope, attentions,
        )?)),
        Mixer::ShortConv { kernel } => {
            let at = |name: &str| format!("{prefix}.shortconv.{name}");
            MixerWeights::ShortConv(Box::new(ShortConvWeights {
                number: before.len() - attentions,
                input: find.linear(&at("in_proj"), 3 * d, d)?,
                kernel: find.matrix(&at("conv.weight"), d, kernel)?,
                output: find.linear(&at("out_proj"), d, d)?,
            }))
        }
        Mixer::DeltaNet(net) => {
            let is_net = |layer: &&Layer| matches!(layer.mixer, MixerWeights::DeltaNet(_));
            let numbers = [
                before.len() - attentions,
                before.iter().filter(is_net).count(),
            ];
            MixerWeights::DeltaNet(Box::new(delta_net(find, d, &prefix, net, numbers)?))
        }
    };
    let feed_forward = match &spec.feed_forward {
        FeedForward::Dense { length } => {
            FeedForwardWeights::Dense(mlp(find, config, names, &prefix, *length)?)
        }
        FeedForward::Experts(spec) => {
            FeedForwardWeights::Experts(experts(find, config, &prefix, spec)?)
        }
    };
    Ok(Layer {
        mixer_norm,
        mixer,
        mixer_post_norm,
        mixer_sum_norm,
        feed_forward_norm,
        feed_forward,
        feed_forward_post_norm,
        feed_forward_sum_norm,
    })
}

fn attention(
    find: &mut Finder<'_>,
    config: &Config,
    prefix: &str,
    scope: Scope,
    number: usize,
) -> Result<AttentionWeights> {
    let d = config.embedding_length;
    let at = |name: &str| format!("{prefix}.{name}");
    let gates = if config.gated_attention {
        config.mixed_length()
    } else {
        0
    };
    let queries = config.query_length() + gates;
    let [query, key, value] = find.joined(
        &at("attn_qkv"),
        [
            (&*at("attn_q"), queries),
            (&*at("attn_k"), config.keys_length()),
            (&*at("attn_v"), config.values_length()),
        ],
        d,
    )?;
    let head_norms = match config.head_norm {
        None => None,
        Some(kind) => {
            let shape = |heads: usize| match kind {
                HeadNorm::Shared => vec![config.key_length],
                HeadNorm::Own => vec![config.key_length, heads],
                HeadNorm::Whole => vec![config.key_length * heads],
            };
            Some([
                find.norm(&at("attn_q_norm"), &shape(config.heads), false)?,
                find.norm(&at("attn_k_norm"), &shape(config.kv_heads), false)?,
            ])
        }
    };
    Ok(AttentionWeights {
        number,
        scope,
        query,
        key,
        value,
        head_norms,
        output: find.linear(&at("attn_output"), d, config.mixed_length())?,
    })
}

fn delta_net(
    find: &mut Finder<'_>,
    d: usize,
    prefix: &str,
    spec: DeltaNet,
    [number, delta_number]: [usize; 2],
) -> Result<DeltaNetWeights> {
    let at = |name: &str| format!("{prefix}.{name}");
    let (conv, values, heads) = (spec.conv_length(), spec.values_length(), spec.value_heads);
    Ok(DeltaNetWeights {
        number,
        delta_number,
        spec,
        input: find.linear(&at("attn_qkv"), conv, d)?,
        gate: find.linear(&at("attn_gate"), values, d)?,
        beta: find.linear(&at("ssm_beta"), heads, d)?,
        step: find.linear(&at("ssm_alpha"), heads, d)?,
        step_bias: find.vector(&at("ssm_dt.bias"), heads)?,
        decay: find.vector(&at("ssm_a"), heads)?,
        kernel: find.matrix(&at("ssm_conv1d.weight"), conv, spec.kernel)?,
        norm: find.norm(&at("ssm_norm"), &[spec.value_length], false)?,
        output: find.linear(&at("ssm_out"), d, values)?,
    })
}

fn mlp(
    find: &mut Finder<'_>,
    config: &Config,
    names: &Names,
    prefix: &str,
    length: usize,
) -> Result<MlpWeights> {
    let d = config.embedding_length;
    let at = |name: &str| format!("{prefix}.{name}");
    let (gate, up) = match names.gate {
        Some(gate) => (
            Some(find.linear(&at(gate), length, d)?),
            find.linear(&at("ffn_up"), length, d)?,
        ),
        None if config.activation.gated() => {
            let whole = find.matrix(&at("ffn_up.weight"), 2 * length, d)?;
            let half = |start| Linear::new(whole.rows(start..start + length));
            (Some(half(0)), half(length))
        }
        None => (None, find.linear(&at("ffn_up"), length, d)?),
    };
    Ok(MlpWeights {
        gate,
        up,
        down: find.linear(&at("ffn_down"), d, length)?,
    })
}

fn experts(
    find: &mut Finder<'_>,
    config: &Config,
    prefix: &str,
    spec: &Experts,
) -> Result<ExpertsWeights> {
    let (d, count, length) = (config.embedding_length, spec.count, spec.length);
    let at = |name: &str| format!("{prefix}.{name}");
    let router = find.linear(&at("ffn_gate_inp"), count, d)?;
    let choice_bias = find.bias(&at("exp_probs_b"), count)?;
    let gates = find.stack(&at("ffn_gate_exps.weight"), count, length, d)?;
    let ups = find.stack(&at("ffn_up_exps.weight"), count, length, d)?;
    let downs = find.stack(&at("ffn_down_exps.weight"), count, d, length)?;
    let experts = gates
        .zip(ups)
        .zip(downs)
        .map(|((gate, up), down)| MlpWeights {
            gate: Some(Linear::new(gate)),
            up: Linear::new(up),
            down: Linear::new(down),
        });
    let shared = match &spec.shared {
        None => None,
        Some(shared) => Some(SharedExpertWeights {
            mlp: MlpWeights {
                gate: Some(find.linear(&at("ffn_gate_shexp"), shared.length, d)?),
                up: find.linear(&at("ffn_up_shexp"), shared.length, d)?,
                down: find.linear(&at("ffn_down_shexp"), d, shared.length)?,
            },
            gate: match shared.gated {
                true => Some(find.linear(&at("ffn_gate_inp_shexp"), 1, d)?),
                false => None,
            },
        }),
    };
    Ok(ExpertsWeights {
        shared,
        spec: spec.clone(),
        router,
        choice_bias,
        experts: experts.collect(),
    })
}
