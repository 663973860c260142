//! Chat templates against Jinja2 as Hugging Face transformers sets it up: every template in llama.cpp's source with conversations of every kind, and
//! what templates use of the language, piece by piece. `cargo xtask peers` runs these.

use dram_core::chat::Chat;
use dram_core::{Message, ToolCall, ToolChoice, Tools};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

fn peers() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// What Jinja2 makes of the cases: texts, or null.
fn jinja2(cases: &[Value]) -> Vec<Value> {
    let python = std::env::var_os("DRAM_PEERS_PYTHON")
        .expect("DRAM_PEERS_PYTHON names no Python with jinja2: run `cargo xtask peers`");
    let mut child = Command::new(python)
        .arg(peers().join("jinja_templates.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(json!(cases).to_string().as_bytes())
        .unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn message(json: &Value) -> Message {
    let text = |json: &Value| json.as_str().map(str::to_owned);
    let call = |call: &Value| ToolCall {
        id: text(&call["id"]).unwrap(),
        name: text(&call["function"]["name"]).unwrap(),
        arguments: call["function"]["arguments"].to_string(),
    };
    let calls = json["tool_calls"].as_array().into_iter().flatten();
    Message {
        role: text(&json["role"]).unwrap(),
        content: text(&json["content"]).unwrap(),
        tool_calls: calls.map(call).collect(),
        reasoning: text(&json["reasoning_content"]),
        tool_call_id: text(&json["tool_call_id"]),
        name: text(&json["name"]),
    }
}

/// One template with one conversation.
struct Case {
    name: String,
    template: String,
    messages: Value,
    tools: Value,
    add_generation_prompt: bool,
}

impl Case {
    fn ours(&self) -> dram_core::Result<String> {
        let messages: Vec<Message> = self
            .messages
            .as_array()
            .unwrap()
            .iter()
            .map(message)
            .collect();
        let tools = (!self.tools.is_null())
            .then(|| Tools::from_json(&self.tools.to_string(), ToolChoice::Auto).unwrap());
        let chat = Chat {
            messages: &messages,
            tools: tools.as_ref(),
            bos: "<s>",
            eos: "</s>",
            add_generation_prompt: self.add_generation_prompt,
            ..Chat::default()
        };
        chat.render(&self.template)
    }

    fn json(&self, now: u64) -> Value {
        json!({ "template": self.template, "now": now, "variables": {
            "messages": self.messages,
            "tools": self.tools,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "add_generation_prompt": self.add_generation_prompt,
        }})
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Both give the same text, or both refuse. Returns how many gave one.
fn compare(cases: &[Case]) -> usize {
    // Templates write the date: once more where it changed meanwhile.
    let (mut begin, mut ours);
    loop {
        begin = now();
        ours = cases.iter().map(Case::ours).collect::<Vec<_>>();
        if now() / 86_400 == begin / 86_400 {
            break;
        }
    }
    let theirs = jinja2(
        &cases
            .iter()
            .map(|case| case.json(begin))
            .collect::<Vec<_>>(),
    );
    assert_eq!(theirs.len(), cases.len());
    let (mut same, mut wrong) = (0, Vec::new());
    for ((case, ours), theirs) in cases.iter().zip(&ours).zip(&theirs) {
        match (ours, theirs.as_str()) {
            (Ok(ours), Some(theirs)) if ours == theirs => same += 1,
            (Err(_), None) => {}
            (ours, theirs) => {
                wrong.push(format!(
                    "{}\n   ours {ours:?}\n theirs {theirs:?}",
                    case.name
                ));
            }
        }
    }
    let count = wrong.len();
    assert!(wrong.is_empty(), "{count} differ:\n{}", wrong.join("\n"));
    same
}

/// Turns, tools, and whether the assistant speaks next.
fn conversations() -> Vec<(&'static str, Value, bool, bool)> {
    let user = |text: &str| json!({ "role": "user", "content": text });
    let thinks = |thought: &str, text: &str| json!({ "role": "assistant", "content": text, "reasoning_content": thought });
    let says = |text: &str| json!({ "role": "assistant", "content": text });
    let system = |text: &str| json!({ "role": "system", "content": text });
    let call = |id: &str, name: &str, arguments: Value| json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } });
    let calls = |calls: Value| json!({ "role": "assistant", "content": "", "tool_calls": calls });
    let result = |id: &str, name: &str, text: &str| json!({ "role": "tool", "content": text, "tool_call_id": id, "name": name });
    let oslo = call(
        "abc123def",
        "get_weather",
        json!({ "city": "Oslo", "days": 2 }),
    );
    let rich = call(
        "abc123def",
        "get_weather",
        json!({ "city": "Oslo \u{e9}\u{2028} \"x\"", "options": { "units": null, "list": ["a", 1.5, true, 1e-7] } }),
    );
    let time = call("abc123deg", "now", json!({}));
    vec![
        ("plain", json!([user("Hello")]), false, true),
        (
            "system",
            json!([system("Be brief."), user("Hello")]),
            false,
            true,
        ),
        (
            "turns",
            json!([user("Hi"), says("Hello!"), user("And now?\n")]),
            false,
            true,
        ),
        (
            "closed",
            json!([system(" S "), user("Hi"), says("Hello!")]),
            false,
            false,
        ),
        (
            "tools",
            json!([system("Be brief."), user("Weather in Oslo?")]),
            true,
            true,
        ),
        (
            "call",
            json!([
                user("Weather?"),
                calls(json!([oslo])),
                result("abc123def", "get_weather", "{\"t\": 3.5}")
            ]),
            true,
            true,
        ),
        (
            "calls",
            json!([
                user("Weather?"),
                calls(json!([rich, time])),
                result("abc123def", "get_weather", "rain"),
                result("abc123deg", "now", "12:00"),
                says("It rains."),
                user("Thanks")
            ]),
            true,
            true,
        ),
        (
            "thinking",
            json!([
                user("2+2?"),
                says("<think>\nEasy: 4.\n</think>\n\n4"),
                user("3+3?"),
                says("<think>six</think>6"),
                user("4+4?"),
                thinks("eight,\nI think", "8"),
                user("ok")
            ]),
            false,
            true,
        ),
        (
            "unicode",
            json!([
                system("Grüße <|im_end|> {{ x }}\t"),
                user("😶\u{200d}🌫\u{fe0f} \u{200b}\u{a0} 'q' \"d\" <b>&amp;</b>\r\n\n"),
                says("日本語"),
                user("   ")
            ]),
            false,
            true,
        ),
    ]
}

fn tools() -> Value {
    json!([
        { "type": "function", "function": {
            "name": "get_weather",
            "description": "Get the weather of a city",
            "parameters": { "type": "object", "required": ["city"], "properties": {
                "city": { "type": "string", "description": "City <name> & \"more\"" },
                "days": { "type": "integer", "enum": [1, 2, 3], "default": 1 },
                "options": { "type": "object", "properties": {
                    "units": { "type": ["string", "null"] },
                    "list": { "type": "array", "items": { "type": "string" } }
                }}
            }}
        }},
        { "type": "function", "function": {
            "name": "now", "description": "The time", "parameters": { "type": "object", "properties": {} }
        }}
    ])
}

#[test]
#[ignore = "needs llama.cpp's source and jinja2: cargo xtask peers"]
fn every_template_renders_as_in_jinja2() {
    let source = std::env::var_os("DRAM_PEERS_SOURCE")
        .expect("DRAM_PEERS_SOURCE names no source of llama.cpp: run `cargo xtask peers`");
    let folder = Path::new(&source).join("models/templates");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "jinja"));
    files.sort();
    let mut cases = Vec::new();
    for file in &files {
        let template = std::fs::read_to_string(file).unwrap();
        let stem = file.file_stem().unwrap().to_string_lossy();
        for (name, mut messages, with_tools, add_generation_prompt) in conversations() {
            // It is given by the name that a template asks for: here this one alone.
            for message in messages.as_array_mut().unwrap() {
                let known = template.contains("reasoning_content");
                message
                    .as_object_mut()
                    .unwrap()
                    .retain(|key, _| known || key != "reasoning_content");
            }
            // A template that knows no tools is told of them in a turn, which transformers does not do.
            let knows = with_tools && template.contains("tools");
            cases.push(Case {
                name: format!("{stem}, {name}"),
                template: template.clone(),
                messages,
                tools: if knows { tools() } else { Value::Null },
                add_generation_prompt,
            });
        }
    }
    let same = compare(&cases);
    println!(
        "{} templates: {same} of {} texts equal, the others refused by both",
        files.len(),
        cases.len()
    );
    assert!(files.len() >= 60 && same >= 500);
}

#[test]
#[ignore = "needs jinja2: cargo xtask peers"]
fn the_language_is_that_of_jinja2() {
    let snippets = std::fs::read_to_string(peers().join("jinja_snippets.txt")).unwrap();
    let case = |template: &str| Case {
        name: template.into(),
        template: template.into(),
        messages: json!([{ "role": "user", "content": "hi" }]),
        tools: Value::Null,
        add_generation_prompt: true,
    };
    let snippets = snippets.strip_suffix('\n').unwrap().split("\n@@\n");
    let cases: Vec<Case> = snippets.map(case).collect();
    let same = compare(&cases);
    println!(
        "{same} of {} pieces equal, the others refused by both",
        cases.len()
    );
    assert!(cases.len() >= 150 && same >= 110);
}
