//! From text, records or a built-in task to batches of token ids.
//!
//! Everything here is a pure function of a seed and a step number, so that training resumes bit for bit from two integers.
//!
//! ```text
//! actions, JSONL, text ─► Example ─┐
//!                                  ├─► Batches::batch(step) ─► Batch ─► loss and metrics
//! plain text ─► ids ─► crops ──────┘
//! ```

mod batch;
mod cache;
mod corpus;
mod records;
mod text;
pub mod tokenizer;

pub use batch::{Batch, Batches, Example, Examples, Grouped, evaluation_batches};
pub use corpus::Documents;
pub use records::{
    Conversation, Encoded, Record, Records, Render, encode_record, encode_records, read_records,
};
pub use text::{Crops, pack, perplexity_chunks, read_text, sequential_blocks, split_text};
pub use tokenizer::TextTokenizer;
