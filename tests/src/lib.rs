//! What the tests of `tests/tests/` share: a GGUF writer that can also write nonsense, and small random llama models.

pub mod adapter;
pub mod gguf;
pub mod golden;
pub mod measure;
pub mod toy;
pub mod wide;
