//! How long phases end early: they look at a flag between pieces of work that take less than a second, and come back with [`Stopped`].

use std::sync::atomic::{AtomicBool, Ordering};

/// The error of work that was told to stop. What was made so far is as good as not begun.
#[derive(Debug, Clone, Copy)]
pub struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stopped")
    }
}

impl std::error::Error for Stopped {}

/// What a long phase looks at between its pieces of work, and whom it tells how far it is.
#[derive(Default)]
pub struct Watch<'a> {
    stop: Option<&'a AtomicBool>,
    /// (pieces done, of how many)
    tell: Option<&'a mut dyn FnMut(usize, usize)>,
}

static NEVER: AtomicBool = AtomicBool::new(false);

impl<'a> Watch<'a> {
    pub fn new(stop: &'a AtomicBool, tell: &'a mut dyn FnMut(usize, usize)) -> Self {
        Watch {
            stop: Some(stop),
            tell: Some(tell),
        }
    }

    /// The flag; one that is never set where there is none.
    pub fn stop(&self) -> &'a AtomicBool {
        self.stop.unwrap_or(&NEVER)
    }

    /// Tells how far the work is.
    ///
    /// # Errors
    /// [`Stopped`] when the flag is set.
    pub fn at(&mut self, done: usize, of: usize) -> Result<(), Stopped> {
        if let Some(tell) = &mut self.tell {
            tell(done, of);
        }
        check(self.stop())
    }
}

/// # Errors
/// [`Stopped`] when the flag is set.
pub fn check(stop: &AtomicBool) -> Result<(), Stopped> {
    if stop.load(Ordering::Relaxed) {
        Err(Stopped)
    } else {
        Ok(())
    }
}

/// Whether an error means that work was told to stop.
pub fn stopped(error: &anyhow::Error) -> bool {
    error.chain().any(|e| e.is::<Stopped>())
}
