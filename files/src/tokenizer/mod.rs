//! Tokenizers: as Hugging Face's files and as GGUF's keys describe them, and one from the other.
//!
//! [`Vocabulary`] is what both say. The runtime encodes and decodes; the `tokenizers` crate is asked how a folder's pre-tokenizer cuts, and checks the result.

mod folder;
mod gguf;
mod hugging_face;
pub mod pre;
mod same;
mod vocabulary;

pub use crate::convert::{tokenizer_keys, tokenizer_keys_of_json};
pub use folder::{add_tokenizer, vocabulary_of_folder};
pub use gguf::{vocabulary_of_gguf, vocabulary_of_keys};
pub(crate) use hugging_face::as_written;
pub use hugging_face::describe;
pub use same::{real, same_tokens, shared_tokens};
pub use vocabulary::{Vocabulary, token_type};
