//! The vocabulary as llguidance wants it: a trie of the tokens' bytes, and the tokenizer.

use crate::model::Model;
use crate::tokenizer::{TokenType, Tokenizer};
use llguidance::ParserFactory;
use llguidance::toktrie::{
    INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv,
};
use std::sync::{Arc, OnceLock};

/// What all constraints of a model share; made for the first of them. For a vocabulary of 150,000 tokens that
/// takes a quarter of a second and 40 MB.
#[derive(Default)]
pub(crate) struct Grammars {
    made: OnceLock<Result<ParserFactory, String>>,
    bytes: OnceLock<u64>,
}

impl Grammars {
    /// The model's maker of parsers, or why there is none.
    pub(super) fn factory(model: &Model) -> Result<&ParserFactory, &str> {
        let Some(grammars) = model.shared::<Grammars>() else {
            return Err("the model keeps something else for its sessions");
        };
        let made = grammars.made.get_or_init(|| make(model.shared_tokenizer()));
        made.as_ref().map_err(String::as_str)
    }

    pub(crate) fn are_made(&self) -> bool {
        self.made.get().is_some()
    }

    /// Bytes at most that the maker of parsers takes, also while it is made.
    pub(crate) fn bytes(&self, tokenizer: &Tokenizer) -> u64 {
        *self.bytes.get_or_init(|| bytes(tokenizer))
    }
}

/// Bytes of all tokens together that a trie holds: four times the largest vocabulary in use.
const MAX_BYTES: usize = 1 << 22;
/// A longer token is never chosen under a constraint; the longest in use, of 1024 spaces, is no loss.
const LONGEST: usize = 512;

/// A trie takes 12 bytes a token, its tokens' bytes, and 8 bytes a node. llguidance 1.9 keeps one for the vocabulary and some for its slices, and
/// builds them on larger ones: at most 8.6 times as much as one trie was measured with four vocabularies of 32,000 to 152,000 tokens.
fn bytes(tokenizer: &Tokenizer) -> u64 {
    let ids = 0..tokenizer.len() as u32;
    let mut words: Vec<Vec<u8>> = ids.map(|id| word(tokenizer, id)).collect();
    words.sort_unstable();
    let shared = |pair: &[Vec<u8>]| {
        let same = pair[0].iter().zip(&pair[1]).take_while(|(a, b)| a == b);
        same.count()
    };
    let total: usize = words.iter().map(Vec::len).sum();
    let nodes = total - words.windows(2).map(shared).sum::<usize>();
    9 * (12 * words.len() + total + 8 * nodes) as u64 + (1 << 20)
}

fn make(tokenizer: &Arc<Tokenizer>) -> Result<ParserFactory, String> {
    let ends = tokenizer.ends();
    let info = TokRxInfo::new(
        tokenizer.len() as u32,
        ends.first().copied().unwrap_or(INVALID_TOKEN),
    );
    let words: Vec<Vec<u8>> = (0..tokenizer.len() as u32)
        .map(|id| word(tokenizer, id))
        .collect();
    let bytes: usize = words.iter().map(Vec::len).sum();
    if bytes >= MAX_BYTES {
        return Err(format!(
            "expected a vocabulary of less than {MAX_BYTES} bytes, got {bytes}"
        ));
    }
    let mut trie = TokTrie::from(&info, &words);
    if !ends.is_empty() {
        trie = trie.with_eos_tokens(ends);
    }
    let vocabulary: TokEnv = Arc::new(Vocabulary {
        tokenizer: Arc::clone(tokenizer),
        trie,
    });
    // What most tokens inside a JSON string are, tested at once, also where the string has a bound: that must be further away than the slice's.
    // llguidance has more such slices, at nearly 10 MB each for a vocabulary of 150,000.
    let slices = [r#"[^"\\\x00-\x1F\x7F]{1,20}"#.to_owned()];
    let mut factory = ParserFactory::new(&vocabulary, InferenceCapabilities::default(), &slices)
        .map_err(|error| error.to_string())?;
    factory.quiet();
    // Against hostile grammars: on one core at 2 GHz making a parser ends within a second, a step within some ten milliseconds, and the lexer's
    // states stay below a hundred megabytes.
    let limits = factory.limits_mut();
    limits.max_lexer_states = 50_000;
    limits.max_grammar_size = 200_000;
    limits.verbose_errors = false;
    Ok(factory)
}

/// The bytes that a token adds to the text; for a control token its name behind the mark of such tokens; nothing where it must never be chosen.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let mut word = Vec::new();
    match tokenizer.kind(id) {
        TokenType::Unused | TokenType::Undefined => {}
        TokenType::Control | TokenType::Unknown => {
            word.push(TokTrie::SPECIAL_TOKEN_MARKER);
            tokenizer.raw_bytes(id, &mut word);
        }
        _ => {
            tokenizer.raw_bytes(id, &mut word);
            // No text holds this byte; at the front it would make a control token of any other.
            if word.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) {
                word.clear();
            }
        }
    }
    if word.len() > LONGEST {
        word.clear();
    }
    word
}

struct Vocabulary {
    tokenizer: Arc<Tokenizer>,
    trie: TokTrie,
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.trie.tokenize_with_greedy_fallback(bytes, |text| {
            self.tokenizer.encode_part(text, false, false)
        })
    }
}
