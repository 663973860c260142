//! Views of a model's tensors in the map. Nothing is copied here; what is missing or has another shape is an error that names it.

mod finder;
mod layer;
mod layer_input;
mod names;
mod products;
mod turns;

pub(super) use finder::Finder;
pub(crate) use names::Names;

use super::config::{Config, Experts, LinearAttention, NormKind, Pooling, Scope};
use crate::gguf;
use crate::gguf::names::tensor::{self, weight};
use crate::kernels::Weight;
use crate::quant::Format;
use crate::{Error, Result};
use layer::layer;
use layer_input::token_input;
pub(crate) use layer_input::{LayerInputWeights, TokenInputWeights};
use std::ops::Range;
use turns::{Turns, turns};

/// A matrix in the map.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    pub(crate) format: &'static Format,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Where its bytes lie in the file: `[rows, cols]` in blocks of `format`.
    pub(crate) range: Range<usize>,
    /// What the forward pass multiplies with after it and those that it goes together with; empty where nothing is known.
    pub(crate) prefetch: Vec<Matrix>,
}

impl Matrix {
    /// Rows `rows` of it.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Matrix {
        let row = self.range.len() / self.rows;
        Matrix {
            rows: rows.len(),
            range: self.range.start + rows.start * row..self.range.start + rows.end * row,
            ..self.clone()
        }
    }

    /// The matrix as the kernels take it.
    pub(crate) fn view<'a>(&self, file: &'a gguf::File) -> Weight<'a> {
        Weight {
            format: self.format,
            bytes: file.at(self.range.clone()),
            rows: self.rows,
            cols: self.cols,
        }
    }
}

/// A matrix and, in some models, a bias `[rows]`.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    pub(crate) matrix: Matrix,
    pub(crate) bias: Option<Matrix>,
}

impl Linear {
    fn new(matrix: Matrix) -> Linear {
        Linear { matrix, bias: None }
    }
}

/// A norm's weights `[length]` and, in layer norms, its bias `[length]`.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    pub(crate) weight: Matrix,
    pub(crate) bias: Option<Matrix>,
}

/// One layer. Norms are `[embedding]`; which there are is the family's.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) mixer_norm: Option<Norm>,
    pub(crate) mixer: MixerWeights,
    pub(crate) mixer_post_norm: Option<Norm>,
    pub(crate) mixer_sum_norm: Option<Norm>,
    pub(crate) feed_forward_norm: Option<Norm>,
    pub(crate) feed_forward: FeedForwardWeights,
    pub(crate) feed_forward_post_norm: Option<Norm>,
    pub(crate) feed_forward_sum_norm: Option<Norm>,
    pub(crate) layer_input: Option<LayerInputWeights>,
    /// Multiplies the stream after the layer.
    pub(crate) output_scale: Option<f32>,
}

/// See [`Mixer`](super::config::Mixer).
#[derive(Clone, Debug)]
pub(crate) enum MixerWeights {
    Attention(Box<AttentionWeights>),
    ShortConv(Box<ShortConvWeights>),
    LinearAttention(Box<LinearAttentionWeights>),
}

#[derive(Clone, Debug)]
pub(crate) struct AttentionWeights {
    /// The number of the KV cache that it reads, among those of all layers.
    pub(crate) number: usize,
    pub(crate) scope: Scope,
    pub(crate) query: Linear, // [heads · key_length, embedding]; gated, [heads · (key_length + value_length), embedding]: each head's query, then its gate
    pub(crate) query_norm: Option<Norm>, // see `HeadNorm`
    /// What its cache gains; `None` where it reads another layer's.
    pub(crate) key_value: Option<KeyValueWeights>,
    pub(crate) output: Linear, // [embedding, heads · value_length]
}

#[derive(Clone, Debug)]
pub(crate) struct KeyValueWeights {
    pub(crate) key: Linear,            // [kv_heads · key_length, embedding]
    pub(crate) value: Option<Linear>,  // [kv_heads · value_length, embedding]; `None`: the keys
    pub(crate) key_norm: Option<Norm>, // see `HeadNorm`
}

#[derive(Clone, Debug)]
pub(crate) struct ShortConvWeights {
    /// Its number among the layers with a convolution.
    pub(crate) number: usize,
    pub(crate) input: Linear,  // [3 · embedding, embedding]: b, c and x
    pub(crate) kernel: Matrix, // [embedding, positions], the token's own position last
    pub(crate) output: Linear, // [embedding, embedding]
}

/// See [`LinearAttention`]. `conv`: length of queries, keys and values together. A state space's gate, input and step lie in one tensor.
#[derive(Clone, Debug)]
pub(crate) struct LinearAttentionWeights {
    /// Its number among the layers with a convolution.
    pub(crate) number: usize,
    /// Its number among the layers with linear attention.
    pub(crate) state_number: usize,
    pub(crate) spec: LinearAttention,
    pub(crate) gate: Linear,         // [heads · value_length, embedding]
    pub(crate) input: Linear,        // [conv, embedding]: what the convolution reads
    pub(crate) beta: Option<Linear>, // [heads, embedding], of a delta net
    pub(crate) step: Linear,         // [heads, embedding]
    pub(crate) step_bias: Matrix,    // [heads]
    pub(crate) decay: Matrix,        // [heads]: −exp(A)
    pub(crate) skip: Option<Matrix>, // [heads]: D, of a state space
    pub(crate) kernel: Matrix,       // [conv, positions], the token's own position last
    pub(crate) kernel_bias: Option<Matrix>, // [conv]
    pub(crate) norm: Norm, // [value_length] of a delta net; [heads · value_length] of a state space
    pub(crate) output: Linear, // [embedding, heads · value_length]
}

/// See [`FeedForward`](super::config::FeedForward).
#[derive(Clone, Debug)]
pub(crate) enum FeedForwardWeights {
    Dense(Box<MlpWeights>),
    Experts(Box<ExpertsWeights>),
}

#[derive(Clone, Debug)]
pub(crate) struct MlpWeights {
    pub(crate) gate: Option<Linear>, // [feed_forward, embedding]
    pub(crate) up: Linear,           // [feed_forward, embedding]
    pub(crate) down: Linear,         // [embedding, feed_forward]
}

#[derive(Clone, Debug)]
pub(crate) struct ExpertsWeights {
    pub(crate) spec: Experts,
    pub(crate) router: Linear, // [experts, embedding]
    /// Added to the scores where experts are chosen, and only there.
    pub(crate) choice_bias: Option<Matrix>, // [experts]
    pub(crate) experts: Vec<MlpWeights>, // [experts]
    pub(crate) shared: Option<SharedExpertWeights>,
}

/// See [`SharedExpert`](super::config::SharedExpert).
#[derive(Clone, Debug)]
pub(crate) struct SharedExpertWeights {
    pub(crate) mlp: MlpWeights,
    pub(crate) gate: Option<Linear>, // [1, embedding]
}

/// What a reranker makes a score with: `output · tanh(dense · vector)`.
#[derive(Clone, Debug)]
pub(crate) struct Classifier {
    pub(crate) dense: Option<Linear>, // [embedding, embedding]
    pub(crate) output: Linear,        // [labels, embedding]
}

/// Every tensor the forward pass reads.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    pub(crate) embedding: Matrix,           // [vocabulary, embedding]
    pub(crate) token_types: Option<Matrix>, // [types, embedding]
    pub(crate) positions: Option<Matrix>,   // [context, embedding]
    pub(crate) embedding_norm: Option<Norm>,
    pub(crate) token_input: Option<TokenInputWeights>,
    pub(crate) layers: Vec<Layer>, // [layers]
    pub(crate) output_norm: Option<Norm>,
    pub(crate) output: Matrix, // [vocabulary, embedding]
    /// What an encoder multiplies the vector of a text with, one after the other: `[any, embedding]`, `[any, any]`
    pub(crate) dense: Vec<Linear>,
    pub(crate) classifier: Option<Classifier>,
    /// Turns per position of each pair, for each of the config's rotary embeddings
    pub(crate) turns: Vec<Turns>,
}

impl Weights {
    /// Finds every tensor of `config` under the family's `names`. `blocks`: layers in the file, those among them that predict more tokens than one.
    pub(crate) fn find(
        file: &gguf::File,
        config: &Config,
        names: &Names,
        blocks: usize,
    ) -> Result<Weights> {
        let mut find = Finder::new(file);
        let d = config.embedding_length;
        let biased = config.norm == NormKind::Layer && names.norm_biases;
        let embedding = find.matrix(&weight(tensor::TOKEN_EMBD), config.vocabulary, d)?;
        let token_types = names.token_types.and_then(|name| find.get(&weight(name)));
        let token_types = token_types
            .map(|tensor| find.shaped(tensor, &[d, tensor.rows()]))
            .transpose()?;
        let positions = names
            .positions
            .map(|name| find.matrix(&weight(name), config.context_length, d))
            .transpose()?;
        let mut norm =
            |name: Option<&str>| name.map(|name| find.norm(name, &[d], biased)).transpose();
        let (embedding_norm, output_norm) = (norm(names.embedding_norm)?, norm(names.output_norm)?);
        let output = match find.get(&weight(tensor::OUTPUT)) {
            Some(tensor) => find.shaped(tensor, &[d, config.vocabulary])?,
            None => embedding.clone(),
        };
        let token_input = match config.per_layer_input {
            Some(length) => Some(token_input(&mut find, config, length)?),
            None => None,
        };
        let (mut dense, mut classifier) = (Vec::new(), None);
        match config.pooling {
            Some(Pooling::Rank) => classifier = Some(find.classifier(d)?),
            Some(_) => dense = find.chain(&[tensor::DENSE_2, tensor::DENSE_3], d)?,
            None => {}
        }
        let turns = turns(&mut find, config)?;
        let mut layers = Vec::with_capacity(config.layers.len());
        for spec in &config.layers {
            layers.push(layer(&mut find, config, names, spec, &layers)?);
        }

        // A tensor that nobody reads would change the answers of a runtime that does read it, but for those of layers that predict more tokens than one.
        let predicts_more = |tensor: &str| {
            let (number, _) = tensor.strip_prefix("blk.")?.split_once('.')?;
            (config.layers.len()..blocks)
                .contains(&number.parse().ok()?)
                .then_some(())
        };
        let stranger = file.tensors().find(|tensor| {
            !find.used.contains(tensor.name())
                && predicts_more(tensor.name()).is_none()
                && !names.unused.iter().any(|part| tensor.name().contains(part))
        });
        match stranger {
            Some(tensor) => Err(Error::UnexpectedTensor {
                file: file.name().into(),
                tensor: tensor.name().into(),
            }),
            None => Ok(Weights {
                embedding,
                token_types,
                positions,
                embedding_norm,
                token_input,
                layers,
                output_norm,
                output,
                dense,
                classifier,
                turns,
            }
            .in_order()),
        }
    }
}

impl Weights {
    /// Says of each group of matrices which one comes next; after the last, the next token's first.
    fn in_order(mut self) -> Weights {
        let mut next = vec![self.output.clone()];
        for layer in self.layers.iter_mut().rev() {
            for group in layer.groups().into_iter().rev() {
                let own = group.iter().map(|matrix| (*matrix).clone()).collect();
                if let Some(last) = group.into_iter().next_back() {
                    last.prefetch = std::mem::replace(&mut next, own);
                }
            }
        }
        if let Some(input) = &mut self.token_input {
            let own = vec![input.projection.matrix.clone()];
            input.projection.matrix.prefetch = std::mem::replace(&mut next, own);
        }
        self.output.prefetch = next;
        for layer in &mut self.layers {
            if let FeedForwardWeights::Experts(experts) = &mut layer.feed_forward {
                experts.router.matrix.prefetch.clear(); // which experts come next, it decides
            }
        }
        self
    }
}

impl Layer {
    /// The matrices that all tokens are multiplied with, in the order of the forward pass.
    fn multiplied(&self) -> impl Iterator<Item = &Matrix> {
        let inputs: Vec<_> = match &self.mixer {
            MixerWeights::Attention(a) => {
                let own = a.key_value.iter();
                let own = own.flat_map(|own| std::iter::once(&own.key).chain(&own.value));
                std::iter::once(&a.query).chain(own).collect()
            }
            MixerWeights::ShortConv(conv) => vec![&conv.input],
            MixerWeights::LinearAttention(a) => {
                let inner = [&a.gate, &a.input].into_iter().chain(&a.beta);
                inner.chain([&a.step]).collect()
            }
        };
        let inputs = inputs.into_iter().map(|linear| &linear.matrix);
        inputs.chain(self.after_mixing())
    }

    /// Those of them that read what the mixer found, or come after it.
    fn after_mixing(&self) -> impl Iterator<Item = &Matrix> {
        let output = match &self.mixer {
            MixerWeights::Attention(a) => &a.output,
            MixerWeights::ShortConv(conv) => &conv.output,
            MixerWeights::LinearAttention(a) => &a.output,
        };
        let feed_forward: Vec<_> = match &self.feed_forward {
            FeedForwardWeights::Dense(mlp) => mlp.linears().collect(),
            FeedForwardWeights::Experts(experts) => {
                let shared = experts.shared.iter();
                let shared = shared.flat_map(|s| s.gate.iter().chain(s.mlp.linears()));
                std::iter::once(&experts.router).chain(shared).collect()
            }
        };
        let input = self.layer_input.iter();
        let input = input.flat_map(|input| [&input.gate, &input.projection]);
        let all = std::iter::once(output).chain(feed_forward).chain(input);
        all.map(|linear| &linear.matrix)
    }

    /// The same in groups that are multiplied with one input.
    fn groups(&mut self) -> Vec<Vec<&mut Matrix>> {
        let mixer = match &mut self.mixer {
            MixerWeights::Attention(a) => {
                let own = a.key_value.iter_mut();
                let own = own.flat_map(|own| std::iter::once(&mut own.key).chain(&mut own.value));
                let first = std::iter::once(&mut a.query).chain(own);
                vec![first.collect(), vec![&mut a.output]]
            }
            MixerWeights::ShortConv(conv) => vec![vec![&mut conv.input], vec![&mut conv.output]],
            MixerWeights::LinearAttention(a) => {
                let inner = [&mut a.input, &mut a.gate].into_iter().chain(&mut a.beta);
                vec![inner.chain([&mut a.step]).collect(), vec![&mut a.output]]
            }
        };
        let feed_forward = match &mut self.feed_forward {
            FeedForwardWeights::Dense(mlp) => {
                let MlpWeights { gate, up, down } = &mut **mlp;
                vec![gate.iter_mut().chain([up]).collect(), vec![down]]
            }
            FeedForwardWeights::Experts(experts) => {
                let mut groups = vec![vec![&mut experts.router]];
                if let Some(SharedExpertWeights { mlp, gate }) = &mut experts.shared {
                    let inner = mlp.gate.iter_mut().chain([&mut mlp.up]);
                    groups.push(gate.iter_mut().chain(inner).collect());
                    groups.push(vec![&mut mlp.down]);
                }
                groups
            }
        };
        let input = self.layer_input.iter_mut();
        let input = input.flat_map(|input| [vec![&mut input.gate], vec![&mut input.projection]]);
        let groups = mixer.into_iter().chain(feed_forward).chain(input);
        groups
            .map(|group| group.into_iter().map(|l| &mut l.matrix).collect())
            .collect()
    }
}

impl MlpWeights {
    fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.gate.iter().chain([&self.up, &self.down])
    }
}
