//! Chat templates give the text that Hugging Face transformers gives: tests/golden/make_chats.py.

use dram_core::chat::Chat;
use dram_core::{Message, ToolCall, ToolChoice, Tools};
use serde_json::Value;

fn message(json: &Value) -> Message {
    let text = |json: &Value| json.as_str().map(str::to_owned);
    let calls = json["tool_calls"].as_array().into_iter().flatten();
    Message {
        role: text(&json["role"]).unwrap(),
        content: text(&json["content"]).unwrap(),
        reasoning: text(&json["reasoning_content"]),
        tool_calls: calls
            .map(|call| ToolCall {
                id: text(&call["id"]).unwrap(),
                name: text(&call["function"]["name"]).unwrap(),
                arguments: call["function"]["arguments"].to_string(),
            })
            .collect(),
        tool_call_id: text(&json["tool_call_id"]),
        name: text(&json["name"]),
    }
}

#[test]
fn templates_with_tools_render_as_in_transformers() {
    let golden = include_str!("../../tests/golden/chats.json");
    let golden: Value = serde_json::from_str(golden).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 28);
    for case in cases {
        let messages: Vec<Message> = case["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(message)
            .collect();
        let tools = (!case["tools"].is_null())
            .then(|| Tools::from_json(&case["tools"].to_string(), ToolChoice::Auto).unwrap());
        let chat = Chat {
            messages: &messages,
            tools: tools.as_ref(),
            bos: "<s>",
            eos: "</s>",
            add_generation_prompt: true,
        };
        let template = golden["templates"][case["template"].as_str().unwrap()].as_str();
        match (chat.render(template.unwrap()), case["text"].as_str()) {
            (Ok(text), Some(expected)) => assert_eq!(text, expected, "{}", case["name"]),
            (Err(error), None) => {
                let why = case["error"].as_str().unwrap();
                assert!(error.to_string().contains(why), "{error}");
            }
            (other, expected) => panic!("{}: {other:?}, expected {expected:?}", case["name"]),
        }
    }
}

#[test]
fn a_template_that_knows_no_tools_gets_them_as_a_system_message() {
    let tools = r#"[{"type": "function", "function": {"name": "now", "parameters": {}}}]"#;
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    let said = |choice, messages: &[Message]| {
        let tools = Tools::from_json(tools, choice).unwrap();
        let chat = Chat {
            messages,
            tools: Some(&tools),
            ..Chat::default()
        };
        chat.render(template).unwrap()
    };
    let user = Message::new("user", "When?");
    let text = said(ToolChoice::Auto, std::slice::from_ref(&user));
    assert!(text.starts_with("system: You can call") && text.ends_with("\nuser: When?\n"));
    assert!(text.contains(r#"{"name":"now","parameters":{}}"#), "{text}");
    let both = [Message::new("system", "Be brief."), user];
    let text = said(ToolChoice::Required, &both);
    assert!(text.starts_with("system: Be brief.\n\nCall one"), "{text}");
    assert_eq!(text.matches("system:").count(), 1);
    assert!(!said(ToolChoice::None, &both).contains("now"));
}
