//! Memory that a thread will read soon, and asks for while it has nothing else to do.

use crate::prefetch::prefetch;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Most bytes that are asked for: well within a core's own cache.
const MAX: usize = 96 << 10;

/// Bytes that are asked for between two looks at what else there is to do.
const STEP: usize = 512;

/// Bytes of a line of the cache.
const LINE: usize = 64;

/// What is left to ask for. An address is only ever asked for, never read, so it may be out of date.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Prefetch {
    next: AtomicPtr<u8>,
    left: AtomicUsize,
}

impl Prefetch {
    /// Sets what will be read.
    pub(super) fn prefetch(&self, bytes: &[u8]) {
        self.next
            .store(bytes.as_ptr().cast_mut(), Ordering::Relaxed);
        self.left.store(bytes.len().min(MAX), Ordering::Relaxed);
    }

    /// Asks for it until `done` holds, and says whether it does.
    pub(super) fn ask(&self, done: impl Fn() -> bool) -> bool {
        loop {
            if done() {
                return true;
            }
            let (next, left) = (
                self.next.load(Ordering::Relaxed),
                self.left.load(Ordering::Relaxed),
            );
            if left == 0 {
                return false;
            }
            let step = left.min(STEP);
            for line in (0..step).step_by(LINE) {
                prefetch(next.wrapping_add(line));
            }
            self.next.store(next.wrapping_add(step), Ordering::Relaxed);
            self.left.store(left - step, Ordering::Relaxed);
        }
    }
}
