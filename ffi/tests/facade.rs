//! What Kotlin and Swift rely on, asked of the façade itself.

mod common;

use dram_ffi::{
    BenchOptions, ChatMessage, Completion, Constraint, DramError, FinishReason, GenerationListener,
    GenerationRequest, ListenerError, ModelOptions, NativeModel, NativeSession, Prompt,
    SessionOptions, ToolChoice, Tools,
};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// The slow model's file, written once for all tests.
static FILE: LazyLock<NamedTempFile> = LazyLock::new(|| file(&common::slow_model()));

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn open(path: &Path) -> Result<Arc<NativeModel>, DramError> {
    NativeModel::open(path.to_str().unwrap().into(), ModelOptions::default())
}

fn session() -> Arc<NativeSession> {
    open(FILE.path())
        .unwrap()
        .session(SessionOptions::default())
        .unwrap()
}

fn request(prompt_tokens: u32, max_tokens: u32) -> GenerationRequest {
    GenerationRequest {
        prompt: Prompt::Tokens {
            ids: (0..prompt_tokens).map(|i| i % 200).collect(),
        },
        max_tokens,
        sampling: None,
        stop: Vec::new(),
        parse_special: false,
        constraint: None,
        tools: None,
    }
}

fn user(text: &str) -> ChatMessage {
    ChatMessage {
        role: "user".into(),
        content: text.into(),
        tool_calls: Vec::new(),
        tool_call_id: None,
        name: None,
    }
}

/// More tokens than any test waits for.
const ENDLESS: u32 = 4000;

#[derive(Debug)]
enum Heard {
    Piece(String, u32),
    Finished(Completion),
    Failed(DramError),
}

/// Sends on what it hears, and throws at the first piece if it is told to.
struct Ears {
    heard: Sender<Heard>,
    throw_at_once: bool,
}

impl GenerationListener for Ears {
    fn on_piece(&self, text: String, tokens: u32) -> Result<(), ListenerError> {
        let _ = self.heard.send(Heard::Piece(text, tokens));
        if self.throw_at_once {
            return Err(ListenerError::Stopped {
                reason: "had enough".into(),
            });
        }
        Ok(())
    }

    fn on_finished(&self, completion: Completion) -> Result<(), ListenerError> {
        let _ = self.heard.send(Heard::Finished(completion));
        Ok(())
    }

    fn on_error(&self, error: DramError) -> Result<(), ListenerError> {
        let _ = self.heard.send(Heard::Failed(error));
        Ok(())
    }
}

fn ears() -> (Box<Ears>, Receiver<Heard>) {
    let (heard, hears) = channel();
    let ears = Ears {
        heard,
        throw_at_once: false,
    };
    (Box::new(ears), hears)
}

/// Everything until the listener is dropped, which is after its last call.
fn all(hears: &Receiver<Heard>) -> Vec<Heard> {
    std::iter::from_fn(|| hears.recv_timeout(Duration::from_secs(30)).ok()).collect()
}

fn completion(hears: &Receiver<Heard>) -> Completion {
    match all(hears).pop() {
        Some(Heard::Finished(completion)) => completion,
        other => panic!("expected a completion at the end, got {other:?}"),
    }
}

/// At most the token in which the cancel fell may still be made.
fn settles(session: &NativeSession, count: u64) {
    std::thread::sleep(Duration::from_millis(200));
    let after = session.tokens_made() - count;
    assert!(after <= 1, "{after} tokens were made after the cancel");
}

#[test]
fn a_model_tells_what_it_is_and_what_it_will_take() {
    let model = open(FILE.path()).unwrap();
    let info = model.info();
    assert_eq!((info.architecture.as_str(), info.layers), ("llama", 12));
    assert_eq!((info.vocabulary, info.context_length), (258, 4096));
    assert_eq!(info.file_bytes, FILE.as_file().metadata().unwrap().len());
    let (small, large) = (model.memory(64), model.memory(128));
    assert_eq!(2 * small.kv_cache, large.kv_cache);
    assert_eq!(small.mapped, large.mapped);
}

#[test]
fn pieces_add_up_and_are_batched() {
    let session = session();
    let (listener, hears) = ears();
    let start = Instant::now();
    let handle = session.generate(request(4, 60), listener).unwrap();
    let heard = all(&hears);
    let frames = start.elapsed().as_millis() / 16;
    let Some(Heard::Finished(completion)) = heard.last() else {
        panic!("{heard:?}");
    };
    let (mut text, mut tokens) = (String::new(), 0);
    for event in &heard[..heard.len() - 1] {
        let Heard::Piece(piece, n) = event else {
            panic!("{event:?} before the end");
        };
        text.push_str(piece);
        tokens += n;
    }
    assert_eq!((text, tokens), (completion.text.clone(), 60));
    assert_eq!(completion.finish, FinishReason::MaxTokens);
    assert_eq!((completion.tokens.len(), completion.prompt_tokens), (60, 4));
    // The first, the rest at the end, and between them no more than one a frame.
    assert!(heard.len() as u128 <= frames + 3, "{} events", heard.len());
    handle.join();
    assert!(handle.is_finished() && !session.is_busy());
    assert_eq!((handle.tokens_made(), session.tokens_made()), (60, 60));
}

#[test]
fn cancel_stops_the_decode_and_leaves_the_session_usable() {
    let session = session();
    let (listener, hears) = ears();
    let handle = session.generate(request(4, ENDLESS), listener).unwrap();
    assert!(matches!(hears.recv(), Ok(Heard::Piece(..))));
    handle.cancel();
    let count = session.tokens_made();
    let made = completion(&hears);
    assert_eq!(made.finish, FinishReason::Cancelled);
    assert_eq!(made.tokens.len() as u64, session.tokens_made());
    settles(&session, count);

    let (listener, hears) = ears();
    let next = session.generate(request(4, 3), listener).unwrap();
    handle.cancel(); // too late, and not for this one
    assert_eq!(completion(&hears).finish, FinishReason::MaxTokens);
    assert!(!next.is_cancelled());
}

#[test]
fn cancel_in_the_middle_of_a_long_prompt_is_prompt() {
    let session = session();
    let (listener, hears) = ears();
    let handle = session.generate(request(4000, 1), listener).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    handle.cancel();
    handle.join();
    let took = start.elapsed();
    let made = completion(&hears);
    assert_eq!(
        (made.finish, made.tokens.len()),
        (FinishReason::Cancelled, 0)
    );
    assert!(took < Duration::from_secs(2), "it took {took:?}");
    let (listener, hears) = ears();
    session.generate(request(4, 3), listener).unwrap().join();
    assert_eq!(completion(&hears).tokens.len(), 3);
}

#[test]
fn a_dropped_handle_cancels_a_dropped_session_does_not() {
    let session = session();
    let (listener, hears) = ears();
    drop(session.generate(request(4, ENDLESS), listener).unwrap());
    assert_eq!(completion(&hears).finish, FinishReason::Cancelled);

    let (listener, hears) = ears();
    let handle = session.generate(request(4, ENDLESS), listener).unwrap();
    session.cancel();
    assert_eq!(completion(&hears).finish, FinishReason::Cancelled);
    assert!(handle.is_cancelled());

    let (listener, hears) = ears();
    let handle = session.generate(request(4, 20), listener).unwrap();
    drop(session);
    assert_eq!(completion(&hears).finish, FinishReason::MaxTokens);
    drop(handle);
}

#[test]
fn a_second_generation_is_refused_until_the_first_is_cancelled() {
    let session = session();
    let (listener, hears) = ears();
    let first = session.generate(request(4, ENDLESS), listener).unwrap();
    let refused = session.generate(request(4, 1), ears().0);
    assert!(matches!(refused, Err(DramError::SessionBusy(_))));
    first.cancel();
    // At once: it waits until the cancelled one has handed the session back.
    let (listener, second) = ears();
    let handle = session.generate(request(4, 1), listener).unwrap();
    assert_eq!(completion(&second).finish, FinishReason::MaxTokens);
    assert_eq!(completion(&hears).finish, FinishReason::Cancelled);
    drop(handle);
}

#[test]
fn a_listener_that_throws_ends_its_generation() {
    let session = session();
    let (heard, hears) = channel();
    let listener = Box::new(Ears {
        heard,
        throw_at_once: true,
    });
    let handle = session.generate(request(4, ENDLESS), listener).unwrap();
    handle.join();
    let heard = all(&hears);
    assert!(
        matches!(&heard[..], [Heard::Piece(..), Heard::Failed(DramError::Internal(m))] if m.contains("had enough")),
        "{heard:?}"
    );
    assert!(!session.is_busy());
}

/// Panics at its first piece, as a broken binding would.
struct Panics;

impl GenerationListener for Panics {
    fn on_piece(&self, _: String, _: u32) -> Result<(), ListenerError> {
        panic!("a test's panic");
    }
    fn on_finished(&self, _: Completion) -> Result<(), ListenerError> {
        Ok(())
    }
    fn on_error(&self, error: DramError) -> Result<(), ListenerError> {
        assert!(matches!(error, DramError::Internal(_)));
        panic!("another");
    }
}

#[test]
fn a_panic_is_an_internal_error_and_ends_the_session_alone() {
    let model = open(FILE.path()).unwrap();
    let session = model.session(SessionOptions::default()).unwrap();
    session
        .generate(request(4, ENDLESS), Box::new(Panics))
        .unwrap()
        .join();
    let lost = session.generate(request(4, 1), ears().0);
    assert!(matches!(lost, Err(DramError::Internal(_))));
    let (listener, hears) = ears();
    let other = model.session(SessionOptions::default()).unwrap();
    other.generate(request(4, 1), listener).unwrap().join();
    assert_eq!(completion(&hears).tokens.len(), 1);
}

#[test]
fn errors_say_what_the_app_can_do() {
    let missing = PathBuf::from("no-such-model.gguf");
    assert!(
        matches!(open(&missing), Err(DramError::FileProblem(m)) if m.contains("no-such-model"))
    );
    let whole = common::slow_model();
    for bad in [&whole[..whole.len() / 2], &b"not a model"[..], b""] {
        let error = open(file(bad).path()).err();
        assert!(
            matches!(error, Some(DramError::FileProblem(_))),
            "{error:?}"
        );
    }
    let mut foreign = whole;
    let at = foreign.windows(5).position(|w| w == b"llama").unwrap();
    foreign[at..at + 5].copy_from_slice(b"opera");
    let error = open(file(&foreign).path()).err();
    assert!(
        matches!(error, Some(DramError::UnsupportedModel(_))),
        "{error:?}"
    );

    let limited = NativeModel::open(
        FILE.path().to_str().unwrap().into(),
        ModelOptions {
            memory_limit: Some(30_000_000),
        },
    );
    let error = limited
        .and_then(|model| model.session(SessionOptions::default()))
        .err();
    assert!(
        matches!(error, Some(DramError::OutOfMemory(_))),
        "{error:?}"
    );

    let chat = GenerationRequest {
        prompt: Prompt::Chat {
            messages: vec![user("hello")],
        },
        ..request(0, 1)
    };
    assert!(!open(FILE.path()).unwrap().info().has_chat_template);
    for wrong in [request(5000, 1), request(0, 1), chat] {
        let (listener, hears) = ears();
        session().generate(wrong, listener).unwrap().join();
        let heard = all(&hears);
        assert!(
            matches!(&heard[..], [Heard::Failed(DramError::InvalidRequest(_))]),
            "{heard:?}"
        );
    }
}

/// With the feature, a student answers in the form it is given; without it, a request that asks for one is refused.
#[test]
fn an_answer_has_the_form_that_is_asked_for() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../train/assets/actions-student.gguf"
    );
    let session = open(Path::new(path))
        .unwrap()
        .session(SessionOptions::default())
        .unwrap();
    let ask = |constraint, tools| {
        let (listener, hears) = ears();
        let request = GenerationRequest {
            prompt: Prompt::Chat {
                messages: vec![user("set a timer for ten minutes")],
            },
            constraint,
            tools,
            ..request(0, 64)
        };
        session.generate(request, listener).unwrap().join();
        all(&hears).pop().unwrap()
    };
    let tools = |choice| {
        let json = r#"[{"type": "function", "function": {"name": "set_timer", "parameters": {
            "type": "object", "properties": {"duration": {"type": "string"}}, "required": ["duration"]}}}]"#;
        let json = json.to_owned();
        Some(Tools { json, choice })
    };
    let refused = |heard: &Heard| matches!(heard, Heard::Failed(DramError::InvalidRequest(_)));
    let named = |name: &str| ToolChoice::Named { name: name.into() };
    assert!(refused(&ask(None, tools(named("other")))));
    let Heard::Finished(plain) = ask(None, tools(ToolChoice::Never)) else {
        panic!("tools that are not called need no constraint");
    };
    assert_eq!(plain.tool_call, None);

    let expression = "[0-9]{4}-[0-9]{2}".to_owned();
    let asked = [
        ask(Some(Constraint::Regex { expression }), None),
        ask(None, tools(named("set_timer"))),
    ];
    if !cfg!(feature = "constraint") {
        assert!(asked.iter().all(refused), "{asked:?}");
        return;
    }
    let [Heard::Finished(digits), Heard::Finished(call)] = asked else {
        panic!("{asked:?}");
    };
    assert_eq!(
        (digits.text.len(), digits.finish),
        (7, FinishReason::EndOfText)
    );
    let call = call.tool_call.unwrap();
    assert_eq!(
        (&*call.name, &*call.arguments),
        ("set_timer", r#"{"duration":"10 minutes"}"#)
    );
}

#[test]
fn bench_hangs_together() {
    let report = open(FILE.path())
        .unwrap()
        .bench(BenchOptions {
            prompt: 16,
            generate: 8,
            depth: 4,
            threads: Some(1),
            repetitions: 2,
        })
        .unwrap();
    assert!(report.prefill_tokens_per_second > 0.0 && report.decode_tokens_per_second > 0.0);
    assert!(report.between_tokens_p95_ms >= report.between_tokens_p50_ms);
    assert!(report.first_token_ms > 0.0 && !report.instruction_set.is_empty());
    assert_eq!(report.threads, 1);
}
