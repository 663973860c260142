//! Text is text: what a conversation says holds no control token, whatever it spells. Only the template writes them.
//!
//! Before a conversation is rendered, a character that occurs nowhere in it is put into every control token that its texts spell; it survives what
//! templates do with texts, and tells afterwards which tokens are not the template's own.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use dram_core::Message;

use super::Conversation;
use super::encode::BLOCKS;
use crate::data::TextTokenizer;
use crate::data::tokenizer::token_type;

/// Unicode's noncharacters.
const CANDIDATES: std::ops::RangeInclusive<char> = '\u{fdd0}'..='\u{fdef}';

/// The control tokens of a tokenizer, and how they are spelt.
pub(super) struct Controls<'a> {
    tokenizer: &'a TextTokenizer,
    /// By their first character, the longest first.
    by_first: HashMap<char, Vec<(&'a str, u32)>>,
}

impl<'a> Controls<'a> {
    pub(super) fn new(tokenizer: &'a TextTokenizer) -> Self {
        let vocabulary = tokenizer.vocabulary();
        let mut by_first: HashMap<char, Vec<(&str, u32)>> = HashMap::new();
        for ((token, kind), id) in vocabulary.tokens.iter().zip(&vocabulary.types).zip(0..) {
            if let Some(first) = token.chars().next()
                && (*kind == token_type::CONTROL || vocabulary.eos == Some(id))
            {
                by_first.entry(first).or_default().push((token, id));
            }
        }
        for tokens in by_first.values_mut() {
            tokens.sort_by_key(|(token, _)| std::cmp::Reverse(token.len()));
        }
        Controls {
            tokenizer,
            by_first,
        }
    }

    /// The longest that `text` begins with.
    fn at(&self, text: &str) -> Option<(&'a str, u32)> {
        let tokens = self.by_first.get(&text.chars().next()?)?;
        tokens
            .iter()
            .find(|(token, _)| text.starts_with(token))
            .copied()
    }

    pub(super) fn begins(&self, text: &str) -> bool {
        self.at(text).is_some()
    }

    /// Whether a said `text` begins with one. What stands around thinking is a model's own to say.
    fn spells(&self, text: &str) -> bool {
        let thinks = |token: &str| BLOCKS.iter().any(|(a, b)| [*a, *b].contains(&token));
        self.at(text).is_some_and(|(token, _)| !thinks(token))
    }

    pub(super) fn ends(&self, text: &str) -> bool {
        let mut tokens = self.by_first.values().flatten();
        tokens.any(|(token, _)| text.ends_with(token))
    }

    /// Ids of a rendered text; `mark` stands in tokens that are text.
    pub(super) fn encode(&self, text: &str, mark: Option<char>) -> Result<Vec<u32>> {
        let Some(mark) = mark.filter(|mark| text.contains(*mark)) else {
            return self.tokenizer.encode(text, true);
        };
        let mut plain = String::with_capacity(text.len());
        let mut marked = HashSet::new();
        for c in text.chars() {
            if c == mark {
                marked.insert(plain.len());
            } else {
                plain.push(c);
            }
        }
        let mut ids = Vec::new();
        let mut start = 0;
        let mut at = 0;
        while let Some(c) = plain[at..].chars().next() {
            match self.at(&plain[at..]) {
                Some((token, id)) if !marked.contains(&(at + c.len_utf8())) => {
                    ids.extend(self.tokenizer.encode(&plain[start..at], false)?);
                    ids.push(id);
                    at += token.len();
                    start = at;
                }
                _ => at += c.len_utf8(),
            }
        }
        ids.extend(self.tokenizer.encode(&plain[start..], false)?);
        Ok(ids)
    }

    /// The conversation with its mark, where its texts spell control tokens.
    pub(super) fn marked(&self, chat: &Conversation) -> Result<Option<(Conversation, char)>> {
        let spells = |text: &str| text.char_indices().any(|(at, _)| self.spells(&text[at..]));
        let said = || chat.messages.iter().flat_map(texts);
        if !said().any(spells) {
            return Ok(None);
        }
        let mark = CANDIDATES
            .into_iter()
            .find(|mark| !said().any(|text| text.contains(*mark)))
            .context("the texts hold every character that could tell them from the template's")?;
        let mut chat = chat.clone();
        for message in &mut chat.messages {
            let calls = message.tool_calls.iter_mut();
            let calls = calls.flat_map(|call| [&mut call.id, &mut call.name, &mut call.arguments]);
            let more = [
                &mut message.reasoning,
                &mut message.tool_call_id,
                &mut message.name,
            ];
            let own = std::iter::once(&mut message.content);
            for text in own.chain(more.into_iter().flatten()).chain(calls) {
                self.mark(text, mark);
            }
        }
        Ok(Some((chat, mark)))
    }

    fn mark(&self, text: &mut String, mark: char) {
        let mut out = String::with_capacity(text.len() + 4);
        for (at, c) in text.char_indices() {
            out.push(c);
            if self.spells(&text[at..]) {
                out.push(mark);
            }
        }
        *text = out;
    }
}

/// Everything that is said in a message.
fn texts(message: &Message) -> impl Iterator<Item = &str> {
    let calls = message.tool_calls.iter();
    let calls = calls.flat_map(|call| [&call.id, &call.name, &call.arguments]);
    let more = [&message.reasoning, &message.tool_call_id, &message.name];
    let own = std::iter::once(&message.content);
    own.chain(more.into_iter().flatten())
        .chain(calls)
        .map(String::as_str)
}
