//! The runtime of Dram: opens a GGUF file and generates from it on phones, boards and desktops.

mod cancel;
pub mod chat;
mod constraint;
mod encoder;
pub mod error;
pub mod files;
pub mod gguf;
mod hash;
pub mod kernels;
mod kv;
pub mod latency;
mod limits;
pub mod model;
mod output;
pub mod quant;
mod request;
pub mod sampling;
mod scratch;
mod session;
mod stack;
pub mod threads;
pub mod tokenizer;
mod tools;

pub use cancel::CancelToken;
pub use chat::Message;
pub use constraint::Constraint;
pub use encoder::Encoder;
pub use error::{Error, Result};
pub use kv::CacheFormat;
pub use limits::Limits;
pub use model::{Adapter, Config, InputSquares, Memory, Model, ModelInfo, OpenOptions};
pub use request::{Completion, ContextPolicy, Event, Finish, Limit, Prompt, Request, Timings};
pub use sampling::{Logprobs, Sampling, TokenLogprob};
pub use session::{Session, SessionOptions, Speculation};
pub use tokenizer::Tokenizer;
pub use tools::{ToolCall, ToolChoice, Tools};
