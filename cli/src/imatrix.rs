//! `dram imatrix`: what of a model's weights matters on a text.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use dram_core::Model;
use dram_files::imatrix::Collect;
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::bytes;

/// Collect an importance matrix for `dram quantize`
///
/// Evaluates a text and sums the squares of what meets each column of each matrix: errors in columns that meet much weigh more. The file is what
/// llama.cpp's llama-imatrix writes, and serves its llama-quantize as well. Take text like what the model will be used for.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dram imatrix model-f16.gguf --text novel.txt --out novel.imatrix.gguf
  dram quantize model-f16.gguf small.gguf --format q2_k --imatrix novel.imatrix.gguf
  dram eval small.gguf --against model-f16.gguf --text another.txt       what is left of it")]
pub(crate) struct Args {
    /// A GGUF file, best in f32, f16 or bf16
    model: PathBuf,
    /// What the model is to read
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Where the matrix goes
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Tokens that are evaluated together; each chunk begins anew (default: 512, or the model's context where that is shorter)
    #[arg(long, value_name = "TOKENS")]
    chunk: Option<usize>,
    /// Chunks at most (default: the whole text)
    #[arg(long, value_name = "N")]
    chunks: Option<usize>,
    /// Find control tokens in the text (`<|im_start|>`)
    #[arg(long)]
    special: bool,
    /// Count the output matrix too, and not only the layers'
    #[arg(long)]
    process_output: bool,
    /// Threads (default: the processor's fast cores)
    #[arg(short, long)]
    threads: Option<usize>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let model = Model::open(&args.model)?;
    let text = std::fs::read_to_string(&args.text)
        .with_context(|| format!("cannot read {}", args.text.display()))?;
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(
        "{bar:30} chunk {pos} of {len}  {eta} left",
    )?);
    let ids = model.tokenizer().encode_with_ends(&text, args.special);
    let collect = Collect {
        model: &model,
        ids: &ids,
        chunk: args.chunk.unwrap_or(512.min(model.config().context_length)),
        chunks: args.chunks,
        output: args.process_output,
        threads: args.threads,
    };
    let collected = collect.run(&mut |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    collected.write(&args.out, &args.text.to_string_lossy())?;
    println!(
        "{}: {} matrices over {} chunks of {} tokens ({})",
        args.out.display(),
        collected.tensors.len(),
        collected.chunks,
        collected.chunk,
        bytes(std::fs::metadata(&args.out)?.len())
    );
    let rest = ids.len() - collected.chunks * collected.chunk;
    if rest > 0 {
        println!(
            "the last {rest} of the text's {} tokens were left out: they fill no chunk, or are more than --chunks asks for",
            ids.len()
        );
    }
    Ok(())
}
