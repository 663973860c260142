//! Turns of a conversation, in the spellings that data sets have for them.

use std::borrow::Cow;
use std::collections::VecDeque;

use anyhow::{Context, Result, bail, ensure};
use dram_core::{Message, ToolCall};
use serde_json::Value;

use super::kind;

/// What data sets call who speaks, in small letters, and what chat templates call them.
const ROLES: &[(&str, &[&str])] = &[
    ("system", &["system"]),
    ("developer", &["developer"]),
    ("user", &["user", "human", "prompter"]),
    (
        "assistant",
        &["assistant", "gpt", "model", "bot", "ai", "chatgpt"],
    ),
    (CALL, &["function_call", "function-call", "tool_call"]),
    (
        "tool",
        &[
            "tool",
            "observation",
            "function",
            "function_response",
            "tool_response",
            "tool_result",
            "ipython",
        ],
    ),
];
/// An assistant's turn whose text is a call.
const CALL: &str = "call";

const ROLE: [&str; 2] = ["role", "from"];
const CONTENT: [&str; 3] = ["content", "value", "text"];
const REASONING: [&str; 4] = ["reasoning_content", "thinking", "reasoning", "thought"];

/// Turns, and which of them are answers to learn.
#[derive(Default)]
pub(super) struct Turns {
    pub(super) messages: Vec<Message>,
    /// `[messages]`
    pub(super) answers: Vec<bool>,
}

impl Turns {
    pub(super) fn one(role: &str, text: &str) -> Self {
        let mut turns = Turns::default();
        turns.push(Message::new(role, text));
        turns
    }

    fn push(&mut self, message: Message) {
        self.answers.push(message.role == "assistant");
        self.messages.push(message);
    }

    pub(super) fn insert(&mut self, at: usize, message: Message, answer: bool) {
        self.messages.insert(at, message);
        self.answers.insert(at, answer);
    }

    pub(super) fn extend(&mut self, more: Turns) {
        self.messages.extend(more.messages);
        self.answers.extend(more.answers);
    }
}

/// A value that may stand as JSON in a text.
pub(super) fn unpacked<'a>(key: &str, value: &'a Value) -> Result<Cow<'a, Value>> {
    match value {
        Value::String(text) => match serde_json::from_str(text) {
            Ok(value) => Ok(Cow::Owned(value)),
            Err(error) => bail!("\"{key}\": expected JSON in the string, got {error}"),
        },
        other => Ok(Cow::Borrowed(other)),
    }
}

/// A list of turns, or one turn.
pub(super) fn turns(key: &str, value: &Value) -> Result<Turns> {
    let value = match value {
        Value::String(text) if !text.trim_start().starts_with('[') => {
            bail!("\"{key}\": expected a list, got a string")
        }
        other => unpacked(key, other)?,
    };
    let list = match &*value {
        Value::Array(list) => Cow::Borrowed(list),
        Value::Object(columns) => Cow::Owned(match transposed(columns) {
            Some(list) => list,
            None => vec![Value::clone(&value)],
        }),
        other => bail!("\"{key}\": expected a list of turns, got {}", kind(other)),
    };
    let mut reader = Reader::default();
    for (i, turn) in list.iter().enumerate() {
        reader
            .turn(turn)
            .with_context(|| format!("\"{key}\", turn {i}"))?;
    }
    Ok(reader.turns)
}

/// Turns that stand as an object of lists, as some libraries store a list of objects.
fn transposed(columns: &serde_json::Map<String, Value>) -> Option<Vec<Value>> {
    let length = columns.values().next()?.as_array()?.len();
    let mut turns = vec![Value::Object(serde_json::Map::new()); length];
    for (key, column) in columns {
        let column = column.as_array().filter(|list| list.len() == length)?;
        for (turn, value) in turns.iter_mut().zip(column) {
            turn[key] = value.clone();
        }
    }
    Some(turns)
}

/// Whether a value is calls: a list or an object, perhaps as JSON in a text, with a name in each.
pub(super) fn is_calls(value: &Value) -> bool {
    let Ok(value) = unpacked("", value) else {
        return false;
    };
    let call = |call: &Value| call["name"].is_string() || call["function"]["name"].is_string();
    match &*value {
        Value::Array(calls) => !calls.is_empty() && calls.iter().all(call),
        other => call(other),
    }
}

#[derive(Default)]
struct Reader {
    turns: Turns,
    /// Calls so far.
    calls: usize,
    /// Calls that have no result yet: (id, name).
    open: VecDeque<(String, String)>,
}

/// What the parts of a content are.
#[derive(Default)]
struct Content {
    text: String,
    reasoning: String,
    calls: Vec<ToolCall>,
    /// (id of the call, what it returned)
    results: Vec<(Option<String>, String)>,
}

impl Reader {
    fn turn(&mut self, turn: &Value) -> Result<()> {
        ensure!(
            turn.is_object(),
            "expected an object with \"role\" and \"content\", got {turn}"
        );
        let find = |keys: &[&str]| {
            let mut values = keys.iter().map(|key| &turn[*key]);
            values
                .find(|value| !value.is_null())
                .unwrap_or(&Value::Null)
        };
        let text = |keys: &[&str]| find(keys).as_str().filter(|text| !text.is_empty());
        let role = match find(&ROLE) {
            Value::String(role) => role,
            other => bail!(
                "\"role\" (or \"from\"): expected a string, got {}",
                kind(other)
            ),
        };
        let role = role_of(role)?;
        let mut said = self.content(role, find(&CONTENT))?;
        if let Some(reasoning) = text(&REASONING) {
            said.reasoning = reasoning.to_owned();
        }
        let calls = find(&["tool_calls"]);
        if !calls.is_null() && !calls.as_str().is_some_and(|text| text.trim().is_empty()) {
            let calls = unpacked("tool_calls", calls)?;
            said.calls.extend(self.calls(&calls)?);
        }
        if is_calls(&turn["function_call"]) {
            let call = unpacked("function_call", &turn["function_call"])?;
            said.calls.extend(self.calls(&call)?);
        }
        if role == CALL && is_calls(&Value::from(said.text.as_str())) {
            let value = Value::from(std::mem::take(&mut said.text));
            let calls = unpacked("value", &value)?;
            said.calls.extend(self.calls(&calls)?);
        }
        for (id, result) in std::mem::take(&mut said.results) {
            self.result(id.as_deref(), None, result);
        }
        match role {
            "tool" => self.result(text(&["tool_call_id"]), text(&["name"]), said.text),
            "assistant" | CALL => self.assistant(role, said, turn)?,
            role => {
                ensure!(
                    said.calls.is_empty(),
                    "calls are an assistant's, got them of {role:?}"
                );
                // A turn of results alone says nothing more.
                if !find(&CONTENT).is_array() || !said.text.is_empty() {
                    self.turns.push(Message::new(role, said.text));
                }
            }
        }
        Ok(())
    }

    fn assistant(&mut self, role: &str, said: Content, turn: &Value) -> Result<()> {
        ensure!(
            !said.calls.is_empty()
                || !said.reasoning.is_empty()
                || CONTENT.iter().any(|key| !turn[*key].is_null()),
            "\"content\": expected a string, or calls, got {turn}"
        );
        self.open.extend(
            said.calls
                .iter()
                .map(|call| (call.id.clone(), call.name.clone())),
        );
        let weight = &turn["weight"];
        let learn = weight.as_f64() != Some(0.0) && turn["train"] != false;
        // A call in a turn of its own belongs to what the assistant has just said.
        if let Some(last) = self.turns.messages.last_mut()
            && role == CALL
            && last.role == "assistant"
            && said.text.is_empty()
        {
            last.tool_calls.extend(said.calls);
            return Ok(());
        }
        self.turns.push(Message {
            tool_calls: said.calls,
            reasoning: Some(said.reasoning).filter(|text| !text.is_empty()),
            ..Message::new("assistant", said.text)
        });
        if let Some(answer) = self.turns.answers.last_mut() {
            *answer = learn;
        }
        Ok(())
    }

    /// A result names the call that it answers, or answers the oldest that has none.
    fn result(&mut self, id: Option<&str>, name: Option<&str>, content: String) {
        let at = match id {
            Some(id) => self.open.iter().position(|(open, _)| open == id),
            None => (!self.open.is_empty()).then_some(0),
        };
        let call = at.and_then(|at| self.open.remove(at));
        let (call_id, call_name) = call.unzip();
        self.turns.push(Message {
            tool_call_id: id.map(str::to_owned).or(call_id),
            name: name.map(str::to_owned).or(call_name),
            ..Message::new("tool", content)
        });
    }

    fn content(&mut self, role: &str, value: &Value) -> Result<Content> {
        let mut said = Content::default();
        match value {
            Value::String(text) => said.text = text.clone(),
            Value::Null if role == "assistant" => {}
            Value::Array(parts)
                if role != "tool" || parts.iter().all(|part| part["type"].is_string()) =>
            {
                for (i, part) in parts.iter().enumerate() {
                    self.part(&mut said, part)
                        .with_context(|| format!("\"content\", part {i}"))?;
                }
            }
            // What a function returned, or a call's own text.
            other if !other.is_null() && (role == "tool" || role == CALL) => {
                said.text = other.to_string()
            }
            other => bail!(
                "\"content\" (or \"value\"): expected a string or a list of parts, got {}",
                kind(other)
            ),
        }
        Ok(said)
    }

    fn part(&mut self, said: &mut Content, part: &Value) -> Result<()> {
        if let Some(text) = part.as_str() {
            said.text.push_str(text);
            return Ok(());
        }
        let text = |keys: &[&str]| {
            let found = keys.iter().find_map(|key| part[*key].as_str());
            found.with_context(|| format!("expected a string \"{}\", got {part}", keys[0]))
        };
        match part["type"].as_str().unwrap_or("text") {
            "text" | "input_text" | "output_text" => {
                said.text.push_str(text(&["text", "content", "value"])?)
            }
            "refusal" => said.text.push_str(text(&["refusal"])?),
            "thinking" | "reasoning" | "thought" => {
                said.reasoning
                    .push_str(text(&["thinking", "reasoning", "thought", "text"])?);
            }
            "tool_use" => said.calls.extend(self.calls(part)?),
            "tool_result" => {
                let content = self.content("tool", &part["content"])?;
                let id = part["tool_use_id"].as_str().map(str::to_owned);
                said.results.push((id, content.text));
            }
            other => {
                bail!("a part of type {other:?}; expected \"text\": models here read text alone")
            }
        }
        Ok(())
    }

    /// A list of calls, or one: `{"function": {"name": …, "arguments": …}}`, or name and arguments alone.
    fn calls(&mut self, value: &Value) -> Result<Vec<ToolCall>> {
        let list = match value {
            Value::Array(list) => list.as_slice(),
            one @ Value::Object(_) => std::slice::from_ref(one),
            other => bail!("\"tool_calls\": expected a list, got {}", kind(other)),
        };
        list.iter().map(|call| self.call(call)).collect()
    }

    fn call(&mut self, call: &Value) -> Result<ToolCall> {
        let function = match &call["function"] {
            function @ Value::Object(_) => function,
            _ => call,
        };
        let name = function["name"].as_str();
        let name =
            name.with_context(|| format!("a call: expected a string \"name\", got {call}"))?;
        let arguments = ["arguments", "parameters", "input"]
            .iter()
            .map(|key| &function[*key])
            .find(|value| !value.is_null());
        self.calls += 1;
        Ok(ToolCall {
            // Nine letters and digits are what the strictest templates take.
            id: match call["id"].as_str().filter(|id| !id.is_empty()) {
                Some(id) => id.to_owned(),
                None => format!("call{:05}", self.calls),
            },
            name: name.to_owned(),
            arguments: match arguments {
                None => "{}".to_owned(),
                Some(Value::String(text)) if text.trim().is_empty() => "{}".to_owned(),
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            },
        })
    }
}

fn role_of(name: &str) -> Result<&'static str> {
    let small = name.trim().to_ascii_lowercase();
    let found = ROLES
        .iter()
        .find(|(_, names)| names.contains(&small.as_str()));
    let Some((role, _)) = found else {
        let known: Vec<&str> = ROLES
            .iter()
            .flat_map(|(_, names)| names.iter().copied())
            .collect();
        bail!("unknown role {name:?}; known are {}", known.join(", "))
    };
    Ok(role)
}
