//! Chat templates: the file's own Jinja template makes a prompt of a conversation.

mod clock;
mod jinja;
mod limits;
mod render;

use crate::tools::{ToolCall, Tools};
use serde_json::{Value as Json, json};

/// One turn of a conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant` or `tool`, or what else the template knows.
    pub role: String,
    /// What was said; of a tool, what it returned.
    pub content: String,
    /// Of an assistant: what it thought before it spoke. Templates decide in which turns it is shown.
    pub reasoning: Option<String>,
    /// Of an assistant: the calls that it asked for.
    pub tool_calls: Vec<ToolCall>,
    /// Of a tool: the [`ToolCall::id`] that it answers.
    pub tool_call_id: Option<String>,
    /// Of a tool: its name. Some templates ask for it.
    pub name: Option<String>,
}

impl Message {
    /// A turn that is text and nothing else.
    #[must_use]
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Message {
            role: role.to_owned(),
            content: content.into(),
            ..Message::default()
        }
    }

    /// An assistant's turn that asks for one call.
    #[must_use]
    pub fn calling(call: ToolCall) -> Self {
        Message {
            tool_calls: vec![call],
            ..Message::new("assistant", "")
        }
    }

    /// An assistant's turn that asks for several calls.
    #[must_use]
    pub fn calling_all(calls: Vec<ToolCall>) -> Self {
        Message {
            tool_calls: calls,
            ..Message::new("assistant", "")
        }
    }

    /// What `call` returned.
    #[must_use]
    pub fn result(call: &ToolCall, content: impl Into<String>) -> Self {
        Message {
            tool_call_id: Some(call.id.clone()),
            name: Some(call.name.clone()),
            ..Message::new("tool", content)
        }
    }

    /// The turn as `template` knows it. What it does not have is not there: templates ask with `is defined`.
    fn json(&self, template: &str) -> Json {
        let mut json = json!({ "role": self.role, "content": self.content });
        if let Some(reasoning) = &self.reasoning {
            // One name alone: a template that looks for two could print the text twice.
            let has = |key: String| template.contains(&key);
            let name = REASONING.into_iter().find(|name| {
                has(format!(".{name}")) || has(format!("'{name}'")) || has(format!("\"{name}\""))
            });
            json[name.unwrap_or(REASONING[0])] = Json::from(reasoning.as_str());
        }
        if !self.tool_calls.is_empty() {
            json["tool_calls"] = self.tool_calls.iter().map(ToolCall::json).collect();
        }
        for (key, value) in [("tool_call_id", &self.tool_call_id), ("name", &self.name)] {
            if let Some(value) = value {
                json[key] = Json::from(value.as_str());
            }
        }
        json
    }
}

/// What templates call [`Message::reasoning`]: a template is given the first that it mentions.
const REASONING: [&str; 4] = ["reasoning_content", "thinking", "reasoning", "thought"];

/// A conversation to be rendered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chat<'a> {
    /// The turns, oldest first.
    pub messages: &'a [Message],
    /// Functions that the model may ask to have called. To a template that knows nothing of tools they are told as a system message, or,
    /// where it takes none, before what the user says first.
    pub tools: Option<&'a Tools>,
    /// The text of the token that begins a sequence.
    pub bos: &'a str,
    /// The text of the token that ends one.
    pub eos: &'a str,
    /// Whether the prompt ends where the assistant speaks next.
    pub add_generation_prompt: bool,
}

#[cfg(test)]
mod tests;
