//! What the pool is built on: the standard library's, or loom's, whose model checker runs every order of the threads' steps that matters.

#[cfg(loom)]
pub(super) use self::model::*;
#[cfg(not(loom))]
pub(super) use self::system::*;

#[cfg(loom)]
use loom::cell::UnsafeCell;
#[cfg(not(loom))]
use std::cell::UnsafeCell;

/// A value that threads take turns to write and to read, as an order elsewhere says.
pub(super) struct Turns<T>(UnsafeCell<T>);

impl<T: Copy> Turns<T> {
    pub(super) fn new(value: T) -> Self {
        Turns(UnsafeCell::new(value))
    }

    /// # Safety
    /// Nobody writes meanwhile.
    pub(super) unsafe fn get(&self) -> T {
        #[cfg(loom)]
        // SAFETY: as the caller says; loom checks it.
        return self.0.with(|value| unsafe { *value });
        #[cfg(not(loom))]
        // SAFETY: as the caller says.
        return unsafe { *self.0.get() };
    }

    /// # Safety
    /// Nobody reads or writes meanwhile.
    pub(super) unsafe fn set(&self, to: T) {
        #[cfg(loom)]
        // SAFETY: as the caller says; loom checks it.
        self.0.with_mut(|value| unsafe { *value = to });
        #[cfg(not(loom))]
        // SAFETY: as the caller says.
        unsafe {
            *self.0.get() = to;
        }
    }
}

#[cfg(not(loom))]
mod system {
    pub(in super::super) use std::hint::spin_loop;
    pub(in super::super) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
    pub(in super::super) use std::sync::{Arc, Mutex, MutexGuard};
    pub(in super::super) use std::thread::{
        Builder, JoinHandle, Thread, current, park, park_timeout,
    };
    pub(in super::super) use std::time::Instant;
}

/// Time stands still, and nobody waits for it: whoever sleeps has to be woken.
#[cfg(loom)]
mod model {
    pub(in super::super) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
    pub(in super::super) use loom::sync::{Arc, Mutex, MutexGuard};
    pub(in super::super) use loom::thread::yield_now as spin_loop;
    pub(in super::super) use loom::thread::{Builder, JoinHandle, Thread, current, park};
    use std::time::Duration;

    pub(in super::super) fn park_timeout(_: Duration) {
        park();
    }

    #[derive(Clone, Copy)]
    pub(in super::super) struct Instant;

    impl Instant {
        pub(in super::super) fn now() -> Instant {
            Instant
        }

        pub(in super::super) fn elapsed(self) -> Duration {
            Duration::ZERO
        }
    }
}
