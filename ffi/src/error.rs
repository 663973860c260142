//! Few errors outside, chosen by what the caller can do; the message keeps all that the rich error inside knew.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What an app is told. The message is for a log or a developer; the variant is for the program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, uniffi::Error)]
#[uniffi(flat_error)]
pub enum DramError {
    /// A file (model, adapter, saved session) is missing, unreadable or damaged, was changed or replaced while it was open, or a saved session belongs to
    /// something else: open it again, fetch it or make it again.
    #[error("{0}")]
    FileProblem(String),
    /// The file is sound, and this version of the library cannot run it, or not with this base model: update the library or choose another file.
    #[error("{0}")]
    UnsupportedModel(String),
    /// The memory limit, or the device's memory, is too small: take a shorter context or a smaller model.
    #[error("{0}")]
    OutOfMemory(String),
    /// The request is wrong (a prompt longer than the context, a token id out of range, a chat without a template): change it.
    #[error("{0}")]
    InvalidRequest(String),
    /// The session is in the middle of another generation: wait for it, cancel it, or open a second session.
    #[error("{0}")]
    SessionBusy(String),
    /// A fault of the library: please report it.
    #[error("{0}")]
    Internal(String),
}

/// What a listener may throw to stop its generation; anything else that it throws counts as this too.
#[derive(Debug, Clone, thiserror::Error, uniffi::Error)]
pub enum ListenerError {
    /// The listener does not want more.
    #[error("the listener stopped: {reason}")]
    Stopped {
        /// Why, for the log.
        reason: String,
    },
}

impl From<uniffi::UnexpectedUniFFICallbackError> for ListenerError {
    fn from(error: uniffi::UnexpectedUniFFICallbackError) -> Self {
        ListenerError::Stopped {
            reason: error.reason,
        }
    }
}

/// Runs `body`; a panic in it becomes [`DramError::Internal`].
pub(crate) fn contain<T>(body: impl FnOnce() -> Result<T, DramError>) -> Result<T, DramError> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let what = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Err(DramError::Internal(format!("internal error: {what}")))
    })
}

/// Metadata keys whose unexpected value means that the model is of a kind this version does not know, not that the file is bad.
const KINDS: &[&str] = &[
    "general.architecture",
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
];

impl From<dram_core::Error> for DramError {
    fn from(error: dram_core::Error) -> Self {
        use dram_core::Error as E;
        let category = match &error {
            E::Io { .. }
            | E::NotGguf { .. }
            | E::SplitFile { .. }
            | E::FileChanged { .. }
            | E::Corrupt { .. }
            | E::MissingKey { .. }
            | E::MissingTensor { .. }
            | E::BadShape { .. }
            | E::SavedSession { .. }
            | E::NoLogits => DramError::FileProblem,
            E::BadKey { key, .. }
                if !KINDS.contains(&key.as_str()) && !key.contains(".rope.scaling.") =>
            {
                DramError::FileProblem
            }
            E::BadKey { .. }
            | E::BigEndian { .. }
            | E::Version { .. }
            | E::UnsupportedFormat { .. }
            | E::NotAdapted { .. }
            | E::NotLowRank { .. }
            | E::UnexpectedTensor { .. } => DramError::UnsupportedModel,
            E::MemoryLimit { .. } | E::OutOfMemory { .. } | E::Thread { .. } => {
                DramError::OutOfMemory
            }
            E::InvalidOption { .. }
            | E::EmptyPrompt
            | E::BadToken { .. }
            | E::WrongUse { .. }
            | E::DraftVocabulary { .. }
            | E::WrongBase { .. }
            | E::ContextFull { .. }
            | E::NoChatTemplate { .. }
            | E::ChatTemplate { .. }
            | E::Constraint { .. }
            | E::Tools { .. }
            | E::InstructionSet { .. } => DramError::InvalidRequest,
            // Core's enum may grow; a variant that nobody sorted yet is not the caller's fault.
            _ => DramError::Internal,
        };
        category(error.to_string())
    }
}
