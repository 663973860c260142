//! `[data]`: what is learnt from.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::Student;

/// Where examples come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The built-in task: a phone request in, a JSON function call out.
    Actions,
    /// Plain UTF-8 text: every token is predicted.
    Text,
    /// Records, as JSON Lines, a JSON array or Parquet: documents, prompts with completions, conversations in the shapes of public data sets
    /// (docs/data.md). Of conversations and completions only the answers are predicted.
    Jsonl,
}

/// `[data]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// "actions", "text" or "jsonl". Default "actions".
    pub kind: Kind,
    /// File to read ("text", "jsonl"), relative to the recipe. For "text" also a folder: every file in it is a document.
    pub path: Option<PathBuf>,
    /// "text": what stands between the documents of a file, as `"\n\n\n"`; it is no part of them. Default: a file is one document. A document begins
    /// with BOS and ends with EOS where the tokenizer adds them; where it adds neither, EOS separates documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub separator: Option<String>,
    /// File of held-out data of the same kind, relative to the recipe. Default: the last `held_out_share` of `path`.
    pub held_out: Option<PathBuf>,
    /// Share of `path` kept from training when there is no held-out file, 0 to 1. Default 0.1.
    pub held_out_share: f64,
    /// Longest training sequence in tokens; records are cut, text is cropped to it. Default: the student's context_length; with
    /// `student.init`, whose context may be far longer than memory allows, the longest record up to 1024 tokens, of text 512. Never more than the
    /// student or the teacher can take.
    pub sequence: Option<usize>,
    /// Tokenizer: a `tokenizer.json`, a folder that holds one (or a `tokenizer.model`), or a GGUF file, relative to the recipe. Default: the teacher's; without a
    /// teacher a byte-level BPE is trained on the data.
    pub tokenizer: Option<PathBuf>,
    /// Tokens of a tokenizer that is trained; 257 makes every byte a token. Default 2048.
    pub vocabulary: usize,
}

impl Default for Data {
    fn default() -> Self {
        Data {
            kind: Kind::Actions,
            path: None,
            separator: None,
            held_out: None,
            held_out_share: 0.1,
            sequence: None,
            tokenizer: None,
            vocabulary: 2048,
        }
    }
}

impl Data {
    pub(super) fn check(&self, student: &Student) -> Result<()> {
        match self.kind {
            Kind::Actions => ensure!(
                self.path.is_none() && self.held_out.is_none(),
                "[data] kind = \"actions\" is generated during training and reads no path; for a file say kind = \"text\" or \"jsonl\""
            ),
            Kind::Text | Kind::Jsonl => ensure!(
                self.path.is_some(),
                "[data] path is missing: the file of training data"
            ),
        }
        ensure!(
            (0.0..1.0).contains(&self.held_out_share),
            "[data] held_out_share = {}; expected at least 0 and below 1",
            self.held_out_share
        );
        if let Some(sequence) = self.sequence {
            ensure!(sequence > 0, "[data] sequence = 0");
            ensure!(
                student.init.is_some() || sequence <= student.context_length,
                "[data] sequence = {sequence} is longer than [student] context_length = {}",
                student.context_length
            );
        }
        ensure!(
            self.vocabulary >= 256,
            "[data] vocabulary = {}; a byte-level tokenizer needs 256 tokens and its special ones",
            self.vocabulary
        );
        Ok(())
    }
}
