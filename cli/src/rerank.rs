//! `dram rerank`: documents in the order of how well they answer a query.

use std::io::{self, BufRead as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use dram_core::{Model, SessionOptions};
use serde_json::json;

/// Rank lines of text by how well they answer a query, with a reranker such as bge-reranker or Qwen3-Reranker
///
/// Reads one document a line from standard input and writes one JSON object a line, the best first: its score, its number from 0 and its text. Scores are
/// those of llama.cpp's /rerank: a decoder's lie between 0 and 1, others have no bounds.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dram rerank bge-reranker-v2-m3-q8_0.gguf 'how tall is K2?' < paragraphs.txt")]
pub(crate) struct Args {
    /// A GGUF file of a reranker
    model: PathBuf,
    /// What the documents are to answer
    query: String,
    /// Threads (default: the processor's fast cores)
    #[arg(short, long)]
    threads: Option<usize>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let mut encoder = Model::open(&args.model)?.encoder(SessionOptions {
        threads: args.threads,
        ..SessionOptions::default()
    })?;
    encoder.rank(&args.query, &[])?; // refuses other models before a line is read
    let mut ranked = Vec::new();
    for (number, line) in io::stdin().lock().lines().enumerate() {
        let line = line.context("standard input is not UTF-8 text")?;
        let scores = encoder
            .rank(&args.query, &[&line])
            .with_context(|| format!("line {}", number + 1))?;
        ranked.extend(
            scores
                .into_iter()
                .map(|score| (score, number, line.clone())),
        );
    }
    ranked.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
    let mut out = io::stdout().lock();
    for (score, number, line) in ranked {
        let line = json!({ "score": score, "index": number, "document": line });
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}
