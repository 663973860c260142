//! From text, records or the built-in task to batches of token ids.
//!
//! Everything here is a pure function of a seed and a step number, so that training resumes bit for bit from two integers.
//!
//! ```text
//! actions, JSONL, text ─► Example ─┐
//!                                  ├─► Batches::batch(step) ─► Batch ─► loss and metrics
//! plain text ─► ids ─► crops ──────┘
//! ```

pub mod actions;
mod batch;
mod rng;

pub use batch::{Batch, Batches, Example, Examples, Grouped, evaluation_batches};
pub use rng::Rng;
