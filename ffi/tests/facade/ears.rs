//! A listener that writes down what it hears, and what the tests open and ask for.

use dram_ffi::{
    ChatMessage, Completion, DramError, GenerationEvent, GenerationListener, GenerationRequest,
    ListenerError, ModelOptions, NativeModel, NativeSession, Prompt, SessionOptions,
};
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tempfile::NamedTempFile;

/// The slow model's file, written once for all tests.
pub(crate) static SLOW: LazyLock<NamedTempFile> = LazyLock::new(|| file(&crate::toy::slow_model()));

/// The model that an app would ship.
pub(crate) const STUDENT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../train/assets/actions-student.gguf"
);

pub(crate) fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

pub(crate) fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

pub(crate) fn open(at: &Path) -> Result<Arc<NativeModel>, DramError> {
    NativeModel::open(path(at), ModelOptions::default())
}

pub(crate) fn slow() -> Arc<NativeModel> {
    open(SLOW.path()).unwrap()
}

pub(crate) fn session() -> Arc<NativeSession> {
    slow().session(SessionOptions::default()).unwrap()
}

/// `prompt_tokens` tokens, and the likeliest after them.
pub(crate) fn request(prompt_tokens: u32, max_tokens: u32) -> GenerationRequest {
    GenerationRequest {
        prompt: Prompt::Tokens {
            ids: (0..prompt_tokens).map(|i| i % 200).collect(),
        },
        max_tokens,
        sampling: None,
        stop: Vec::new(),
        parse_special: false,
        logprobs: None,
        context_policy: None,
        constraint: None,
        tools: None,
    }
}

pub(crate) fn user(text: &str) -> ChatMessage {
    ChatMessage {
        role: "user".into(),
        content: text.into(),
        tool_calls: Vec::new(),
        reasoning: None,
        tool_call_id: None,
        name: None,
    }
}

/// More tokens than any test waits for.
pub(crate) const ENDLESS: u32 = 4000;

#[derive(Debug)]
pub(crate) enum Heard {
    Event(GenerationEvent),
    Failed(DramError),
}

/// Sends on what it hears, and throws at the first piece if it is told to.
pub(crate) struct Ears {
    pub(crate) heard: Sender<Heard>,
    pub(crate) throw_at_once: bool,
}

impl GenerationListener for Ears {
    fn on_event(&self, event: GenerationEvent) -> Result<(), ListenerError> {
        let throws = self.throw_at_once && matches!(event, GenerationEvent::Piece { .. });
        let _ = self.heard.send(Heard::Event(event));
        if throws {
            return Err(ListenerError::Stopped {
                reason: "had enough".into(),
            });
        }
        Ok(())
    }

    fn on_error(&self, error: DramError) -> Result<(), ListenerError> {
        let _ = self.heard.send(Heard::Failed(error));
        Ok(())
    }
}

pub(crate) fn ears() -> (Box<Ears>, Receiver<Heard>) {
    let (heard, hears) = channel();
    let ears = Ears {
        heard,
        throw_at_once: false,
    };
    (Box::new(ears), hears)
}

/// Everything until the listener is dropped, which is after its last call.
pub(crate) fn all(hears: &Receiver<Heard>) -> Vec<Heard> {
    std::iter::from_fn(|| hears.recv_timeout(Duration::from_secs(30)).ok()).collect()
}

/// What comes at the end.
pub(crate) fn completion(hears: &Receiver<Heard>) -> Completion {
    match all(hears).pop() {
        Some(Heard::Event(GenerationEvent::Finished { completion })) => completion,
        other => panic!("expected a completion at the end, got {other:?}"),
    }
}

/// A whole generation: its events, and its completion or error.
pub(crate) fn ask(
    session: &NativeSession,
    request: GenerationRequest,
) -> (Vec<GenerationEvent>, Result<Completion, DramError>) {
    let (listener, hears) = ears();
    session.generate(request, listener).unwrap().join();
    let mut events = Vec::new();
    for heard in all(&hears) {
        match heard {
            Heard::Event(
                GenerationEvent::Finished { completion } | GenerationEvent::Rejected { completion },
            ) => {
                return (events, Ok(completion));
            }
            Heard::Event(event) => events.push(event),
            Heard::Failed(error) => return (events, Err(error)),
        }
    }
    panic!("the generation never ended: {events:?}");
}

/// A completion that does not fail.
pub(crate) fn complete(session: &NativeSession, request: GenerationRequest) -> Completion {
    ask(session, request).1.unwrap()
}
