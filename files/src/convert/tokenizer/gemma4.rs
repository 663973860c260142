//! Gemma 4's BPE, from `tokenizer.json`: merges over a whole text, whose tokens are written as they are.

use anyhow::{Context, Result, ensure};
use serde_json::Value as Json;

use super::{Entries, Files, check_count};
use crate::tokenizer::{Vocabulary, as_written, token_type};

/// What a model writes around its thoughts and calls: shown as text, as by llama.cpp's converter, so that a reader of answers finds it.
const SHOWN: [&str; 7] = [
    "<|channel>",
    "<channel|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    "<|\"|>",
];

impl Files<'_> {
    pub(super) fn gemma4(
        &self,
        json: &Json,
        rows: usize,
        keys: &mut Entries,
    ) -> Result<(Vocabulary, String)> {
        let at = || format!("{}/tokenizer.json", self.folder.display());
        let normalizer = &json["normalizer"];
        let is_space =
            normalizer["pattern"]["String"] == " " && normalizer["content"] == "\u{2581}";
        ensure!(
            normalizer["type"] == "Replace" && is_space && json["model"]["byte_fallback"] == true,
            "{}: expected Gemma 4's BPE, which writes U+2581 for a space and falls back to bytes; its normalizer is {normalizer}",
            at()
        );
        let mut vocabulary = as_written(json).with_context(at)?;
        check_count(vocabulary.tokens.len(), rows).with_context(at)?;
        vocabulary.model = "gemma4".into();
        vocabulary.scores = vec![-1000.0; vocabulary.tokens.len()]; // nothing reads them
        for (token, kind) in vocabulary.tokens.iter().zip(&mut vocabulary.types) {
            if SHOWN.contains(&&**token) {
                *kind = token_type::USER_DEFINED;
            }
        }
        keys.set("tokenizer.ggml.add_space_prefix", false);
        Ok((vocabulary, "Gemma 4's BPE".into()))
    }
}
