//! Tokens that are found in a text as they stand: control tokens, and those that users added.

use super::TokenType;
use super::vocabulary::Vocabulary;
use crate::Result;
use crate::gguf::File;
use std::ops::Range;

/// A piece of a text: one special token, or what lies between.
pub(super) enum Part<'a> {
    Text(&'a str),
    Token(u32),
}

pub(super) struct Special {
    /// Sorted by their bytes.
    ids: Vec<u32>,
    /// [256]: those of `ids` that begin with this byte.
    begin: Vec<Range<usize>>,
    /// Tokens that swallow the white space before them, and those that swallow what follows; ascending.
    strips_left: Vec<u32>,
    strips_right: Vec<u32>,
}

impl Special {
    /// White space beside a token is not in the file's format. As in llama.cpp it follows from the model's name: what `tokenizer.json`
    /// says of Phi-3 (`rstrip`) and of the mask tokens of some encoders (`lstrip`).
    pub(super) fn from_gguf(file: &File, vocabulary: &Vocabulary) -> Result<Special> {
        let mut ids: Vec<u32> = (0..vocabulary.len() as u32)
            .filter(|&id| {
                use TokenType::{Control, Unknown, UserDefined};
                matches!(vocabulary.kind(id), Control | Unknown | UserDefined)
                    && !vocabulary.bytes(id).is_empty()
            })
            .collect();
        ids.sort_by_key(|&id| vocabulary.bytes(id));
        ids.dedup_by_key(|id| vocabulary.bytes(*id));
        let mut begin = vec![0..0; 256];
        for (index, &id) in ids.iter().enumerate() {
            let range = &mut begin[usize::from(vocabulary.bytes(id)[0])];
            if range.start == range.end {
                range.start = index;
            }
            range.end = index + 1;
        }

        let metadata = file.metadata();
        let text = |key: &str| metadata.opt_str(key).map(Option::unwrap_or_default);
        let name = text("general.name")?.to_ascii_lowercase();
        let (pre, architecture) = (text("tokenizer.ggml.pre")?, text("general.architecture")?);
        let mask: &[u8] = if ["jina-v2-de", "jina-v2-es", "jina-v2-code"].contains(&pre)
            || ["nomic-bert-moe", "jina-bert-v3"].contains(&architecture)
        {
            b"<mask>"
        } else if name.contains("modern-bert") {
            b"[MASK]"
        } else {
            b""
        };
        let phi3 = name.contains("phi-3") || name.contains("phi3");
        let keeps: [&[u8]; 3] = [b"<unk>", b"<s>", b"<|endoftext|>"];
        let those = |chosen: &dyn Fn(&[u8]) -> bool| {
            let ids = ids.iter().copied();
            let ids = ids.filter(|&id| chosen(vocabulary.bytes(id)));
            let mut ids: Vec<u32> = ids.collect();
            ids.sort_unstable();
            ids
        };
        Ok(Special {
            strips_left: those(&|text| text == mask),
            strips_right: those(&|text| phi3 && !keeps.contains(&text)),
            ids,
            begin,
        })
    }

    /// Cuts `text` at special tokens: from left to right, each time at the longest that stands there. Without `control` only those that
    /// users added count.
    pub(super) fn split<'a>(
        &self,
        text: &'a str,
        control: bool,
        vocabulary: &Vocabulary,
    ) -> Vec<Part<'a>> {
        let counts = |id, _| control || vocabulary.kind(id) == TokenType::UserDefined;
        self.split_where(text, vocabulary, None, &counts)
    }

    /// [`Special::split`] at the tokens that count where they stand, `counts(token, offset)`, of a text behind the token `after`.
    pub(super) fn split_where<'a>(
        &self,
        text: &'a str,
        vocabulary: &Vocabulary,
        after: Option<u32>,
        counts: &dyn Fn(u32, usize) -> bool,
    ) -> Vec<Part<'a>> {
        let strips_right = |id| self.strips_right.binary_search(&id).is_ok();
        let behind_space = |at: usize| text.len() - text[at..].trim_start().len();
        let mut at = match after.is_some_and(strips_right) {
            true => behind_space(0),
            false => 0,
        };
        let (mut parts, mut start) = (Vec::new(), at);
        while at < text.len() {
            let rest = &text.as_bytes()[at..];
            let Some(id) = self.find(rest, vocabulary, &|id| counts(id, at)) else {
                at += 1;
                continue;
            };
            let mut before = &text[start..at];
            if self.strips_left.binary_search(&id).is_ok() {
                before = before.trim_end();
            }
            if !before.is_empty() {
                parts.push(Part::Text(before));
            }
            parts.push(Part::Token(id));
            at += vocabulary.bytes(id).len();
            if strips_right(id) {
                at = behind_space(at);
            }
            start = at;
        }
        if start < text.len() {
            parts.push(Part::Text(&text[start..]));
        }
        parts
    }

    /// The special tokens, each text once.
    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The token with exactly these bytes.
    pub(super) fn exact(&self, bytes: &[u8], vocabulary: &Vocabulary) -> Option<u32> {
        let index = self
            .ids
            .binary_search_by(|&id| vocabulary.bytes(id).cmp(bytes));
        Some(self.ids[index.ok()?])
    }

    /// The longest token that `bytes`, which are not empty, begin with and that counts.
    fn find(
        &self,
        bytes: &[u8],
        vocabulary: &Vocabulary,
        counts: &dyn Fn(u32) -> bool,
    ) -> Option<u32> {
        let mut found = None;
        let mut range = &self.ids[self.begin[usize::from(bytes[0])].clone()];
        for (depth, &byte) in bytes.iter().enumerate() {
            range = vocabulary.narrow(range, depth, byte);
            let Some(&first) = range.first() else {
                break;
            };
            if vocabulary.bytes(first).len() == depth + 1 && counts(first) {
                found = Some(first);
            }
        }
        found
    }
}
