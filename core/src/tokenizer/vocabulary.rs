//! Tokens' bytes in one buffer, and the table that finds a token by its bytes.

use super::{TokenType, bad};
use crate::Result;
use crate::gguf::File;
use std::hash::Hasher as _;
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
        for (token, kind) in tokens.zip(&vocabulary.kinds) {
            if byte_level && matches!(kind, TokenType::Normal | TokenType::Unused) {
                from_byte_alphabet(token, &mut vocabulary.bytes);
            } else {
                vocabulary.bytes.extend_from_slice(token.as_bytes());
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

    /// [`Vocabulary::find`], faster where token `guess` has these bytes.
    pub(super) fn find_near(&self, guess: u32, bytes: &[u8]) -> Option<u32> {
        let table = self.table();
        let is_right =
            table.all_differ && (guess as usize) < self.len() && self.bytes(guess) == bytes;
        if is_right {
            Some(guess)
        } else {
            table.find(self, bytes)
        }
    }

    fn table(&self) -> &Table {
        self.by_bytes.get_or_init(|| Table::new(self))
    }
}

/// An open-addressing table of token ids: 4 bytes a slot, no copy of the keys.
struct Table {
    slots: Vec<u32>,
    /// Whether no two tokens have the same bytes.
    all_differ: bool,
}

const EMPTY: u32 = u32::MAX;

impl Table {
    fn new(vocabulary: &Vocabulary) -> Table {
        let mut table = Table {
            slots: vec![EMPTY; (vocabulary.len() * 2).next_power_of_two()],
            all_differ: true,
        };
        for id in 0..vocabulary.len() as u32 {
            let bytes = vocabulary.bytes(id);
            let mut slot = table.first_slot(bytes);
            loop {
                match table.slots[slot] {
                    EMPTY => break table.slots[slot] = id,
                    other if vocabulary.bytes(other) == bytes => break table.all_differ = false,
                    _ => slot = (slot + 1) & (table.slots.len() - 1),
                }
            }
        }
        table
    }

    fn find(&self, vocabulary: &Vocabulary, bytes: &[u8]) -> Option<u32> {
        let mut slot = self.first_slot(bytes);
        loop {
            match self.slots[slot] {
                EMPTY => return None,
                id if vocabulary.bytes(id) == bytes => return Some(id),
                _ => slot = (slot + 1) & (self.slots.len() - 1),
            }
        }
    }

    fn first_slot(&self, bytes: &[u8]) -> usize {
        let mut hasher = Fnv::default();
        hasher.write(bytes);
        hasher.finish() as usize & (self.slots.len() - 1)
    }
}

/// FNV-1a with a final mix. Keys are short, and a file made to collide only slows its own loading.
pub(super) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl std::hash::Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        (self.0 ^ (self.0 >> 32))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_right(29)
    }
}

/// Undoes GPT-2's byte alphabet, in which every byte is a printable character: `Ġ` is a space. Other characters stand for themselves.
pub(super) fn from_byte_alphabet(token: &str, out: &mut Vec<u8>) {
    for c in token.chars() {
        match byte_of(c) {
            Some(byte) => out.push(byte),
            None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Printable Latin-1 stands for itself; the 68 other bytes are, in order, U+0100 and on.
fn byte_of(c: char) -> Option<u8> {
    Some(match u32::from(c) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => code as u8,
        code @ 0x100..=0x120 => (code - 0x100) as u8, // 0x00–0x20
        code @ 0x121..=0x142 => (code - 0x121 + 0x7f) as u8, // 0x7f–0xa0
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
        for c in (0..0x200).filter_map(char::from_u32) {
            if let Some(byte) = byte_of(c) {
                seen[byte as usize] += 1;
            }
        }
        assert_eq!(seen, [1; 256]);
        assert_eq!(
            (byte_of('Ġ'), byte_of('Ċ'), byte_of('a')),
            (Some(b' '), Some(b'\n'), Some(b'a'))
        );
    }
}
