//! What one layer's attention is: its heads, what they see, how they are rotated and normalised.

/// The heads of one layer's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub queries: usize,
    /// Key and value heads; `queries / kv` query heads share one (grouped-query attention, arXiv:2305.13245).
    pub kv: usize,
    /// Length of one query or key head.
    pub key_length: usize,
    /// Length of one value head.
    pub value_length: usize,
}

impl Heads {
    /// Query heads that share one key and value head.
    #[must_use]
    pub fn group(&self) -> usize {
        self.queries / self.kv
    }

    /// Length of all query heads together.
    #[must_use]
    pub fn query_length(&self) -> usize {
        self.queries * self.key_length
    }

    /// Length of all key heads together.
    #[must_use]
    pub fn keys_length(&self) -> usize {
        self.kv * self.key_length
    }

    /// Length of all value heads together.
    #[must_use]
    pub fn values_length(&self) -> usize {
        self.kv * self.value_length
    }

    /// Length of what attention hands to its output matrix.
    #[must_use]
    pub fn mixed_length(&self) -> usize {
        self.queries * self.value_length
    }
}

/// What one layer's attention sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Its heads.
    pub heads: Heads,
    /// How many positions up to the token's own, that among them, and as many after it where a position sees those too; `None`: all.
    pub window: Option<usize>,
    /// How queries and keys are rotated.
    pub rotation: Rotation,
    /// The layer before it whose keys and values it reads, where it has none of its own: that one has as many heads, of the same lengths, and the same window.
    pub cache_of: Option<usize>,
    /// Its values are its keys as they are before they are normalised and rotated.
    pub tied_values: bool,
}

impl Scope {
    /// All positions, rotated as the model's are.
    pub(crate) fn all(heads: Heads) -> Scope {
        Scope {
            heads,
            window: None,
            rotation: Rotation::Global,
            cache_of: None,
            tied_values: false,
        }
    }
}

/// Which rotary embedding a layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// None: the layer does not know positions.
    None,
    /// [`Config::rope`](super::Config::rope).
    Global,
    /// [`Config::local_rope`](super::Config::local_rope).
    Local,
}

/// How queries and keys are normalised. The norm is the model's own kind, without a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadNorm {
    /// Each head by itself; all heads share one vector of weights.
    Shared,
    /// Each head by itself, with its own weights.
    Own,
    /// All heads of a token together.
    Whole,
}

impl HeadNorm {
    /// Values that are normalised together, of `heads` heads of `key_length` values.
    pub(crate) fn length(self, key_length: usize, heads: usize) -> usize {
        match self {
            HeadNorm::Shared | HeadNorm::Own => key_length,
            HeadNorm::Whole => key_length * heads,
        }
    }
}
