//! An answer of `run` and `chat`: how it is streamed, and what is said of it.

use std::io::{self, Write};
use std::ops::ControlFlow;

use dram_core::{Completion, Event, Finish, Limit, Request, Session, ToolCall};
use serde_json::json;

use crate::interrupt::Interrupt;

/// Answers a request, and writes the text to `out` as it is made. Ctrl-C ends it; so does an error of `out`.
pub(crate) fn stream(
    session: &mut Session,
    request: &Request,
    interrupt: &Interrupt,
    out: &mut dyn Write,
) -> io::Result<dram_core::Result<Completion>> {
    let mut written = Ok(());
    let completion = interrupt.during(session.cancel_token(), || {
        session.generate(request, &mut |event| {
            if let Event::Piece { text, .. } = &event {
                written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            }
            match written {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })
    });
    written.map(|()| completion)
}

/// `12 of 15 drafted tokens accepted (80 %)`.
pub(crate) fn acceptance(completion: &Completion) -> String {
    let (accepted, drafted) = (completion.accepted_tokens, completion.drafted_tokens);
    let share = 100.0 * accepted as f64 / drafted.max(1) as f64;
    format!("{accepted} of {drafted} drafted tokens accepted ({share:.0} %)")
}

/// What a person is told of a truncated answer.
pub(crate) fn truncation(finish: &Finish, max_tokens: usize) -> Option<String> {
    match finish {
        Finish::MaxTokens if max_tokens > 0 => Some(format!(
            "output truncated after {max_tokens} tokens; raise -n for more"
        )),
        Finish::ContextFull => Some(
            "output truncated: the context is full; raise --context, or drop the oldest tokens with --slide".into(),
        ),
        _ => None,
    }
}

/// Why an answer does not satisfy its constraint, if it does not.
pub(crate) fn violation(finish: &Finish) -> Option<String> {
    match finish {
        Finish::Unfinished(_) => Some(
            "output truncated before it satisfied the constraint; raise -n or --context".into(),
        ),
        Finish::Invalid(what) => Some(format!("output violates the schema: {what}")),
        _ => None,
    }
}

/// A call in OpenAI's form, its arguments as JSON text.
pub(crate) fn tool_call(call: &ToolCall) -> serde_json::Value {
    json!({
        "id": call.id,
        "type": "function",
        "function": { "name": call.name, "arguments": call.arguments },
    })
}

/// The machine-readable name of why an answer ended, and the stop string if that was why.
pub(crate) fn finish_name(finish: &Finish) -> (&'static str, Option<&str>) {
    match finish {
        Finish::EndOfText => ("end_of_text", None),
        Finish::StopString(s) => ("stop_string", Some(s)),
        Finish::MaxTokens => ("max_tokens", None),
        Finish::ContextFull => ("context_full", None),
        Finish::Unfinished(Limit::MaxTokens) => ("unfinished_max_tokens", None),
        Finish::Unfinished(Limit::Context) => ("unfinished_context_full", None),
        Finish::Invalid(_) => ("invalid", None),
        Finish::Cancelled => ("cancelled", None),
    }
}
