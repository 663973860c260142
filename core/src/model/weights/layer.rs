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
use crate::gguf::names::tensor::{self, weight};

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
    let biased = config.norm == NormKind::Layer && names.norm_biases;
    let mut norm = |name: Option<&str>| {
        name.map(|name| find.norm(&format!("{prefix}.{name}"), &[d], biased))
            .transpose()
    };
    let has_mixer_norm = names.first_mixer_norm || !before.is_empty();
    let mixer_norm = norm(names.mixer_norm.filter(|_| has_mixer_norm))?;
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
            let at = |name: &str| format!("{prefix}.{name}");
            MixerWeights::ShortConv(Box::new(ShortConvWeights {
                number: before.len() - attentions,
                input: find.linear(&at(tensor::SHORTCONV_IN_PROJ), 3 * d, d)?,
                kernel: find.matrix(&at(&weight(tensor::SHORTCONV_CONV)), d, kernel)?,
                output: find.linear(&at(tensor::SHORTCONV_OUT_PROJ), d, d)?,
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
            FeedForwardWeights::Dense(Box::new(mlp(find, config, names, &prefix, *length)?))
        }
        FeedForward::Experts(spec) => {
            FeedForwardWeights::Experts(Box::new(experts(find, config, &prefix, spec)?))
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
        &at(tensor::ATTN_QKV),
        [
            (&*at(tensor::ATTN_Q), queries),
            (&*at(tensor::ATTN_K), config.keys_length()),
            (&*at(tensor::ATTN_V), config.values_length()),
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
                find.norm(&at(tensor::ATTN_Q_NORM), &shape(config.heads), false)?,
                find.norm(&at(tensor::ATTN_K_NORM), &shape(config.kv_heads), false)?,
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
        output: find.linear(&at(tensor::ATTN_OUTPUT), d, config.mixed_length())?,
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
        input: find.linear(&at(tensor::ATTN_QKV), conv, d)?,
        gate: find.linear(&at(tensor::ATTN_GATE), values, d)?,
        beta: find.linear(&at(tensor::SSM_BETA), heads, d)?,
        step: find.linear(&at(tensor::SSM_ALPHA), heads, d)?,
        step_bias: find.vector(&at(&format!("{}.bias", tensor::SSM_DT)), heads)?,
        decay: find.vector(&at(tensor::SSM_A), heads)?,
        kernel: find.matrix(&at(&weight(tensor::SSM_CONV1D)), conv, spec.kernel)?,
        norm: find.norm(&at(tensor::SSM_NORM), &[spec.value_length], false)?,
        output: find.linear(&at(tensor::SSM_OUT), d, values)?,
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
            find.linear(&at(tensor::FFN_UP), length, d)?,
        ),
        None if config.activation.gated() => {
            let whole = find.matrix(&at(&weight(tensor::FFN_UP)), 2 * length, d)?;
            let half = |start| Linear::new(whole.rows(start..start + length));
            (Some(half(0)), half(length))
        }
        None => (None, find.linear(&at(tensor::FFN_UP), length, d)?),
    };
    Ok(MlpWeights {
        gate,
        up,
        down: find.linear(&at(tensor::FFN_DOWN), d, length)?,
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
    let router = find.linear(&at(tensor::FFN_GATE_INP), count, d)?;
    let choice_bias = find.bias(&at(tensor::EXP_PROBS_B), count)?;
    let gates = find.stack(&at(&weight(tensor::FFN_GATE_EXPS)), count, length, d)?;
    let ups = find.stack(&at(&weight(tensor::FFN_UP_EXPS)), count, length, d)?;
    let downs = find.stack(&at(&weight(tensor::FFN_DOWN_EXPS)), count, d, length)?;
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
                gate: Some(find.linear(&at(tensor::FFN_GATE_SHEXP), shared.length, d)?),
                up: find.linear(&at(tensor::FFN_UP_SHEXP), shared.length, d)?,
                down: find.linear(&at(tensor::FFN_DOWN_SHEXP), d, shared.length)?,
            },
            gate: match shared.gated {
                true => Some(find.linear(&at(tensor::FFN_GATE_INP_SHEXP), 1, d)?),
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
