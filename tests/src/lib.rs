//! What the tests of `tests/tests/` share: a GGUF writer that can also write nonsense, small random llama models, tiny Hugging Face folders.

pub mod adapter;
pub mod expected;
pub mod folder;
pub mod gguf;
pub mod golden;
pub mod measure;
pub mod merges;
pub mod toy;
pub mod unigram;
pub mod wide;
