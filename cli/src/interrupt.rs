//! Ctrl-C while a model answers.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use dram_core::CancelToken;

/// Lets Ctrl-C stop the answer that is being made, in its prefill too. When none is, Ctrl-C ends the process as usual.
pub(crate) struct Interrupt(Arc<Mutex<Option<CancelToken>>>);

impl Interrupt {
    pub(crate) fn listen() -> Result<Self> {
        let running: Arc<Mutex<Option<CancelToken>>> = Arc::default();
        let seen = running.clone();
        ctrlc::set_handler(move || {
            match seen.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(token) => token.cancel(),
                None => std::process::exit(130),
            }
        })
        .context("cannot listen for Ctrl-C")?;
        Ok(Interrupt(running))
    }

    /// Runs `work`, whose request `token` cancels.
    pub(crate) fn during<T>(&self, token: CancelToken, work: impl FnOnce() -> T) -> T {
        let set = |token| *self.0.lock().unwrap_or_else(PoisonError::into_inner) = token;
        set(Some(token));
        let result = work();
        set(None);
        result
    }
}
