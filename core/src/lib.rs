//! The runtime of Dram: opens a GGUF file and generates from it on phones, boards and desktops.

pub mod error;
pub mod gguf;
pub mod kernels;
pub mod quant;
pub mod threads;

pub use error::{Error, Result};
