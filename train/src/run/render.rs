//! Conversations as the tokenizer's chat template writes them.

use anyhow::{Context, Result};
use dram_core::Message;
use dram_core::chat::Chat;
use serde_json::Value;

use crate::data::{Conversation, TextTokenizer};

/// The first `messages` of a conversation; with `open` the opening of an assistant's turn behind them.
///
/// # Errors
/// When there is no template, or it refuses the conversation.
pub(super) fn render(
    tokenizer: &TextTokenizer,
    chat: &Conversation,
    messages: usize,
    open: bool,
) -> Result<String> {
    let vocabulary = tokenizer.vocabulary();
    let template = vocabulary.chat_template.as_deref().context(
        "the data holds chats, and the tokenizer has no chat template; give prompt and completion instead",
    )?;
    let variables: Vec<(String, String)> = chat
        .arguments
        .iter()
        .map(|(name, value)| (name.clone(), value.to_string()))
        .collect();
    let token = |id: Option<u32>| {
        id.and_then(|id| vocabulary.tokens.get(id as usize))
            .map_or("", String::as_str)
    };
    // A template that does not know developers would leave out what they say, or write a role that its model never saw.
    let knows_developers = template.contains("'developer'") || template.contains("\"developer\"");
    let mut messages = chat.messages[..messages].to_vec();
    for message in messages.iter_mut().filter(|m| m.role == "developer") {
        if !knows_developers {
            message.role = "system".into();
        }
    }
    if !template.contains("tool_calls") {
        messages.iter_mut().for_each(spell_calls);
    }
    let write = |messages: &[Message]| {
        let chat = Chat {
            messages,
            tools: chat.tools.as_ref(),
            variables: &variables,
            bos: token(vocabulary.bos),
            eos: token(vocabulary.eos),
            add_generation_prompt: open,
        };
        chat.render(template)
    };
    Ok(
        write(&messages).or_else(|error| match shorten_ids(&mut messages) {
            true => write(&messages),
            false => Err(error),
        })?,
    )
}

/// Calls as the runtime tells a model to write them whose template knows none: JSON, one a line.
fn spell_calls(message: &mut Message) {
    for call in std::mem::take(&mut message.tool_calls) {
        if !message.content.is_empty() {
            message.content.push('\n');
        }
        let name = Value::from(call.name);
        message.content += &format!(r#"{{"name": {name}, "arguments": {}}}"#, call.arguments);
    }
}

/// Some templates take no other ids of calls than those of nine letters and digits: gives every call such a one. Whether anything changed.
fn shorten_ids(messages: &mut [Message]) -> bool {
    let short = |id: &str| id.len() == 9 && id.bytes().all(|c| c.is_ascii_alphanumeric());
    let calls = messages.iter().flat_map(|m| &m.tool_calls);
    let old: Vec<String> = calls.map(|call| call.id.clone()).collect();
    let changes = old.iter().any(|id| !short(id));
    let new = |id: &str| {
        let at = old.iter().position(|old| old == id);
        at.map(|at| format!("call{:05}", at + 1))
    };
    for message in messages {
        let calls = message.tool_calls.iter_mut().map(|call| &mut call.id);
        for id in calls.chain(&mut message.tool_call_id) {
            if let Some(new) = new(id.as_str()) {
                *id = new;
            }
        }
    }
    changes
}
