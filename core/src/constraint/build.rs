//! Making a parser of a constraint, in bounded time.
//!
//! What users write can keep the engine busy for long, and the engine cannot be stopped while it makes a parser. Its work is bounded by fuel at each step;
//! it is done by a thread of its own that the caller stops waiting for.

use super::schema::{Planned, plan};
use super::vocabulary::Grammars;
use super::{Constraint, Kind, gbnf};
use crate::cancel::Cancellation;
use crate::model::Model;
use crate::{Error, Result};
use llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar};
use llguidance::toktrie::InferenceCapabilities;
use llguidance::{CancellationHandle, Logger, Matcher, ParserFactory, panic_utils};
use serde_json::Value;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Bytes of a constraint at most.
const MAX_BYTES: usize = 64 << 10;
/// References and rules that refer to each other are followed by recursion, at most once for each ten bytes or so. Only what is used of this is ever
/// backed by memory.
const STACK: usize = 64 << 20;
/// How deep brackets may be nested in a grammar, whose parser is recursive. Those of JSON and of regular expressions have limits of their own.
const DEEPEST: usize = 128;
/// How long making a parser may take. On one core at 2 GHz a large schema takes a tenth of that.
const MAX_TIME: Duration = Duration::from_millis(1000);
/// How often a waiting caller looks for a cancel.
const LOOK: Duration = Duration::from_millis(10);
/// Threads that make parsers at a time, those that nobody waits for any more among them.
const MAX_THREADS: usize = 8;
/// Steps of the parser for one token where terminals are single characters, as in GBNF: some hundred milliseconds.
const GBNF_STEPS: usize = 2_000_000;
/// Work of the lexer's first step; llguidance 1.9 bounds all steps but this.
const FIRST_FUEL: u64 = 1_000_000;

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// A parser at the beginning of a text.
pub(super) struct Built {
    pub(super) matcher: Matcher,
    /// Tokens that must come first; the matcher is past them.
    pub(super) forced: Vec<u32>,
    /// Stops the matcher's operations.
    pub(super) handle: CancellationHandle,
    /// Schemas that the finished text has to be checked with: of tools by name, else by no name.
    pub(super) checks: Vec<(String, Value)>,
}

/// What a thread that makes a parser sends: the handle before it follows what is forced, then the parser.
enum Made {
    Handle(CancellationHandle),
    Parser(Result<Box<Built>, String>),
}

/// # Errors
/// [`Error::Constraint`]: what is wrong with it, or that it is too large; [`Error::Cancelled`].
pub(super) fn build(
    model: &Model,
    constraint: &Constraint,
    cancellation: &Cancellation,
) -> Result<Built> {
    let kind = constraint.kind.name();
    let wrong = |what: String| Error::Constraint { kind, what };
    check_size(constraint).map_err(wrong)?;
    // Once a model, and not the constraint's doing.
    let made = Grammars::factory(model);
    made.map_err(|what| wrong(what.to_owned()))?;
    let start = Instant::now();
    let too_long = || {
        wrong(format!(
            "it is too complex: making its parser took more than {} s",
            MAX_TIME.as_secs_f32()
        ))
    };
    while THREADS.fetch_add(1, Ordering::Relaxed) >= MAX_THREADS {
        THREADS.fetch_sub(1, Ordering::Relaxed);
        if cancellation.requested() {
            return Err(Error::Cancelled);
        }
        if start.elapsed() > MAX_TIME {
            return Err(wrong(
                "others that were given up are still being made: try again".into(),
            ));
        }
        std::thread::sleep(LOOK);
    }
    let place = Place;
    let (sender, receiver) = sync_channel(2);
    let (model, constraint) = (model.clone(), constraint.clone());
    let body = move || {
        let _place = place;
        let parser =
            panic_utils::catch_unwind(AssertUnwindSafe(|| Ok(make(&model, &constraint, &sender))));
        let parser = parser.unwrap_or_else(|panic| Err(panic.to_string()));
        // A caller that gave up is no longer there.
        let _ = sender.send(Made::Parser(parser.map(Box::new)));
    };
    let builder = std::thread::Builder::new()
        .name("dram-constraint".into())
        .stack_size(STACK);
    let thread = builder
        .spawn(body)
        .map_err(|source| Error::Thread { index: 0, source })?;
    let result = wait(&receiver, start, cancellation, too_long)?;
    // It has nothing left to do; whoever counts threads afterwards finds none of it.
    let _ = thread.join();
    result.map_err(|error| wrong(said(&error)))
}

type Waited = std::result::Result<Built, String>;

fn wait(
    receiver: &Receiver<Made>,
    start: Instant,
    cancellation: &Cancellation,
    too_long: impl Fn() -> Error,
) -> Result<Waited> {
    let mut handle: Option<CancellationHandle> = None;
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(Made::Handle(given)) => handle = Some(given),
            Ok(Made::Parser(parser)) => return Ok(parser.map(|built| *built)),
            Err(RecvTimeoutError::Disconnected) => {
                return Ok(Err("its parser could not be made".into()));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        let is_cancelled = cancellation.requested();
        if is_cancelled || start.elapsed() > MAX_TIME {
            if let Some(handle) = handle {
                handle.cancel();
            }
            return Err(if is_cancelled {
                Error::Cancelled
            } else {
                too_long()
            });
        }
    }
}

/// A thread's place among [`MAX_THREADS`].
struct Place;

impl Drop for Place {
    fn drop(&mut self) {
        THREADS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs `make` where deep recursion does not overflow, whatever the caller's thread.
pub(super) fn on_a_deep_stack<T: Send>(make: impl FnOnce() -> T + Send) -> Result<T> {
    crate::stack::on_a_deep_stack("dram-constraint", STACK, make)
}

/// Refuses what the engine's recursive parsers should not be given.
fn check_size(constraint: &Constraint) -> Result<(), String> {
    let text = &constraint.text;
    let schemas = constraint
        .tools
        .iter()
        .map(|(_, schema)| schema.to_string().len());
    let bytes = text.len() + schemas.sum::<usize>();
    if bytes > MAX_BYTES {
        return Err(format!("expected at most {MAX_BYTES} bytes, got {bytes}"));
    }
    if !matches!(constraint.kind, Kind::Lark | Kind::Gbnf) {
        return Ok(());
    }
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if deepest > DEEPEST {
        return Err(format!(
            "expected brackets nested at most {DEEPEST} deep, got {deepest}"
        ));
    }
    Ok(())
}

fn make(
    model: &Model,
    constraint: &Constraint,
    sender: &SyncSender<Made>,
) -> Result<Built, String> {
    let factory = Grammars::factory(model).map_err(str::to_owned)?;
    let mut checks = Vec::new();
    let text = &constraint.text;
    let grammar = match constraint.kind {
        Kind::Regex if text.is_empty() => return Err("it is empty".into()),
        Kind::Regex => TopLevelGrammar::from_regex(text),
        Kind::Lark => TopLevelGrammar::from_lark(text.clone()),
        Kind::Gbnf => TopLevelGrammar::from_lark(gbnf::to_lark(text)?),
        Kind::JsonSchema => {
            let schema = serde_json::from_str(text).map_err(|error| error.to_string())?;
            let planned = plan(&schema)?;
            if planned.is_partial {
                checks.push((String::new(), schema));
            }
            let grammar = TopLevelGrammar::from_json_schema(planned.schema.clone());
            let made = prepare(factory, grammar)
                .and_then(|prepared| finish(factory, constraint, prepared, checks, sender));
            return made.map_err(|error| in_users_words(&error, &planned));
        }
        Kind::Tools => {
            let mut all = text.clone();
            for (i, (name, schema)) in constraint.tools.iter().enumerate() {
                let planned = plan(schema).map_err(|error| format!("tool `{name}`: {error}"))?;
                if planned.is_partial {
                    checks.push((name.clone(), schema.clone()));
                }
                all.push_str(&format!("args_{i}: %json {}\n", planned.schema));
            }
            let made = prepare(factory, TopLevelGrammar::from_lark(all))
                .and_then(|prepared| finish(factory, constraint, prepared, checks, sender));
            return made.map_err(|error| culprit(factory, constraint, &error));
        }
    };
    finish(
        factory,
        constraint,
        prepare(factory, grammar)?,
        checks,
        sender,
    )
}

/// Which tool's schema it is that the engine refuses.
fn culprit(factory: &ParserFactory, constraint: &Constraint, error: &str) -> String {
    for (name, schema) in constraint.tools.iter() {
        let Ok(planned) = plan(schema) else { continue };
        if let Err(error) = prepare(
            factory,
            TopLevelGrammar::from_json_schema(planned.schema.clone()),
        ) {
            return format!("tool `{name}`: {}", in_users_words(&error, &planned));
        }
    }
    match too_complex(error) {
        true => "the tools together are too complex: offer fewer, or simpler ones".into(),
        false => said(error),
    }
}

/// The grammar as the engine keeps it. Its first step, which the engine itself does not bound, is tried with a bound.
fn prepare(factory: &ParserFactory, grammar: TopLevelGrammar) -> Result<GrammarInit, String> {
    let limits = factory.limits();
    let tried = panic_utils::catch_unwind(AssertUnwindSafe(|| {
        let (grammar, lexer) = GrammarInit::Serialized(grammar)
            .to_internal(Some(factory.tok_env().clone()), limits.clone())?;
        let mut states = lexer.to_regex_vec(&mut ParserLimits::clone(limits))?;
        states.set_fuel(FIRST_FUEL);
        states.set_max_states(limits.max_lexer_states);
        let first = states.initial_state(&lexer.all_lexemes());
        for byte in 0..=255 {
            states.transition(first, byte);
        }
        match states.has_error() {
            true => Ok(None),
            false => Ok(Some(GrammarInit::Internal(grammar, lexer))),
        }
    }));
    match tried {
        Ok(Some(prepared)) => Ok(prepared),
        Ok(None) => Err("fuel exhausted".into()),
        Err(error) => Err(format!("{error:#}")),
    }
}

fn finish(
    factory: &ParserFactory,
    constraint: &Constraint,
    prepared: GrammarInit,
    checks: Vec<(String, Value)>,
    sender: &SyncSender<Made>,
) -> Result<Built, String> {
    let capabilities = InferenceCapabilities::default();
    let mut limits = factory.limits().clone();
    if constraint.kind == Kind::Gbnf {
        limits.step_max_items = GBNF_STEPS;
    }
    let logger = Logger::new(0, 0);
    let parser = factory.create_parser_from_init_ext(prepared, logger, capabilities, limits);
    let mut matcher = Matcher::new(parser).into_cancellable();
    let handle = matcher.cancellation_handle().unwrap_or_default();
    let _ = sender.send(Made::Handle(handle.clone()));
    let forced = match matcher.is_stopped() {
        true => Vec::new(),
        false => matcher.consume_ff_tokens(),
    };
    match matcher.get_error() {
        Some(error) => Err(error),
        None => Ok(Built {
            matcher,
            forced,
            handle,
            checks,
        }),
    }
}

/// The engine's names of parts as their places in the user's schema.
fn in_users_words(error: &str, planned: &Planned) -> String {
    let mut error = said(error);
    for (name, place) in planned.places.iter().rev() {
        error = error.replace(name, place);
    }
    error
}

/// Whether the engine gave up for want of room or time.
fn too_complex(error: &str) -> bool {
    const WORDS: &[&str] = &[
        "fuel",
        "too big",
        "too large",
        "Too many",
        "too many",
        "precomputation",
        "items; max is",
        "stack level",
        "recursion limit",
        "Unable to determine",
    ];
    WORDS.iter().any(|words| error.contains(words))
}

/// What llguidance said, without the parts that are for its own authors, and not longer than a person reads.
pub(super) fn said(error: &str) -> String {
    let ends = [
        "\n<backtrace>",
        "\n<state>",
        "\n<non-verbose/>",
        "\n\nStack backtrace",
    ]
    .map(|mark| error.find(mark));
    let end = ends.into_iter().flatten().min().unwrap_or(error.len());
    let text = match error[..end].trim_end() {
        "NoExtensionBias" => "no token of the model's vocabulary goes on with it",
        text if too_complex(text) && !text.contains("expected") => {
            "it is too complex: it needs fewer alternatives, or smaller bounds and repetitions"
        }
        text => text,
    };
    text.chars().take(1000).collect()
}
