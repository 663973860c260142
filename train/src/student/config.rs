//! The shape of a decoder, and what its family does beyond Llama's.

mod hugging_face;
mod runtime;

pub use hugging_face::families;

use anyhow::{Result, bail, ensure};
use dram_core::model::folder::Family;
use dram_core::model::{Activation, HeadNorm, NormKind, Rotation};

use super::Layout;

/// Shape and constants of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Whose names, fields and keys its folder and file have.
    pub family: Family,
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub embedding_length: usize,
    pub layers: usize,
    pub heads: usize,
    /// Key-value heads; divides `heads`.
    pub kv_heads: usize,
    pub head_dim: usize,
    pub feed_forward_length: usize,
    /// Longest sequence, in tokens.
    pub context_length: usize,
    pub rope_base: f32,
    /// Divisors of the rotary frequencies, [head_dim / 2]; empty when there is no scaling.
    pub rope_factors: Vec<f32>,
    /// Added to the mean square in the norms.
    pub norm_eps: f32,
    /// The output matrix is the embedding matrix.
    pub tied_embeddings: bool,
    /// What the family does beyond Llama's decoder.
    pub options: Options,
}

/// What later families do beyond Llama's decoder. The default is that decoder, and what is off costs nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Which norm it has everywhere.
    pub norm: NormKind,
    /// Norm of queries and keys before they are rotated.
    pub head_norm: Option<HeadNorm>,
    /// Attention and the feed-forward part read the same normalised vector, and both results are added to the stream.
    pub parallel: bool,
    /// What stands between the feed-forward part's matrices.
    pub activation: Activation,
    /// Leading dimensions of a head that are rotated; `None`: all.
    pub rotated: Option<usize>,
    /// The base of the rotary frequencies of layers with [`Rotation::Local`].
    pub local_rope_base: Option<f32>,
    /// What the layers see and how they rotate, `[layers]`; empty: everything, and alike.
    pub scopes: Vec<LayerScope>,
    /// Multiplies the tokens' embeddings.
    pub embedding_scale: f32,
    /// Multiplies what a branch adds to the residual stream.
    pub residual_scale: f32,
    /// Multiplies the logits.
    pub logit_scale: f32,
    /// Multiplies the products of queries and keys; `None`: 1 / √head_dim.
    pub attention_scale: Option<f32>,
    /// Bound of attention's scores: `cap · tanh(score / cap)` (arXiv:2408.00118).
    pub attention_cap: Option<f32>,
    /// Bound of the logits, likewise.
    pub logit_cap: Option<f32>,
    pub biases: Biases,
}

/// Which matrices have a bias, in every layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Biases {
    /// To queries, keys and values.
    pub qkv: bool,
    /// Of attention's output.
    pub output: bool,
    /// Of the feed-forward part.
    pub feed_forward: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            norm: NormKind::Rms,
            head_norm: None,
            parallel: false,
            activation: Activation::SiluGated,
            rotated: None,
            local_rope_base: None,
            scopes: Vec::new(),
            embedding_scale: 1.0,
            residual_scale: 1.0,
            logit_scale: 1.0,
            attention_scale: None,
            attention_cap: None,
            logit_cap: None,
            biases: Biases::default(),
        }
    }
}

/// What one layer's attention sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerScope {
    /// How many positions, the token's own among them; `None`: all.
    pub window: Option<usize>,
    pub rotation: Rotation,
}

impl LayerScope {
    /// All positions, rotated as the model's are.
    pub(super) const ALL: LayerScope = LayerScope {
        window: None,
        rotation: Rotation::Global,
    };
}

impl Default for Config {
    /// About a million parameters with a vocabulary of 2,048.
    fn default() -> Self {
        Config {
            family: Family::llama(),
            vocabulary: 2048,
            embedding_length: 128,
            layers: 4,
            heads: 4,
            kv_heads: 4,
            head_dim: 32,
            feed_forward_length: 352,
            context_length: 256,
            rope_base: 10_000.0,
            rope_factors: Vec::new(),
            norm_eps: 1e-5,
            tied_embeddings: true,
            options: Options::default(),
        }
    }
}

/// Nothing a file or recipe says may make buffers larger than this many parameters.
const MAX_PARAMETERS: usize = 1 << 34;

/// Nor may it ask for more layers than this.
const MAX_LAYERS: usize = 1 << 12;

impl Config {
    /// # Errors
    /// When the numbers contradict each other, or the family's files cannot hold them.
    pub fn check(&self) -> Result<()> {
        let sizes = [
            ("vocabulary", self.vocabulary),
            ("embedding_length", self.embedding_length),
            ("layers", self.layers),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("feed_forward_length", self.feed_forward_length),
            ("context_length", self.context_length),
        ];
        for (name, value) in sizes {
            let most = if name == "layers" {
                MAX_LAYERS
            } else {
                1 << 28
            };
            ensure!(
                (1..=most).contains(&value),
                "{name} = {value}: expected 1 to {most}"
            );
        }
        ensure!(
            self.heads.is_multiple_of(self.kv_heads),
            "heads = {} is not a multiple of kv_heads = {}; every key-value head serves the same number of query heads",
            self.heads,
            self.kv_heads
        );
        let rotated = self.rotated();
        ensure!(
            self.head_dim.is_multiple_of(2) && rotated.is_multiple_of(2),
            "head_dim = {}, of which {rotated} are rotated, is odd; rotary embedding turns pairs of dimensions",
            self.head_dim
        );
        ensure!(
            (1..=self.head_dim).contains(&rotated),
            "{rotated} rotated dimensions of a head of {}",
            self.head_dim
        );
        ensure!(
            self.rope_factors.is_empty() || self.rope_factors.len() == rotated / 2,
            "{} rotary factors for {rotated} rotated dimensions; expected {}",
            self.rope_factors.len(),
            rotated / 2
        );
        ensure!(
            self.rope_base.is_finite() && self.rope_base > 0.0,
            "rope_base = {}: expected a positive number",
            self.rope_base
        );
        ensure!(
            self.rope_factors.iter().all(|f| f.is_finite() && *f > 0.0),
            "a rotary factor is not a positive number"
        );
        ensure!(
            self.norm_eps.is_finite() && self.norm_eps >= 0.0,
            "norm_eps = {}: expected zero or a small positive number",
            self.norm_eps
        );
        let same = self.rope_factors.windows(2).all(|f| f[0] == f[1]);
        ensure!(
            same || self.family == Family::llama(),
            "a factor of its own for each rotary frequency, which a file of the {} family cannot hold",
            self.family.name
        );
        let scopes = &self.options.scopes;
        ensure!(
            scopes.is_empty() || scopes.len() == self.layers,
            "{} layers, and what {} of them see",
            self.layers,
            scopes.len()
        );
        match self.try_parameters() {
            Some(n) if n <= MAX_PARAMETERS => Ok(()),
            _ => bail!("more than {MAX_PARAMETERS} parameters"),
        }
    }

    /// Whether a file of it is one that llama.cpp reads too.
    ///
    /// # Errors
    /// When llama.cpp wants an output matrix in the family's files, or wants none.
    pub fn check_file(&self) -> Result<()> {
        let always = self.family.always_tied;
        ensure!(
            always.is_none_or(|tied| tied == self.tied_embeddings),
            "tied_embeddings = {}: in files of the {} family, as llama.cpp reads them, it is {}",
            self.tied_embeddings,
            self.family.name,
            !self.tied_embeddings
        );
        Ok(())
    }

    /// Number of parameters; tied embeddings count once.
    pub fn parameters(&self) -> usize {
        match self.check() {
            Ok(()) => Layout::new(self).total,
            Err(_) => usize::MAX,
        }
    }

    /// Those of the matrices and of Llama's norms.
    fn try_parameters(&self) -> Option<usize> {
        let d = self.embedding_length;
        let q = self.heads.checked_mul(self.head_dim)?;
        let kv = self.kv_heads.checked_mul(self.head_dim)?;
        let attention = q.checked_add(kv)?.checked_mul(2)?.checked_mul(d)?;
        let layer = attention
            .checked_add(self.feed_forward_length.checked_mul(3)?.checked_mul(d)?)?
            .checked_add(2 * d)?;
        let tables = self
            .vocabulary
            .checked_mul(d)?
            .checked_mul(if self.tied_embeddings { 1 } else { 2 })?;
        layer
            .checked_mul(self.layers)?
            .checked_add(tables)?
            .checked_add(d)
    }

    /// Dimensions of a head that are rotated.
    pub fn rotated(&self) -> usize {
        self.options.rotated.unwrap_or(self.head_dim)
    }

    /// What attention sees in this layer, and how it rotates.
    pub fn scope(&self, layer: usize) -> LayerScope {
        let own = self.options.scopes.get(layer).copied();
        own.unwrap_or(LayerScope::ALL)
    }

    /// Multiplies the products of queries and keys.
    pub fn attention_scale(&self) -> f32 {
        let own = self.options.attention_scale;
        own.unwrap_or(1.0 / (self.head_dim as f32).sqrt())
    }

    /// Angular frequencies of the rotary embedding, [rotated / 2]: base^(−2i / rotated) over the factors.
    pub fn rope_frequencies(&self) -> Vec<f64> {
        self.frequencies(self.rope_base, &self.rope_factors)
    }

    /// Those of the layers that have a base of their own, likewise.
    pub fn local_rope_frequencies(&self) -> Option<Vec<f64>> {
        let base = self.options.local_rope_base?;
        Some(self.frequencies(base, &[]))
    }

    fn frequencies(&self, base: f32, factors: &[f32]) -> Vec<f64> {
        let rotated = self.rotated();
        (0..rotated / 2)
            .map(|i| {
                let f = f64::from(base).powf(-((2 * i) as f64) / rotated as f64);
                f / factors.get(i).map_or(1.0, |&x| f64::from(x))
            })
            .collect()
    }
}
