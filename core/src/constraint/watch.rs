//! Stops the engine where a request is cancelled, or a token takes too long.

use crate::cancel::Cancellation;
use crate::{Error, Result};
use llguidance::CancellationHandle;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What operations of the engine may take beyond [`EACH`]: fuel bounds most of them to some ten milliseconds on one core at 2 GHz.
const MAX_TIME: Duration = Duration::from_millis(700);
/// What an operation takes off the time that those before it took.
const EACH: Duration = Duration::from_millis(50);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(10);

/// A thread that looks now and then while a request runs: operations cost it nothing.
pub(super) struct Watch {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    birth: Instant,
    /// Microseconds from `birth` to the begin of the operation that runs; 0: none runs.
    began: AtomicU64,
    /// Microseconds that operations took, less [`EACH`] for each.
    taken: AtomicU64,
    is_closed: AtomicBool,
    ran_out: AtomicBool,
}

impl State {
    fn now(&self) -> u64 {
        self.birth.elapsed().as_micros() as u64 + 1
    }
}

impl Watch {
    pub(super) fn new(handle: CancellationHandle, cancellation: Cancellation) -> Result<Watch> {
        let state = Arc::new(State {
            birth: Instant::now(),
            began: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            ran_out: AtomicBool::new(false),
        });
        let watched = Arc::clone(&state);
        let body = move || {
            while !watched.is_closed.load(Ordering::Acquire) {
                let began = watched.began.load(Ordering::Acquire);
                let taken = watched.taken.load(Ordering::Acquire);
                let taken = taken + watched.now().saturating_sub(began);
                let ran_out = began != 0 && taken > MAX_TIME.as_micros() as u64;
                if ran_out || cancellation.requested() {
                    watched.ran_out.store(ran_out, Ordering::Release);
                    handle.cancel();
                    return;
                }
                std::thread::park_timeout(LOOK);
            }
        };
        let builder = std::thread::Builder::new()
            .name("dram-watch".into())
            .stack_size(64 << 10);
        let thread = builder
            .spawn(body)
            .map_err(|source| Error::Thread { index: 0, source })?;
        Ok(Watch {
            state,
            thread: Some(thread),
        })
    }

    /// Runs an operation of the engine.
    pub(super) fn during<T>(&self, operation: impl FnOnce() -> T) -> T {
        let began = self.state.now();
        self.state.began.store(began, Ordering::Release);
        let result = operation();
        self.state.began.store(0, Ordering::Release);
        let taken = self.state.taken.load(Ordering::Relaxed) + self.state.now() - began;
        let left = taken.saturating_sub(EACH.as_micros() as u64);
        self.state.taken.store(left, Ordering::Release);
        result
    }

    /// Whether an operation was stopped because operations took too long.
    pub(super) fn ran_out(&self) -> bool {
        self.state.ran_out.load(Ordering::Acquire)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.state.is_closed.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
