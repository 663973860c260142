//! A chat template with a conversation of every kind of turn: text, or an error, within the limits.
#![no_main]

use dram_core::chat::Chat;
use dram_core::{Message, ToolCall, ToolChoice, Tools};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

const TOOLS: &str = r#"[{"type": "function", "function": {"name": "weather", "description": "Says \"it\"",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]"#;

fn tools() -> &'static Tools {
    static TOOLS_: OnceLock<Tools> = OnceLock::new();
    TOOLS_.get_or_init(|| Tools::from_json(TOOLS, ToolChoice::Auto).expect("valid tools"))
}

fuzz_target!(|data: &[u8]| {
    let Ok(template) = std::str::from_utf8(data) else {
        return;
    };
    let call = ToolCall {
        id: "a1".into(),
        name: "weather".into(),
        arguments: r#"{"city": "Oslo"}"#.into(),
    };
    let messages = [
        Message::new("system", "Be brief."),
        Message::new("user", "Weather in <b>Oslo</b>?\n"),
        Message::calling(call.clone()),
        Message::result(&call, "-3 \u{b0}C"),
        Message::new("assistant", "<think>\ncold\n</think>\n\nCold."),
        Message::new("user", "Thanks"),
    ];
    for (messages, tools) in [(&messages[..], Some(tools())), (&messages[1..2], None)] {
        let chat = Chat {
            messages,
            tools,
            bos: "<s>",
            eos: "</s>",
            add_generation_prompt: true,
            ..Chat::default()
        };
        let _ = chat.render(template);
    }
});
