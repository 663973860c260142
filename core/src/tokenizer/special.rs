//! Tokens that are found in a text as they stand: control tokens, and those that users added.

use super::TokenType;
use super::vocabulary::Vocabulary;
use crate::Result;
use crate::gguf::File;
use std::cmp::Reverse;

/// A piece of a text: one special token, or what lies between.
pub(super) enum Part<'a> {
    Text(&'a str),
    Token(u32),
}

pub(super) struct Special {
    /// Sorted by their bytes.
    ids: Vec<u32>,
    /// [256]: the lengths of those that begin with this byte, longest first.
    lengths: Vec<Vec<usize>>,
    /// Tokens that swallow the white space before them, and those that swallow what follows.
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
        let mut lengths = vec![Vec::new(); 256];
        for &id in &ids {
            let bytes = vocabulary.bytes(id);
            lengths[usize::from(bytes[0])].push(bytes.len());
        }
        for lengths in &mut lengths {
            lengths.sort_unstable_by_key(|&length| Reverse(length));
            lengths.dedup();
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
            ids.filter(|&id| chosen(vocabulary.bytes(id))).collect()
        };
        Ok(Special {
            strips_left: those(&|text| text == mask),
            strips_right: those(&|text| phi3 && !keeps.contains(&text)),
            ids,
            lengths,
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
        self.split_where(text, vocabulary, &counts)
    }

    /// [`Special::split`] at the tokens that count where they stand: `counts(token, offset)`.
    pub(super) fn split_where<'a>(
        &self,
        text: &'a str,
        vocabulary: &Vocabulary,
        counts: &dyn Fn(u32, usize) -> bool,
    ) -> Vec<Part<'a>> {
        let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
        while at < text.len() {
            let rest = &text.as_bytes()[at..];
            let Some(id) = self.find(rest, vocabulary, &|id| counts(id, at)) else {
                at += 1;
                continue;
            };
            let mut before = &text[start..at];
            if self.strips_left.contains(&id) {
                before = before.trim_end();
            }
            if !before.is_empty() {
                parts.push(Part::Text(before));
            }
            parts.push(Part::Token(id));
            at += vocabulary.bytes(id).len();
            if self.strips_right.contains(&id) {
                at = text.len() - text[at..].trim_start().len();
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

    /// The longest token that `bytes`, which are not empty, begin with and that counts.
    fn find(
        &self,
        bytes: &[u8],
        vocabulary: &Vocabulary,
        counts: &dyn Fn(u32) -> bool,
    ) -> Option<u32> {
        let lengths = &self.lengths[usize::from(bytes[0])];
        lengths.iter().find_map(|&length| {
            let wanted = bytes.get(..length)?;
            let index = self
                .ids
                .binary_search_by(|&id| vocabulary.bytes(id).cmp(wanted))
                .ok()?;
            let id = self.ids[index];
            counts(id).then_some(id)
        })
    }
}
