//! One generation: its listener, its handle, and the loop between core and the two.

use crate::error::{DramError, ListenerError, contain};
use crate::sampling::TokenLogprobs;
use crate::session::Lease;
use crate::types::{Completion, FinishReason, GenerationRequest, count};
use dram_core::{CancelToken, Event};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// The shortest time between two pieces: one frame of a 60 Hz display. A call into Kotlin costs about as much as a small
/// model's token, and nobody can see more.
const FRAME: Duration = Duration::from_millis(16);

/// What a generation tells while it runs.
#[derive(Debug, Clone, PartialEq, uniffi::Enum)]
pub enum GenerationEvent {
    /// The prompt has been read. Comes once, before any piece.
    Prefilled {
        /// Tokens of the prompt.
        tokens: u32,
        /// The first of them, which the session knew from before and did not read again.
        reused: u32,
    },
    /// The context was full: tokens were forgotten, and the others are about to be read again. Only with `ContextPolicy::Slide`.
    Slid {
        /// Tokens that were forgotten.
        dropped: u32,
        /// Tokens that are left.
        kept: u32,
    },
    /// More of the answer. The first comes at once, later ones at most every 16 ms.
    Piece {
        /// Whole code points. All pieces together are the answer.
        text: String,
        /// Tokens made since the last piece.
        tokens: u32,
        /// Of these tokens, and of any whose text is still held back; only if the request asks for them. All pieces together have those of all tokens.
        logprobs: Vec<TokenLogprobs>,
    },
    /// The generation ended; `completion.finish` says why.
    Finished {
        /// What came of it.
        completion: Completion,
    },
    /// The generation ended in place of `Finished`, and its answer is not what the request's constraint or tools ask for: it was cut before
    /// (`FinishReason::Unfinished`), or breaks its schema (`FinishReason::Invalid`).
    Rejected {
        /// What came of it.
        completion: Completion,
    },
}

/// Hears of a generation, on the generation's thread.
#[uniffi::export(callback_interface)]
pub trait GenerationListener: Send + Sync {
    /// Something happened. After `Finished` or `Rejected` nothing is called any more.
    fn on_event(&self, event: GenerationEvent) -> Result<(), ListenerError>;

    /// The generation failed. Nothing is called after this.
    fn on_error(&self, error: DramError) -> Result<(), ListenerError>;
}

/// What a handle and its generation's thread share.
#[derive(Default)]
pub(crate) struct Progress {
    cancelled: AtomicBool,
    tokens: AtomicU64,
    state: Mutex<ProgressState>,
    /// Signalled when `ended` becomes true.
    ended: Condvar,
}

#[derive(Default)]
struct ProgressState {
    /// Stops core; None before the session is taken and again after it was handed back, so that a late cancel cannot hit
    /// the session's next generation.
    token: Option<CancelToken>,
    /// The generation's thread, once it runs.
    thread: Option<ThreadId>,
    ended: bool,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, ProgressState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn attach(&self, token: CancelToken) {
        self.lock().token = Some(token);
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        if let Some(token) = &self.lock().token {
            token.cancel();
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Whether the caller is this generation's own thread (inside its listener).
    pub(crate) fn is_this_thread(&self) -> bool {
        self.lock().thread == Some(std::thread::current().id())
    }
}

/// Stops a generation, and is told when it has stopped. Dropping the last reference cancels.
#[derive(uniffi::Object)]
pub struct GenerationHandle {
    progress: Arc<Progress>,
}

impl GenerationHandle {
    pub(crate) fn new(progress: Arc<Progress>) -> Self {
        GenerationHandle { progress }
    }
}

#[uniffi::export]
impl GenerationHandle {
    /// Asks the generation to stop and returns at once. It stops within one layer's work, while it reads a prompt too; the
    /// listener still gets its last call. Harmless after the end.
    pub fn cancel(&self) {
        self.progress.cancel();
    }

    /// Whether `cancel` was called.
    pub fn is_cancelled(&self) -> bool {
        self.progress.is_cancelled()
    }

    /// Blocks until the listener's last call has returned. From inside the listener it returns at once.
    pub fn join(&self) {
        if self.progress.is_this_thread() {
            return;
        }
        let guard = self
            .progress
            .ended
            .wait_while(self.progress.lock(), |state| !state.ended);
        drop(guard);
    }

    /// Whether the listener's last call has returned.
    pub fn is_finished(&self) -> bool {
        self.progress.lock().ended
    }

    /// Tokens this generation has made so far.
    pub fn tokens_made(&self) -> u64 {
        self.progress.tokens.load(Ordering::Acquire)
    }
}

impl Drop for GenerationHandle {
    fn drop(&mut self) {
        self.progress.cancel();
    }
}

/// Text on its way to the listener.
#[derive(Default)]
struct Pending {
    text: String,
    tokens: usize,
    logprobs: Vec<TokenLogprobs>,
    sent: Option<Instant>,
}

impl Pending {
    fn is_due(&self) -> bool {
        self.sent.is_none_or(|sent| sent.elapsed() >= FRAME)
    }

    fn send(&mut self, listener: &dyn GenerationListener) -> Result<(), ListenerError> {
        if self.text.is_empty() && self.tokens == 0 && self.logprobs.is_empty() {
            return Ok(());
        }
        self.sent = Some(Instant::now());
        listener.on_event(GenerationEvent::Piece {
            text: std::mem::take(&mut self.text),
            tokens: count(std::mem::take(&mut self.tokens)),
            logprobs: std::mem::take(&mut self.logprobs),
        })
    }

    /// Takes up what core tells, and passes on what is due.
    fn hear(
        &mut self,
        event: Event<'_>,
        listener: &dyn GenerationListener,
    ) -> Result<(), ListenerError> {
        match event {
            Event::Prefilled { tokens, reused } => listener.on_event(GenerationEvent::Prefilled {
                tokens: count(tokens),
                reused: count(reused),
            }),
            Event::Slid { dropped, kept } => {
                self.send(listener)?;
                listener.on_event(GenerationEvent::Slid {
                    dropped: count(dropped),
                    kept: count(kept),
                })
            }
            Event::Token { id, logprob, top } => {
                self.logprobs.push(TokenLogprobs::new(id, logprob, top));
                Ok(())
            }
            Event::Piece { text, tokens } => {
                self.text.push_str(text);
                self.tokens += tokens;
                if self.is_due() {
                    self.send(listener)
                } else {
                    Ok(())
                }
            }
            // Core may come to tell more than apps are told.
            _ => Ok(()),
        }
    }
}

/// The body of a generation's thread.
pub(crate) fn run(
    mut lease: Lease,
    request: GenerationRequest,
    listener: &dyn GenerationListener,
    progress: &Progress,
) {
    progress.lock().thread = Some(std::thread::current().id());
    let mut pending = Pending::default();
    let mut panicked = true;
    let result = contain(|| {
        let result = request
            .try_into()
            .and_then(|request| generate(&mut lease, &request, listener, progress, &mut pending));
        panicked = false;
        result
    });

    // The session goes back before the last calls: whoever hears them may ask again at once.
    progress.lock().token = None;
    if panicked {
        lease.lose();
    } else {
        drop(lease);
    }
    // A listener that panics here has nobody left to tell; its panic ends at this thread.
    let _ = contain(|| {
        let told = match result {
            Ok(completion) => pending
                .send(listener)
                .and_then(|()| listener.on_event(ended(completion))),
            Err(error) => listener.on_error(error),
        };
        told.map_err(|error| DramError::Internal(error.to_string()))
    });
    progress.lock().ended = true;
    progress.ended.notify_all();
}

/// A broken answer comes as an event of its own: who waits for `Finished` does not take it for a good one.
fn ended(completion: Completion) -> GenerationEvent {
    match completion.finish {
        FinishReason::Unfinished { .. } | FinishReason::Invalid { .. } => {
            GenerationEvent::Rejected { completion }
        }
        _ => GenerationEvent::Finished { completion },
    }
}

/// Core's part: pieces go to the listener as they fall due, the rest stays in `pending`.
fn generate(
    lease: &mut Lease,
    request: &dram_core::Request,
    listener: &dyn GenerationListener,
    progress: &Progress,
    pending: &mut Pending,
) -> Result<Completion, DramError> {
    let (session, session_tokens) = lease.parts()?;
    let count_tokens = |n: u64| {
        progress.tokens.fetch_add(n, Ordering::AcqRel);
        session_tokens.fetch_add(n, Ordering::AcqRel);
    };
    let mut failed = None;
    let completion = session.generate(request, &mut |event| {
        if let Event::Piece { tokens, .. } = event {
            count_tokens(tokens as u64);
        }
        if let Err(error) = pending.hear(event, listener) {
            failed = Some(error);
            return ControlFlow::Break(());
        }
        if progress.is_cancelled() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    // Tokens whose text was never shown (the end of text, the beginning of a stop string) were made all the same.
    let made = completion.tokens.len() as u64;
    let counted = progress.tokens.load(Ordering::Acquire);
    count_tokens(made.saturating_sub(counted));
    match failed {
        Some(error) => Err(DramError::Internal(error.to_string())),
        None => Ok(completion.into()),
    }
}
