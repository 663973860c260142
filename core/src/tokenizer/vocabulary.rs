//! Tokens' bytes in one buffer, and the table that finds a token by its bytes.

use super::{TokenType, bad};
use crate::Result;
use crate::gguf::File;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::OnceLock;

pub(crate) struct Vocabulary {
    bytes: Vec<u8>,
    /// Token i is `bytes[ends[i - 1]..ends[i]]`.
    ends: Vec<u32>,
    kinds: Vec<TokenType>,
    by_bytes: OnceLock<Table>,
}

impl Vocabulary {
    /// Reads `tokenizer.ggml.tokens` and `token_type`. `byte_level`: normal tokens are written in GPT-2's byte alphabet.
    pub(super) fn from_gguf(file: &File, byte_level: bool) -> Result<Vocabulary> {
        const TOKENS: &str = "tokenizer.ggml.tokens";
        const TYPES: &str = "tokenizer.ggml.token_type";
        let metadata = file.metadata();
        let tokens = metadata.strings(TOKENS)?;
        let count = tokens.len();
        if count == 0 {
            return Err(bad(
                file,
                TOKENS,
                "at least one token".into(),
                "none".into(),
            ));
        }
        let kinds = match metadata.opt_i32s(TYPES)? {
            None => vec![TokenType::Normal; count],
            Some(kinds) if kinds.len() != count => {
                return Err(bad(
                    file,
                    TYPES,
                    format!("{count} types, one for each token"),
                    kinds.len().to_string(),
                ));
            }
            Some(kinds) => kinds
                .iter()
                .map(|&id| {
                    TokenType::from_id(id)
                        .ok_or_else(|| bad(file, TYPES, "types from 1 to 6".into(), id.to_string()))
                })
                .collect::<Result<_>>()?,
        };
        let mut vocabulary = Vocabulary {
            bytes: Vec::with_capacity(count * 8),
            ends: Vec::with_capacity(count),
            kinds,
            by_bytes: OnceLock::new(),
        };
        for (token, kind) in tokens.bytes().zip(&vocabulary.kinds) {
            if byte_level && matches!(kind, TokenType::Normal | TokenType::Unused) {
                from_byte_alphabet(token, &mut vocabulary.bytes);
            } else {
                vocabulary.bytes.extend_from_slice(token);
            }
            let end = u32::try_from(vocabulary.bytes.len()).map_err(|_| {
                bad(
                    file,
                    TOKENS,
                    "less than 4 GiB of text".into(),
                    "more".into(),
                )
            })?;
            vocabulary.ends.push(end);
        }
        Ok(vocabulary)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of token `id`, which must exist.
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start as usize..self.ends[id] as usize]
    }

    pub(super) fn kind(&self, id: u32) -> TokenType {
        self.kinds[id as usize]
    }

    pub(super) fn set_kind(&mut self, id: u32, kind: TokenType) {
        self.kinds[id as usize] = kind;
    }

    /// The token with exactly these bytes: of several the first.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<u32> {
        self.table().find(self, bytes)
    }

    /// [`Vocabulary::find`], faster where one of the tokens `likely` has these bytes.
    pub(super) fn find_near<const N: usize>(&self, likely: [u32; N], bytes: &[u8]) -> Option<u32> {
        let table = self.table();
        let has = |id: u32| (id as usize) < self.len() && self.bytes(id) == bytes;
        let mut likely = likely.into_iter().filter(|_| table.all_differ);
        likely
            .find(|&id| has(id))
            .or_else(|| table.find(self, bytes))
    }

    fn table(&self) -> &Table {
        self.by_bytes.get_or_init(|| Table::new(self))
    }
}

/// An open-addressing table of token ids, at most half full; no copy of the keys.
struct Table {
    slots: Vec<Slot>,
    seed: u64,
    /// Whether no two tokens have the same bytes.
    all_differ: bool,
}

#[derive(Clone, Copy)]
struct Slot {
    id: u32,
    /// The upper half of the hash: it tells nearly all tokens apart, without a look at their bytes.
    tag: u32,
}

const EMPTY: Slot = Slot {
    id: u32::MAX,
    tag: 0,
};

impl Table {
    fn new(vocabulary: &Vocabulary) -> Table {
        let mut table = Table {
            slots: vec![EMPTY; (vocabulary.len() * 2).next_power_of_two()],
            seed: RandomState::new().hash_one(0),
            all_differ: true,
        };
        for id in 0..vocabulary.len() as u32 {
            let (slot, tag) = table.search(vocabulary, vocabulary.bytes(id));
            if table.slots[slot].id == EMPTY.id {
                table.slots[slot] = Slot { id, tag };
            } else {
                table.all_differ = false;
            }
        }
        table
    }

    fn find(&self, vocabulary: &Vocabulary, bytes: &[u8]) -> Option<u32> {
        let (slot, _) = self.search(vocabulary, bytes);
        Some(self.slots[slot].id).filter(|&id| id != EMPTY.id)
    }

    /// The slot of the token with these bytes, or the empty one that it would get, and its tag.
    fn search(&self, vocabulary: &Vocabulary, bytes: &[u8]) -> (usize, u32) {
        let hash = hash(self.seed, bytes);
        let tag = (hash >> 32) as u32;
        let last = self.slots.len() - 1;
        let mut slot = hash as usize & last;
        loop {
            let Slot { id, tag: other } = self.slots[slot];
            if id == EMPTY.id || (other == tag && vocabulary.bytes(id) == bytes) {
                return (slot, tag);
            }
            slot = (slot + 1) & last;
        }
    }
}

/// Eight bytes at a time, each multiplied to 128 bits whose halves are folded into one (as in wyhash). Each table has another `seed`, so that
/// no file can know what collides.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mix = |state: u64, word: u64| {
        let product = u128::from(state ^ word) * 0x9e37_79b9_7f4a_7c15;
        product as u64 ^ (product >> 64) as u64
    };
    let (words, _) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let state = words.fold(mix(seed, bytes.len() as u64), mix);
    // What is left, or some bytes twice.
    let end = match (bytes.last_chunk::<8>(), bytes.last_chunk::<4>(), bytes) {
        (Some(last), ..) => u64::from_le_bytes(*last),
        (_, Some(last), [a, b, c, d, ..]) => {
            let first = u32::from_le_bytes([*a, *b, *c, *d]);
            u64::from(first) << 32 | u64::from(u32::from_le_bytes(*last))
        }
        _ => bytes
            .iter()
            .fold(0, |word, &byte| word << 8 | u64::from(byte)),
    };
    mix(state, end)
}

/// Undoes GPT-2's byte alphabet, in which every byte is a printable character: `Ġ` is a space. Other characters stand for themselves.
pub(super) fn from_byte_alphabet(mut text: &[u8], out: &mut Vec<u8>) {
    loop {
        let ascii = text.iter().position(|byte| !byte.is_ascii());
        let (same, rest) = text.split_at(ascii.unwrap_or(text.len()));
        out.extend_from_slice(same);
        let Some((&first, rest)) = rest.split_first() else {
            return;
        };
        let byte = match rest.first() {
            Some(&next) if (0xc2..=0xc5).contains(&first) => {
                byte_of(u32::from(first & 0x1f) << 6 | u32::from(next & 0x3f))
            }
            _ => None, // of a character of three or four bytes
        };
        out.push(byte.unwrap_or(first));
        text = if byte.is_some() { &rest[1..] } else { rest };
    }
}

/// Printable Latin-1 stands for itself; the 68 other bytes are, in order, U+0100 and on.
fn byte_of(code: u32) -> Option<u8> {
    Some(match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code as u8,
        0x100..=0x120 => (code - 0x100) as u8, // 0x00–0x20
        0x121..=0x142 => (code - 0x121 + 0x7f) as u8, // 0x7f–0xa0
        0x143 => 0xad,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_covers_every_byte_once() {
        let mut seen = [0; 256];
        for byte in (0..0x200).filter_map(byte_of) {
            seen[byte as usize] += 1;
        }
        assert_eq!(seen, [1; 256]);
        let mut out = Vec::new();
        from_byte_alphabet("Ġa 中\u{80}ĊŃſñ".as_bytes(), &mut out);
        let expected = [" a 中\u{80}\n".as_bytes(), b"\xad", "ſ".as_bytes(), b"\xf1"];
        assert_eq!(out, expected.concat());
    }
}
