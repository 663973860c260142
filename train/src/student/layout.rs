//! Where each tensor lies in the one flat buffer of parameters.
//!
//! Parameters, gradients and the optimiser's moments are plain `Vec<f32>` with this layout, so that summing shards, clipping, AdamW and
//! checkpoints are loops over slices. Which tensors there are, their names and shapes, the family's description says; matrices that are used
//! together lie together (q, k, v; gate, up), and their biases behind them.

use std::collections::HashMap;
use std::ops::Range;

use dram_core::gguf::names::tensor::{
    ATTN_K, ATTN_K_NORM, ATTN_NORM, ATTN_OUTPUT, ATTN_Q, ATTN_Q_NORM, ATTN_QKV, ATTN_V, FFN_DOWN,
    FFN_GATE, FFN_NORM, FFN_UP, OUTPUT, OUTPUT_NORM, POST_ATTENTION_NORM, POST_FFW_NORM,
    TOKEN_EMBD, weight,
};
use dram_core::model::NormKind;
use dram_core::model::folder::{Family, Fields, Form, Part, Shape};

use super::Config;
use dram_core::model::folder;

/// A layer's tensors by GGUF's names, in the buffer's order. Neighbours of one group lie together, before their biases.
const ORDER: &[&[&str]] = &[
    &[ATTN_NORM],
    &[ATTN_Q, ATTN_K, ATTN_V],
    &[ATTN_QKV],
    &[ATTN_Q_NORM],
    &[ATTN_K_NORM],
    &[ATTN_OUTPUT],
    &[POST_ATTENTION_NORM],
    &[FFN_NORM],
    &[FFN_GATE, FFN_UP],
    &[FFN_DOWN],
    &[POST_FFW_NORM],
];

/// What a tensor is for: decides weight decay and the block format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Token embeddings; also the output matrix when tied.
    Embedding,
    /// The output matrix when not tied.
    Head,
    /// A matrix of a layer.
    Linear,
    /// A norm's weights.
    Norm,
    /// A matrix's or a norm's bias.
    Bias,
}

/// One tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its Hugging Face name; with a `*`, row i is the vector of the name with i in its place.
    pub name: String,
    /// Its name in GGUF.
    pub gguf: String,
    pub role: Role,
    /// `[rows, cols]`; vectors have one row.
    pub rows: usize,
    pub cols: usize,
    /// Its place in the flat buffer.
    pub range: Range<usize>,
    /// GGUF holds the rows of a head so that the pairs to rotate are adjacent.
    pub interleaved: bool,
    /// Folders hold it less 1, which the family's norms add. Here and in GGUF it is whole.
    pub shifted: bool,
}

impl Parameter {
    /// Whether it has one dimension.
    pub fn is_vector(&self) -> bool {
        self.rows == 1 && matches!(self.role, Role::Norm | Role::Bias)
    }
}

/// A matrix and its bias.
#[derive(Debug, Clone)]
pub(super) struct LinearRanges {
    pub(super) weight: Range<usize>,
    pub(super) bias: Option<Range<usize>>,
}

/// Ranges of one layer, with neighbours merged as the decoder uses them. A norm's bias lies behind its weights, in one range.
#[derive(Debug, Clone)]
pub(super) struct LayerRanges {
    pub(super) attention_norm: Option<Range<usize>>,
    pub(super) q: LinearRanges,
    pub(super) kv: LinearRanges,
    /// Of all query heads, or one that they share; of keys likewise.
    pub(super) head_norms: Option<[Range<usize>; 2]>,
    pub(super) o: LinearRanges,
    pub(super) attention_post_norm: Option<Range<usize>>,
    pub(super) feed_forward_norm: Option<Range<usize>>,
    pub(super) gate_up: LinearRanges,
    pub(super) down: LinearRanges,
    pub(super) feed_forward_post_norm: Option<Range<usize>>,
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

/// Whether the decoder has a place for everything that the family's weights are.
pub(super) fn places(family: Family) -> bool {
    let known = |part: &Part| ORDER.iter().any(|group| group.contains(&part.to));
    let mut inside = family.parts.iter().flat_map(|group| group.parts);
    let top: Vec<&str> = family.top.iter().map(|part| part.to).collect();
    top == [TOKEN_EMBD, OUTPUT_NORM] && inside.all(known) && !family.dense
}

impl Layout {
    /// Of a decoder whose shape is possible ([`Config::check`]).
    pub fn new(c: &Config) -> Self {
        let (family, shape) = (c.family, c.shape());
        let fields = Fields::plain(c.to_hugging_face());
        let mut placer = Placer {
            config: c,
            shape: &shape,
            all: Vec::new(),
            end: 0,
        };
        let top = |name: &str| family.top.iter().find(|part| part.to == name);
        let place_top = |placer: &mut Placer, name: &str| match top(name) {
            Some(part) => placer.part("model.", "", part),
            None => 0..0,
        };
        let embedding = place_top(&mut placer, TOKEN_EMBD);
        let mut layers = Vec::with_capacity(c.layers);
        for (number, layer) in shape.layers.iter().enumerate() {
            let parts = family.groups(*layer).flat_map(|group| group.parts);
            let parts: HashMap<&str, &Part> = parts
                .filter(|part| part.need.holds(&fields))
                .map(|part| (part.to, part))
                .collect();
            layers.push(placer.layer(number, &parts));
        }
        let norm = place_top(&mut placer, OUTPUT_NORM);
        let head = if c.tied_embeddings {
            embedding.clone()
        } else {
            let name = (folder::OUTPUT.into(), weight(OUTPUT));
            placer.place(name, Role::Head, [c.vocabulary, c.embedding_length])
        };
        Layout {
            parameters: placer.all,
            embedding,
            layers,
            norm,
            head,
            total: placer.end,
        }
    }

    /// The tensor of this Hugging Face name.
    pub fn find(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|p| p.name == name)
    }
}

/// Places one tensor after the other.
struct Placer<'a> {
    config: &'a Config,
    shape: &'a Shape,
    all: Vec<Parameter>,
    end: usize,
}

impl Placer<'_> {
    /// `name`: the folder's and GGUF's.
    fn place(
        &mut self,
        (name, gguf): (String, String),
        role: Role,
        [rows, cols]: [usize; 2],
    ) -> Range<usize> {
        let range = self.end..self.end + rows * cols;
        self.end = range.end;
        self.all.push(Parameter {
            name,
            gguf,
            role,
            rows,
            cols,
            range: range.clone(),
            interleaved: false,
            shifted: false,
        });
        range
    }

    /// A weight of the family, and a norm's bias behind it.
    fn part(&mut self, from: &str, to: &str, part: &Part) -> Range<usize> {
        let rows = part.rows.of(self.shape);
        let (role, shape) = match part.form {
            Form::Vector => (Role::Norm, [1, rows]),
            Form::Rows(cols) => (Role::Norm, [rows, cols.of(self.shape)]),
            Form::Matrix(cols) if part.to == TOKEN_EMBD => {
                (Role::Embedding, [rows, cols.of(self.shape)])
            }
            Form::Matrix(cols) => (Role::Linear, [rows, cols.of(self.shape)]),
            _ => return 0..0, // `places` knows of no such part
        };
        let name = |kind: &str| {
            (
                format!("{from}{}.{kind}", part.from),
                format!("{to}{}.{kind}", part.to),
            )
        };
        let mut range = self.place(name("weight"), role, shape);
        let family = self.config.family;
        let last = self.all.len() - 1;
        self.all[last].interleaved = family.interleaved && matches!(part.to, ATTN_Q | ATTN_K);
        self.all[last].shifted = family.shifted_norms && role == Role::Norm;
        let of_heads = matches!(part.to, ATTN_Q_NORM | ATTN_K_NORM);
        if role == Role::Norm && self.config.options.norm == NormKind::Layer && !of_heads {
            range.end = self.place(name("bias"), Role::Bias, [1, rows]).end;
        }
        range
    }

    /// The bias of a matrix.
    fn bias(&mut self, from: &str, to: &str, part: &Part) -> Range<usize> {
        let rows = part.rows.of(self.shape);
        let name = (
            format!("{from}{}.bias", part.from),
            format!("{to}{}.bias", part.to),
        );
        let range = self.place(name, Role::Bias, [1, rows]);
        let last = self.all.len() - 1;
        self.all[last].interleaved =
            self.config.family.interleaved && matches!(part.to, ATTN_Q | ATTN_K);
        range
    }

    fn has_bias(&self, name: &str) -> bool {
        let biases = self.config.options.biases;
        match name {
            ATTN_Q | ATTN_K | ATTN_V | ATTN_QKV => biases.qkv,
            ATTN_OUTPUT => biases.output,
            FFN_GATE | FFN_UP | FFN_DOWN => biases.feed_forward,
            _ => false,
        }
    }

    fn layer(&mut self, number: usize, parts: &HashMap<&str, &Part>) -> LayerRanges {
        let from = format!("model.{}.{number}.", self.config.family.layer);
        let to = format!("blk.{number}.");
        let (mut weights, mut biases) = (HashMap::new(), HashMap::new());
        for group in ORDER {
            let members: Vec<&Part> = group
                .iter()
                .filter_map(|name| parts.get(name))
                .copied()
                .collect();
            for part in &members {
                weights.insert(part.to, self.part(&from, &to, part));
            }
            for part in members {
                if self.has_bias(part.to) {
                    biases.insert(part.to, self.bias(&from, &to, part));
                }
            }
        }
        let linear = |first: &str, last: &str| {
            let across = |ranges: &HashMap<&str, Range<usize>>| {
                Some(ranges.get(first)?.start..ranges.get(last)?.end)
            };
            LinearRanges {
                weight: across(&weights).unwrap_or_default(),
                bias: across(&biases),
            }
        };
        let c = self.config;
        let (q, kv) = match weights.get(ATTN_QKV) {
            // Queries, keys and values are rows of one matrix.
            Some(all) => {
                let end = all.start + c.heads * c.head_dim * c.embedding_length;
                let rows = |weight| LinearRanges { weight, bias: None };
                (rows(all.start..end), rows(end..all.end))
            }
            None => (linear(ATTN_Q, ATTN_Q), linear(ATTN_K, ATTN_V)),
        };
        let gate = if weights.contains_key(FFN_GATE) {
            FFN_GATE
        } else {
            FFN_UP // whose first half it is
        };
        let head_norms = (weights.get(ATTN_Q_NORM).cloned())
            .zip(weights.get(ATTN_K_NORM).cloned())
            .map(|(q, k)| [q, k]);
        LayerRanges {
            attention_norm: weights.get(ATTN_NORM).cloned(),
            q,
            kv,
            head_norms,
            o: linear(ATTN_OUTPUT, ATTN_OUTPUT),
            attention_post_norm: weights.get(POST_ATTENTION_NORM).cloned(),
            feed_forward_norm: weights.get(FFN_NORM).cloned(),
            gate_up: linear(gate, FFN_UP),
            down: linear(FFN_DOWN, FFN_DOWN),
            feed_forward_post_norm: weights.get(POST_FFW_NORM).cloned(),
        }
    }
}
