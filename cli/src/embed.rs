//! `dram embed`: texts to vectors.

use std::io::{self, BufRead as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use dram_core::{EmbedOptions, Model, SessionOptions};
use serde_json::json;

/// Embed lines of text with an embedding model such as BERT or Qwen3-Embedding
///
/// Reads lines from standard input and writes one JSON array a line, normalised to length 1: the dot product of two is their cosine similarity. Pooling
/// follows the file's metadata. A line longer than the model's context is an error. docs/embedding.md says with which prompts models were trained.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  printf 'a cat\\na kitten\\n' | dram embed all-minilm-l6-v2-f16.gguf
  echo 'how tall is K2?' | dram embed nomic-embed-text-v1.5.gguf --prompt 'search_query: ' --dimension 256")]
pub(crate) struct Args {
    /// A GGUF file of an embedding model
    model: PathBuf,
    /// What stands before each line
    #[arg(
        long,
        default_value = "",
        value_name = "TEXT",
        hide_default_value = true
    )]
    prompt: String,
    /// Values of each vector that are kept, for models trained to be shortened (default: all)
    #[arg(long, value_name = "N")]
    dimension: Option<usize>,
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
    let options = EmbedOptions {
        prompt: args.prompt,
        dimension: args.dimension,
    };
    encoder.check(&options)?;
    let mut out = io::stdout().lock();
    for (number, line) in io::stdin().lock().lines().enumerate() {
        let line = line.context("standard input is not UTF-8 text")?;
        let vector = encoder
            .embed_text(&line, &options)
            .with_context(|| format!("line {}", number + 1))?;
        writeln!(out, "{}", json!(vector))?;
    }
    Ok(out.flush()?)
}
