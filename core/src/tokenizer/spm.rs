//! SentencePiece's BPE: characters merged by score, bytes for what has no token (Kudo & Richardson 2018; order of merges as llama.cpp).
//!
//! A text is merged word by word: no merge can join what stands on both sides of a space if no token holds these two characters side by
//! side, so the ids are the same, and the queue of merges stays as short as a word.

use super::bad;
use super::merge::{NO_TOKEN, Symbol, merge};
use super::vocabulary::Vocabulary;
use crate::Result;
use crate::gguf::File;
use std::collections::HashSet;
use std::sync::OnceLock;

/// What SentencePiece writes for a space: U+2581.
pub(super) const SPACE: &str = "\u{2581}";

pub(super) struct Spm {
    /// One for each token; higher merges first.
    scores: Vec<f32>,
    adds_space: bool,
    /// The space goes before the beginning of a text only, and only where there is none: `Metaspace` of Hugging Face's tokenizers with
    /// `prepend_scheme` `first`. No GGUF key of llama.cpp's says it; `dram convert` has one of its own.
    only_first: bool,
    tables: OnceLock<Tables>,
}

struct Tables {
    /// The token of each byte.
    bytes: [u32; 256],
    /// Characters that some token holds before a space.
    before_space: HashSet<char>,
}

impl Spm {
    pub(super) fn from_gguf(file: &File, vocabulary: &Vocabulary) -> Result<Spm> {
        let metadata = file.metadata();
        Ok(Spm {
            scores: scores(file, vocabulary)?,
            adds_space: metadata
                .opt_bool("tokenizer.ggml.add_space_prefix")?
                .unwrap_or(true),
            only_first: metadata.opt_str("tokenizer.dram.prepend_scheme")? == Some("first"),
            tables: OnceLock::new(),
        })
    }

    /// Whether a text gets a space that stands after a special token.
    pub(super) fn prefixes_after_special(&self) -> bool {
        !self.only_first
    }

    pub(super) fn adds_space(&self) -> bool {
        self.adds_space
    }

    /// `prefix`: the text stands where SentencePiece puts its leading space.
    pub(super) fn encode(
        &self,
        text: &str,
        prefix: bool,
        vocabulary: &Vocabulary,
        unknown: Option<u32>,
        ids: &mut Vec<u32>,
    ) {
        let mut escaped = String::with_capacity(text.len() + text.len() / 4 + SPACE.len());
        let has_space = self.only_first && text.starts_with([' ', SPACE_CHAR]);
        if self.adds_space && prefix && !has_space {
            escaped.push_str(SPACE);
        }
        for c in text.chars() {
            if c == ' ' {
                escaped.push_str(SPACE)
            } else {
                escaped.push(c)
            }
        }
        let tables = self.tables.get_or_init(|| Tables::new(vocabulary));
        let mut symbols = Vec::new();
        let (mut start, mut last) = (0, None);
        for (at, c) in escaped.char_indices() {
            if c == SPACE_CHAR && last.is_some_and(|c| !tables.before_space.contains(&c)) {
                self.merge_word(&escaped[start..at], &mut symbols, vocabulary, unknown, ids);
                start = at;
            }
            last = Some(c);
        }
        self.merge_word(&escaped[start..], &mut symbols, vocabulary, unknown, ids);
    }

    fn merge_word(
        &self,
        word: &str,
        symbols: &mut Vec<Symbol>,
        vocabulary: &Vocabulary,
        unknown: Option<u32>,
        ids: &mut Vec<u32>,
    ) {
        let tables = self.tables.get_or_init(|| Tables::new(vocabulary));
        let bytes = word.as_bytes();
        symbols.clear();
        symbols.extend(word.char_indices().map(|(start, c)| {
            let end = start + c.len_utf8();
            Symbol {
                start: start as u32,
                end: end as u32,
                id: vocabulary.find(&bytes[start..end]).unwrap_or(NO_TOKEN),
            }
        }));
        merge(symbols, |a, b| {
            let joined = &bytes[a.start as usize..b.end as usize];
            if joined.len() > vocabulary.longest() {
                return None;
            }
            let id = vocabulary.find(joined)?;
            Some((rank(self.scores[id as usize]), id))
        });
        // Without tokens for bytes, neighbours without a token are one unknown token, as in SentencePiece.
        let mut after_unknown = false;
        for symbol in symbols {
            let bytes = &bytes[symbol.start as usize..symbol.end as usize];
            let bytes = bytes.iter().map(|&byte| tables.bytes[usize::from(byte)]);
            if symbol.id != NO_TOKEN {
                ids.push(symbol.id);
            } else if bytes.clone().all(|id| id != NO_TOKEN) {
                ids.extend(bytes);
            } else {
                if !after_unknown {
                    ids.extend(unknown);
                }
                after_unknown = true;
                continue;
            }
            after_unknown = false;
        }
    }
}

const SPACE_CHAR: char = '\u{2581}';

impl Tables {
    fn new(vocabulary: &Vocabulary) -> Tables {
        Tables {
            bytes: byte_tokens(vocabulary),
            before_space: before_space(vocabulary),
        }
    }
}

/// Characters that some token holds before a space.
pub(super) fn before_space(vocabulary: &Vocabulary) -> HashSet<char> {
    let mut found = HashSet::new();
    for id in 0..vocabulary.len() as u32 {
        let token = std::str::from_utf8(vocabulary.bytes(id)).unwrap_or_default();
        for (at, _) in token.match_indices(SPACE) {
            found.extend(token[..at].chars().next_back());
        }
    }
    found
}

/// `tokenizer.ggml.scores`, one for each token; zeros where there are none.
pub(super) fn scores(file: &File, vocabulary: &Vocabulary) -> Result<Vec<f32>> {
    const SCORES: &str = "tokenizer.ggml.scores";
    let scores = file.metadata().opt_f32s(SCORES)?;
    let mut scores = scores.unwrap_or_else(|| vec![0.0; vocabulary.len()]);
    if scores.len() < vocabulary.len() {
        return Err(bad(
            file,
            SCORES,
            format!("{} scores, one for each token", vocabulary.len()),
            scores.len().to_string(),
        ));
    }
    scores.truncate(vocabulary.len());
    if let Some(score) = scores.iter().find(|score| score.is_nan()) {
        return Err(bad(file, SCORES, "numbers".into(), score.to_string()));
    }
    Ok(scores)
}

/// The tokens `<0x00>` to `<0xFF>`.
pub(super) fn byte_tokens(vocabulary: &Vocabulary) -> [u32; 256] {
    std::array::from_fn(|byte| {
        let token = format!("<0x{byte:02X}>");
        vocabulary.find(token.as_bytes()).unwrap_or(NO_TOKEN)
    })
}

/// Scores in descending order as ranks in ascending order: IEEE floats order like integers once the sign is folded.
fn rank(score: f32) -> u32 {
    let bits = score.to_bits();
    let ascending = if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    };
    !ascending
}

/// The byte of a token written `<0x0A>`.
pub(super) fn parse_byte(token: &[u8]) -> Option<u8> {
    let digits = token.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Appends `token` with spaces where SentencePiece writes U+2581.
pub(super) fn unescape(token: &[u8], out: &mut Vec<u8>) {
    let mut rest = token;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(SPACE.as_bytes()) {
            out.push(b' ');
            rest = after;
        } else {
            out.push(first);
            rest = tail;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_scores_rank_first() {
        let scores = [f32::INFINITY, 3.5, 1.0, 0.0, -0.0, -1.0, -1e9];
        assert!(scores.windows(2).all(|w| rank(w[0]) < rank(w[1])));
    }

    #[test]
    fn bytes_are_parsed() {
        assert_eq!(parse_byte(b"<0x0A>"), Some(10));
        assert_eq!(
            (parse_byte(b"<0xGG>"), parse_byte(b"<0x>"), parse_byte(b"a")),
            (None, None, None)
        );
    }
}
