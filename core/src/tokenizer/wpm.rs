//! WordPiece (Schuster & Nakajima 2012) as BERT uses it: text normalized and cut into words, each word into the longest tokens that fit.
//!
//! The converter writes tokens that begin a word with U+2581 in front, and those that go on without BERT's `##`.

use super::spm::SPACE;
use super::vocabulary::Vocabulary;
use crate::Result;
use crate::gguf::File;
use unicode_general_category::{GeneralCategory, get_general_category};
use unicode_normalization::UnicodeNormalization;

/// A longer word is unknown, as in Hugging Face's `WordPiece`.
const MAX_WORD: usize = 100;

pub(super) struct Wpm {
    lowers: bool,
    strips_accents: bool,
}

impl Wpm {
    pub(super) fn from_gguf(file: &File) -> Result<Wpm> {
        let metadata = file.metadata();
        let lowers = metadata
            .opt_bool("tokenizer.ggml.normalizer.lowercase")?
            .unwrap_or(true);
        Ok(Wpm {
            lowers,
            strips_accents: metadata
                .opt_bool("tokenizer.ggml.normalizer.strip_accents")?
                .unwrap_or(lowers),
        })
    }

    pub(super) fn encode(
        &self,
        text: &str,
        vocabulary: &Vocabulary,
        unknown: Option<u32>,
        ids: &mut Vec<u32>,
    ) {
        let mut word = String::from(SPACE);
        let mut length = 0;
        let mut finish = |word: &mut String, length: &mut usize| {
            if *length > 0 {
                let first = ids.len();
                if *length > MAX_WORD || !Wpm::cut(word, vocabulary, ids) {
                    ids.truncate(first);
                    ids.extend(unknown);
                }
            }
            word.truncate(SPACE.len());
            *length = 0;
        };
        self.normalize(text, &mut |c| {
            if c.is_whitespace() {
                return finish(&mut word, &mut length);
            }
            let alone = is_punctuation(c) || is_chinese(c);
            if alone {
                finish(&mut word, &mut length);
            }
            word.push(c);
            length += 1;
            if alone {
                finish(&mut word, &mut length);
            }
        });
        finish(&mut word, &mut length);
    }

    /// Hugging Face's `BertNormalizer`: control characters go, accents are taken off, letters are lowered.
    fn normalize(&self, text: &str, push: &mut dyn FnMut(char)) {
        let mut lower = |c: char| {
            if self.lowers {
                c.to_lowercase().for_each(&mut *push);
            } else {
                push(c);
            }
        };
        let kept = text.chars().filter(|&c| !is_removed(c));
        if self.strips_accents {
            kept.nfd()
                .filter(|&c| get_general_category(c) != GeneralCategory::NonspacingMark)
                .for_each(&mut lower);
        } else {
            kept.for_each(&mut lower);
        }
    }

    /// The longest tokens from the left; whether they cover the word.
    fn cut(word: &str, vocabulary: &Vocabulary, ids: &mut Vec<u32>) -> bool {
        let mut rest = word.as_bytes();
        while !rest.is_empty() {
            let most = rest.len().min(vocabulary.longest());
            let found = (1..=most)
                .rev()
                .find_map(|length| Some((length, vocabulary.find(&rest[..length])?)));
            let Some((length, id)) = found else {
                return false;
            };
            ids.push(id);
            rest = &rest[length..];
        }
        true
    }
}

fn is_removed(c: char) -> bool {
    use GeneralCategory::{Control, Format, PrivateUse, Unassigned};
    matches!(c, '\0' | '\u{fffd}')
        || !matches!(c, '\t' | '\n' | '\r')
            && matches!(
                get_general_category(c),
                Control | Format | PrivateUse | Unassigned
            )
}

fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || get_general_category(c).abbreviation().starts_with('P')
}

/// The blocks of ideographs in BERT's `_is_chinese_char`, with Hugging Face's slip in the last but two.
fn is_chinese(c: char) -> bool {
    matches!(
        u32::from(c),
        0x4e00..=0x9fff
            | 0x3400..=0x4dbf
            | 0x20000..=0x2a6df
            | 0x2a700..=0x2b73f
            | 0x2b740..=0x2b81f
            | 0x2b920..=0x2ceaf
            | 0xf900..=0xfaff
            | 0x2f800..=0x2fa1f
    )
}
