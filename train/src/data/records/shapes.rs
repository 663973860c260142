//! The shapes of records, and what each of them says.

use anyhow::{Context, Result, bail, ensure};
use dram_core::{Message, ToolChoice, Tools};
use serde_json::{Map, Value, json};

use super::messages::{self, Turns};
use super::{Conversation, Read, Record, kind};

/// Keys that mean the same; the first that a record has counts.
type Keys = &'static [&'static str];

const TURNS: Keys = &["messages", "conversations", "conversation"];
const PROMPT: Keys = &["prompt"];
const COMPLETION: Keys = &["completion"];
const CHOSEN: Keys = &["chosen"];
const REJECTED: Keys = &["rejected"];
const QUESTION: Keys = &["instruction", "question", "query", "prompt", "input"];
const ANSWER: Keys = &["output", "response", "answer", "answers"];
const INPUT: Keys = &["input", "context"];
const SYSTEM: Keys = &["system", "system_prompt"];
const HISTORY: Keys = &["history"];
const DOCUMENT: Keys = &["text", "content"];
const TOOLS: Keys = &["tools", "functions"];
const ARGUMENTS: Keys = &["chat_template_kwargs"];
const LABEL: Keys = &["label", "kto_tag"];

/// Everything that is read of a record.
const KNOWN: &[Keys] = &[
    TURNS, PROMPT, COMPLETION, CHOSEN, REJECTED, QUESTION, ANSWER, INPUT, SYSTEM, HISTORY,
    DOCUMENT, TOOLS, ARGUMENTS, LABEL,
];

struct Shape {
    what: &'static str,
    /// A record that has one of these is of this shape …
    by: Keys,
    /// … if it has one of these too; empty: nothing more is needed.
    and: Keys,
    read: fn(&Fields<'_>) -> Result<Record>,
}

/// The first that fits. Data sets often have more than one, and a conversation says most.
#[rustfmt::skip]
const SHAPES: &[Shape] = &[
    Shape { what: "messages (or conversations)", by: TURNS, and: &[], read: conversation },
    Shape { what: "chosen", by: CHOSEN, and: &[], read: preference },
    Shape { what: "prompt + completion", by: PROMPT, and: COMPLETION, read: completion },
    Shape { what: "instruction + output", by: &["instruction"], and: &[], read: answer },
    Shape { what: "question (or query, prompt, input) + answer (or answers, response, output)", by: QUESTION, and: ANSWER, read: answer },
    Shape { what: "text", by: DOCUMENT, and: &[], read: document },
];

pub(super) fn is_known(key: &str) -> bool {
    KNOWN.iter().any(|keys| keys.contains(&key))
}

pub(super) fn unknown(keys: &[&str]) -> String {
    let known: Vec<&str> = SHAPES.iter().map(|shape| shape.what).collect();
    format!(
        "unknown kind of record with the keys {}; known are {}",
        keys.join(", "),
        known.join("; ")
    )
}

pub(super) fn record(value: &Value) -> Result<Read> {
    let Some(object) = value.as_object() else {
        bail!("expected an object, got {}", kind(value))
    };
    let fields = Fields(object);
    let fits = |shape: &&Shape| {
        fields.find(shape.by).is_some()
            && (shape.and.is_empty() || fields.find(shape.and).is_some())
    };
    let Some(shape) = SHAPES.iter().find(fits) else {
        if fields.find(PROMPT).is_some() {
            bail!(
                "\"prompt\" stands alone: \"completion\" (or response, answer, output) is missing"
            );
        }
        let keys: Vec<&str> = object.keys().map(String::as_str).collect();
        bail!(unknown(&keys))
    };
    Ok(Read {
        record: (shape.read)(&fields)?,
        rejected: fields.find(CHOSEN).is_some() && fields.find(REJECTED).is_some(),
        unwanted: fields.find(LABEL).is_some_and(|(_, label)| *label == false),
    })
}

/// The keys of a record. What is null is not there.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn find(&self, keys: Keys) -> Option<(&'static str, &'a Value)> {
        keys.iter()
            .filter_map(|&key| Some((key, self.0.get(key)?)))
            .find(|(_, value)| !value.is_null())
    }

    fn text(&self, keys: Keys) -> Result<Option<&'a str>> {
        match self.find(keys) {
            None => Ok(None),
            Some((_, Value::String(text))) => Ok(Some(text)),
            Some((key, other)) => bail!("\"{key}\": expected a string, got {}", kind(other)),
        }
    }

    fn needed(&self, keys: Keys) -> Result<&'a str> {
        self.text(keys)?
            .with_context(|| format!("\"{}\" is missing", keys[0]))
    }

    /// The turns under one of `keys`, if they are turns and no text.
    fn turns(&self, keys: Keys) -> Result<Option<Turns>> {
        match self.find(keys) {
            None | Some((_, Value::String(_))) => Ok(None),
            Some((key, value)) => Ok(Some(messages::turns(key, value)?)),
        }
    }

    /// A conversation of `turns`, with what stands beside it.
    fn chat(&self, key: &str, mut turns: Turns) -> Result<Record> {
        if let Some(system) = self.text(SYSTEM)?.filter(|text| !text.is_empty())
            && turns.messages.first().is_none_or(|m| m.role != "system")
        {
            turns.insert(0, Message::new("system", system), false);
        }
        ensure!(
            turns.messages.iter().any(|m| m.role == "assistant"),
            "\"{key}\" has no assistant turn to train on"
        );
        let arguments = match self.find(ARGUMENTS) {
            None => Map::new(),
            Some((key, value)) => match &*messages::unpacked(key, value)? {
                Value::Object(arguments) => arguments.clone(),
                other => bail!("\"{key}\": expected an object, got {}", kind(other)),
            },
        };
        Ok(Record::Chat(Conversation {
            messages: turns.messages,
            answers: turns.answers,
            tools: self.tools()?,
            arguments,
        }))
    }

    fn tools(&self) -> Result<Option<Tools>> {
        let Some((key, value)) = self.find(TOOLS) else {
            return Ok(None);
        };
        if value.as_str().is_some_and(|text| text.trim().is_empty()) {
            return Ok(None);
        }
        let value = messages::unpacked(key, value)?;
        let items = match &*value {
            Value::Null => return Ok(None),
            Value::Array(items) if items.is_empty() => return Ok(None),
            Value::Array(items) => items.clone(),
            one @ Value::Object(_) => vec![one.clone()],
            other => bail!("\"{key}\": expected a list, got {}", kind(other)),
        };
        // Functions stand bare in some data sets.
        let wrapped = items.into_iter().map(|item| match item.get("function") {
            Some(Value::Object(_)) => item,
            _ => json!({ "type": "function", "function": item }),
        });
        let list = Value::Array(wrapped.collect()).to_string();
        let tools = Tools::from_json(&list, ToolChoice::Auto);
        Ok(Some(tools.with_context(|| format!("\"{key}\""))?))
    }
}

fn conversation(fields: &Fields<'_>) -> Result<Record> {
    let (key, value) = fields.find(TURNS).context("no turns")?;
    let mut turns = messages::turns(key, value)?;
    // Of a preference, where the conversation ends with what is answered.
    if turns.messages.last().is_none_or(|m| m.role != "assistant")
        && let Some(chosen) = chosen(fields)?
    {
        turns.answers.fill(false);
        turns.extend(chosen);
    }
    fields.chat(key, turns)
}

fn document(fields: &Fields<'_>) -> Result<Record> {
    Ok(Record::Document(fields.needed(DOCUMENT)?.to_owned()))
}

/// Two texts, or turns on at least one side.
fn completion(fields: &Fields<'_>) -> Result<Record> {
    let (prompt, answers) = (fields.turns(PROMPT)?, fields.turns(COMPLETION)?);
    if prompt.is_none() && answers.is_none() {
        return Ok(Record::Completion {
            prompt: fields.needed(PROMPT)?.to_owned(),
            completion: fields.needed(COMPLETION)?.to_owned(),
        });
    }
    let mut turns = match prompt {
        Some(turns) => turns,
        None => Turns::one("user", fields.needed(PROMPT)?),
    };
    turns.answers.fill(false);
    turns.extend(match answers {
        Some(turns) => turns,
        None => Turns::one("assistant", fields.needed(COMPLETION)?),
    });
    fields.chat("completion", turns)
}

/// The turns of `chosen`: a list, or one turn.
fn chosen(fields: &Fields<'_>) -> Result<Option<Turns>> {
    match fields.find(CHOSEN) {
        None => Ok(None),
        Some((_, Value::String(text))) => Ok(Some(Turns::one("assistant", text))),
        Some(_) => fields.turns(CHOSEN),
    }
}

/// What is chosen is learnt. Without a prompt of its own it begins with one, which `rejected` shares.
fn preference(fields: &Fields<'_>) -> Result<Record> {
    let rejected = fields.turns(REJECTED).ok().flatten();
    let Some(mut turns) = fields.turns(CHOSEN)? else {
        let chosen = fields.needed(CHOSEN)?;
        // In LLaMA-Factory's form, Alpaca's instruction takes the prompt's place.
        if fields.find(&["instruction", "question"]).is_some() {
            return answer(fields);
        }
        if let Some(mut turns) = fields.turns(PROMPT)? {
            turns.answers.fill(false);
            turns.extend(Turns::one("assistant", chosen));
            return fields.chat("chosen", turns);
        }
        let (prompt, completion) = match fields.text(PROMPT)? {
            Some(prompt) => (prompt, chosen),
            None => chosen.split_at(shared(chosen, fields.text(REJECTED)?.unwrap_or_default())),
        };
        return Ok(Record::Completion {
            prompt: prompt.to_owned(),
            completion: completion.to_owned(),
        });
    };
    if turns
        .messages
        .first()
        .is_some_and(|m| m.role == "assistant")
    {
        let prompt = match fields.turns(PROMPT)? {
            Some(turns) => Some(turns),
            None => fields.text(QUESTION)?.map(|text| Turns::one("user", text)),
        };
        let mut prompt = prompt.unwrap_or_default();
        prompt.answers.fill(false);
        prompt.extend(turns);
        return fields.chat("chosen", prompt);
    }
    // The whole conversation; what both share is the prompt.
    let shared = rejected.map_or(0, |rejected| {
        let pairs = turns.messages.iter().zip(&rejected.messages);
        pairs.take_while(|(a, b)| a == b).count()
    });
    if shared < turns.answers.len() {
        turns.answers[..shared].fill(false);
    }
    fields.chat("chosen", turns)
}

/// Where two texts part, moved back to before a space, which belongs to the word behind it.
fn shared(a: &str, b: &str) -> usize {
    let same = a.char_indices().zip(b.chars());
    let at = same
        .take_while(|((_, a), b)| a == b)
        .last()
        .map_or(0, |((at, c), _)| at + c.len_utf8());
    if at == a.len() {
        return 0;
    }
    let back = a[..at].ends_with(' ');
    at - usize::from(back)
}

/// Alpaca, and questions with answers.
fn answer(fields: &Fields<'_>) -> Result<Record> {
    let mut turns = Turns::default();
    if let Some((key, history)) = fields.find(HISTORY) {
        let pairs = history.as_array();
        for (i, pair) in pairs.into_iter().flatten().enumerate() {
            let (Some(question), Some(answer)) = (pair[0].as_str(), pair[1].as_str()) else {
                bail!(
                    "\"{key}\", round {i}: expected a list of a question and an answer, got {pair}"
                );
            };
            turns.extend(Turns::one("user", question));
            turns.extend(Turns::one("assistant", answer));
        }
        ensure!(
            pairs.is_some(),
            "\"{key}\": expected a list, got {}",
            kind(history)
        );
    }
    let question = fields.needed(QUESTION)?;
    let input = fields.text(INPUT)?.filter(|&text| text != question);
    let mut said = vec![question, input.unwrap_or_default()];
    said.retain(|text| !text.is_empty());
    let user = said.join("\n\n");
    turns.extend(Turns::one("user", &user));
    match fields.find(ANSWER) {
        // A list of calls, as in data for function calling.
        Some((_, value)) if fields.find(TOOLS).is_some() && messages::is_calls(value) => {
            let call = json!([{ "role": "assistant", "tool_calls": value }]);
            turns.extend(messages::turns("answers", &call)?);
        }
        Some((_, Value::Array(_))) if fields.turns(ANSWER).is_ok() => {
            turns.extend(fields.turns(ANSWER)?.unwrap_or_default());
        }
        Some(_) => turns.extend(Turns::one("assistant", fields.needed(ANSWER)?)),
        None => turns.extend(Turns::one(
            "assistant",
            match fields.text(CHOSEN)? {
                Some(chosen) => chosen,
                None => fields.needed(ANSWER)?,
            },
        )),
    }
    fields.chat("output", turns)
}
