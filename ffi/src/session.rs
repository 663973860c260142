//! A session and the thread that generates in it.

use crate::adapter::{ScaledAdapter, scaled};
use crate::error::{DramError, contain};
use crate::generation::{GenerationHandle, GenerationListener, Progress, run};
use crate::speculation::Speculation;
use crate::types::{GenerationRequest, SessionOptions};
use dram_core::threads::ThreadCount;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A sequence of tokens that the model has read: a KV cache with the threads that fill it. One generation at a time.
#[derive(uniffi::Object)]
pub struct NativeSession {
    slot: Arc<Slot>,
    options: SessionOptions,
    threads: ThreadCount,
}

/// Where core's session lies while nobody generates with it.
pub(crate) struct Slot {
    state: Mutex<State>,
    /// Signalled when a session comes back.
    returned: Condvar,
    /// Tokens made since the session was opened.
    tokens_made: AtomicU64,
}

struct State {
    resident: Resident,
    /// The generation that has the session, or had it last; None while another call has it.
    current: Option<Arc<Progress>>,
}

enum Resident {
    Here(Box<dram_core::Session>),
    /// A generation or another call has it.
    Away,
    /// A panic left it in an unknown state.
    Lost,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session taken out of its slot. It goes back when this is dropped.
pub(crate) struct Lease {
    slot: Arc<Slot>,
    session: Option<Box<dram_core::Session>>,
}

impl Lease {
    /// The session, and the count of the tokens made with it.
    pub(crate) fn parts(&mut self) -> Result<(&mut dram_core::Session, &AtomicU64), DramError> {
        match self.session.as_deref_mut() {
            Some(session) => Ok((session, &self.slot.tokens_made)),
            None => Err(DramError::Internal("the session was lost".into())),
        }
    }

    /// Leaves the slot empty for good: core panicked while it worked on this session.
    pub(crate) fn lose(mut self) {
        self.session = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.slot.lock().resident = match self.session.take() {
            Some(session) => Resident::Here(session),
            None => Resident::Lost,
        };
        self.slot.returned.notify_all();
    }
}

/// How long `generate` waits for a cancelled generation to hand the session back. A cancel takes one layer's work; this only
/// bounds the wait on a device that is badly overloaded.
const HAND_BACK: Duration = Duration::from_secs(5);

impl NativeSession {
    pub(crate) fn new(session: dram_core::Session) -> Arc<Self> {
        Arc::new(NativeSession {
            options: session.options().into(),
            threads: session.thread_count(),
            slot: Arc::new(Slot {
                state: Mutex::new(State {
                    resident: Resident::Here(Box::new(session)),
                    current: None,
                }),
                returned: Condvar::new(),
                tokens_made: AtomicU64::new(0),
            }),
        })
    }

    /// Takes the session for the generation `progress`, or for a call that cannot be cancelled. One that a cancelled generation is about to hand back is
    /// waited for: the caller that cancelled and asks again should not see it.
    fn lease(&self, progress: Option<&Arc<Progress>>) -> Result<Lease, DramError> {
        let leaving = |state: &mut State| {
            matches!(state.resident, Resident::Away)
                && state
                    .current
                    .as_ref()
                    .is_some_and(|p| p.is_cancelled() && !p.is_this_thread())
        };
        let (mut state, _) = self
            .slot
            .returned
            .wait_timeout_while(self.slot.lock(), HAND_BACK, leaving)
            .unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut state.resident, Resident::Away) {
            Resident::Here(session) => {
                if let Some(progress) = progress {
                    progress.attach(session.cancel_token());
                }
                state.current = progress.cloned();
                Ok(Lease {
                    slot: Arc::clone(&self.slot),
                    session: Some(session),
                })
            }
            Resident::Away => Err(DramError::SessionBusy(
                "the session is in the middle of another generation: wait for it, cancel it, or open a second session"
                    .into(),
            )),
            Resident::Lost => {
                state.resident = Resident::Lost;
                Err(DramError::Internal(
                    "an earlier internal error ended this session: open a new one".into(),
                ))
            }
        }
    }

    /// Runs `body` on the session while nobody generates with it.
    fn with_session<T>(
        &self,
        body: impl FnOnce(&mut dram_core::Session) -> Result<T, DramError>,
    ) -> Result<T, DramError> {
        let mut lease = self.lease(None)?;
        let mut panicked = true;
        let result = contain(|| {
            let result = lease.parts().and_then(|(session, _)| body(session));
            panicked = false;
            result
        });
        if panicked {
            lease.lose();
        }
        result
    }
}

#[uniffi::export]
impl NativeSession {
    /// Starts a generation on a thread of its own and returns at once. The listener is called on that thread, last with `Finished`, `Rejected` or an error,
    /// when the session is free again. A cancelled generation finishes too, with what was made until then.
    ///
    /// The session's sequence becomes the prompt and the answer. Where the prompt begins with what the session has read, as that of a chat's next turn
    /// does, only the rest is read.
    ///
    /// # Errors
    /// `SessionBusy` while another generation runs. Whatever is wrong with the request itself goes to the listener.
    pub fn generate(
        &self,
        request: GenerationRequest,
        listener: Box<dyn GenerationListener>,
    ) -> Result<Arc<GenerationHandle>, DramError> {
        contain(|| {
            let progress = Arc::new(Progress::default());
            let lease = self.lease(Some(&progress))?;
            let handle = Arc::new(GenerationHandle::new(Arc::clone(&progress)));
            std::thread::Builder::new()
                .name("dram-generate".into())
                .spawn(move || run(lease, request, &*listener, &progress))
                .map_err(|error| {
                    DramError::OutOfMemory(format!("no thread could be started: {error}"))
                })?;
            Ok(handle)
        })
    }

    /// Cancels the generation that has the session, if any, as its handle would. Letting go of the session does not: who holds the
    /// handle decides.
    pub fn cancel(&self) {
        let current = self.slot.lock().current.clone();
        if let Some(progress) = current {
            progress.cancel();
        }
    }

    /// Whether a generation has the session now.
    pub fn is_busy(&self) -> bool {
        matches!(self.slot.lock().resident, Resident::Away)
    }

    /// Tokens made since the session was opened, those of cancelled generations included.
    pub fn tokens_made(&self) -> u64 {
        self.slot.tokens_made.load(Ordering::Acquire)
    }

    /// What it uses: no field is None.
    pub fn options(&self) -> SessionOptions {
        self.options.clone()
    }

    /// The tokens that the session has read.
    ///
    /// # Errors
    /// `SessionBusy` while a generation runs.
    pub fn tokens(&self) -> Result<Vec<u32>, DramError> {
        self.with_session(|session| Ok(session.tokens().to_vec()))
    }

    /// Forgets everything after the first `position` tokens; 0 forgets all.
    ///
    /// # Errors
    /// `SessionBusy` while a generation runs.
    pub fn truncate(&self, position: u32) -> Result<(), DramError> {
        self.with_session(|session| {
            session.truncate(position as usize);
            Ok(())
        })
    }

    /// Another session with the same options, adapters and tokens read. It takes as much memory as this one.
    ///
    /// # Errors
    /// `SessionBusy` while a generation runs; `OutOfMemory`.
    pub fn fork(&self) -> Result<Arc<NativeSession>, DramError> {
        self.with_session(|session| Ok(NativeSession::new(session.fork()?)))
    }

    /// Writes the tokens read, with their keys and values, to a file, from which `restore` takes them up. The file replaces the one at `path` only when it is
    /// whole. It holds the conversation in the clear; nobody but its owner may read it.
    ///
    /// # Errors
    /// `SessionBusy` while a generation runs; `FileProblem` when it cannot be written.
    pub fn save(&self, path: String) -> Result<(), DramError> {
        self.with_session(|session| Ok(session.save(path)?))
    }

    /// Takes up what `save` wrote, in place of what the session has read. A prompt that begins with it is then read from there on.
    ///
    /// # Errors
    /// `SessionBusy` while a generation runs; `FileProblem` when the file is damaged, or of another model, cache format, version or other adapters, or when it
    /// holds more tokens than the session has room for. The session stays as it was.
    pub fn restore(&self, path: String) -> Result<(), DramError> {
        self.with_session(|session| Ok(session.restore(path)?))
    }

    /// Generates with these adapters from now on; none turns them off. What they change adds up. Other sessions stay as they are. What the session has
    /// read is forgotten, unless the adapters are the same as before.
    ///
    /// # Errors
    /// `SessionBusy` while a generation runs; `InvalidRequest` for an adapter of another model or a scale that is not finite; `OutOfMemory`. The session
    /// stays as it was.
    pub fn set_adapters(&self, adapters: Vec<ScaledAdapter>) -> Result<(), DramError> {
        self.with_session(|session| Ok(session.set_adapters(&scaled(&adapters))?))
    }

    /// Generates with these drafts from now on. `Completion.accepted_tokens` says how many were right.
    ///
    /// # Errors
    /// `SessionBusy` while a generation runs; `InvalidRequest` for a draft model with another vocabulary or a number out of range; `OutOfMemory`. The
    /// session stays as it was.
    pub fn set_speculation(&self, speculation: Speculation) -> Result<(), DramError> {
        self.with_session(|session| Ok(session.set_speculation(&speculation.into())?))
    }

    /// Lets `threads` threads compute from the next step on, also while a generation runs: at least one, and at most as many as the session was opened
    /// with. For a phone that gets hot, or an app that needs a core.
    pub fn set_threads(&self, threads: u32) {
        self.threads.set(threads as usize);
    }
}
