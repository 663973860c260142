//! SentencePiece's unigram model (Kudo 2018, https://arxiv.org/abs/1804.10959): of all ways to cut a text into tokens, the one whose scores,
//! logarithms of probabilities, add up to the most.
//!
//! A text is cut word by word where no token can lie across, as in `spm`; the sums begin anew there.

use super::charsmap::Charsmap;
use super::spm::{SPACE, before_space, scores};
use super::vocabulary::Vocabulary;
use super::{TokenType, bad};
use crate::Result;
use crate::gguf::File;
use std::collections::HashSet;
use std::sync::OnceLock;

/// By how much an unknown character is worse than the worst token, as in SentencePiece.
const UNKNOWN_PENALTY: f32 = 10.0;

/// Most bytes of a token: the time that a text takes grows with its length times this. SentencePiece's trainer makes pieces of 16 characters
/// unless it is told otherwise.
const LONGEST: usize = 512;

pub(super) struct Unigram {
    /// One for each token.
    scores: Vec<f32>,
    charsmap: Charsmap,
    adds_space: bool,
    merges_spaces: bool,
    tables: OnceLock<Tables>,
}

struct Tables {
    /// Tokens that a text may hold, by their bytes.
    sorted: Vec<u32>,
    before_space: HashSet<char>,
    unknown_score: f64,
}

/// The best way to a place in a word.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    start: u32,
    /// None: an unknown character.
    token: Option<u32>,
}

impl Unigram {
    pub(super) fn from_gguf(file: &File, vocabulary: &Vocabulary) -> Result<Unigram> {
        let is_long = |&id: &u32| {
            let kind = vocabulary.kind(id);
            matches!(kind, TokenType::Normal | TokenType::Unused)
                && vocabulary.bytes(id).len() > LONGEST
        };
        if let Some(id) = (0..vocabulary.len() as u32).find(is_long) {
            let got = format!("one of {}, token {id}", vocabulary.bytes(id).len());
            let expected = format!("tokens of at most {LONGEST} bytes");
            return Err(bad(file, "tokenizer.ggml.tokens", expected, got));
        }
        let metadata = file.metadata();
        let flag = |key| metadata.opt_bool(key).map(|flag| flag.unwrap_or(false));
        Ok(Unigram {
            scores: scores(file, vocabulary)?,
            charsmap: Charsmap::from_gguf(file)?,
            adds_space: flag("tokenizer.ggml.add_space_prefix")?,
            merges_spaces: flag("tokenizer.ggml.remove_extra_whitespaces")?,
            tables: OnceLock::new(),
        })
    }

    pub(super) fn adds_space(&self) -> bool {
        self.adds_space || self.merges_spaces
    }

    pub(super) fn encode(
        &self,
        text: &str,
        vocabulary: &Vocabulary,
        unknown: Option<u32>,
        ids: &mut Vec<u32>,
    ) {
        let tables = self.tables.get_or_init(|| self.build(vocabulary));
        let text = self.normalize(text);
        let (mut best, mut after_unknown) = (Vec::new(), false);
        let mut word = |word: &str| {
            self.best(word, tables, vocabulary, &mut best);
            let first = ids.len();
            let mut end = word.len();
            // From the end; neighbours without a token are one unknown token.
            let mut later = None;
            while end > 0 {
                let Best { start, token, .. } = best[end];
                if token.is_some() || later != Some(None) {
                    ids.extend(token.or(unknown));
                }
                later = Some(token);
                end = start as usize;
            }
            ids[first..].reverse();
            if after_unknown && later == Some(None) && unknown.is_some() {
                ids.remove(first);
            }
            after_unknown = best
                .get(word.len())
                .is_some_and(|best| best.token.is_none());
        };
        let (mut start, mut last) = (0, None);
        for (at, c) in text.char_indices() {
            if SPACE.starts_with(c) && last.is_some_and(|c| !tables.before_space.contains(&c)) {
                word(&text[start..at]);
                start = at;
            }
            last = Some(c);
        }
        if start < text.len() {
            word(&text[start..]);
        }
    }

    /// The vocabulary's rules for characters; spaces as U+2581, one before the text, and none beside another, where the file says so.
    fn normalize(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + text.len() / 4 + SPACE.len());
        let (mut inside, mut prefixed) = (false, false);
        self.charsmap.apply(text, &mut |c| {
            if c == ' ' {
                inside = false;
                if !self.merges_spaces {
                    out.push_str(SPACE);
                }
                return;
            }
            if !inside {
                inside = true;
                if self.merges_spaces || (self.adds_space && !prefixed) {
                    out.push_str(SPACE);
                    prefixed = true;
                }
            }
            out.push(c);
        });
        out
    }

    /// Viterbi: fills in the best way to each place of `word`, [bytes + 1].
    fn best(&self, word: &str, tables: &Tables, vocabulary: &Vocabulary, best: &mut Vec<Best>) {
        let nowhere = Best {
            score: f64::NEG_INFINITY,
            start: 0,
            token: None,
        };
        best.clear();
        best.resize(word.len() + 1, nowhere);
        best[0].score = 0.0;
        let bytes = word.as_bytes();
        for (start, c) in word.char_indices() {
            let score = best[start].score;
            let mut offer = |end: usize, score: f64, token| {
                if score > best[end].score {
                    let start = start as u32;
                    best[end] = Best {
                        score,
                        start,
                        token,
                    };
                }
            };
            let mut one_character = false;
            // The tokens that begin with bytes[start..end].
            let mut range = &tables.sorted[..];
            for end in start + 1..=bytes.len() {
                let depth = end - start - 1;
                range = vocabulary.narrow(range, depth, bytes[end - 1]);
                let Some(&first) = range.first() else {
                    break;
                };
                if vocabulary.bytes(first).len() == depth + 1 {
                    one_character |= depth + 1 == c.len_utf8();
                    let users = vocabulary.kind(first) == TokenType::UserDefined;
                    let own = if users {
                        0.0
                    } else {
                        self.scores[first as usize]
                    };
                    offer(end, score + f64::from(own), Some(first));
                }
            }
            if !one_character {
                offer(start + c.len_utf8(), score + tables.unknown_score, None);
            }
        }
    }

    fn build(&self, vocabulary: &Vocabulary) -> Tables {
        use TokenType::{Normal, Unused, UserDefined};
        let ids = 0..vocabulary.len() as u32;
        let worst = ids.clone().filter(|&id| vocabulary.kind(id) == Normal);
        let worst = worst.map(|id| self.scores[id as usize]);
        let worst = worst.fold(f32::MAX, f32::min);
        let mut sorted: Vec<u32> = ids
            .filter(|&id| {
                // A longer one is the user's, and is cut out of the text before.
                matches!(vocabulary.kind(id), Normal | Unused | UserDefined)
                    && (1..=LONGEST).contains(&vocabulary.bytes(id).len())
            })
            .collect();
        sorted.sort_by_key(|&id| vocabulary.bytes(id));
        sorted.dedup_by_key(|id| vocabulary.bytes(*id));
        Tables {
            sorted,
            before_space: before_space(vocabulary),
            unknown_score: f64::from(worst - UNKNOWN_PENALTY),
        }
    }
}
