//! The numbers that shape a forward pass. A family fills them in from metadata; the forward pass reads them and asks for nothing else.

use crate::gguf;
use crate::kernels::Pairs;
use crate::{Error, Result};

/// What a decoder looks like.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Number of decoder layers.
    pub layers: usize,
    /// Length of the residual stream.
    pub embedding_length: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; `heads / kv_heads` query heads share one (grouped-query attention, arXiv:2305.13245).
    pub kv_heads: usize,
    /// Length of one query or key head.
    pub key_length: usize,
    /// Length of one value head.
    pub value_length: usize,
    /// Inner length of the feed-forward part.
    pub feed_forward_length: usize,
    /// Number of tokens.
    pub vocabulary: usize,
    /// Positions the model was trained for.
    pub context_length: usize,
    /// Added to the mean square in RMS norm (arXiv:1910.07467).
    pub norm_epsilon: f32,
    /// Rotary position embedding.
    pub rope: Rope,
}

/// Rotary position embedding (RoFormer, arXiv:2104.09864): pair `i` of a head turns by `position · scale · base^(-2i / dimensions)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// How many leading values of a head are rotated; even.
    pub dimensions: usize,
    /// The base of the frequencies.
    pub base: f32,
    /// Multiplies every frequency: 1, or 1 / factor for linear scaling (arXiv:2306.15595).
    pub scale: f32,
    /// Which values make a pair.
    pub pairs: Pairs,
}

impl Config {
    /// Query heads that share one key and value head.
    #[must_use]
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Length of all query heads together.
    #[must_use]
    pub fn query_length(&self) -> usize {
        self.heads * self.key_length
    }

    /// Length of all key heads together.
    #[must_use]
    pub fn keys_length(&self) -> usize {
        self.kv_heads * self.key_length
    }

    /// Length of all value heads together.
    #[must_use]
    pub fn values_length(&self) -> usize {
        self.kv_heads * self.value_length
    }

    /// Length of what attention hands to its output matrix.
    #[must_use]
    pub fn mixed_length(&self) -> usize {
        self.heads * self.value_length
    }
}

/// Metadata keys of one file under its architecture's name, with the checks that every family shares.
pub(crate) struct Keys<'a> {
    pub(crate) file: &'a gguf::File,
    pub(crate) architecture: &'a str,
}

/// No dimension of a model is longer than this; products of two fit a 64-bit number with room to spare.
const LONGEST: u32 = 1 << 24;

impl Keys<'_> {
    pub(crate) fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// A length or count: from 1 to 2²⁴.
    pub(crate) fn length(&self, key: &str) -> Result<usize> {
        let key = self.name(key);
        let value = self.file.metadata().u32(&key)?;
        self.in_range(&key, value)
    }

    /// A length or count that may be absent.
    pub(crate) fn opt_length(&self, key: &str) -> Result<Option<usize>> {
        let key = self.name(key);
        let value = self.file.metadata().opt_u32(&key)?;
        value.map(|value| self.in_range(&key, value)).transpose()
    }

    fn in_range(&self, key: &str, value: u32) -> Result<usize> {
        if (1..=LONGEST).contains(&value) {
            Ok(value as usize)
        } else {
            Err(self.bad(key, format!("a number from 1 to {LONGEST}"), value))
        }
    }

    /// A finite number greater than 0, or `default` where the file has none.
    pub(crate) fn positive(&self, key: &str, default: Option<f32>) -> Result<f32> {
        let key = self.name(key);
        let value = match (self.file.metadata().opt_f32(&key)?, default) {
            (Some(value), _) => value,
            (None, Some(default)) => default,
            (None, None) => self.file.metadata().f32(&key)?,
        };
        if value > 0.0 && value.is_finite() {
            Ok(value)
        } else {
            Err(self.bad(&key, "a finite number greater than 0".into(), value))
        }
    }

    /// The error for a value of `key` (its full name) that cannot be.
    pub(crate) fn bad(&self, key: &str, expected: String, got: impl ToString) -> Error {
        Error::BadKey {
            file: self.file.name().to_owned(),
            key: key.to_owned(),
            expected,
            got: got.to_string(),
        }
    }
}
