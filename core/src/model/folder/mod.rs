//! A family as Hugging Face folders have it: what `config.json` calls it and says of it, what its weights are called there and in GGUF, and the metadata that
//! a GGUF file gets. For those who make files of folders; the library that an app links has nothing of it.

mod common;
mod entries;
mod fields;
mod parts;

pub use entries::{Entries, Entry};
pub use fields::{Fields, MAX_LENGTH, RopeFields, Shape, rope_type, same_for_all_lengths};
pub use parts::{Dim, Form, Group, Heads, Kind, Layer, Need, Part};

pub(super) use common::*;
pub(super) use parts::{
    bias, buffer, every, experts, grouped, kernels, matrix, negative_exp, only, piece, rows,
    scalars, skipped, vector,
};

use super::config::Config;
use super::families::{ARCHITECTURES, Architecture};
use super::keys::Keys;
use crate::gguf;
use crate::gguf::names::tensor;
use crate::kernels::RopeLayout;
use std::fmt;
use std::ops::Deref;

/// Why a folder's `config.json` is refused: what it lacks, or asks for that the runtime does not have.
#[derive(Debug, thiserror::Error)]
#[error("config.json: {0}")]
pub struct Error(String);

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that says this.
pub(super) fn refuse<T>(why: String) -> Result<T> {
    Err(Error(why))
}

/// Refuses where the first argument is false, with the message that follows.
macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return $crate::model::folder::refuse(format!($($why)+));
        }
    };
}
pub(super) use ensure;

/// What only folders say of a family. A family that varies another one is written as its difference: `..LLAMA`.
pub struct Folder {
    /// `architectures` in `config.json`.
    pub classes: &'static [&'static str],
    /// Whether a folder of one of these classes is the family's; some classes are several families.
    pub accepts: fn(&Fields) -> bool,
    /// `model_type`, for folders without `architectures`.
    pub model_type: &'static str,
    /// What the runtime computes in the feed-forward part, in transformers' names.
    pub activations: &'static [&'static str],
    /// Values of fields that a folder may leave out, as transformers has them.
    pub defaults: &'static [(&'static str, f64)],
    /// Whether a folder that does not say has one matrix for the embeddings and the output.
    pub tied: bool,
    /// Whether llama.cpp reads only files whose embeddings are the output matrix, or only files with one of its own; `None`: both.
    pub always_tied: Option<bool>,
    /// The metadata that describe the model, as llama.cpp's converter writes them. Beyond it: Mistral's window, and a base of RoPE or a pattern of windows that
    /// is not the family's usual one, where the converter leaves it out and the runtime reads it. What the runtime could not follow is refused.
    pub keys: fn(&Fields, &Shape, &mut Entries) -> Result<()>,
    /// Weights outside the layers; their names begin after `model.` or `bert.`.
    pub top: &'static [Part],
    /// What layers' names begin with.
    pub layer: &'static str,
    /// What each layer is made of.
    pub layers: fn(&Fields, usize) -> Result<Vec<Layer>>,
    /// The lengths of one layer, of those that are the first argument's in most families.
    pub layer_shape: fn(&Fields, &Shape, usize) -> Result<Shape>,
    /// The inner length of a dense feed-forward part.
    pub feed_forward: fn(&Fields) -> Result<usize>,
    /// The fields with the inner length of one expert, and of the one that all tokens take.
    pub expert_length: &'static str,
    pub shared_length: &'static str,
    /// Weights of a layer.
    pub parts: &'static [Group],
    /// When the projections to queries, keys and values have biases.
    pub qkv_bias: Need,
    /// Beginnings of names of tensors that are left out: nothing reads them.
    pub unused: &'static [&'static str],
    /// Whether dense modules of sentence-transformers are part of it. A folder of another family that has some is refused.
    pub dense: bool,
    /// Norms add 1 to their weights, which the file holds with it.
    pub shifted_norms: bool,
    /// The name for a pre-tokenizer that has several.
    pub pre: &'static str,
}

/// A family of the runtime.
#[derive(Clone, Copy)]
pub struct Family {
    /// `general.architecture`.
    pub name: &'static str,
    /// Rows of queries and keys are written so that the pairs to rotate are adjacent.
    pub interleaved: bool,
    architecture: &'static Architecture,
}

impl Family {
    /// Every family.
    pub fn all() -> impl Iterator<Item = Family> {
        ARCHITECTURES.iter().map(Family::of)
    }

    /// The one that students are made as where nothing else is said, and that a tokenizer without a model is read as.
    #[must_use]
    pub fn llama() -> Family {
        Family::of(&super::families::LLAMA)
    }

    fn of(architecture: &'static Architecture) -> Family {
        Family {
            name: architecture.name,
            interleaved: architecture.layout == RopeLayout::Interleaved,
            architecture,
        }
    }

    /// Beginnings of names of tensors that are left out of a folder with these fields: of those that nothing reads there.
    #[must_use]
    pub fn left_out(self, fields: &Fields) -> Vec<&'static str> {
        let is_read = |start: &str| {
            let mut parts = self.top.iter().filter(|part| part.need.holds(fields));
            parts.any(|part| part.from.starts_with(start))
        };
        let unused = self.unused.iter().copied();
        unused.filter(|start| !is_read(start)).collect()
    }

    /// The groups of weights that a layer has.
    pub fn groups(self, layer: Layer) -> impl Iterator<Item = &'static Group> {
        let parts = self.architecture.folder.parts.iter();
        parts.filter(move |group| group.kind.is_none_or(|kind| layer.contains(&kind)))
    }

    /// Whether a decoder's folder with these fields has a bias beside the matrix that GGUF calls `name`.
    #[must_use]
    pub fn has_bias(self, name: &str, fields: &Fields) -> bool {
        match name {
            tensor::ATTN_Q | tensor::ATTN_K | tensor::ATTN_V => self.qkv_bias.holds(fields),
            tensor::ATTN_OUTPUT => fields.flag("attention_bias"),
            tensor::FFN_GATE | tensor::FFN_UP | tensor::FFN_DOWN => fields.flag("mlp_bias"),
            _ => false,
        }
    }

    /// The shape that the runtime reads in the metadata of `file`, which is of this family.
    ///
    /// # Errors
    /// Names a key that is missing, malformed or impossible.
    pub fn config(self, file: &gguf::File) -> crate::Result<Config> {
        let family = self.architecture;
        (family.config)(&Keys { file, family })
    }
}

impl PartialEq for Family {
    fn eq(&self, other: &Family) -> bool {
        self.name == other.name
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Deref for Family {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.architecture.folder
    }
}

/// A folder's name of the output matrix.
pub const OUTPUT: &str = "lm_head.weight";

#[cfg(test)]
mod tests;
