//! Records of prompts and answers: JSON Lines or one JSON array, in the shapes that data sets come in.
//!
//! | shape | keys |
//! | --- | --- |
//! | prompt and completion | `prompt`, `completion` |
//! | chat | `messages`: a list of `{role, content}` |
//! | ShareGPT | `conversations`: a list of `{from, value}` |
//! | Alpaca | `instruction`, `output`, perhaps `input` |

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Example, TextTokenizer};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    pub content: String,
}

/// What one line of a data set says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    Completion { prompt: String, completion: String },
    Chat(Vec<Turn>),
}

/// Reads every record of a file; each record's keys say which shape it has.
///
/// # Errors
/// Names the file and line (or the place in the array) and what is wrong there.
pub fn read_records(path: &Path) -> Result<Vec<Record>> {
    let text = super::text::read_text(&[path])?;
    let mut out = Vec::new();
    if text.trim_start().starts_with('[') {
        let array: Vec<Value> = serde_json::from_str(&text)
            .with_context(|| format!("{}: not a JSON array", path.display()))?;
        for (i, value) in array.iter().enumerate() {
            out.push(
                record(value)
                    .with_context(|| format!("{}: record {i} of the array", path.display()))?,
            );
        }
    } else {
        for (number, line) in text
            .lines()
            .enumerate()
            .filter(|(_, l)| !l.trim().is_empty())
        {
            let place = || format!("{}:{}", path.display(), number + 1);
            let value: Value = serde_json::from_str(line).with_context(place)?;
            out.push(record(&value).with_context(place)?);
        }
    }
    ensure!(
        !out.is_empty(),
        "{}: the file holds no record",
        path.display()
    );
    Ok(out)
}

fn record(value: &Value) -> Result<Record> {
    let Some(object) = value.as_object() else {
        bail!("expected an object, got {}", kind(value))
    };
    let text = |key: &str| match object.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => bail!("\"{key}\": expected a string, got {}", kind(other)),
        None => bail!("\"{key}\" is missing"),
    };
    let turns = |key: &str, role: &str, content: &str| -> Result<Record> {
        let Some(list) = object[key].as_array() else {
            bail!("\"{key}\": expected a list, got {}", kind(&object[key]))
        };
        let mut turns = Vec::with_capacity(list.len());
        for (i, turn) in list.iter().enumerate() {
            let (Some(role), Some(content)) = (turn[role].as_str(), turn[content].as_str()) else {
                bail!(
                    "\"{key}\", turn {i}: expected strings \"{role}\" and \"{content}\", got {turn}"
                );
            };
            let role = match role {
                "human" => "user",
                "gpt" | "model" | "bot" => "assistant",
                "system" | "user" | "assistant" | "tool" => role,
                other => bail!(
                    "\"{key}\", turn {i}: unknown role {other:?}; known are system, user (human), assistant (gpt), tool"
                ),
            };
            turns.push(Turn {
                role: role.into(),
                content: content.into(),
            });
        }
        ensure!(
            turns.iter().any(|t| t.role == "assistant"),
            "\"{key}\" has no assistant turn, so nothing to learn"
        );
        Ok(Record::Chat(turns))
    };
    if object.contains_key("messages") {
        turns("messages", "role", "content")
    } else if object.contains_key("conversations") {
        turns("conversations", "from", "value")
    } else if object.contains_key("instruction") {
        let mut user = text("instruction")?;
        if object.get("input").is_some_and(|v| !v.is_null() && v != "") {
            user = format!("{user}\n\n{}", text("input")?);
        }
        let turn = |role: &str, content| Turn {
            role: role.into(),
            content,
        };
        Ok(Record::Chat(vec![
            turn("user", user),
            turn("assistant", text("output")?),
        ]))
    } else if object.contains_key("prompt") {
        Ok(Record::Completion {
            prompt: text("prompt")?,
            completion: text("completion")?,
        })
    } else {
        let keys: Vec<&str> = object.keys().map(String::as_str).collect();
        bail!(
            "unknown kind of record with the keys {}; known are prompt + completion, messages, conversations, instruction + output",
            keys.join(", ")
        )
    }
}

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

/// A chat template: renders turns as text, with the opening of an assistant turn at the end where the flag says so.
pub type Render<'a> = dyn Fn(&[Turn], bool) -> Result<String> + 'a;

/// Encodes a record. Completions, and in chats the assistant turns with what closes them, are targets; a completion ends with
/// the tokenizer's end of text.
///
/// # Errors
/// When the template fails, or does not render a conversation as a continuation of its beginning, which masks need.
pub fn encode_record(
    record: &Record,
    tokenizer: &TextTokenizer,
    render: &Render<'_>,
) -> Result<Example> {
    let mut example = Example::default();
    match record {
        Record::Completion { prompt, completion } => {
            example.push(&tokenizer.encode(prompt, true)?, false);
            example.push(&tokenizer.encode(completion, false)?, true);
            if let Some(end) = tokenizer.vocabulary().eos {
                example.push(&[end], true);
            }
        }
        Record::Chat(turns) => {
            let mut done = String::new();
            for i in (0..turns.len()).filter(|&i| turns[i].role == "assistant") {
                let prompt = render(&turns[..i], true)?;
                let whole = render(&turns[..=i], false)?;
                let (Some(before), Some(answer)) = (
                    prompt.strip_prefix(done.as_str()),
                    whole.strip_prefix(prompt.as_str()),
                ) else {
                    bail!(
                        "the chat template changes earlier turns when a later one is added; turn {i} cannot be masked"
                    );
                };
                example.push(&tokenizer.encode(before, true)?, false);
                example.push(&tokenizer.encode(answer, true)?, true);
                done = whole;
            }
        }
    }
    Ok(example)
}

/// Encodes every record, cut to `length` inputs. Gives the examples and how many had no target left within that length.
///
/// # Errors
/// As [`encode_record`], with the number of the record; and when no example is left.
pub fn encode_records(
    records: &[Record],
    tokenizer: &TextTokenizer,
    render: &Render<'_>,
    length: usize,
) -> Result<(Vec<Example>, usize)> {
    let mut out = Vec::with_capacity(records.len());
    for (i, record) in records.iter().enumerate() {
        let mut example = encode_record(record, tokenizer, render)
            .with_context(|| format!("record {}", i + 1))?;
        example.truncate(length + 1);
        if example.targets() > 0 {
            out.push(example);
        }
    }
    ensure!(
        !out.is_empty(),
        "none of the {} records has an answer within {length} tokens",
        records.len()
    );
    let left_out = records.len() - out.len();
    Ok((out, left_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Record>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.jsonl");
        std::fs::write(&path, text).unwrap();
        read_records(&path)
    }

    fn chat(turns: &[(&str, &str)]) -> Record {
        Record::Chat(
            turns
                .iter()
                .map(|(r, c)| Turn {
                    role: (*r).into(),
                    content: (*c).into(),
                })
                .collect(),
        )
    }

    #[test]
    fn the_four_shapes() {
        let lines = r#"
            {"prompt": "a", "completion": "b"}
            {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "x"}]}
            {"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "x"}]}
            {"instruction": "i", "input": "more", "output": "x"}
        "#;
        let records = read(lines).unwrap();
        assert_eq!(
            records[0],
            Record::Completion {
                prompt: "a".into(),
                completion: "b".into()
            }
        );
        assert_eq!(
            records[1],
            chat(&[("system", "s"), ("user", "u"), ("assistant", "x")])
        );
        assert_eq!(records[2], chat(&[("user", "u"), ("assistant", "x")]));
        assert_eq!(
            records[3],
            chat(&[("user", "i\n\nmore"), ("assistant", "x")])
        );
        assert_eq!(
            read(r#" [{"instruction":"i","output":"x"}]"#).unwrap()[0],
            chat(&[("user", "i"), ("assistant", "x")])
        );
    }

    #[test]
    fn errors_say_where_and_what() {
        for (text, needle) in [
            ("{\"prompt\":\"a\",\"completion\":\"b\"}\n{", "data.jsonl:2"),
            ("{\"prompt\":\"a\"}", "\"completion\" is missing"),
            ("{\"text\":\"a\"}", "the keys text"),
            ("{\"messages\":[{\"role\":\"user\"}]}", "turn 0"),
            (
                "{\"messages\":[{\"role\":\"wizard\",\"content\":\"\"}]}",
                "wizard",
            ),
            (
                "{\"messages\":[{\"role\":\"user\",\"content\":\"\"}]}",
                "no assistant turn",
            ),
            ("[1]", "record 0"),
            ("\n", "no record"),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(needle), "{text}: {error}");
        }
    }

    #[test]
    fn only_answers_count() {
        let tokenizer =
            TextTokenizer::train(["x"].iter(), 258, &["<end>", "<user>"], None).unwrap();
        let render = |turns: &[Turn], open: bool| {
            let mut out = String::new();
            for t in turns {
                out += &if t.role == "user" {
                    format!("<user>{}:", t.content)
                } else {
                    format!("{}<end>", t.content)
                };
            }
            let _ = open; // a user turn already opens the answer
            Ok(out)
        };
        let record = chat(&[
            ("user", "a"),
            ("assistant", "bc"),
            ("user", "d"),
            ("assistant", "e"),
        ]);
        let example = encode_record(&record, &tokenizer, &render).unwrap();
        let counted: Vec<u32> = example
            .ids
            .iter()
            .zip(&example.counts)
            .filter(|(_, c)| **c)
            .map(|(i, _)| *i)
            .collect();
        assert_eq!(tokenizer.decode(&counted).unwrap(), "bc<end>e<end>");
        let record = Record::Completion {
            prompt: "a".into(),
            completion: "b".into(),
        };
        let (examples, left_out) =
            encode_records(&[record.clone(), record], &tokenizer, &render, 9).unwrap();
        assert_eq!(
            (examples[0].ids.len(), examples[0].targets(), left_out),
            (3, 2, 0)
        );
    }
}
