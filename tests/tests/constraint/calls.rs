//! Function calling.

use super::{REQUESTS, ask, chat, hot, random, session, student};
use dram_core::{Constraint, Error, Finish, Prompt, Request, Sampling, ToolChoice, Tools};
use serde_json::{Value, json};

const TOOLS: &str = r##"[
    {"type": "function", "function": {"name": "set_timer", "description": "Starts a timer", "parameters": {
        "type": "object", "properties": {"duration": {"type": "string"}, "label": {"type": "string"}}, "required": ["duration"]}}},
    {"type": "function", "function": {"name": "get_weather", "parameters": {
        "type": "object", "properties": {"place": {"$ref": "#/$defs/place"}}, "required": ["place"],
        "$defs": {"place": {"type": "string", "maxLength": 8}}}}},
    {"type": "function", "function": {"name": "now"}}
]"##;

fn tools(choice: ToolChoice) -> Option<Tools> {
    Some(Tools::from_json(TOOLS, choice).unwrap())
}

#[test]
fn a_student_calls_the_tools_it_is_given() {
    let model = student();
    let mut session = session(&model);
    let mut call = |text: &str, choice| {
        let request = Request {
            tools: tools(choice),
            ..chat(text)
        };
        let call = ask(&mut session, &request).unwrap().tool_call;
        call.map(|call| (call.name, call.arguments))
    };
    let expected = |name: &str, arguments: &str| Some((name.to_owned(), arguments.to_owned()));
    let timer = expected("set_timer", r#"{"duration":"10 minutes"}"#);
    assert_eq!(call(REQUESTS[0], ToolChoice::Auto), timer);
    assert_eq!(call(REQUESTS[0], ToolChoice::Required), timer);
    let weather = expected("get_weather", r#"{"place":"Oslo"}"#);
    assert_eq!(call(REQUESTS[1], ToolChoice::Required), weather);
    let named = call(REQUESTS[1], ToolChoice::Named("set_timer".into()));
    assert_eq!(named.unwrap().0, "set_timer");
    assert_eq!(call(REQUESTS[0], ToolChoice::None), None);
}

#[test]
fn a_call_has_the_form_of_the_template() {
    for (words, begin) in [
        ("", "{"),
        ("<|start_header_id|> ipython", "{"),
        ("<tool_call></tool_call>", "<tool_call>"),
        ("<|tool_call|> Granite", "<|tool_call|>["),
        ("[TOOL_CALLS]", "[TOOL_CALLS]["),
        ("[TOOL_CALLS][ARGS]", "[TOOL_CALLS]"),
    ] {
        let model = random(Some(&format!(
            "{{# {words} #}}{{{{ tools }}}}{{{{ messages[-1].content }}}}"
        )));
        let mut session = session(&model);
        let quote = model.tokenizer().encode("\"", false)[0];
        let (mut names, mut texts) = (Vec::new(), 0);
        for seed in 0..24 {
            let auto = seed % 2 == 1;
            let mut request = chat("call");
            request.tools = tools(if auto {
                ToolChoice::Auto
            } else {
                ToolChoice::Required
            });
            request.max_tokens = 300;
            request.sampling = Sampling {
                logit_bias: vec![(quote, 3.0), (model.tokenizer().eos().unwrap(), 3.0)],
                ..hot(seed)
            };
            let done = ask(&mut session, &request).unwrap();
            if done.finish != Finish::EndOfText {
                continue;
            }
            let Some(call) = done.tool_call else {
                assert!(auto && !done.text.contains(begin), "{words}: {}", done.text);
                texts += 1;
                continue;
            };
            assert!(
                auto || done.text.replace(['\n', ' '], "").starts_with(begin),
                "{words}: {}",
                done.text
            );
            assert!(call.id.len() == 9 && call.id.chars().all(|c| c.is_ascii_alphanumeric()));
            let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
            let schema: Value = serde_json::from_str(TOOLS).unwrap();
            let schema = schema
                .as_array()
                .unwrap()
                .iter()
                .find(|t| t["function"]["name"] == *call.name);
            let schema = &schema.unwrap()["function"]["parameters"];
            assert!(
                schema.is_null() || jsonschema::is_valid(schema, &arguments),
                "{}",
                done.text
            );
            names.push(call.name);
        }
        names.sort();
        names.dedup();
        println!("{words}: {names:?}, {texts} texts");
        assert!(names.len() > 1 && texts > 3, "{words}: {names:?} {texts}");
    }
}

#[test]
fn several_calls_stand_in_one_answer() {
    for words in [
        "",
        "<|start_header_id|> ipython",
        "<tool_call></tool_call>",
        "<|tool_call|> Granite",
        "[TOOL_CALLS]",
        "[TOOL_CALLS][ARGS]",
    ] {
        let model = random(Some(&format!(
            "{{# {words} #}}{{{{ tools }}}}{{{{ messages[-1].content }}}}"
        )));
        let mut session = session(&model);
        let quote = model.tokenizer().encode("\"", false)[0];
        let mut counts = Vec::new();
        for seed in 0..24 {
            let auto = seed % 2 == 1;
            let choice = if auto {
                ToolChoice::Auto
            } else {
                ToolChoice::Required
            };
            let mut request = chat("call");
            request.tools = tools(choice).map(Tools::in_parallel);
            request.max_tokens = 400;
            request.sampling = Sampling {
                logit_bias: vec![(quote, 3.0)],
                ..hot(seed)
            };
            let done = ask(&mut session, &request).unwrap();
            if done.finish != Finish::EndOfText {
                continue;
            }
            assert!(
                auto || !done.tool_calls.is_empty(),
                "{words}: {}",
                done.text
            );
            assert_eq!(done.tool_call.as_ref(), done.tool_calls.first());
            // As many names as calls: none was passed over.
            let known = ["set_timer", "get_weather", "now"];
            let named = known.iter().map(|name| done.text.matches(name).count());
            assert!(
                done.tool_calls.is_empty() || done.tool_calls.len() == named.sum::<usize>(),
                "{words}: {}",
                done.text
            );
            let mut ids: Vec<&str> = done.tool_calls.iter().map(|call| &*call.id).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), done.tool_calls.len(), "{words}: {}", done.text);
            for call in &done.tool_calls {
                assert!(
                    serde_json::from_str::<Value>(&call.arguments)
                        .unwrap()
                        .is_object()
                );
            }
            counts.push(done.tool_calls.len());
        }
        println!("{words}: {counts:?}");
        assert!(counts.iter().any(|&n| n > 1), "{words}: {counts:?}");
    }
}

#[test]
fn tools_that_mean_nothing_are_refused() {
    let item = |function: Value| json!([{ "type": "function", "function": function }]).to_string();
    for (text, part) in [
        ("{}".to_owned(), "another form"),
        ("[]".into(), "got 0"),
        ("[1]".into(), "got 1"),
        ("[".into(), "EOF"),
        (item(json!({ "name": "two words" })), "two words"),
        (item(json!({ "name": "f", "parameters": 7 })), "got 7"),
        (
            format!("[{0},{0}]", r#"{"function":{"name":"f"}}"#),
            "twice",
        ),
    ] {
        let error = Tools::from_json(&text, ToolChoice::Auto)
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    let unknown = Tools::from_json(TOOLS, ToolChoice::Named("none".into()));
    assert!(matches!(unknown, Err(Error::Tools { .. })));

    let model = student();
    let mut session = session(&model);
    let request = |prompt, constraint| Request {
        tools: tools(ToolChoice::Required),
        constraint,
        ..Request::new(prompt)
    };
    let text = request(Prompt::Text("set".into()), None);
    assert!(matches!(
        ask(&mut session, &text),
        Err(Error::InvalidOption {
            option: "tools",
            ..
        })
    ));
    let both = request(chat("set").prompt, Some(Constraint::regex("a")));
    assert!(matches!(
        ask(&mut session, &both),
        Err(Error::InvalidOption {
            option: "constraint",
            ..
        })
    ));
    let mut bad = request(chat("set").prompt, None);
    bad.tools = Some(
        Tools::from_json(
            &item(json!({ "name": "f", "parameters": { "type": "odd" } })),
            ToolChoice::Auto,
        )
        .unwrap(),
    );
    assert!(matches!(
        ask(&mut session, &bad),
        Err(Error::Constraint { .. })
    ));
}

#[test]
fn an_odd_keyword_is_checked_and_an_error_names_the_tool() {
    let tools = |odd: Value| {
        let json = json!([
            { "type": "function", "function": { "name": "now", "parameters": { "type": "object", "properties": {} } } },
            { "type": "function", "function": { "name": "tag", "parameters": odd } },
        ]);
        Tools::from_json(&json.to_string(), ToolChoice::Required).unwrap()
    };
    let unique = json!({
        "type": "object", "required": ["ids"],
        "properties": { "ids": { "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 1 }, "minItems": 2, "maxItems": 2, "uniqueItems": true } },
    });
    let model = random(Some("{{ messages[-1].content }}"));
    let mut session = session(&model);
    let mut seen = [0; 3];
    for seed in 0..200 {
        let request = Request {
            tools: Some(tools(unique.clone())),
            sampling: hot(seed),
            ..chat(&format!("call {seed}"))
        };
        let done = ask(&mut session, &request).unwrap();
        let is_now = done.text.contains("now");
        let equal = done.text.contains("0,0")
            || done.text.contains("1,1")
            || done.text.contains("0, 0")
            || done.text.contains("1, 1");
        match done.finish {
            Finish::EndOfText => {
                assert!(
                    done.tool_calls.len() == 1 && (is_now || !equal),
                    "{}",
                    done.text
                );
                seen[usize::from(is_now)] += 1;
            }
            Finish::Invalid(what) => {
                assert!(!is_now && done.tool_calls.is_empty() && done.tool_call.is_none());
                assert!(
                    what.starts_with("tool `tag`: /ids: expected items that differ"),
                    "{what}"
                );
                seen[2] += 1;
            }
            other => println!("{}: {other:?}", done.text),
        }
    }
    assert!(seen.iter().all(|&n| n > 0), "{seen:?}");

    for (odd, part) in [
        (
            json!({ "properties": { "a": { "type": "odd" } } }),
            "tool `tag`: /properties/a/type",
        ),
        (
            json!({ "properties": { "a": { "type": "integer", "minimum": 3, "maximum": 2 } }, "required": ["a"] }),
            "tool `tag`: ",
        ),
        (
            json!({ "properties": { "a": { "type": "string", "pattern": "[a" } } }),
            "tool `tag`: /properties/a/pattern: ",
        ),
    ] {
        let request = Request {
            tools: Some(tools(odd)),
            ..chat("call")
        };
        let error = ask(&mut session, &request).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("5("), "{error}");
    }
}
