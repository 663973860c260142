//! `dram embed`: texts to vectors.

use std::io::{self, BufRead as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use dram_core::{Model, SessionOptions};
use serde_json::json;

/// Embed lines of text with an encoder such as BERT
///
/// Reads lines from standard input and writes one JSON array a line, normalised to length 1: the dot product of two is their cosine similarity. Pooling
/// follows the file's metadata. A line longer than the model's context is an error.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  printf 'a cat\\na kitten\\n' | dram embed all-minilm-l6-v2-f16.gguf")]
pub(crate) struct Args {
    /// A GGUF file of an encoder
    model: PathBuf,
    /// Threads (default: the processor's fast cores)
    #[arg(short, long)]
    threads: Option<usize>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let model = Model::open(&args.model)?;
    let mut encoder = model.encoder(SessionOptions {
        threads: args.threads,
        ..SessionOptions::default()
    })?;
    let mut out = io::stdout().lock();
    for (number, line) in io::stdin().lock().lines().enumerate() {
        let line = line.context("standard input is not UTF-8 text")?;
        let ids = model.tokenizer().encode_with_ends(&line, false);
        let vector = encoder
            .embed(&ids)
            .with_context(|| format!("line {}", number + 1))?;
        writeln!(out, "{}", json!(vector))?;
    }
    Ok(out.flush()?)
}
