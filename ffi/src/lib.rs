//! Dram for apps: what Kotlin and Swift see of `dram-core`.
//!
//! The façade is thin and synchronous. A generation runs on a thread of its own and reports to a [`GenerationListener`];
//! the call that starts it returns a [`GenerationHandle`] at once. Cancelling a coroutine or a Swift task never reaches a Rust
//! future, so the wrappers in `android/` and `ios/` turn the end of a `Flow` or an `AsyncThrowingStream` into
//! [`GenerationHandle::cancel`].
//!
//! Errors are few ([`DramError`]), chosen by what an app can do about them. A panic inside the library is an
//! [`DramError::Internal`] for the caller, never an unwinding across the boundary.

mod bench;
mod error;
mod form;
mod generation;
mod model;
mod session;
mod types;

pub use bench::{BenchOptions, BenchReport};
pub use error::{DramError, ListenerError};
pub use form::{Constraint, ToolCall, ToolChoice, Tools};
pub use generation::{GenerationHandle, GenerationListener};
pub use model::NativeModel;
pub use session::NativeSession;
pub use types::{
    ChatMessage, Completion, FinishReason, FormatShare, GenerationRequest, MemoryNeed, ModelInfo,
    ModelOptions, Prompt, SamplingOptions, SessionOptions, Timings,
};

uniffi::setup_scaffolding!();
