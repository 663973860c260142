//! Text is text: what is said in a chat is encoded without special tokens, whatever it spells. Only the template writes them.
//!
//! Before a conversation is rendered, a character that occurs nowhere in it is put before every place in its texts where a special token could
//! begin. It survives what templates do with texts, and tells afterwards which places are not the template's own.

use crate::chat::Message;
use crate::tokenizer::Tokenizer;
use crate::tools::{ToolCall, Tools};
use crate::{Error, Result};
use serde_json::Value as Json;
use std::collections::{HashMap, HashSet};

/// Unicode's noncharacters that are no plane's last, and then characters for private use: one of them is in no text.
const CANDIDATES: [std::ops::RangeInclusive<char>; 2] =
    ['\u{fdd0}'..='\u{fdef}', '\u{f0000}'..='\u{f003f}'];

/// Who says a text.
#[derive(Clone, Copy, PartialEq)]
enum Source {
    /// The app, or the model itself: tokens that users added, such as `<think>`, work in it. Control tokens do not.
    Inside,
    /// A user, a tool, a document: it holds no token that the template may write.
    Outside,
}

/// The marks of one conversation.
pub(super) struct Marks {
    mark: char,
    /// As JSON writes the mark in ASCII.
    escape: String,
    /// The tokens that a marked place does not begin, and their texts' lengths.
    reserved: HashMap<u32, usize>,
    /// First characters of these, in lower case.
    first: HashSet<char>,
    /// Texts of control tokens, in lower case and without white space, sorted.
    controls: Vec<Vec<u8>>,
    /// Texts of all that are reserved, in lower case and read backwards, sorted.
    backwards: Vec<Vec<u8>>,
    /// Bytes of the longest.
    longest: usize,
}

impl Marks {
    /// For a conversation whose texts are `texts`, and a template.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] where the texts hold every character that could be the mark.
    pub(super) fn new(tokenizer: &Tokenizer, template: &str, texts: &[&str]) -> Result<Marks> {
        let escape = |mark: char| format!("\\u{:04x}", u32::from(mark));
        let absent = |mark: &char| {
            let escape = escape(*mark);
            let mut all = texts.iter().chain([&template]);
            !all.any(|text| text.contains(*mark) || text.contains(&escape))
        };
        let Some(mark) = CANDIDATES.into_iter().flatten().find(absent) else {
            let what = "the conversation holds every character that could tell its texts from the template's, U+FDD0 for one";
            return Err(Error::ChatTemplate { what: what.into() });
        };
        let mut marks = Marks {
            mark,
            escape: escape(mark),
            reserved: HashMap::new(),
            first: HashSet::new(),
            controls: Vec::new(),
            backwards: Vec::new(),
            longest: 0,
        };
        for (id, added, bytes) in tokenizer.special_tokens() {
            let Ok(text) = std::str::from_utf8(bytes) else {
                continue;
            };
            if added && !is_written(text, template) {
                continue;
            }
            marks.reserved.insert(id, text.len());
            let lower = text.to_ascii_lowercase().into_bytes();
            marks.longest = marks.longest.max(lower.len());
            marks
                .first
                .extend(text.chars().flat_map(char::to_lowercase).next());
            marks.backwards.push(lower.iter().rev().copied().collect());
            if !added {
                let dense = lower.iter().filter(|byte| !byte.is_ascii_whitespace());
                marks.controls.push(dense.copied().collect());
            }
        }
        marks.controls.sort_unstable();
        marks.backwards.sort_unstable();
        Ok(marks)
    }

    /// The message with its texts marked.
    pub(super) fn message(&self, message: &Message) -> Message {
        let from = match message.role.as_str() {
            "assistant" | "model" | "system" | "developer" => Source::Inside,
            _ => Source::Outside,
        };
        let outside = |text: &String| self.text(text, Source::Outside);
        Message {
            role: self.text(&message.role, Source::Inside),
            content: self.text(&message.content, from),
            tool_calls: message
                .tool_calls
                .iter()
                .map(|call| self.call(call))
                .collect(),
            tool_call_id: message.tool_call_id.as_ref().map(outside),
            name: message.name.as_ref().map(outside),
            reasoning: message
                .reasoning
                .as_ref()
                .map(|text| self.text(text, Source::Inside)),
        }
    }

    fn call(&self, call: &ToolCall) -> ToolCall {
        ToolCall {
            id: self.text(&call.id, Source::Outside),
            name: self.text(&call.name, Source::Outside),
            arguments: self.json_text(&call.arguments),
        }
    }

    /// The tools with the texts of their descriptions and schemas marked.
    pub(super) fn tools(&self, tools: &Tools) -> Tools {
        tools.told_as(self.json(tools.json(), Source::Inside))
    }

    /// A template's variable: documents, for one.
    pub(super) fn variable(&self, name: &str, value: &str) -> (String, String) {
        // These are tokens by their meaning.
        let tokens = ["bos_token", "eos_token", "unk_token", "pad_token"];
        let value = match tokens.contains(&name) {
            true => value.to_owned(),
            false => self.json_text(value),
        };
        (name.to_owned(), value)
    }

    /// Text that is JSON, or else is taken as it is.
    fn json_text(&self, text: &str) -> String {
        match serde_json::from_str::<Json>(text) {
            Ok(json) => {
                let marked = self.json(&json, Source::Outside);
                match marked == json {
                    true => text.to_owned(),
                    false => marked.to_string(),
                }
            }
            Err(_) => self.text(text, Source::Outside),
        }
    }

    fn json(&self, json: &Json, from: Source) -> Json {
        match json {
            Json::String(text) => self.text(text, from).into(),
            Json::Array(items) => items.iter().map(|item| self.json(item, from)).collect(),
            Json::Object(map) => map
                .iter()
                .map(|(key, json)| (self.text(key, from), self.json(json, from)))
                .collect(),
            other => other.clone(),
        }
    }

    fn text(&self, text: &str, from: Source) -> String {
        let lower = text.to_ascii_lowercase();
        let mut out = String::with_capacity(text.len() + 8);
        let start = text.len() - text.trim_start().len();
        for (at, c) in text.char_indices() {
            let begins = c.to_lowercase().any(|c| self.first.contains(&c));
            let begins = begins && (from == Source::Outside || self.is_control(&lower[at..]));
            // With the end of what the template writes before the text.
            let ends = (at == 0 || at == start) && self.is_end(&lower.as_bytes()[at..]);
            if begins || ends {
                out.push(self.mark);
            }
            out.push(c);
        }
        out
    }

    /// Whether `text`, without its white space, which templates may take away, begins with a control token, or is the beginning of one, of which the
    /// template might write the rest.
    fn is_control(&self, text: &str) -> bool {
        let bytes = text.bytes().filter(|byte| !byte.is_ascii_whitespace());
        let bytes: Vec<u8> = bytes.take(self.longest).collect();
        // The first text that does not come before it: if any begins with it, that one does.
        let next = self.controls.partition_point(|control| *control < bytes);
        let next = self.controls.get(next);
        let whole = |n| {
            self.controls
                .binary_search_by(|c| c.as_slice().cmp(&bytes[..n]))
        };
        bytes.len() < self.longest && next.is_some_and(|c| c.starts_with(&bytes))
            || (1..=bytes.len()).any(|n| whole(n).is_ok())
    }

    /// Whether `bytes` begin with the end of a reserved token, but not with a whole one.
    fn is_end(&self, bytes: &[u8]) -> bool {
        (1..=bytes.len().min(self.longest)).any(|n| {
            let end: Vec<u8> = bytes[..n].iter().rev().copied().collect();
            let at = self.backwards.partition_point(|b| *b < end);
            let mut longer = self.backwards[at..]
                .iter()
                .take_while(|b| b.starts_with(&end));
            longer.any(|b| b.len() > n)
        })
    }

    /// The tokens of what was rendered.
    pub(super) fn encode(&self, tokenizer: &Tokenizer, rendered: &str) -> Vec<u32> {
        let mut text = String::with_capacity(rendered.len());
        let mut marked = Vec::new();
        let rendered = rendered.replace(&self.escape, self.mark.encode_utf8(&mut [0; 4]));
        for piece in rendered.split(self.mark) {
            text.push_str(piece);
            marked.push(text.len());
        }
        // Behind the last piece there is no mark.
        marked.pop();
        tokenizer.encode_where(&text, &|id, at| {
            let next = marked.partition_point(|&mark| mark < at);
            let length = self.reserved.get(&id);
            length.is_none_or(|length| marked.get(next).is_none_or(|&mark| mark >= at + length))
        })
    }
}

/// Whether a token that users added is one that the template writes, to say who speaks for one: it looks like a mark, and the template holds it or it is
/// written as control tokens are.
fn is_written(token: &str, template: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || c.is_whitespace() || c == '\u{2581}';
    let looks = token.chars().count() > 2
        && !token.contains(char::is_whitespace)
        && !token.starts_with(plain)
        && !token.ends_with(plain);
    let as_control = |open: &str, close: &str| token.starts_with(open) && token.ends_with(close);
    looks
        && (template.contains(token)
            || as_control("<|", "|>")
            || as_control("<\u{ff5c}", "\u{ff5c}>"))
}
