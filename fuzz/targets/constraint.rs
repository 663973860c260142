//! A JSON schema, a regular expression, a Lark or GBNF grammar, or tools: refused, or followed for some tokens of a small model.
#![no_main]

use dram_core::{Constraint, Message, Prompt, Request, ToolChoice, Tools};
use dram_fuzz::{session, toy_model};
use libfuzzer_sys::fuzz_target;
use std::ops::ControlFlow;

fuzz_target!(|data: &[u8]| {
    let [kind, text @ ..] = data else { return };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let mut request = Request {
        prompt: Prompt::Text("x".into()),
        max_tokens: 12,
        ..Request::default()
    };
    match kind % 5 {
        0 => request.constraint = Some(Constraint::json_schema(text)),
        1 => request.constraint = Some(Constraint::regex(text)),
        2 => request.constraint = Some(Constraint::lark(text)),
        4 => request.constraint = Some(Constraint::gbnf(text)),
        _ => {
            let Ok(tools) = Tools::from_json(text, ToolChoice::Required) else {
                return;
            };
            request.tools = Some(tools);
            request.prompt = Prompt::Chat(vec![Message::new("user", "x")]);
        }
    }
    let Some(mut session) = session(toy_model(), 128) else {
        return;
    };
    let _ = session.generate(&request, &mut |_| ControlFlow::Continue(()));
});
