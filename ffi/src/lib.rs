//! Dram for apps: what Kotlin and Swift see of `dram-core`.
//!
//! The façade is thin and synchronous. A generation runs on a thread of its own and reports to a [`GenerationListener`];
//! the call that starts it returns a [`GenerationHandle`] at once. Cancelling a coroutine or a Swift task never reaches a Rust
//! future, so the wrappers in `android/` and `ios/` turn the end of a `Flow` or an `AsyncThrowingStream` into
//! [`GenerationHandle::cancel`].
//!
//! Errors are few ([`DramError`]), chosen by what an app can do about them. A panic inside the library is an
//! [`DramError::Internal`] for the caller, never an unwinding across the boundary.

mod adapter;
mod bench;
mod encoder;
mod error;
mod form;
mod generation;
mod model;
mod sampling;
mod session;
mod speculation;
mod types;

pub use adapter::{DramAdapter, ScaledAdapter};
pub use bench::{BenchOptions, BenchReport};
pub use encoder::NativeEncoder;
pub use error::{DramError, ListenerError};
pub use form::{Constraint, ToolCall, ToolChoice, Tools};
pub use generation::{GenerationEvent, GenerationHandle, GenerationListener};
pub use model::{NativeModel, handle_map_faults};
pub use sampling::{
    DryOptions, PenaltyOptions, SamplingOptions, TokenLogprob, TokenLogprobs, XtcOptions,
};
pub use session::NativeSession;
pub use speculation::Speculation;
pub use types::{
    CacheFormat, ChatMessage, Completion, ContextPolicy, FinishReason, FormatShare,
    GenerationRequest, Limit, MemoryNeed, ModelInfo, ModelOptions, Prompt, SessionOptions, Timings,
};

uniffi::setup_scaffolding!();
