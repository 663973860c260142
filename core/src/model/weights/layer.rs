//! Finds a layer's tensors.

use super::super::config::{
    Config, Experts, FeedForward, HeadNorm, LayerSpec, LinearAttention, Mixer, NormKind, Scope,
    StateRule,
};
use super::finder::Finder;
use super::layer_input::layer_input;
use super::names::Names;
use super::{
    AttentionWeights, ExpertsWeights, FeedForwardWeights, KeyValueWeights, Layer, Linear,
    LinearAttentionWeights, MixerWeights, MlpWeights, SharedExpertWeights, ShortConvWeights,
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
        Mixer::Attention(scope) => {
            MixerWeights::Attention(Box::new(attention(find, config, &prefix, scope, before)?))
        }
        Mixer::ShortConv { kernel } => {
            let at = |name: &str| format!("{prefix}.{name}");
            MixerWeights::ShortConv(Box::new(ShortConvWeights {
                number: before.len() - attentions,
                input: find.linear(&at(tensor::SHORTCONV_IN_PROJ), 3 * d, d)?,
                kernel: find.matrix(&at(&weight(tensor::SHORTCONV_CONV)), d, kernel)?,
                output: find.linear(&at(tensor::SHORTCONV_OUT_PROJ), d, d)?,
            }))
        }
        Mixer::LinearAttention(spec) => {
            let is_linear =
                |layer: &&Layer| matches!(layer.mixer, MixerWeights::LinearAttention(_));
            let numbers = [
                before.len() - attentions,
                before.iter().filter(is_linear).count(),
            ];
            MixerWeights::LinearAttention(Box::new(linear_attention(
                find, d, &prefix, spec, numbers,
            )?))
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
        layer_input: match config.per_layer_input {
            Some(length) => Some(layer_input(find, config, &prefix, length)?),
            None => None,
        },
        output_scale: match names.output_scale {
            Some(name) => find.factor(&format!("{prefix}.{}", weight(name)))?,
            None => None,
        },
    })
}

fn attention(
    find: &mut Finder<'_>,
    config: &Config,
    prefix: &str,
    scope: Scope,
    before: &[Layer],
) -> Result<AttentionWeights> {
    let (d, heads) = (config.embedding_length, scope.heads);
    let at = |name: &str| format!("{prefix}.{name}");
    let gates = if config.gated_attention {
        heads.mixed_length()
    } else {
        0
    };
    let query_rows = heads.query_length() + gates;
    let norm = |find: &mut Finder<'_>, name: &str, count: usize| {
        let shape = match config.head_norm? {
            HeadNorm::Shared => vec![heads.key_length],
            HeadNorm::Own => vec![heads.key_length, count],
            HeadNorm::Whole => vec![heads.key_length * count],
        };
        Some(find.norm(&at(name), &shape, false))
    };
    let of_queries = |find: &mut Finder<'_>| find.linear(&at(tensor::ATTN_Q), query_rows, d);
    let (query, own) = if scope.cache_of.is_some() {
        // Converters write what checkpoints still have of them.
        for name in [tensor::ATTN_K, tensor::ATTN_V, tensor::ATTN_K_NORM] {
            find.get(&at(&weight(name)));
        }
        (of_queries(find)?, None)
    } else if scope.tied_values {
        let key = find.linear(&at(tensor::ATTN_K), heads.keys_length(), d)?;
        (of_queries(find)?, Some((key, None)))
    } else {
        let [query, key, value] = find.joined(
            &at(tensor::ATTN_QKV),
            [
                (&*at(tensor::ATTN_Q), query_rows),
                (&*at(tensor::ATTN_K), heads.keys_length()),
                (&*at(tensor::ATTN_V), heads.values_length()),
            ],
            d,
        )?;
        (query, Some((key, Some(value))))
    };
    let key_value = match own {
        None => None,
        Some((key, value)) => Some(KeyValueWeights {
            key,
            value,
            key_norm: norm(find, tensor::ATTN_K_NORM, heads.kv).transpose()?,
        }),
    };
    // Caches before this layer's, or with the one that it reads.
    let cached = &before[..scope.cache_of.unwrap_or(before.len())];
    let has_cache = |layer: &&Layer| match &layer.mixer {
        MixerWeights::Attention(attention) => attention.key_value.is_some(),
        _ => false,
    };
    Ok(AttentionWeights {
        number: cached.iter().filter(has_cache).count(),
        scope,
        query,
        query_norm: norm(find, tensor::ATTN_Q_NORM, heads.queries).transpose()?,
        key_value,
        output: find.linear(&at(tensor::ATTN_OUTPUT), d, heads.mixed_length())?,
    })
}

fn linear_attention(
    find: &mut Finder<'_>,
    d: usize,
    prefix: &str,
    spec: LinearAttention,
    [number, state_number]: [usize; 2],
) -> Result<LinearAttentionWeights> {
    let at = |name: &str| format!("{prefix}.{name}");
    let (conv, values, heads) = (spec.conv_length(), spec.values_length(), spec.value_heads);
    let is_delta = spec.rule == StateRule::GatedDelta;
    let [gate, input, step] = if is_delta {
        [
            find.linear(&at(tensor::ATTN_GATE), values, d)?,
            find.linear(&at(tensor::ATTN_QKV), conv, d)?,
            find.linear(&at(tensor::SSM_ALPHA), heads, d)?,
        ]
    } else {
        let whole = find.matrix(&at(&weight(tensor::SSM_IN)), values + conv + heads, d)?;
        let rows = [0..values, values..values + conv, values + conv..whole.rows];
        rows.map(|rows| Linear::new(whole.rows(rows)))
    };
    let norm = if is_delta {
        vec![spec.value_length]
    } else {
        vec![values / spec.key_heads, spec.key_heads]
    };
    Ok(LinearAttentionWeights {
        number,
        state_number,
        spec,
        gate,
        input,
        step,
        beta: is_delta
            .then(|| find.linear(&at(tensor::SSM_BETA), heads, d))
            .transpose()?,
        step_bias: find.vector(&at(&format!("{}.bias", tensor::SSM_DT)), heads)?,
        decay: match is_delta {
            true => find.vector(&at(tensor::SSM_A), heads)?,
            false => find.matrix(&at(tensor::SSM_A), heads, 1)?,
        },
        skip: (!is_delta)
            .then(|| find.matrix(&at(tensor::SSM_D), heads, 1))
            .transpose()?,
        kernel: find.matrix(&at(&weight(tensor::SSM_CONV1D)), conv, spec.kernel)?,
        kernel_bias: find.bias(&at(tensor::SSM_CONV1D), conv)?,
        norm: find.norm(&at(tensor::SSM_NORM), &norm, false)?,
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
