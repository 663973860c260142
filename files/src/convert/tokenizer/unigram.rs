//! SentencePiece's unigram model as a `tokenizer.json` writes it: tokens with scores, and how text is normalised.

use anyhow::{Context, Result, ensure};
use dram_core::gguf::OwnedValue;
use serde_json::Value as Json;

use super::{Entries, check_count};
use crate::tokenizer::{Vocabulary, token_type};

/// How a text is normalised before it is cut: the keys of GGUF.
#[derive(Debug, Default)]
pub(super) struct Normalizer {
    pub(super) charsmap: Vec<u8>,
    /// A space goes before the text.
    pub(super) adds_space: bool,
    /// Of several spaces one is left, and none at the ends.
    pub(super) merges_spaces: bool,
}

impl Normalizer {
    pub(super) fn set(self, keys: &mut Entries) {
        let mut set =
            |key: &str, value: OwnedValue| keys.set(&format!("tokenizer.ggml.{key}"), value);
        set("add_space_prefix", self.adds_space.into());
        set("remove_extra_whitespaces", self.merges_spaces.into());
        if !self.charsmap.is_empty() {
            set("precompiled_charsmap", self.charsmap.into());
        }
    }

    /// `part`: `normalizer` or `pre_tokenizer`, or one of a sequence.
    fn read(&mut self, part: &Json) -> Result<()> {
        match part["type"].as_str() {
            Some("Sequence") => {
                for list in ["normalizers", "pretokenizers"] {
                    for part in part[list].as_array().into_iter().flatten() {
                        self.read(part)?;
                    }
                }
            }
            Some("Precompiled") => {
                let text = part["precompiled_charsmap"].as_str().unwrap_or_default();
                self.charsmap = base64(text).context("precompiled_charsmap is no base64")?;
            }
            Some("Metaspace") => {
                self.adds_space =
                    part["prepend_scheme"] != "never" && part["add_prefix_space"] != false;
            }
            Some("WhitespaceSplit") => self.merges_spaces = true,
            // ` {2,}` becomes one space.
            Some("Replace") => self.merges_spaces |= part["pattern"]["Regex"] == " {2,}",
            _ => {}
        }
        Ok(())
    }
}

/// The tokens, and in `keys` how text is normalised.
///
/// # Errors
/// When an entry is malformed or there are more tokens than `rows`.
pub(super) fn read(json: &Json, rows: usize, keys: &mut Entries) -> Result<Vocabulary> {
    let model = &json["model"];
    let list = model["vocab"].as_array();
    let list = list.context("model.vocab: expected a list of tokens with scores")?;
    check_count(list.len(), rows)?;
    let mut vocabulary = Vocabulary {
        model: "t5".into(),
        pre: Some("default".into()),
        ..Vocabulary::default()
    };
    for entry in list {
        let (text, score) = (entry[0].as_str(), entry[1].as_f64());
        let (Some(text), Some(score)) = (text, score) else {
            anyhow::bail!("model.vocab: expected [token, score], got {entry}");
        };
        vocabulary.tokens.push(text.to_owned());
        vocabulary.scores.push(score as f32);
        vocabulary.types.push(token_type::NORMAL);
    }
    if let Some(id) = model["unk_id"].as_u64() {
        let kind = vocabulary.types.get_mut(id as usize);
        *kind.with_context(|| format!("model.unk_id is {id} of {} tokens", list.len()))? =
            token_type::UNKNOWN;
        keys.set("tokenizer.ggml.unknown_token_id", u32::try_from(id)?);
    }
    ensure!(
        model["byte_fallback"] != true,
        "model.byte_fallback: the runtime's unigram model has no bytes for unknown characters"
    );
    let mut normalizer = Normalizer::default();
    normalizer.read(&json["normalizer"])?;
    normalizer.read(&json["pre_tokenizer"])?;
    normalizer.set(keys);
    Ok(vocabulary)
}

/// RFC 4648, section 4.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        assert_eq!(base64("TWFu").unwrap(), b"Man");
        assert_eq!(base64("TWE=").unwrap(), b"Ma");
        assert_eq!(base64("/+8=").unwrap(), [0xff, 0xef]);
        assert_eq!(base64("T*Fu"), None);
    }
}
