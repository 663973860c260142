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
    /// Tokens that [`Vocabulary::find`] passes over, ascending.
    hidden: Vec<u32>,
    /// Bytes of the longest token.
    longest: usize,
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
            // Those past the tokens mean nothing, as in llama.cpp.
            Some(kinds) if kinds.len() < count => {
                return Err(bad(
                    file,
                    TYPES,
                    format!("{count} types, one for each token"),
                    kinds.len().to_string(),
                ));
            }
            Some(kinds) => {
                let kinds = kinds.into_iter().take(count);
                kinds.map(TokenType::from_id).collect()
            }
        };
        let mut vocabulary = Vocabulary {
            bytes: Vec::with_capacity(count * 8),
            ends: Vec::with_capacity(count),
            kinds,
            hidden: Vec::new(),
            longest: 0,
            by_bytes: OnceLock::new(),
        };
        for (id, (token, kind)) in tokens.bytes().zip(&vocabulary.kinds).enumerate() {
            use TokenType::{Normal, Undefined, Unused};
            let start = vocabulary.bytes.len();
            // The words of a byte-level vocabulary are looked up in the byte alphabet. A token with other characters is none of them, and one
            // that is written as it is only where both ways of writing agree.
            let is_word = if byte_level && matches!(kind, Normal | Unused | Undefined) {
                from_byte_alphabet(token, &mut vocabulary.bytes)
            } else {
                vocabulary.bytes.extend_from_slice(token);
                !byte_level || token.iter().all(u8::is_ascii_graphic)
            };
            if !is_word {
                vocabulary.hidden.push(id as u32);
            }
            vocabulary.longest = vocabulary.longest.max(vocabulary.bytes.len() - start);
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

    /// Those tokens of `sorted` whose byte at `depth` is `byte`. `sorted` is in the order of the tokens' bytes, which agree before `depth`; a token
    /// that ends there comes first.
    pub(super) fn narrow<'a>(&self, sorted: &'a [u32], depth: usize, byte: u8) -> &'a [u32] {
        let at = |id: u32| self.bytes(id).get(depth).copied();
        let from = near_start(sorted, |id| at(id) < Some(byte));
        let sorted = &sorted[from..];
        &sorted[..near_end(sorted, |id| at(id) == Some(byte))]
    }

    /// Bytes of the longest token.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// The token that a word with exactly these bytes is: of several the first. In a byte-level vocabulary a token with a character that the byte
    /// alphabet lacks is no word.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<u32> {
        self.table().find(self, bytes)
    }

    /// [`Vocabulary::find`], faster where one of the tokens `likely` has these bytes.
    pub(super) fn find_near<const N: usize>(&self, likely: [u32; N], bytes: &[u8]) -> Option<u32> {
        let table = self.table();
        let is_hidden = |id| self.hidden.binary_search(&id).is_ok();
        let has = |id: u32| (id as usize) < self.len() && self.bytes(id) == bytes && !is_hidden(id);
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
    /// Whether no two words have the same bytes.
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
        let mut hidden = vocabulary.hidden.iter().copied().peekable();
        for id in 0..vocabulary.len() as u32 {
            if hidden.next_if_eq(&id).is_some() {
                continue;
            }
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

/// [`slice::partition_point`], in few steps where the point is near the beginning.
fn near_start(ids: &[u32], is_before: impl Fn(u32) -> bool) -> usize {
    let mut high = 0;
    while high < ids.len() && is_before(ids[high]) {
        high = high * 2 + 1;
    }
    let low = high / 2;
    let high = high.min(ids.len());
    low + ids[low..high].partition_point(|&id| is_before(id))
}

/// [`slice::partition_point`], in few steps where the point is near the end.
fn near_end(ids: &[u32], is_before: impl Fn(u32) -> bool) -> usize {
    let mut back = 0;
    while back < ids.len() && !is_before(ids[ids.len() - 1 - back]) {
        back = back * 2 + 1;
    }
    let low = ids.len() - back.min(ids.len());
    let high = ids.len() - back / 2;
    low + ids[low..high].partition_point(|&id| is_before(id))
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

/// Undoes GPT-2's byte alphabet, in which every byte is a printable character: `Ġ` is a space. Other characters stand for themselves; returns
/// whether there were none.
pub(super) fn from_byte_alphabet(mut text: &[u8], out: &mut Vec<u8>) -> bool {
    let mut all = true;
    loop {
        let ascii = text.iter().position(|byte| !byte.is_ascii());
        let (same, rest) = text.split_at(ascii.unwrap_or(text.len()));
        all &= same.iter().all(u8::is_ascii_graphic);
        out.extend_from_slice(same);
        let Some((&first, rest)) = rest.split_first() else {
            return all;
        };
        let byte = match rest.first() {
            Some(&next) if (0xc2..=0xc5).contains(&first) => {
                byte_of(u32::from(first & 0x1f) << 6 | u32::from(next & 0x3f))
            }
            _ => None, // of a character of three or four bytes
        };
        all &= byte.is_some();
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
    fn points_near_either_end_are_the_same() {
        for length in 0..40_u32 {
            let ids: Vec<u32> = (0..length).collect();
            for point in 0..=length {
                let found = [near_start, near_end].map(|find: fn(&[u32], _) -> usize| {
                    find(
                        &ids,
                        Box::new(move |id| id < point) as Box<dyn Fn(u32) -> bool>,
                    )
                });
                assert_eq!(found, [point as usize; 2], "of {length}");
            }
        }
    }

    #[test]
    fn the_byte_alphabet_covers_every_byte_once() {
        let mut seen = [0; 256];
        for byte in (0..0x200).filter_map(byte_of) {
            seen[byte as usize] += 1;
        }
        assert_eq!(seen, [1; 256]);
        let mut out = Vec::new();
        assert!(!from_byte_alphabet("Ġa 中\u{80}ĊŃſñ".as_bytes(), &mut out));
        let expected = [" a 中\u{80}\n".as_bytes(), b"\xad", "ſ".as_bytes(), b"\xf1"];
        assert_eq!(out, expected.concat());
        out.clear();
        assert!(from_byte_alphabet("Ġa!ĊŃñ".as_bytes(), &mut out));
        for other in ["a b", "\n", "\u{7f}", "\u{80}", "ſ", "\u{200d}", "中"] {
            assert!(!from_byte_alphabet(other.as_bytes(), &mut out), "{other:?}");
        }
    }
}
