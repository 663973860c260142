//! BPE with a list of merges: words by a pre-tokenizer, their bytes (byte-level BPE, Radford et al. 2019), merges by rank.
//!
//! Gemma 4's kind writes tokens as they are, with U+2581 for a space; it begins with characters, and with bytes where a character has no
//! token.

use super::merge::{NO_TOKEN, Symbol, merge};
use super::pretokenize::Pretokenizer;
use super::spm::{SPACE, byte_tokens};
use super::vocabulary::{Fnv, Vocabulary, from_byte_alphabet};
use super::{TokenType, bad};
use crate::Result;
use crate::gguf::File;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::OnceLock;

/// (left token, right token) as one key → (rank, merged token).
type Merges = HashMap<u64, (u32, u32), BuildHasherDefault<Fnv>>;

pub(super) struct Bpe {
    pretokenizer: Pretokenizer,
    /// The lines of `tokenizer.ggml.merges` in GPT-2's byte alphabet, most important first.
    lines: String,
    line_ends: Vec<u32>,
    tables: OnceLock<Tables>,
}

struct Tables {
    merges: Merges,
    /// The token of each single byte.
    bytes: [u32; 256],
}

impl Bpe {
    /// The way of cutting that the file names.
    pub(super) fn pretokenizer_of(file: &File) -> Result<Pretokenizer> {
        const PRE: &str = "tokenizer.ggml.pre";
        let metadata = file.metadata();
        let name = if metadata.opt_str("tokenizer.ggml.model")? == Some("gemma4") {
            "gemma4"
        } else {
            metadata.opt_str(PRE)?.unwrap_or("default")
        };
        Pretokenizer::named(name).ok_or_else(|| {
            let known = Pretokenizer::known().join(", ");
            bad(file, PRE, format!("one of {known}"), format!("`{name}`"))
        })
    }

    /// A vocabulary of single bytes needs no merges; for any other, the key must be there.
    pub(super) fn from_gguf(
        file: &File,
        pretokenizer: Pretokenizer,
        vocabulary: &Vocabulary,
    ) -> Result<Bpe> {
        const MERGES: &str = "tokenizer.ggml.merges";
        let metadata = file.metadata();
        let (mut lines, mut line_ends) = (String::new(), Vec::new());
        let joins = |id| vocabulary.kind(id) == TokenType::Normal && vocabulary.bytes(id).len() > 1;
        let merges = if (0..vocabulary.len() as u32).any(joins) {
            Some(metadata.strings(MERGES)?)
        } else {
            metadata.opt_strings(MERGES)?
        };
        for line in merges.into_iter().flatten() {
            if halves(line).is_none() {
                return Err(bad(
                    file,
                    MERGES,
                    "two tokens with a space between in each line".into(),
                    format!("`{line}`"),
                ));
            }
            lines.push_str(line);
            line_ends.push(u32::try_from(lines.len()).map_err(|_| {
                bad(
                    file,
                    MERGES,
                    "less than 4 GiB of text".into(),
                    "more".into(),
                )
            })?);
        }
        Ok(Bpe {
            pretokenizer,
            lines,
            line_ends,
            tables: OnceLock::new(),
        })
    }

    /// Whether tokens stand as they are written, instead of in GPT-2's byte alphabet.
    pub(super) fn plain(&self) -> bool {
        self.pretokenizer.family.plain
    }

    pub(super) fn encode(
        &self,
        text: &str,
        vocabulary: &Vocabulary,
        unknown: Option<u32>,
        ids: &mut Vec<u32>,
    ) {
        let tables = self.tables.get_or_init(|| self.build(vocabulary));
        let mut symbols = Vec::new();
        let family = self.pretokenizer.family;
        let escaped;
        let text = if family.plain {
            escaped = text.replace(' ', SPACE);
            &escaped
        } else {
            text
        };
        self.pretokenizer.split(text, &mut |word| {
            let whole = family.whole_words || (family.plain && word.starts_with('\n'));
            if whole && let Some(id) = vocabulary.find(word.as_bytes()) {
                return ids.push(id);
            }
            symbols.clear();
            if family.plain {
                symbols.extend(word.char_indices().map(|(start, c)| {
                    let end = start + c.len_utf8();
                    Symbol {
                        start: start as u32,
                        end: end as u32,
                        id: vocabulary
                            .find(&word.as_bytes()[start..end])
                            .unwrap_or(NO_TOKEN),
                    }
                }));
            } else {
                symbols.extend(word.bytes().enumerate().map(|(i, byte)| Symbol {
                    start: i as u32,
                    end: i as u32 + 1,
                    id: tables.bytes[byte as usize],
                }));
            }
            merge(&mut symbols, |a, b| {
                tables.merges.get(&key(a.id, b.id)).copied()
            });
            for symbol in &symbols {
                if symbol.id != NO_TOKEN {
                    ids.push(symbol.id);
                } else if family.plain {
                    let bytes = &word.as_bytes()[symbol.start as usize..symbol.end as usize];
                    let tokens = bytes.iter().map(|&byte| tables.bytes[usize::from(byte)]);
                    ids.extend(tokens.filter(|&id| id != NO_TOKEN));
                } else {
                    ids.extend(unknown);
                }
            }
        });
    }

    /// Merges that name a token which does not exist can never apply, so they are passed over.
    fn build(&self, vocabulary: &Vocabulary) -> Tables {
        let mut merges =
            Merges::with_capacity_and_hasher(self.line_ends.len(), BuildHasherDefault::default());
        let (mut start, mut joined, mut last) = (0, Vec::new(), 0);
        for (rank, &end) in self.line_ends.iter().enumerate() {
            let line = &self.lines[start..end as usize];
            start = end as usize;
            let Some((left, right)) = halves(line) else {
                continue;
            };
            joined.clear();
            let mut find = |text: &str| {
                let start = joined.len();
                if self.plain() {
                    joined.extend_from_slice(text.as_bytes());
                } else {
                    from_byte_alphabet(text, &mut joined);
                }
                vocabulary.find(&joined[start..])
            };
            let (left, right) = (find(left), find(right));
            // Most vocabularies have merged tokens in the order of their merges.
            let merged = vocabulary.find_near(last + 1, &joined);
            if let (Some(left), Some(right), Some(merged)) = (left, right, merged) {
                last = merged;
                merges
                    .entry(key(left, right))
                    .or_insert((rank as u32, merged));
            }
        }
        let bytes = if self.plain() {
            byte_tokens(vocabulary)
        } else {
            std::array::from_fn(|byte| vocabulary.find(&[byte as u8]).unwrap_or(NO_TOKEN))
        };
        Tables { merges, bytes }
    }
}

/// The two tokens of a line. The separator is the first space after the first character: a half may begin with anything but a space.
fn halves(line: &str) -> Option<(&str, &str)> {
    let first = line.chars().next()?.len_utf8();
    let at = first + line[first..].find(' ')?;
    (at + 1 < line.len()).then(|| (&line[..at], &line[at + 1..]))
}

fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}
