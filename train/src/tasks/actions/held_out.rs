//! The held-out sets, encoded.

use std::sync::Arc;

use anyhow::Result;

use super::{ActionExamples, Set, distinct};
use crate::data::{Example, TextTokenizer, evaluation_batches};
use crate::eval::{Case, HeldOut};

/// The same requests whatever the seed of a run.
const SEED: u64 = 0;

/// Functions and requests that none fits, `count` of each, in batches of `batch`.
pub(crate) fn held_out_sets(
    tokenizer: &Arc<TextTokenizer>,
    count: usize,
    batch: usize,
) -> Result<Vec<HeldOut>> {
    let sets = [("held-out", Set::HeldOut), ("no function", Set::NoFunction)];
    sets.into_iter()
        .map(|(name, set)| {
            let samples = distinct(set, SEED, count);
            let encoder = ActionExamples::new(tokenizer.clone(), set, SEED)?;
            let examples = samples
                .iter()
                .map(|s| encoder.encode(s))
                .collect::<Result<Vec<Example>>>()?;
            let cases = samples.iter().zip(&examples).map(|(sample, example)| {
                let prompt = example
                    .counts
                    .iter()
                    .position(|&c| c)
                    .unwrap_or(example.ids.len());
                Case {
                    prompt: example.ids[..prompt].to_vec(),
                    answer: sample.call.clone(),
                    max_tokens: example.ids.len() - prompt + 16,
                }
            });
            Ok(HeldOut {
                name: name.into(),
                cases: cases.collect(),
                batches: evaluation_batches(&examples, batch),
            })
        })
        .collect()
}
