//! Where each tensor lies in the one flat buffer of parameters.
//!
//! Parameters, gradients and the optimiser's moments are plain `Vec<f32>` with this layout, so that summing shards, clipping, AdamW and
//! checkpoints are loops over slices. Matrices that are used together lie together (q, k, v; gate, up).

use std::ops::Range;

use super::Config;
use dram_core::model::folder;

/// What a tensor is for: decides weight decay and the block format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Token embeddings; also the output matrix when tied.
    Embedding,
    /// The output matrix when not tied.
    Head,
    /// A matrix of a layer.
    Linear,
    Norm,
}

/// One tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its Hugging Face name.
    pub name: String,
    pub role: Role,
    /// `[rows, cols]`; norms have one row.
    pub rows: usize,
    pub cols: usize,
    /// Its place in the flat buffer.
    pub range: Range<usize>,
}

/// Ranges of one layer, with neighbours merged as the decoder uses them.
#[derive(Debug, Clone)]
pub(super) struct LayerRanges {
    pub(super) attention_norm: Range<usize>,
    pub(super) q: Range<usize>,
    pub(super) kv: Range<usize>,
    pub(super) o: Range<usize>,
    pub(super) feed_forward_norm: Range<usize>,
    pub(super) gate_up: Range<usize>,
    pub(super) down: Range<usize>,
}

/// The whole map.
#[derive(Debug, Clone)]
pub struct Layout {
    pub parameters: Vec<Parameter>,
    pub(super) embedding: Range<usize>,
    pub(super) layers: Vec<LayerRanges>,
    pub(super) norm: Range<usize>,
    /// Equal to `embedding` when tied.
    pub(super) head: Range<usize>,
    /// Length of the flat buffer.
    pub total: usize,
}

impl Layout {
    pub fn new(c: &Config) -> Self {
        let mut all: Vec<Parameter> = Vec::new();
        let mut end = 0;
        let mut place = |name: String, role, rows: usize, cols: usize| {
            let range = end..end + rows * cols;
            end = range.end;
            all.push(Parameter {
                name,
                role,
                rows,
                cols,
                range: range.clone(),
            });
            range
        };
        let (d, f) = (c.embedding_length, c.feed_forward_length);
        let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let embedding = place(
            "model.embed_tokens.weight".into(),
            Role::Embedding,
            c.vocabulary,
            d,
        );
        let layers = (0..c.layers)
            .map(|l| {
                let name = |part: &str| format!("model.layers.{l}.{part}.weight");
                let attention_norm = place(name("input_layernorm"), Role::Norm, 1, d);
                let q_range = place(name("self_attn.q_proj"), Role::Linear, q, d);
                let k = place(name("self_attn.k_proj"), Role::Linear, kv, d);
                let v = place(name("self_attn.v_proj"), Role::Linear, kv, d);
                let o = place(name("self_attn.o_proj"), Role::Linear, d, q);
                let feed_forward_norm = place(name("post_attention_layernorm"), Role::Norm, 1, d);
                let gate = place(name("mlp.gate_proj"), Role::Linear, f, d);
                let up = place(name("mlp.up_proj"), Role::Linear, f, d);
                let down = place(name("mlp.down_proj"), Role::Linear, d, f);
                LayerRanges {
                    attention_norm,
                    q: q_range,
                    kv: k.start..v.end,
                    o,
                    feed_forward_norm,
                    gate_up: gate.start..up.end,
                    down,
                }
            })
            .collect();
        let norm = place("model.norm.weight".into(), Role::Norm, 1, d);
        let head = if c.tied_embeddings {
            embedding.clone()
        } else {
            place(folder::OUTPUT.into(), Role::Head, c.vocabulary, d)
        };
        Layout {
            parameters: all,
            embedding,
            layers,
            norm,
            head,
            total: end,
        }
    }

    /// The tensor of this Hugging Face name.
    pub fn find(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|p| p.name == name)
    }
}
