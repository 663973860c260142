//! The task as training examples.

use std::sync::Arc;

use anyhow::Result;

use super::{CALL, CHAT_TEMPLATE, END, REQUEST, SPECIAL_TOKENS, Sample, Set, sample};
use crate::data::{Example, Examples, TextTokenizer};

/// The tokenizer of the task: a byte-level BPE of `size` tokens (2,048 by default) trained on the first 40,000 examples of seed 0.
///
/// It is trained on single words, so no token joins a space with letters: a word then has the same tokens in the middle of a request and behind
/// the quote that opens a value, and copying it is copying tokens.
///
/// # Errors
/// When `size` is below 259.
pub fn tokenizer(size: usize) -> Result<TextTokenizer> {
    let texts = (0..40_000)
        .map(|i| sample(Set::Train, 0, i))
        .flat_map(|s| [s.request, s.call])
        .flat_map(|text| text.split(' ').map(str::to_string).collect::<Vec<_>>());
    TextTokenizer::train(texts, size, &SPECIAL_TOKENS, Some(CHAT_TEMPLATE))
}

/// A set of the task, encoded.
pub struct ActionExamples {
    tokenizer: Arc<TextTokenizer>,
    ids: [u32; 3],
    set: Set,
    seed: u64,
    longest: usize,
}

impl ActionExamples {
    /// # Errors
    /// When the tokenizer lacks one of the task's special tokens.
    pub fn new(tokenizer: Arc<TextTokenizer>, set: Set, seed: u64) -> Result<Self> {
        let id = |token: &str| {
            tokenizer.token_id(token).ok_or_else(|| {
                anyhow::anyhow!(
                    "the tokenizer has no token {token}, which the actions task needs ({})",
                    SPECIAL_TOKENS.join(" ")
                )
            })
        };
        let ids = [id(END)?, id(REQUEST)?, id(CALL)?];
        Ok(ActionExamples {
            tokenizer,
            ids,
            set,
            seed,
            longest: usize::MAX,
        })
    }

    /// Examples are cut to `longest` inputs.
    #[must_use]
    pub fn within(self, longest: usize) -> Self {
        ActionExamples { longest, ..self }
    }

    /// `<|request|>` request `<|call|>` call `<|end|>`; only the call and the end are targets.
    ///
    /// # Errors
    /// When the tokenizer cannot encode the sample.
    pub fn encode(&self, sample: &Sample) -> Result<Example> {
        let [end, request, call] = self.ids;
        let mut example = Example::default();
        example.push(&[request], false);
        example.push(&self.tokenizer.encode(&sample.request, false)?, false);
        example.push(&[call], false);
        example.push(&self.tokenizer.encode(&sample.call, false)?, true);
        example.push(&[end], true);
        Ok(example)
    }
}

impl Examples for ActionExamples {
    fn len(&self) -> Option<u64> {
        None
    }

    fn get(&self, index: u64) -> Example {
        let sample = sample(self.set, self.seed, index);
        let mut example = self
            .encode(&sample)
            .expect("a byte-level tokenizer has a token for every byte");
        example.truncate(self.longest.saturating_add(1));
        example
    }
}
