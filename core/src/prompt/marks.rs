//! Text is text: what is said in a chat is encoded without special tokens, whatever it spells. Only the template writes them.
//!
//! Before a conversation is rendered, a character that occurs nowhere in it is put before every place in its texts where a special token could
//! begin. It survives what templates do with texts, and tells afterwards which places are not the template's own.

use super::MarkedText;
use crate::chat::{Chat, Message};
use crate::tokenizer::Tokenizer;
use crate::tools::{ToolCall, Tools};
use crate::{Error, Result};
use serde_json::Value as Json;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Unicode's noncharacters that are no plane's last, and then characters for private use: one of them is in no text.
const CANDIDATES: [std::ops::RangeInclusive<char>; 2] =
    ['\u{fdd0}'..='\u{fdef}', '\u{f0000}'..='\u{f003f}'];

/// Who says a text.
#[derive(Clone, Copy)]
enum Source {
    /// The app: tokens that users added, such as `<think>`, work in it. Control tokens do not.
    App,
    /// The model itself: as the app, and the control tokens that a model may say.
    Model,
    /// A user, a tool, a document: it holds no token that the template may write.
    Outside,
}

/// The special tokens that what is said in a chat does not become: for one tokenizer and one template.
pub struct ReservedTokens<'a> {
    tokenizer: &'a Tokenizer,
    /// Characters that the template does not hold.
    candidates: Vec<char>,
    /// The tokens that a marked place does not begin, and their texts' lengths.
    reserved: HashMap<u32, usize>,
    /// First characters of these, in lower case.
    first: HashSet<char>,
    /// Texts of control tokens, in lower case and without white space, sorted.
    controls: Vec<Vec<u8>>,
    /// Those of them that a model does not say either.
    unsaid: Vec<Vec<u8>>,
    /// Texts of all that are reserved, in lower case and read backwards, sorted.
    backwards: Vec<Vec<u8>>,
    /// Bytes of the longest special token.
    longest: usize,
}

/// The marks of one conversation. They go into its messages, tools and variables before it is rendered; [`Marks::read`] and [`Marks::encode`] then
/// make tokens of the rendered text, and no reserved one of what was said.
pub struct Marks<'a> {
    tokens: Arc<ReservedTokens<'a>>,
    mark: char,
    /// As JSON writes the mark in ASCII.
    escape: String,
}

impl<'a> ReservedTokens<'a> {
    /// For conversations that `template` renders. `own` are texts of control tokens that the model may say: they work in an assistant's turns.
    #[must_use]
    pub fn new(tokenizer: &'a Tokenizer, template: &str, own: &[&str]) -> Self {
        let absent = |mark: &char| !template.contains(*mark) && !template.contains(&escape(*mark));
        let mut out = ReservedTokens {
            tokenizer,
            candidates: CANDIDATES.into_iter().flatten().filter(absent).collect(),
            reserved: HashMap::new(),
            first: HashSet::new(),
            controls: Vec::new(),
            unsaid: Vec::new(),
            backwards: Vec::new(),
            longest: 0,
        };
        for (id, added, bytes) in tokenizer.special_tokens() {
            out.longest = out.longest.max(bytes.len());
            let Ok(text) = std::str::from_utf8(bytes) else {
                continue;
            };
            if added && !is_written(text, template) {
                continue;
            }
            out.reserved.insert(id, text.len());
            let lower = text.to_ascii_lowercase().into_bytes();
            out.first
                .extend(text.chars().flat_map(char::to_lowercase).next());
            out.backwards.push(lower.iter().rev().copied().collect());
            if !added {
                let dense = lower.iter().filter(|byte| !byte.is_ascii_whitespace());
                let dense: Vec<u8> = dense.copied().collect();
                if !own.contains(&text) {
                    out.unsaid.push(dense.clone());
                }
                out.controls.push(dense);
            }
        }
        out.controls.sort_unstable();
        out.unsaid.sort_unstable();
        out.backwards.sort_unstable();
        out
    }

    /// The marks of a conversation, for its messages, tools and variables.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] where the texts hold every character that could be the mark.
    pub fn marks(self: &Arc<Self>, chat: &Chat<'_>) -> Result<Marks<'a>> {
        let tools = chat.tools.map(|tools| tools.json().to_string());
        let values = chat.variables.iter().map(|(_, value)| value.as_str());
        let mut texts: Vec<&str> = chat.messages.iter().flat_map(texts).collect();
        texts.extend(values.chain(tools.as_deref()));
        let absent = |mark: &&char| {
            let escape = escape(**mark);
            let mut texts = texts.iter();
            !texts.any(|text| text.contains(**mark) || text.contains(&escape))
        };
        let Some(&mark) = self.candidates.iter().find(absent) else {
            let what = "the conversation holds every character that could tell its texts from the template's, U+FDD0 for one";
            return Err(Error::ChatTemplate { what: what.into() });
        };
        Ok(Marks {
            tokens: self.clone(),
            mark,
            escape: escape(mark),
        })
    }

    /// The special token that ends at byte `end` of `text`.
    #[must_use]
    pub fn ending_at(&self, text: &MarkedText, end: usize) -> Option<u32> {
        let bytes = text.as_str().as_bytes().get(..end)?;
        (end.saturating_sub(self.longest)..end).find_map(|at| {
            let id = self.tokenizer.special_id(&bytes[at..])?;
            self.counts(text, id, at).then_some(id)
        })
    }

    /// Whether a special token that is spelt at `at` is one.
    fn counts(&self, text: &MarkedText, id: u32, at: usize) -> bool {
        let length = self.reserved.get(&id);
        length.is_none_or(|length| !text.is_marked(at..at + length))
    }

    /// Whether `text`, without its white space, which templates may take away, begins with one of `controls`, or is the beginning of one, of which
    /// the template might write the rest.
    fn is_control(&self, text: &str, controls: &[Vec<u8>]) -> bool {
        let bytes = text.bytes().filter(|byte| !byte.is_ascii_whitespace());
        let bytes: Vec<u8> = bytes.take(self.longest).collect();
        // The first text that does not come before it: if any begins with it, that one does.
        let next = controls.partition_point(|control| *control < bytes);
        let next = controls.get(next);
        let whole = |n| controls.binary_search_by(|c| c.as_slice().cmp(&bytes[..n]));
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
}

impl Marks<'_> {
    /// The message with its texts marked.
    #[must_use]
    pub fn message(&self, message: &Message) -> Message {
        let from = match message.role.as_str() {
            "assistant" | "model" => Source::Model,
            "system" | "developer" => Source::App,
            _ => Source::Outside,
        };
        let outside = |text: &String| self.text(text, Source::Outside);
        Message {
            role: self.text(&message.role, Source::App),
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
                .map(|text| self.text(text, Source::Model)),
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
    #[must_use]
    pub fn tools(&self, tools: &Tools) -> Tools {
        tools.told_as(self.json(tools.json(), Source::App))
    }

    /// A template's variable with its texts marked: documents, for one. Names and values are as in [`Chat::variables`].
    #[must_use]
    pub fn variable(&self, name: &str, value: &str) -> (String, String) {
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
        let tokens = &*self.tokens;
        let lower = text.to_ascii_lowercase();
        let mut out = String::with_capacity(text.len() + 8);
        let start = text.len() - text.trim_start().len();
        for (at, c) in text.char_indices() {
            let begins = c.to_lowercase().any(|c| tokens.first.contains(&c))
                && match from {
                    Source::App => tokens.is_control(&lower[at..], &tokens.controls),
                    Source::Model => tokens.is_control(&lower[at..], &tokens.unsaid),
                    Source::Outside => true,
                };
            // With the end of what the template writes before the text.
            let ends = (at == 0 || at == start) && tokens.is_end(&lower.as_bytes()[at..]);
            if begins || ends {
                out.push(self.mark);
            }
            out.push(c);
        }
        out
    }

    /// What was rendered of marked texts.
    #[must_use]
    pub fn read(&self, rendered: &str) -> MarkedText {
        let rendered = rendered.replace(&self.escape, self.mark.encode_utf8(&mut [0; 4]));
        MarkedText::cut(&rendered, self.mark)
    }

    /// The tokens of a rendered text, or of a part of one that goes on behind the token `after`. Parts give the tokens of the whole where no token lies
    /// across their ends.
    #[must_use]
    pub fn encode(&self, text: &MarkedText, after: Option<u32>) -> Vec<u32> {
        let counts = |id, at| self.tokens.counts(text, id, at);
        let tokenizer = self.tokens.tokenizer;
        tokenizer.encode_where(text.as_str(), after, &counts)
    }
}

/// As JSON writes `mark` in ASCII.
fn escape(mark: char) -> String {
    format!("\\u{:04x}", u32::from(mark))
}

/// All that is said in a message.
fn texts(message: &Message) -> impl Iterator<Item = &str> {
    let calls = message.tool_calls.iter();
    let calls = calls.flat_map(|call| [&call.id, &call.name, &call.arguments]);
    let own = [&message.role, &message.content].into_iter();
    let more = message
        .tool_call_id
        .iter()
        .chain(&message.name)
        .chain(&message.reasoning);
    own.chain(more).chain(calls).map(String::as_str)
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
