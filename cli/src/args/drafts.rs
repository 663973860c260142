//! Speculative decoding: where drafts come from.

use std::path::PathBuf;

use anyhow::Result;
use dram_core::{Model, Speculation};

/// Options of `run`, `chat` and `bench` about speculative decoding.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Speculative decoding (the same output in less time)")]
pub(crate) struct DraftArgs {
    /// Draft model: a small GGUF model with the same vocabulary, such as a student of the model
    #[arg(long, value_name = "FILE")]
    draft: Option<PathBuf>,
    /// Prompt lookup: draft what followed the last N tokens where they occurred before; needs no draft model, helps where output repeats the prompt (2 is a good start)
    #[arg(long, value_name = "N", conflicts_with = "draft")]
    lookup: Option<usize>,
    /// Maximum draft length in tokens, 1 to 15; drafts are shorter where few tokens are accepted
    #[arg(long, value_name = "N", default_value_t = 8)]
    draft_max: usize,
}

impl DraftArgs {
    pub(crate) fn speculation(&self) -> Result<Speculation> {
        let most = self.draft_max;
        Ok(match (&self.draft, self.lookup) {
            (Some(path), _) => Speculation::Draft {
                model: Model::open(path)?,
                most,
            },
            (None, Some(ngram)) => Speculation::Lookup { ngram, most },
            (None, None) => Speculation::Off,
        })
    }

    /// What a table says of where drafts come from; nothing without.
    pub(crate) fn note(&self) -> Option<String> {
        match (&self.draft, self.lookup) {
            (Some(path), _) => Some(path.display().to_string()),
            (None, Some(ngram)) => Some(format!("lookup {ngram}")),
            (None, None) => None,
        }
    }
}
