//! Answers of a given form, and function calls.

use crate::ears::{self, STUDENT, open, request, user};
use dram_ffi::{
    Completion, Constraint, DramError, FinishReason, GenerationEvent, GenerationRequest, Limit,
    Prompt, SessionOptions, ToolChoice, Tools,
};
use std::path::Path;

/// With the feature, a student answers in the form it is given; without it, a request that asks for one is refused.
#[test]
fn an_answer_has_the_form_that_is_asked_for() {
    let session = open(Path::new(STUDENT))
        .unwrap()
        .session(SessionOptions::default())
        .unwrap();
    let ask = |constraint, tools| {
        let request = GenerationRequest {
            prompt: Prompt::Chat {
                messages: vec![user("set a timer for ten minutes")],
            },
            constraint,
            tools,
            ..request(0, 64)
        };
        ears::ask(&session, request).1
    };
    let tools = |choice| {
        let json = r#"[{"type": "function", "function": {"name": "set_timer", "parameters": {
            "type": "object", "properties": {"duration": {"type": "string"}}, "required": ["duration"]}}}]"#;
        let json = json.to_owned();
        Some(Tools {
            json,
            choice,
            parallel: false,
        })
    };
    let refused =
        |asked: &Result<Completion, DramError>| matches!(asked, Err(DramError::InvalidRequest(_)));
    let named = |name: &str| ToolChoice::Named { name: name.into() };
    assert!(refused(&ask(None, tools(named("other")))));
    let Ok(plain) = ask(None, tools(ToolChoice::Never)) else {
        panic!("tools that are not called need no constraint");
    };
    assert_eq!(plain.tool_calls, []);

    let expression = "[0-9]{4}-[0-9]{2}".to_owned();
    let asked = [
        ask(Some(Constraint::Regex { expression }), None),
        ask(None, tools(named("set_timer"))),
    ];
    // A build together with crates that want the feature has it too.
    if !cfg!(feature = "constraint") && asked.iter().all(refused) {
        return;
    }
    let [Ok(digits), Ok(call)] = asked else {
        panic!("{asked:?}");
    };
    assert_eq!(
        (digits.text.len(), digits.finish),
        (7, FinishReason::EndOfText)
    );
    let [call] = &call.tool_calls[..] else {
        panic!("{:?}", call.tool_calls);
    };
    assert_eq!(
        (&*call.name, &*call.arguments),
        ("set_timer", r#"{"duration":"10 minutes"}"#)
    );
    let schema =
        r#"{"type": "object", "properties": {"hour": {"type": "integer"}}, "required": ["hour"]}"#;
    let schema = schema.to_owned();
    let request = GenerationRequest {
        constraint: Some(Constraint::JsonSchema { schema }),
        ..request(4, 3)
    };
    // Who waits for `Finished` does not take a cut answer for a good one.
    let (listener, hears) = ears::ears();
    session.generate(request, listener).unwrap().join();
    let last = ears::all(&hears).pop();
    let Some(ears::Heard::Event(GenerationEvent::Rejected { completion })) = last else {
        panic!("{last:?}");
    };
    let limit = Limit::MaxTokens;
    assert_eq!(completion.finish, FinishReason::Unfinished { limit });

    let grammar = "root ::= [0-9]{3}".to_owned();
    let (_, digits) = ears::ask(
        &session,
        GenerationRequest {
            constraint: Some(Constraint::Gbnf { grammar }),
            ..self::request(4, 9)
        },
    );
    assert_eq!(digits.unwrap().text.len(), 3);
}
