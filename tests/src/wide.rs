//! Random models of every family, wide enough for every format, made from the tiny ones of tests/golden/families: their metadata with other sizes.

use crate::gguf::{Gguf, Tensor, Value};
use crate::toy::{quantised, weights};
use dram_core::gguf::{File, Value as Field};
use dram_core::quant::format_by_id;

const WIDTH: u64 = 256;
const FEED_FORWARD: u64 = 512;
/// Groups of a state space's heads.
const GROUPS: u64 = 2;
/// Inner length of one expert.
const EXPERT: u64 = 256;
const HEAD: u64 = 64;

/// The sizes that tell what a dimension is.
struct Sizes {
    vocabulary: u64,
    /// Of the tiny model.
    old_head: u64,
    old_feed_forward: u64,
    /// A layer's own input's; 0: it has none.
    old_input: u64,
    /// A delta net's, of the tiny model; 0: it has none.
    old_state: u64,
    /// A state space's heads; 0: it has none.
    state_heads: u64,
    /// Of the wide one.
    rope: u64,
    /// Inner length of one expert of the wide one.
    expert: u64,
}

/// The family of `file` with 256 wide layers and heads of 64. Vectors keep the mean and the spread that they have in `file`, matrices that of what they
/// give, and tables of factors their values, stretched.
pub fn widened(file: &File, seed: u64) -> Gguf {
    let mut wide = Gguf::copy(file);
    let metadata = file.metadata();
    let architecture = metadata.str("general.architecture").unwrap();
    let key = |name: &str| format!("{architecture}.{name}");
    let number = |name: &str| metadata.opt_u32(&key(name)).unwrap().map(u64::from);
    let heads = number("attention.head_count").unwrap();
    let width = number("embedding_length").unwrap();
    // Heads of several lengths keep their proportions: the shortest is HEAD long.
    let long_head = number("attention.key_length").unwrap_or(width / heads);
    let old_head = number("attention.key_length_swa").unwrap_or(long_head);
    let rope = number("rope.dimension_count").unwrap_or(old_head) * HEAD / old_head;
    // One number, or one for each layer.
    let lengths = match metadata.get(&key("feed_forward_length")) {
        Some(Field::Array(layers)) => layers.iter().filter_map(|n| n.as_integer()).collect(),
        value => Vec::from_iter(value.and_then(|n| n.as_integer())),
    };
    let old_feed_forward = lengths.first().map_or(1, |length| *length as u64);
    let value_heads = number("ssm.time_step_rank").unwrap_or(0);
    let is_state_space = file
        .tensors()
        .any(|tensor| tensor.name().ends_with("ssm_in.weight"));
    let expert = match number("expert_feed_forward_length") {
        Some(_) => EXPERT,
        None => FEED_FORWARD,
    };
    let sizes = Sizes {
        vocabulary: metadata.strings("tokenizer.ggml.tokens").unwrap().len() as u64,
        old_head,
        old_feed_forward,
        old_input: number("embedding_length_per_layer_input").unwrap_or(0),
        old_state: number("ssm.state_size").unwrap_or(0),
        state_heads: if is_state_space { value_heads } else { 0 },
        rope,
        expert,
    };
    for (name, size) in [
        ("embedding_length", WIDTH),
        (
            "embedding_length_per_layer_input",
            sizes.input(sizes.old_input),
        ),
        ("expert_feed_forward_length", EXPERT),
        ("expert_shared_feed_forward_length", EXPERT),
        ("ssm.state_size", HEAD),
        ("ssm.inner_size", value_heads * HEAD),
        ("attention.key_length", long_head * HEAD / old_head),
        ("attention.value_length", long_head * HEAD / old_head),
        ("attention.key_length_swa", HEAD),
        ("attention.value_length_swa", HEAD),
        ("rope.dimension_count", rope),
        ("rope.dimension_count_swa", HEAD),
    ] {
        if number(name).is_some() {
            wide.set(&key(name), Value::U32(size as u32));
        }
    }
    if is_state_space {
        wide.set(&key("ssm.group_count"), Value::U32(GROUPS as u32));
    }
    let wider = |length: &i128| *length as u64 * FEED_FORWARD / old_feed_forward;
    let lengths: Vec<u64> = lengths.iter().map(wider).collect();
    match lengths[..] {
        [] => {}
        [one] => wide.set(&key("feed_forward_length"), Value::U32(one as u32)),
        _ => {
            let all = lengths.iter().map(|length| *length as i32).collect();
            wide.set(&key("feed_forward_length"), Value::I32s(all));
        }
    }
    // llama.cpp looks for Phi's own tokens in a model with this name.
    wide.set("general.name", Value::Str("wide".into()));
    for tensor in &mut wide.tensors {
        tensor.widen(&sizes, seed);
    }
    wide
}

impl Tensor {
    fn widen(&mut self, sizes: &Sizes, seed: u64) {
        let format = format_by_id(self.ggml_type).unwrap();
        let mut old = vec![0.0; self.dims.iter().product::<u64>() as usize];
        format.dequantize(&self.bytes, &mut old);
        let dims = sizes.of(&self.name, &self.dims);
        let count = dims.iter().product::<u64>() as usize;
        let values: Vec<f32> = if self.name.starts_with("rope_") {
            (0..count).map(|i| old[i * old.len() / count]).collect()
        } else if self.name.ends_with("ssm_a") {
            old // all are negative: states fade
        } else {
            // A matrix of twice the columns makes sums of twice the variance.
            let is_matrix = dims.len() > 1 && !self.name.contains("norm");
            let shrink = if is_matrix {
                (self.dims[0] as f32 / dims[0] as f32).sqrt()
            } else {
                1.0
            };
            let mean = old.iter().sum::<f32>() / old.len() as f32;
            let mean = if is_matrix { 0.0 } else { mean };
            let square = |x: &f32| (x - mean) * (x - mean);
            let spread = (old.iter().map(square).sum::<f32>() / old.len() as f32).sqrt();
            let noise = normal(&self.name, count, seed);
            noise.map(|x| mean + shrink * spread * x).collect()
        };
        let row = |row: &[f32]| quantised(format, row);
        self.bytes = values.chunks(dims[0] as usize).flat_map(row).collect();
        self.dims = dims;
    }
}

impl Sizes {
    /// Inputs of one layer or of all: each WIDTH long.
    fn input(&self, old: u64) -> u64 {
        old * WIDTH / self.old_input.max(1)
    }

    /// What a tensor of these dimensions in the tiny model has in the wide one.
    fn of(&self, name: &str, old: &[u64]) -> Vec<u64> {
        // All heads of any kind, with a gate or without.
        let heads = |old: u64| old * HEAD / self.old_head;
        let feed_forward = |old: u64| old * FEED_FORWARD / self.old_feed_forward;
        let inner = self.state_heads * HEAD;
        let conv = inner + 2 * GROUPS * HEAD;
        let kind = match name.strip_prefix("blk.") {
            Some(rest) => rest.split_once('.').unwrap().1,
            None => name,
        };
        match kind {
            "token_embd.weight" | "output.weight" => vec![WIDTH, self.vocabulary],
            "per_layer_token_embd.weight" => vec![self.input(old[0]), self.vocabulary],
            "per_layer_model_proj.weight" => vec![WIDTH, self.input(old[1])],
            "per_layer_proj_norm.weight" => vec![self.input(old[0])],
            "inp_gate.weight" => vec![WIDTH, self.input(old[1])],
            "proj.weight" => vec![self.input(old[0]), WIDTH],
            "layer_output_scale.weight" => old.to_vec(),
            "attn_q.weight" | "attn_k.weight" | "attn_v.weight" => vec![WIDTH, heads(old[1])],
            "attn_qkv.weight" if self.old_state > 0 => vec![WIDTH, old[1] * HEAD / self.old_state],
            "attn_qkv.weight" => vec![WIDTH, heads(old[1])],
            "attn_gate.weight" => vec![WIDTH, old[1] * HEAD / self.old_state],
            "ssm_in.weight" => vec![WIDTH, inner + conv + self.state_heads],
            "ssm_conv1d.weight" if inner > 0 => vec![old[0], conv],
            "ssm_conv1d.bias" => vec![conv],
            "ssm_norm.weight" if inner > 0 => vec![inner / GROUPS, GROUPS],
            "ssm_out.weight" if inner > 0 => vec![inner, WIDTH],
            "ssm_conv1d.weight" => vec![old[0], old[1] * HEAD / self.old_state],
            "ssm_alpha.weight" | "ssm_beta.weight" => vec![WIDTH, old[1]],
            "ssm_a" | "ssm_d" | "ssm_dt.bias" => old.to_vec(),
            "ssm_norm.weight" => vec![HEAD],
            "ssm_out.weight" => vec![old[0] * HEAD / self.old_state, WIDTH],
            "nextn.eh_proj.weight" => vec![2 * WIDTH, WIDTH],
            "attn_output.weight" => vec![heads(old[0]), WIDTH],
            "ffn_gate.weight" | "ffn_up.weight" => vec![WIDTH, feed_forward(old[1])],
            "ffn_down.weight" => vec![feed_forward(old[0]), WIDTH],
            "ffn_gate_inp.weight" => vec![WIDTH, old[1]],
            "ffn_gate_exps.weight" | "ffn_up_exps.weight" => vec![WIDTH, self.expert, old[2]],
            "ffn_down_exps.weight" => vec![self.expert, WIDTH, old[2]],
            "ffn_gate_inp_shexp.weight" => vec![WIDTH],
            "ffn_gate_shexp.weight" | "ffn_up_shexp.weight" => vec![WIDTH, EXPERT],
            "ffn_down_shexp.weight" => vec![EXPERT, WIDTH],
            "exp_probs_b.bias" => old.to_vec(),
            "shortconv.in_proj.weight" => vec![WIDTH, 3 * WIDTH],
            "shortconv.conv.weight" => vec![old[0], WIDTH],
            "shortconv.out_proj.weight" => vec![WIDTH, WIDTH],
            "attn_q.bias" | "attn_k.bias" | "attn_v.bias" => vec![heads(old[0])],
            "attn_q_norm.weight" | "attn_k_norm.weight" => [&[heads(old[0])], &old[1..]].concat(),
            kind if kind.starts_with("rope_") => vec![self.rope / 2],
            kind if kind.contains("norm") => vec![WIDTH],
            _ => panic!("what is {name}?"),
        }
    }
}

/// Nearly normal numbers of mean 0 and variance 1: sums of four uniform ones.
fn normal(name: &str, count: usize, seed: u64) -> impl Iterator<Item = f32> {
    let parts = weights(name, 4 * count, 0.75f32.sqrt(), seed);
    (0..count).map(move |i| parts[4 * i..4 * i + 4].iter().sum())
}
