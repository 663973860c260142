//! Stopping a request from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which request is running, and up to which one requests were cancelled. Requests of a session are numbered from 1.
#[derive(Debug)]
struct Requests {
    current: AtomicU64,
    cancelled: AtomicU64,
}

/// The session's end of its tokens.
#[derive(Clone, Debug)]
pub(crate) struct Cancellation(Arc<Requests>);

impl Cancellation {
    pub(crate) fn new() -> Self {
        Cancellation(Arc::new(Requests {
            current: AtomicU64::new(1),
            cancelled: AtomicU64::new(0),
        }))
    }

    /// A token for the current request.
    pub(crate) fn token(&self) -> CancelToken {
        CancelToken {
            request: self.0.current.load(Ordering::Relaxed),
            requests: Arc::clone(&self.0),
        }
    }

    /// Whether the current request is cancelled.
    pub(crate) fn requested(&self) -> bool {
        self.0.cancelled.load(Ordering::Relaxed) >= self.0.current.load(Ordering::Relaxed)
    }

    /// The current request is over: its tokens cancel nothing any more.
    pub(crate) fn next(&self) {
        self.0.current.fetch_add(1, Ordering::Relaxed);
    }
}

/// Cancels one request of a session, from any thread.
///
/// A token belongs to the request that runs when it is taken, or, when none runs, to the next one: take one for each request. Cancelling
/// before the request begins is not lost, and cancelling one that is over does nothing to its successor.
#[derive(Clone, Debug)]
pub struct CancelToken {
    requests: Arc<Requests>,
    request: u64,
}

impl CancelToken {
    /// Asks the request to stop. It returns within one layer's work.
    pub fn cancel(&self) {
        self.requests
            .cancelled
            .fetch_max(self.request, Ordering::Relaxed);
    }

    /// Whether this request was asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.requests.cancelled.load(Ordering::Relaxed) >= self.request
    }
}
