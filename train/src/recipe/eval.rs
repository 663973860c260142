//! `[eval]`: what is measured, and when.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::Kind;

/// `[eval]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Eval {
    /// Steps between evaluations on held-out data during training; 0: only at the end. Default 500.
    pub every: u64,
    /// Held-out examples ("actions", "jsonl") of each set, at most. Default 500.
    pub examples: usize,
    /// Held-out tokens ("text") at the end, at most; 0: all. Default 0.
    pub tokens: usize,
    /// "text": score held-out text as llama.cpp's `llama-perplexity` does, in chunks of this many tokens of which the second half counts, BOS first
    /// in each where the tokenizer adds it, and special tokens spelt in the text taken as text. Default: every token counts once, in blocks of
    /// `data.sequence` tokens.
    pub chunk: Option<usize>,
    /// Chunks, at most; 0: all. Default 0.
    pub chunks: usize,
    /// Before a distillation, train a control: the same student with the same data, steps and blocks, by cross entropy alone. It lands in
    /// `control/` and stands beside the student in the report; it takes a training's time. Default false.
    pub control: bool,
}

impl Default for Eval {
    fn default() -> Self {
        Eval {
            every: 500,
            examples: 500,
            tokens: 0,
            chunk: None,
            chunks: 0,
            control: false,
        }
    }
}

impl Eval {
    pub(super) fn check(&self, kind: Kind) -> Result<()> {
        ensure!(self.examples > 0, "[eval] examples = 0");
        if let Some(chunk) = self.chunk {
            ensure!(
                chunk >= 4 && kind == Kind::Text,
                "[eval] chunk = {chunk}: expected at least 4 tokens, and [data] kind = \"text\""
            );
        }
        Ok(())
    }
}
