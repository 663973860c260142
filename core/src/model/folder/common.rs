//! What several families' folders share: weights, what layers are made of, and metadata.

use super::{
    Dim, Entries, Fields, Group, Kind, Layer, Part, Result, Shape, ensure, every, experts, matrix,
    only, refuse, rope_type, same_for_all_lengths, vector,
};
use crate::gguf::names::{key, tensor};

pub(crate) const TOP: &[Part] = &[
    matrix(
        "embed_tokens",
        tensor::TOKEN_EMBD,
        Dim::Vocabulary,
        Dim::Width,
    ),
    vector("norm", tensor::OUTPUT_NORM, Dim::Width),
];
pub(crate) const ATTENTION: Group = only(
    Kind::Attention,
    &[
        matrix("self_attn.q_proj", tensor::ATTN_Q, Dim::Queries, Dim::Width),
        matrix("self_attn.k_proj", tensor::ATTN_K, Dim::Keys, Dim::Width),
        matrix("self_attn.v_proj", tensor::ATTN_V, Dim::Keys, Dim::Width),
        matrix(
            "self_attn.o_proj",
            tensor::ATTN_OUTPUT,
            Dim::Width,
            Dim::Queries,
        ),
    ],
);
pub(crate) const FEED_FORWARD: Group = only(
    Kind::Dense,
    &[
        matrix(
            "mlp.gate_proj",
            tensor::FFN_GATE,
            Dim::FeedForward,
            Dim::Width,
        ),
        matrix("mlp.up_proj", tensor::FFN_UP, Dim::FeedForward, Dim::Width),
        matrix(
            "mlp.down_proj",
            tensor::FFN_DOWN,
            Dim::Width,
            Dim::FeedForward,
        ),
    ],
);
/// Norms before both branches.
pub(crate) const NORMS: Group = every(&[
    vector("input_layernorm", tensor::ATTN_NORM, Dim::Width),
    vector("post_attention_layernorm", tensor::FFN_NORM, Dim::Width),
]);
/// Norms after both branches.
pub(crate) const POST_NORMS: Group = every(&[
    vector(
        "post_attention_layernorm",
        tensor::POST_ATTENTION_NORM,
        Dim::Width,
    ),
    vector(
        "post_feedforward_layernorm",
        tensor::POST_FFW_NORM,
        Dim::Width,
    ),
]);
/// Beside [`POST_NORMS`].
pub(crate) const GEMMA_NORMS: Group = every(&[
    vector("input_layernorm", tensor::ATTN_NORM, Dim::Width),
    vector("pre_feedforward_layernorm", tensor::FFN_NORM, Dim::Width),
]);
pub(crate) const HEAD_NORMS: Group = only(
    Kind::Attention,
    &[
        vector("self_attn.q_norm", tensor::ATTN_Q_NORM, Dim::Head),
        vector("self_attn.k_norm", tensor::ATTN_K_NORM, Dim::Head),
    ],
);
pub(crate) const EXPERTS: Group = only(
    Kind::Experts,
    &[
        matrix("mlp.gate", tensor::FFN_GATE_INP, Dim::Experts, Dim::Width),
        experts(
            "mlp.experts.*.gate_proj",
            tensor::FFN_GATE_EXPS,
            [Dim::Expert, Dim::Width],
            ("mlp.experts.gate_up_proj", 0, 2),
        ),
        experts(
            "mlp.experts.*.up_proj",
            tensor::FFN_UP_EXPS,
            [Dim::Expert, Dim::Width],
            ("mlp.experts.gate_up_proj", 1, 2),
        ),
        experts(
            "mlp.experts.*.down_proj",
            tensor::FFN_DOWN_EXPS,
            [Dim::Width, Dim::Expert],
            ("mlp.experts.down_proj", 0, 1),
        ),
    ],
);

/// Attention and a dense feed-forward part in every layer.
pub(crate) fn alike(_: &Fields, layers: usize) -> Result<Vec<Layer>> {
    Ok(vec![[Kind::Attention, Kind::Dense]; layers])
}

/// All layers have the model's lengths.
pub(crate) fn same_shape(_: &Fields, shape: &Shape, _: usize) -> Result<Shape> {
    Ok(shape.clone())
}

/// The inner length of a dense feed-forward part, as most folders say it.
pub(crate) fn stated(fields: &Fields) -> Result<usize> {
    fields.length("intermediate_size")
}

/// Lengths and counts, which every family has.
pub(crate) fn lengths(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
    entries.number(key::BLOCK_COUNT, shape.layers.len())?;
    entries.number(key::CONTEXT_LENGTH, shape.context)?;
    entries.number(key::EMBEDDING_LENGTH, shape.width)?;
    entries.number(key::FEED_FORWARD_LENGTH, shape.feed_forward)?;
    entries.number(key::HEAD_COUNT, shape.heads)?;
    // The folders of BERT and ModernBERT have no such thing.
    if !entries.architecture().ends_with("bert")
        || fields.opt_number("num_key_value_heads")?.is_some()
    {
        entries.number(key::HEAD_COUNT_KV, shape.kv_heads)?;
    }
    Ok(())
}

/// What most families have besides: RMS norms, and a rotation of whole heads with its scaling.
pub(crate) fn decoder(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
    lengths(fields, shape, entries)?;
    norm_and_rope(fields, entries, "rms_norm_eps")
}

pub(crate) fn norm_and_rope(fields: &Fields, entries: &mut Entries, epsilon: &str) -> Result<()> {
    entries.float(key::RMS_NORM_EPSILON, fields.float(epsilon)?);
    let rope = fields.rope();
    scaling(&rope.full, entries)?;
    entries.float(key::ROPE_FREQ_BASE, rope.full.float("rope_theta")?);
    if let Some(base) = rope.local_base {
        entries.float(key::ROPE_FREQ_BASE_LOCAL, base);
    }
    Ok(())
}

pub(crate) fn head_lengths(shape: &Shape, entries: &mut Entries) -> Result<()> {
    entries.number(key::KEY_LENGTH, shape.head_dim)?;
    entries.number(key::VALUE_LENGTH, shape.head_dim)
}

/// Of families whose folders say so only where it is not width / heads.
pub(crate) fn named_head_lengths(
    fields: &Fields,
    shape: &Shape,
    entries: &mut Entries,
) -> Result<()> {
    if fields.opt_number("head_dim")?.is_some() {
        head_lengths(shape, entries)
    } else {
        Ok(())
    }
}

pub(crate) fn scaling(rope: &Fields, entries: &mut Entries) -> Result<()> {
    let kind = rope_type(rope);
    match kind {
        // Llama 3's and a student's are tensors.
        "default" | "none" | "llama3" | "proportional" | "factors" => {}
        "linear" | "yarn" => {
            entries.own(key::ROPE_SCALING_TYPE, kind);
            entries.float(key::ROPE_SCALING_FACTOR, rope.float("factor")?);
        }
        "longrope" if same_for_all_lengths(rope.json()) => {}
        "longrope" | "su" => entries.own(key::ROPE_SCALING_TYPE, "longrope"),
        other => {
            return refuse(format!(
                "RoPE scaling {other:?} is not known; known are linear, yarn, llama3 and longrope"
            ));
        }
    }
    if kind == "yarn" {
        let original = rope.number("original_max_position_embeddings")?;
        entries.own(key::ROPE_ORIGINAL_CONTEXT, original);
        for (key, fields) in [
            (key::YARN_EXT_FACTOR, ["extrapolation_factor"; 2]),
            (key::YARN_ATTN_FACTOR, ["attention_factor", "attn_factor"]),
            (key::YARN_BETA_FAST, ["beta_fast"; 2]),
            (key::YARN_BETA_SLOW, ["beta_slow"; 2]),
        ] {
            let value = rope.opt_float(fields[0])?.or(rope.opt_float(fields[1])?);
            if let Some(value) = value {
                entries.float(key, value);
            }
        }
    }
    Ok(())
}

/// Writes which layers see a window where it is not all but the last of every `period`.
pub(crate) fn unusual_pattern(
    fields: &Fields,
    shape: &Shape,
    entries: &mut Entries,
    period: usize,
) -> Result<()> {
    let usual = |local: &[bool]| {
        local
            .iter()
            .enumerate()
            .all(|(i, &local)| local == ((i + 1) % period != 0))
    };
    if let Some(local) = fields
        .local_layers(shape.layers.len())?
        .filter(|local| !usual(local))
    {
        entries.own(key::SLIDING_WINDOW_PATTERN, local);
    }
    Ok(())
}

/// For families whose key the converter leaves out: the runtimes take 10,000.
pub(crate) fn unusual_base(fields: &Fields, entries: &mut Entries) -> Result<()> {
    let rope = fields.rope().full;
    ensure!(
        rope_type(&rope) == "default",
        "RoPE scaling {:?}, which the runtime's {} does not have",
        rope_type(&rope),
        entries.architecture()
    );
    let base = rope.float("rope_theta")?;
    if base != 10_000.0 {
        entries.float(key::ROPE_FREQ_BASE, base);
    }
    Ok(())
}

/// The rotated part of a head.
pub(crate) fn rotated(fields: &Fields, shape: &Shape) -> Result<usize> {
    let share = fields
        .rope()
        .full
        .opt_float("partial_rotary_factor")?
        .unwrap_or(1.0);
    ensure!(
        (0.0..=1.0).contains(&share),
        "partial_rotary_factor = {share}"
    );
    Ok((share * shape.width as f64) as usize / shape.heads)
}

/// What a folder says of experts; `normalized`: whether the scores of those that are chosen are divided by their sum where it does not say.
pub(crate) fn expert_keys(
    fields: &Fields,
    shape: &Shape,
    entries: &mut Entries,
    normalized: bool,
) -> Result<()> {
    expert_counts(fields, shape, entries)?;
    entries.number(key::EXPERT_FEED_FORWARD_LENGTH, shape.expert_length)?;
    // The converter leaves it out: llama.cpp always divides.
    if !fields["norm_topk_prob"].as_bool().unwrap_or(normalized) {
        entries.own(key::EXPERT_WEIGHTS_NORM, false);
    }
    Ok(())
}

/// How many experts there are, and how many a token takes.
pub(crate) fn expert_counts(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
    entries.number(key::EXPERT_COUNT, shape.experts)?;
    entries.number(
        key::EXPERT_USED_COUNT,
        fields.length("num_experts_per_tok")?,
    )
}

/// Attention and experts in every layer.
pub(crate) fn all_experts(_: &Fields, layers: usize) -> Result<Vec<Layer>> {
    Ok(vec![[Kind::Attention, Kind::Experts]; layers])
}
