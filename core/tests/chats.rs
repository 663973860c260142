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
            ..Chat::default()
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

#[test]
fn tools_go_before_the_first_user_turn_where_a_template_takes_no_system_turn() {
    let tools = r#"[{"type": "function", "function": {"name": "now", "parameters": {}}}]"#;
    let tools = Tools::from_json(tools, ToolChoice::Auto).unwrap();
    let said = |template: &str, messages: &[Message]| {
        let chat = Chat {
            messages,
            tools: Some(&tools),
            ..Chat::default()
        };
        chat.render(template)
    };
    let turns = [
        Message::new("user", "When?"),
        Message::new("assistant", "Now."),
        Message::new("user", "And now?"),
    ];
    let loops = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
    // One refuses the turn, one passes over it.
    let refuses = format!(
        "{{% if messages[0].role == 'system' %}}{{{{ raise_exception('no system turn') }}}}{{% endif %}}{loops}"
    );
    let ignores = loops.replace("messages %}", "messages if m.role != 'system' %}");
    for template in [refuses.as_str(), &ignores] {
        let text = said(template, &turns).unwrap();
        assert!(text.starts_with("<user>You can call"), "{text}");
        assert!(text.contains(r#"{"name":"now","parameters":{}}"#), "{text}");
        assert!(
            text.ends_with("\n\nWhen?<assistant>Now.<user>And now?"),
            "{text}"
        );
    }
    // What the user says for the system is refused as ever.
    let system = [Message::new("system", "Be brief."), turns[0].clone()];
    let error = said(&refuses, &system).unwrap_err().to_string();
    assert!(error.contains("no system turn"), "{error}");
}

#[test]
fn none_is_not_iterable() {
    let template = "{% if tools is iterable and tools | length > 0 %}TOOLS{% endif %}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}";
    let messages = [Message::new("user", "x")];
    let chat = Chat {
        messages: &messages,
        ..Chat::default()
    };
    assert_eq!(chat.render(template).unwrap(), "[user]x");
}
