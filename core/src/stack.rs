//! Work that recurses as deep as its input says.

use crate::{Error, Result};

/// Runs `work` on a thread of its own with a stack of `bytes`, whatever the caller's thread. Only what is used of the stack is ever backed by memory.
///
/// # Errors
/// [`Error::Thread`], where the system starts no thread.
pub(crate) fn on_a_deep_stack<T: Send>(
    name: &str,
    bytes: usize,
    work: impl FnOnce() -> T + Send,
) -> Result<T> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name(name.to_owned());
        let thread = builder.stack_size(bytes).spawn_scoped(scope, work);
        let thread = thread.map_err(|source| Error::Thread { index: 0, source })?;
        Ok(thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
