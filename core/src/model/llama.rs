//! The llama family: Llama 1 to 3, Mistral, SmolLM, TinyLlama and the students that Dram makes. Keys and tensor names are llama.cpp's; its converter
//! writes the rows of q and k permuted, so that pairs to rotate are adjacent.

use super::config::{Config, Keys, Rope};
use super::weights::Names;
use crate::Result;
use crate::kernels::Pairs;

pub(super) const NAMES: Names = Names {
    embedding: "token_embd.weight",
    output_norm: "output_norm.weight",
    output: "output.weight",
    rope_factors: "rope_freqs.weight",
    layer: "blk.",
    attention_norm: "attn_norm.weight",
    query: ["attn_q.weight", "attn_q.bias"],
    key: ["attn_k.weight", "attn_k.bias"],
    value: ["attn_v.weight", "attn_v.bias"],
    attention_output: ["attn_output.weight", "attn_output.bias"],
    feed_forward_norm: "ffn_norm.weight",
    gate: ["ffn_gate.weight", "ffn_gate.bias"],
    up: ["ffn_up.weight", "ffn_up.bias"],
    down: ["ffn_down.weight", "ffn_down.bias"],
    // Old converters wrote the inverse frequencies that everybody computes.
    unused: &["attn_rot_embd", "rope_freqs", "attn.rope.freqs"],
};

pub(super) fn config(keys: &Keys<'_>) -> Result<Config> {
    let metadata = keys.file.metadata();
    let experts = keys.name("expert_count");
    if let Some(n @ 1..) = metadata.opt_u32(&experts)? {
        return Err(keys.bad(
            &experts,
            "0 or absent: mixtures of experts are not supported".into(),
            n,
        ));
    }

    let embedding_length = keys.length("embedding_length")?;
    let heads = keys.length("attention.head_count")?;
    let kv_heads = keys.opt_length("attention.head_count_kv")?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        let key = keys.name("attention.head_count_kv");
        return Err(keys.bad(
            &key,
            format!("a divisor of the {heads} query heads"),
            kv_heads,
        ));
    }
    let per_head = || -> Result<usize> {
        if embedding_length.is_multiple_of(heads) {
            return Ok(embedding_length / heads);
        }
        let key = keys.name("attention.head_count");
        Err(keys.bad(&key, format!("a divisor of embedding_length {embedding_length}, or a file with attention.key_length and attention.value_length"), heads))
    };
    let key_length = keys
        .opt_length("attention.key_length")?
        .map_or_else(per_head, Ok)?;
    let value_length = keys
        .opt_length("attention.value_length")?
        .map_or_else(per_head, Ok)?;

    let dimensions = keys
        .opt_length("rope.dimension_count")?
        .unwrap_or(key_length);
    if !dimensions.is_multiple_of(2) || dimensions > key_length {
        let key = keys.name("rope.dimension_count");
        return Err(keys.bad(
            &key,
            format!("an even number up to the head's length {key_length}"),
            dimensions,
        ));
    }
    let vocabulary = metadata.strings("tokenizer.ggml.tokens")?.len();
    if vocabulary == 0 {
        return Err(keys.bad("tokenizer.ggml.tokens", "at least one token".into(), "none"));
    }

    Ok(Config {
        layers: keys.length("block_count")?,
        embedding_length,
        heads,
        kv_heads,
        key_length,
        value_length,
        feed_forward_length: keys.length("feed_forward_length")?,
        vocabulary,
        context_length: keys.length("context_length")?,
        norm_epsilon: keys.positive("attention.layer_norm_rms_epsilon", None)?,
        rope: Rope {
            dimensions,
            base: keys.positive("rope.freq_base", Some(10_000.0))?,
            scale: rope_scale(keys)?,
            pairs: Pairs::Interleaved,
        },
    })
}

/// 1 / factor of linear scaling. Llama 3's scaling needs no key: it lies in the file as factors, one for each frequency.
fn rope_scale(keys: &Keys<'_>) -> Result<f32> {
    let kind = keys.name("rope.scaling.type");
    match keys.file.metadata().opt_str(&kind)?.unwrap_or("linear") {
        "none" => return Ok(1.0),
        "linear" | "llama3" => {}
        other => {
            return Err(keys.bad(
                &kind,
                "none or linear: other kinds of RoPE scaling are not supported".into(),
                other,
            ));
        }
    }
    // Older files have scale_linear; a factor of 0 means none.
    let factor = |key| -> Result<Option<f32>> {
        Ok(keys
            .file
            .metadata()
            .opt_f32(&keys.name(key))?
            .filter(|&factor| factor != 0.0))
    };
    match (factor("rope.scaling.factor")?, factor("rope.scale_linear")?) {
        (Some(_), _) => Ok(1.0 / keys.positive("rope.scaling.factor", None)?),
        (None, Some(_)) => Ok(1.0 / keys.positive("rope.scale_linear", None)?),
        (None, None) => Ok(1.0),
    }
}
