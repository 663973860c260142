//! SentencePiece's BPE: characters merged by score, bytes for what has no token (Kudo & Richardson 2018; order of merges as llama.cpp).

use super::bad;
use super::merge::{NO_TOKEN, Symbol, merge};
use super::vocabulary::Vocabulary;
use crate::Result;
use crate::gguf::File;

/// What SentencePiece writes for a space: U+2581.
const SPACE: &str = "\u{2581}";

pub(super) struct Spm {
    /// One for each token; higher merges first.
    scores: Vec<f32>,
    adds_space: bool,
}

impl Spm {
    pub(super) fn from_gguf(file: &File, vocabulary: &Vocabulary) -> Result<Spm> {
        const SCORES: &str = "tokenizer.ggml.scores";
        let metadata = file.metadata();
        let scores = metadata
            .opt_f32s(SCORES)?
            .unwrap_or_else(|| vec![0.0; vocabulary.len()]);
        if scores.len() != vocabulary.len() {
            return Err(bad(
                file,
                SCORES,
                format!("{} scores, one for each token", vocabulary.len()),
                scores.len().to_string(),
            ));
        }
        if let Some(score) = scores.iter().find(|score| score.is_nan()) {
            return Err(bad(file, SCORES, "numbers".into(), score.to_string()));
        }
        Ok(Spm {
            scores,
            adds_space: metadata
                .opt_bool("tokenizer.ggml.add_space_prefix")?
                .unwrap_or(true),
        })
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
        if self.adds_space && prefix {
            escaped.push_str(SPACE);
        }
        for c in text.chars() {
            if c == ' ' {
                escaped.push_str(SPACE)
            } else {
                escaped.push(c)
            }
        }
        let bytes = escaped.as_bytes();
        let mut symbols: Vec<Symbol> = escaped
            .char_indices()
            .map(|(start, c)| {
                let end = start + c.len_utf8();
                Symbol {
                    start: start as u32,
                    end: end as u32,
                    id: vocabulary.find(&bytes[start..end]).unwrap_or(NO_TOKEN),
                }
            })
            .collect();
        merge(&mut symbols, |a, b| {
            let id = vocabulary.find(&bytes[a.start as usize..b.end as usize])?;
            Some((rank(self.scores[id as usize]), id))
        });
        for symbol in symbols {
            if symbol.id != NO_TOKEN {
                ids.push(symbol.id);
                continue;
            }
            for byte in &bytes[symbol.start as usize..symbol.end as usize] {
                ids.extend(
                    vocabulary
                        .find(format!("<0x{byte:02X}>").as_bytes())
                        .or(unknown),
                );
            }
        }
    }
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
