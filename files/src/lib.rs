//! Model files into others: Hugging Face folders and GGUF, both ways, with what a desktop needs for it and an app does not.
//!
//! [`convert`] makes GGUF of a folder, [`quantize`] blocks of floating-point weights, [`imatrix`] collects what of them matters, [`tokenizer`] reads and
//! writes tokenizers of both kinds, and [`write`](mod@write) is the writer of GGUF for all of them.

mod beside;
pub mod convert;
mod file_type;
pub mod folder;
pub mod imatrix;
mod interleave;
pub mod parallel;
pub mod quantize;
mod rng;
pub mod tokenizer;
pub mod write;

pub use beside::write_beside;
pub use file_type::{FILE_TYPES, file_type};
pub use interleave::source_row;
pub use rng::Rng;
