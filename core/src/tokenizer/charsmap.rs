//! SentencePiece's rules for characters, `tokenizer.ggml.precompiled_charsmap`: what stands at a place of the text and what stands for it.
//!
//! Four bytes say how long a double array is (Aoe 1989, as Darts-clone packs it in 32 bits: https://github.com/s-yata/darts-clone), then it
//! follows, then the replacements, each ended by a zero byte. A leaf's value is where its replacement begins.

use super::bad;
use crate::Result;
use crate::gguf::File;

/// Longer, in bytes, than any replacement that a normal form of Unicode makes of a character, and than what a rule replaces.
const LONGEST: usize = 256;

#[derive(Default)]
pub(super) struct Charsmap {
    nodes: Vec<u32>,
    replacements: Vec<u8>,
}

impl Charsmap {
    pub(super) fn from_gguf(file: &File) -> Result<Charsmap> {
        const KEY: &str = "tokenizer.ggml.precompiled_charsmap";
        match file.metadata().opt_bytes(KEY)? {
            Some(bytes) if !bytes.is_empty() => Charsmap::parse(bytes)
                .map_err(|(expected, got)| bad(file, KEY, expected.to_owned(), got)),
            _ => Ok(Charsmap::default()),
        }
    }

    fn parse(bytes: &[u8]) -> std::result::Result<Charsmap, (&'static str, String)> {
        let total = bytes.len();
        let (length, rest) = bytes
            .split_first_chunk::<4>()
            .ok_or(("a length of four bytes", format!("{total} bytes")))?;
        let length = u32::from_le_bytes(*length) as usize;
        let (nodes, replacements) = rest
            .split_at_checked(length)
            .filter(|(nodes, _)| nodes.len().is_multiple_of(4))
            .ok_or((
                "an array of 32-bit numbers as long as its first four bytes say",
                format!("{length} of {total} bytes"),
            ))?;
        let longest = replacements.split(|&byte| byte == 0).map(<[u8]>::len).max();
        if longest > Some(LONGEST) {
            return Err((
                "replacements of at most 256 bytes",
                format!("one of {}", longest.unwrap_or_default()),
            ));
        }
        Ok(Charsmap {
            nodes: nodes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|node| u32::from_le_bytes(*node))
                .collect(),
            replacements: replacements.to_vec(),
        })
    }

    /// Calls `push` with the characters of the text that stands for `text`: at each place by the longest rule that applies.
    pub(super) fn apply(&self, text: &str, push: &mut dyn FnMut(char)) {
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            match self.longest(rest.as_bytes()) {
                // Rules are for whole characters; a damaged file's need not be.
                Some((length, replacement)) if rest.is_char_boundary(length) => {
                    String::from_utf8_lossy(replacement)
                        .chars()
                        .for_each(&mut *push);
                    rest = &rest[length..];
                }
                _ => {
                    push(c);
                    rest = &rest[c.len_utf8()..];
                }
            }
        }
    }

    /// The longest beginning of `text` with a rule, and what stands for it.
    fn longest(&self, text: &[u8]) -> Option<(usize, &[u8])> {
        let node = |index: u32| self.nodes.get(index as usize).copied();
        let base = |node: u32| (node >> 10) << ((node & 1 << 9) >> 6);
        let (mut index, mut found) = (base(node(0)?), None);
        for (at, &byte) in text.iter().enumerate().take(LONGEST) {
            index ^= u32::from(byte);
            let label = |node: &u32| byte != 0 && node & (1 << 31 | 0xff) == u32::from(byte);
            let Some(here) = node(index).filter(label) else {
                break;
            };
            index ^= base(here);
            if here >> 8 & 1 == 1 {
                let value = node(index).map(|leaf| leaf & !(1 << 31));
                found = value.map(|value| (at + 1, value as usize)).or(found);
            }
        }
        let (length, value) = found?;
        let replacement = self.replacements.get(value..)?;
        let end = replacement.iter().position(|&byte| byte == 0)?;
        Some((length, &replacement[..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map whose array leads back to itself matches as far as there are `a`s, and nothing: quadratic time would take a minute.
    #[test]
    fn a_rule_without_end_takes_linear_time() {
        let mut nodes = [0_u32; 256];
        nodes[usize::from(b'a')] = u32::from(b'a') << 10 | u32::from(b'a');
        let bytes = [1024_u32].iter().chain(&nodes);
        let bytes: Vec<u8> = bytes.flat_map(|number| number.to_le_bytes()).collect();
        let map = Charsmap::parse(&bytes).unwrap();
        let (mut count, start) = (0, std::time::Instant::now());
        map.apply(&"a".repeat(400_000), &mut |_| count += 1);
        assert_eq!(count, 400_000);
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }

    /// Any damage is an error or another map, never a panic; nothing grows beyond the longest replacement.
    #[test]
    fn damaged_maps_do_no_harm() {
        let mut state = 7_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state
        };
        for _ in 0..2_000 {
            let nodes = next() % 300;
            let mut bytes = (nodes * 4).to_le_bytes().to_vec();
            // Small bases, so that many transitions hit, and labels of ASCII.
            (0..nodes).for_each(|_| {
                let node = (next() % nodes.max(1)) << 10 | (next() & 0x100) | (next() % 128);
                bytes.extend(node.to_le_bytes());
            });
            bytes.extend((0..next() % 200).map(|i| (i * 31 % 97) as u8));
            let map = Charsmap::parse(&bytes).unwrap();
            let text = "the text: a\u{301} \u{fdfa} 東京".repeat(3);
            let mut count = 0;
            map.apply(&text, &mut |_| count += 1);
            assert!(count <= text.len() * LONGEST);
        }
        let errors = [&[1, 2][..], &[9, 0, 0, 0, 1], &[0xff; 12]];
        assert!(errors.iter().all(|bytes| Charsmap::parse(bytes).is_err()));
        let long = [vec![0; 4], vec![b'a'; 300]].concat();
        assert!(Charsmap::parse(&long).is_err());
    }
}
