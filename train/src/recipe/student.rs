//! `[student]`: the model that is trained.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::student::Config;

/// `[student]`: the model that is trained. The default has about a million parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Student {
    /// Start from this Hugging Face folder or GGUF file, relative to the recipe, instead of at random; its family and shape replace the fields below.
    pub init: Option<PathBuf>,
    /// The family, by the name that GGUF has for it: "llama", "qwen3", "gemma3" and so on (a wrong name is answered with the list). It decides norms,
    /// biases, rotation, windows and activation, as the family's folders have them by default. Default "llama".
    pub architecture: String,
    /// Width of the residual stream. Default 128.
    pub embedding_length: usize,
    /// Default 4.
    pub layers: usize,
    /// Query heads. Default 4.
    pub heads: usize,
    /// Key-value heads. Default: as many as query heads.
    pub kv_heads: Option<usize>,
    /// Dimensions of a head. Default: embedding_length / heads.
    pub head_dim: Option<usize>,
    /// Width inside the feed-forward part. Default 352.
    pub feed_forward_length: usize,
    /// Longest sequence in tokens. Default 256.
    pub context_length: usize,
    /// Base of the rotary frequencies. Default 10000.
    pub rope_base: f32,
    /// Added to the mean square in norms. Default 1e-5.
    pub norm_eps: f32,
    /// Whether the output matrix is the embedding matrix. Default true.
    pub tied_embeddings: bool,
}

impl Default for Student {
    fn default() -> Self {
        let c = Config::default();
        Student {
            init: None,
            architecture: c.family.name.into(),
            embedding_length: c.embedding_length,
            layers: c.layers,
            heads: c.heads,
            kv_heads: None,
            head_dim: None,
            feed_forward_length: c.feed_forward_length,
            context_length: c.context_length,
            rope_base: c.rope_base,
            norm_eps: c.norm_eps,
            tied_embeddings: c.tied_embeddings,
        }
    }
}

impl Student {
    /// The decoder's shape with this many tokens.
    ///
    /// # Errors
    /// When the numbers contradict each other.
    pub fn config(&self, vocabulary: usize) -> Result<Config> {
        ensure!(self.heads > 0, "[student] heads = 0");
        if self.head_dim.is_none() {
            ensure!(
                self.embedding_length.is_multiple_of(self.heads),
                "[student] embedding_length = {} is not a multiple of heads = {}; change one, or give head_dim",
                self.embedding_length,
                self.heads
            );
        }
        let config = Config {
            vocabulary,
            embedding_length: self.embedding_length,
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads.unwrap_or(self.heads),
            head_dim: self.head_dim.unwrap_or(self.embedding_length / self.heads),
            feed_forward_length: self.feed_forward_length,
            context_length: self.context_length,
            rope_base: self.rope_base,
            norm_eps: self.norm_eps,
            tied_embeddings: self.tied_embeddings,
            ..Config::default()
        };
        Config::of_family(&self.architecture, config).context("[student]")
    }
}
