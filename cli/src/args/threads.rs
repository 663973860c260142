//! Threads of work that keeps the whole processor busy.

/// An answer is made by the fast cores; training, evaluating and comparing take all.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct AllThreads {
    /// Threads (default: the processor's)
    #[arg(short, long)]
    threads: Option<usize>,
}

impl AllThreads {
    pub(crate) fn count(&self) -> usize {
        self.threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}
