//! BPE with a list of merges: words by a pre-tokenizer, their bytes (byte-level BPE, Radford et al. 2019), merges by rank.
//!
//! Gemma 4's kind writes tokens as they are, with U+2581 for a space; it begins with characters, and with bytes where a character has no
//! token.

use super::merge::{NO_TOKEN, Symbol, merge};
use super::pretokenize::Pretokenizer;
use super::spm::{SPACE, byte_tokens};
use super::vocabulary::{Vocabulary, from_byte_alphabet};
use super::{TokenType, bad};
use crate::Result;
use crate::gguf::{File, Strings};

pub(super) struct Bpe {
    pretokenizer: Pretokenizer,
    merges: Merges,
    /// The token of each single byte.
    bytes: [u32; 256],
}

/// The merges of a file. One is known by the token that it makes and by how many bytes of it are the left half's.
struct Merges {
    /// Most important first.
    all: Vec<Merge>,
    /// [tokens]: the last one that makes this token, or `NONE`.
    last: Vec<u32>,
}

struct Merge {
    left_bytes: u32,
    /// Another one that makes the same token, or `NONE`.
    before: u32,
}

const NONE: u32 = u32::MAX;

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
        let joins = |id| vocabulary.kind(id) == TokenType::Normal && vocabulary.bytes(id).len() > 1;
        let lines = if (0..vocabulary.len() as u32).any(joins) {
            Some(metadata.strings(MERGES)?)
        } else {
            metadata.opt_strings(MERGES)?
        };
        let plain = pretokenizer.family.plain;
        let mut merges = Merges {
            all: Vec::with_capacity(lines.as_ref().map_or(0, Strings::len)),
            last: vec![NONE; vocabulary.len()],
        };
        let (mut joined, mut token) = (Vec::new(), 0);
        for line in lines.into_iter().flat_map(Strings::bytes) {
            let Some(halves) = halves(line) else {
                return Err(bad(
                    file,
                    MERGES,
                    "two tokens with a space between in each line".into(),
                    format!("`{}`", String::from_utf8_lossy(line)),
                ));
            };
            joined.clear();
            let [left_bytes, _] = halves.map(|half| {
                if plain {
                    joined.extend_from_slice(half);
                } else {
                    from_byte_alphabet(half, &mut joined);
                }
                joined.len()
            });
            // Most vocabularies have tokens in the order of the merges that make them. A token that does not exist is never made.
            if let Some(made) = vocabulary.find_near([token, token + 1], &joined) {
                token = made;
                merges.add(made, left_bytes as u32).ok_or_else(|| {
                    let expected = "less than 4 GiB of merges".into();
                    bad(file, MERGES, expected, "more".into())
                })?;
            }
        }
        let bytes = if plain {
            byte_tokens(vocabulary)
        } else {
            std::array::from_fn(|byte| vocabulary.find(&[byte as u8]).unwrap_or(NO_TOKEN))
        };
        Ok(Bpe {
            pretokenizer,
            merges,
            bytes,
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
                    id: self.bytes[byte as usize],
                }));
            }
            merge(&mut symbols, |a, b| {
                if a.id == NO_TOKEN || b.id == NO_TOKEN {
                    return None;
                }
                let joined = &word.as_bytes()[a.start as usize..b.end as usize];
                if joined.len() > vocabulary.longest() {
                    return None;
                }
                let id = vocabulary.find(joined)?;
                Some((self.merges.rank(id, a.end - a.start)?, id))
            });
            for symbol in &symbols {
                if symbol.id != NO_TOKEN {
                    ids.push(symbol.id);
                } else if family.plain {
                    let bytes = &word.as_bytes()[symbol.start as usize..symbol.end as usize];
                    let tokens = bytes.iter().map(|&byte| self.bytes[usize::from(byte)]);
                    ids.extend(tokens.filter(|&id| id != NO_TOKEN));
                } else {
                    ids.extend(unknown);
                }
            }
        });
    }
}

impl Merges {
    /// Adds one that is less important than all before; the first of equal ones counts. `None` where there are too many.
    fn add(&mut self, token: u32, left_bytes: u32) -> Option<()> {
        if self.rank(token, left_bytes).is_none() {
            let rank = u32::try_from(self.all.len())
                .ok()
                .filter(|&rank| rank != NONE)?;
            let before = std::mem::replace(&mut self.last[token as usize], rank);
            self.all.push(Merge { left_bytes, before });
        }
        Some(())
    }

    /// How important the merge is that makes `token` of its first `left_bytes` bytes and the others: 0 is the most.
    fn rank(&self, token: u32, left_bytes: u32) -> Option<u32> {
        let mut rank = self.last[token as usize];
        while let Some(merge) = self.all.get(rank as usize) {
            if merge.left_bytes == left_bytes {
                return Some(rank);
            }
            rank = merge.before;
        }
        None
    }
}

/// The two tokens of a line. The separator is the first space after the first character: a half may begin with anything but a space.
fn halves(line: &[u8]) -> Option<[&[u8]; 2]> {
    let at = 1 + line.get(1..)?.iter().position(|&byte| byte == b' ')?;
    (at + 1 < line.len()).then(|| [&line[..at], &line[at + 1..]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_merges_counts() {
        let mut merges = Merges {
            all: Vec::new(),
            last: vec![NONE; 3],
        };
        for (token, left_bytes) in [(2, 1), (0, 1), (2, 2), (2, 1), (2, 3)] {
            merges.add(token, left_bytes).unwrap();
        }
        let ranks = [(2, 1), (0, 1), (2, 2), (2, 3), (2, 4), (1, 1)];
        let ranks = ranks.map(|(token, left_bytes)| merges.rank(token, left_bytes));
        assert_eq!(ranks, [Some(0), Some(1), Some(2), Some(3), None, None]);
    }
}
