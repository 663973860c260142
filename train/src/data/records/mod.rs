//! Records: documents, prompts with completions, and conversations, in the shapes that public data sets have.
//!
//! | shape | keys | what is learnt |
//! | --- | --- | --- |
//! | conversation | `messages`, `conversations` or `conversation`: turns of `role` and `content`, or `from` and `value` | every assistant's turn |
//! | preference | `chosen`, perhaps `prompt`; `rejected` is left aside | the turns or the text that `rejected` does not share |
//! | prompt and completion | `prompt`, `completion`: texts, or lists of turns | the completion |
//! | Alpaca | `instruction`, `output`, perhaps `input`, `system`, `history` | the output, and the answers in `history` |
//! | question and answer | `question`, `query` or `prompt` with `answer`, `answers`, `response` or `output`, perhaps `system_prompt`, `context` | the answer |
//! | document | `text` or `content` | every token, and the end of text |
//!
//! Beside a conversation may stand `tools` (or `functions`), `system`, `chat_template_kwargs` and `label`. Lists may be JSON in a text. A file is JSON
//! Lines or one JSON array, as it is or packed with gzip or Zstandard, or Parquet; its first bytes tell.

mod encode;
mod lines;
mod messages;
mod parquet;
mod shapes;
mod thinking;

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dram_core::{Message, Tools};
use serde_json::{Map, Value};

pub use encode::{Encoded, Render, encode_record, encode_records};

/// What one record of a data set says.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A text of which every token is learnt.
    Document(String),
    /// A text that goes on from another one.
    Completion { prompt: String, completion: String },
    /// For a chat template.
    Chat(Conversation),
}

/// A conversation to learn from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Conversation {
    pub messages: Vec<Message>,
    /// `[messages]`: whether a message is an answer to learn.
    pub answers: Vec<bool>,
    /// What the assistant may call.
    pub tools: Option<Tools>,
    /// Variables for the template, such as `enable_thinking`.
    pub arguments: Map<String, Value>,
}

/// The records of a file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Records {
    pub path: PathBuf,
    pub records: Vec<Record>,
    /// `[records]`: line of the file, or number of the record, from 1.
    places: Vec<usize>,
    /// What `places` counts.
    unit: &'static str,
    /// Records whose `rejected` answer is left aside.
    pub rejected: usize,
    /// Records left out, for their `label` is false.
    pub unwanted: usize,
}

/// A record as it is read from its file.
struct Read {
    record: Record,
    rejected: bool,
    /// Whether it is an example of what not to say.
    unwanted: bool,
}

/// Reads every record of a file; each record's keys say which shape it has.
///
/// # Errors
/// Names the file, the line or the number of the record, the key, and what was expected there.
pub fn read_records(path: &Path) -> Result<Records> {
    let unreadable = || format!("{}: cannot read the records", path.display());
    let mut file = File::open(path).with_context(unreadable)?;
    let mut magic = Vec::new();
    file.by_ref()
        .take(4)
        .read_to_end(&mut magic)
        .with_context(unreadable)?;
    file.rewind().with_context(unreadable)?;
    let mut out = Records {
        path: path.to_owned(),
        ..Records::default()
    };
    let each = &mut |unit: &'static str, place: usize, value: &Value| -> Result<()> {
        let read = shapes::record(value)
            .with_context(|| format!("{}:{}", path.display(), located(unit, place)))?;
        out.unit = unit;
        out.rejected += usize::from(read.rejected);
        if read.unwanted {
            out.unwanted += 1;
        } else {
            out.records.push(read.record);
            out.places.push(place);
        }
        Ok(())
    };
    if magic == parquet::MAGIC {
        parquet::each(path, file, each)?;
    } else {
        lines::each(path, file, &magic, each)?;
    }
    ensure!(
        !out.records.is_empty(),
        "{}: the file has no record to train on",
        path.display()
    );
    Ok(out)
}

/// Called with what is counted, how many there are so far, and the record.
type Each<'a> = dyn FnMut(&'static str, usize, &Value) -> Result<()> + 'a;

const LINE: &str = "line";

fn located(unit: &str, place: usize) -> String {
    if unit == LINE {
        place.to_string()
    } else {
        format!(" {unit} {place}")
    }
}

impl Records {
    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// `FILE:LINE`, or the number of the record in the file.
    pub fn place(&self, index: usize) -> String {
        let place = self.places.get(index).copied().unwrap_or(index + 1);
        format!("{}:{}", self.path.display(), located(self.unit, place))
    }

    /// The records from `at` on, as a set of their own.
    pub fn split_off(&mut self, at: usize) -> Records {
        Records {
            path: self.path.clone(),
            records: self.records.split_off(at),
            places: self.places.split_off(at),
            unit: self.unit,
            ..Records::default()
        }
    }

    /// The first `count` records alone.
    pub fn truncate(&mut self, count: usize) {
        self.records.truncate(count);
        self.places.truncate(count);
    }

    /// What was left aside, for people to read; nothing where everything is learnt.
    pub fn notes(&self) -> Vec<String> {
        let file = self.path.display();
        let mut notes = Vec::new();
        if self.rejected > 0 {
            notes.push(format!(
                "{file}: of {} records with a chosen and a rejected answer, the chosen one alone is learnt",
                self.rejected
            ));
        }
        if self.unwanted > 0 {
            notes.push(format!(
                "{file}: {} records with label = false are left out",
                self.unwanted
            ));
        }
        notes
    }
}

/// Every text of a record, for a tokenizer to be trained on.
impl Record {
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Record::Document(text) => vec![text],
            Record::Completion { prompt, completion } => vec![prompt, completion],
            Record::Chat(chat) => {
                let said = chat.messages.iter().flat_map(|m| {
                    let calls = m.tool_calls.iter().flat_map(|c| [&c.name, &c.arguments]);
                    std::iter::once(&m.content).chain(&m.reasoning).chain(calls)
                });
                said.map(String::as_str).collect()
            }
        }
    }
}

/// What a JSON value is called in errors.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
