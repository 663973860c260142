//! The numbers that shape a forward pass. A family fills them in from metadata; the forward pass reads them and asks for nothing else.

pub use super::rope::{Rope, Yarn};
pub use super::scope::{HeadNorm, Heads, Rotation, Scope};

/// What a model looks like.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What each layer does, `[layers]`.
    pub layers: Vec<LayerSpec>,
    /// Length of the residual stream.
    pub embedding_length: usize,
    /// Number of tokens.
    pub vocabulary: usize,
    /// Positions the model was trained for.
    pub context_length: usize,
    /// Which norm it has everywhere.
    pub norm: NormKind,
    /// Added to the mean square, or to the variance, in norms.
    pub norm_epsilon: f32,
    /// Norm of queries and keys before they are rotated.
    pub head_norm: Option<HeadNorm>,
    /// Each value head is divided by its root mean square.
    pub value_norm: bool,
    /// Attention's result is multiplied by the logistic function of a gate, which lies beside each head's query.
    pub gated_attention: bool,
    /// Attention and the feed-forward part read the same normalised vector, and both results are added to it.
    pub parallel: bool,
    /// What stands between the feed-forward part's matrices.
    pub activation: Activation,
    /// Rotary position embedding; no dimensions where positions come in another way.
    pub rope: Rope,
    /// Rotary position embedding of some layers, where they have their own.
    pub local_rope: Option<Rope>,
    /// A position sees only itself and those before it.
    pub causal: bool,
    /// Multiplies the tokens' embeddings.
    pub embedding_scale: f32,
    /// Length of the input that each layer gets of each token beside the stream (per-layer embeddings, as Gemma 3n and 4 have them).
    pub per_layer_input: Option<usize>,
    /// Multiplies the products of queries and keys.
    pub attention_scale: f32,
    /// Multiplies what a branch adds to the residual stream.
    pub residual_scale: f32,
    /// Multiplies the logits.
    pub logit_scale: f32,
    /// Bound of attention's scores: `cap · tanh(score / cap)` (arXiv:2408.00118).
    pub attention_cap: Option<f32>,
    /// Bound of the logits, likewise.
    pub logit_cap: Option<f32>,
    /// How an encoder makes one vector of a text's; `None` for a model that generates.
    pub pooling: Option<Pooling>,
}

/// One layer: what mixes positions, and what is done to each position by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSpec {
    /// What carries information from one position to another.
    pub mixer: Mixer,
    /// What is done to each position by itself.
    pub feed_forward: FeedForward,
}

/// How a layer carries information from one position to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mixer {
    /// Softmax attention over the KV cache.
    Attention(Scope),
    /// A gated short convolution (LFM2, arXiv:2511.23404): `out(c · conv(b · x))`, where `b`, `c` and `x` are projections, and each channel's
    /// convolution sees `kernel` positions, the token's own among them.
    ShortConv {
        /// Positions, at least 2.
        kernel: usize,
    },
    /// Heads that keep a matrix each.
    LinearAttention(LinearAttention),
}

/// Linear attention (arXiv:2006.16236) with a decaying state. Queries, keys and values go through a short convolution each channel, and each value head keeps a
/// matrix S `[key_length, value_length]`, which the tokens change one after another and read by `Sᵀq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearAttention {
    /// How a token changes the matrices.
    pub rule: StateRule,
    /// Positions that the convolution sees, at least 2.
    pub kernel: usize,
    /// Heads of queries and keys; a state space's groups.
    pub key_heads: usize,
    /// Heads of values, a multiple of `key_heads`.
    pub value_heads: usize,
    /// Length of a query or key head; a state space's state.
    pub key_length: usize,
    /// Length of a value head.
    pub value_length: usize,
}

/// How a token changes the matrix S of linear attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateRule {
    /// The gated delta net (arXiv:2412.06464), as Qwen 3.5 has it: `S = decay · S`, `S += k · (beta · (v − Sᵀk))ᵀ`. Value head h reads the keys of head h modulo
    /// `key_heads`.
    GatedDelta,
    /// Mamba-2's state space (arXiv:2405.21060): `S = decay · S + k · (step · v)ᵀ`, where k, v and q are the paper's B, x and C, and the output gains D · v. Neighbouring
    /// value heads share a key head.
    StateSpace,
}

impl LinearAttention {
    /// Length of all query heads, or of all key heads.
    pub(crate) fn keys_length(&self) -> usize {
        self.key_heads * self.key_length
    }

    /// Length of all value heads.
    pub(crate) fn values_length(&self) -> usize {
        self.value_heads * self.value_length
    }

    /// Length of queries, keys and values together.
    pub(crate) fn conv_length(&self) -> usize {
        2 * self.keys_length() + self.values_length()
    }

    /// Values of the matrices of all heads.
    pub(crate) fn state_length(&self) -> usize {
        self.values_length() * self.key_length
    }
}

/// A layer's feed-forward part.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedForward {
    /// One for all tokens.
    Dense {
        /// Its inner length.
        length: usize,
    },
    /// Several, of which each token takes some.
    Experts(Experts),
}

/// A mixture of experts (arXiv:1701.06538): a router scores them for each token, and the best ones' results are added, weighted by their scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// Experts.
    pub count: usize,
    /// Experts that a token takes.
    pub used: usize,
    /// Inner length of one expert.
    pub length: usize,
    /// What becomes of the router's products.
    pub scores: ExpertScores,
    /// The chosen experts' scores are divided by their sum.
    pub normalized: bool,
    /// Multiplies the scores.
    pub scale: f32,
    /// One that all tokens take besides.
    pub shared: Option<SharedExpert>,
}

/// An expert that all tokens take; its result is added to the others' sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedExpert {
    /// Its inner length.
    pub length: usize,
    /// Its result is multiplied by the logistic function of one more product of the token's vector.
    pub gated: bool,
}

/// What a router's products become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertScores {
    /// Their softmax.
    Softmax,
    /// Each one's logistic function.
    Sigmoid,
}

/// What a norm divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// The root of the mean square (arXiv:1910.07467); no bias.
    Rms,
    /// The mean is subtracted and the standard deviation divided by (arXiv:1607.06450); with a bias.
    Layer,
}

/// The function between the feed-forward part's matrices (arXiv:2002.05202).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// silu(gate) · up
    SiluGated,
    /// gelu(gate) · up, in GELU's form with tanh
    GeluGated,
    /// gelu(gate) · up, by the normal distribution's own function
    GeluErfGated,
    /// gelu(up), by the normal distribution's own function (arXiv:1606.08415)
    Gelu,
}

impl Activation {
    /// Whether there is a gate beside the matrix `up`.
    #[must_use]
    pub fn gated(self) -> bool {
        self != Activation::Gelu
    }
}

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first token's.
    Cls,
    /// The last token's.
    Last,
    /// A reranker's: the last token's of a decoder, else the first one's, which a classifier makes a score of.
    Rank,
}

impl Config {
    /// What the layers with attention see, in order.
    pub fn scopes(&self) -> impl Iterator<Item = &Scope> {
        self.layers.iter().filter_map(|layer| match &layer.mixer {
            Mixer::Attention(scope) => Some(scope),
            _ => None,
        })
    }

    /// Of these, the layers that have keys and values of their own: each has a KV cache.
    pub(crate) fn caches(&self) -> impl Iterator<Item = &Scope> {
        self.scopes().filter(|scope| scope.cache_of.is_none())
    }

    /// The heads of the first layer with attention.
    #[must_use]
    pub fn heads(&self) -> Option<&Heads> {
        self.scopes().next().map(|scope| &scope.heads)
    }

    /// The greatest such length of the layers' heads; 0 without attention.
    pub(crate) fn longest(&self, length: impl Fn(&Heads) -> usize) -> usize {
        let lengths = self.scopes().map(|scope| length(&scope.heads));
        lengths.max().unwrap_or(0)
    }

    pub(super) fn scopes_mut(&mut self) -> impl Iterator<Item = &mut Scope> {
        self.layers
            .iter_mut()
            .filter_map(|layer| match &mut layer.mixer {
                Mixer::Attention(scope) => Some(scope),
                _ => None,
            })
    }

    /// The layers' convolutions over positions: how many they see, and values of each.
    pub(crate) fn convolutions(&self) -> impl Iterator<Item = (usize, usize)> {
        self.layers.iter().filter_map(|layer| match &layer.mixer {
            Mixer::ShortConv { kernel } => Some((*kernel, self.embedding_length)),
            Mixer::LinearAttention(net) => Some((net.kernel, net.conv_length())),
            Mixer::Attention(_) => None,
        })
    }

    /// The layers' linear attention, which is alike in all.
    pub(crate) fn linear_attentions(&self) -> impl Iterator<Item = &LinearAttention> {
        self.layers.iter().filter_map(|layer| match &layer.mixer {
            Mixer::LinearAttention(net) => Some(net),
            _ => None,
        })
    }

    /// The layers' mixtures of experts.
    pub(crate) fn experts(&self) -> impl Iterator<Item = &Experts> {
        self.layers
            .iter()
            .filter_map(|layer| match &layer.feed_forward {
                FeedForward::Experts(experts) => Some(experts),
                FeedForward::Dense { .. } => None,
            })
    }

    /// The greatest inner length of a feed-forward part, or of one expert.
    #[must_use]
    pub fn feed_forward_length(&self) -> usize {
        let lengths = self.layers.iter().map(|layer| match &layer.feed_forward {
            FeedForward::Dense { length } => *length,
            FeedForward::Experts(experts) => {
                let shared = experts.shared.map_or(0, |shared| shared.length);
                experts.length.max(shared)
            }
        });
        lengths.max().unwrap_or_default()
    }

    /// The rotary embeddings: the model's, then the local layers' own.
    pub(crate) fn ropes(&self) -> impl Iterator<Item = &Rope> {
        std::iter::once(&self.rope).chain(&self.local_rope)
    }

    /// Whether this is the decoder of Llama and nothing else: no option of later families is on.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let Some(heads) = self.heads() else {
            return false;
        };
        let plain = |layer: &LayerSpec| {
            layer.mixer == Mixer::Attention(Scope::all(*heads))
                && matches!(layer.feed_forward, FeedForward::Dense { .. })
                && layer.feed_forward == self.layers[0].feed_forward
        };
        let scales = [
            self.embedding_scale,
            self.residual_scale,
            self.logit_scale,
            self.rope.attention_factor,
        ];
        self.norm == NormKind::Rms
            && self.head_norm.is_none()
            && !self.value_norm
            && self.per_layer_input.is_none()
            && !self.gated_attention
            && !self.parallel
            && self.activation == Activation::SiluGated
            && self.rope.yarn.is_none()
            && self.layers.iter().all(plain)
            && self.causal
            && scales == [1.0; 4]
            && self.attention_scale == 1.0 / (heads.key_length as f32).sqrt()
            && self.attention_cap.is_none()
            && self.logit_cap.is_none()
    }
}
