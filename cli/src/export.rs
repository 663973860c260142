//! `dram export`: a checkpoint becomes the file that an app opens.

use std::path::PathBuf;

use anyhow::Result;
use dram_train::export::Checkpoint;
use dram_train::student::Scheme;

use crate::output::bytes;
use crate::verify::{GateArgs, batches_for};

/// Write a model as GGUF in a block format
///
/// The source is a Hugging Face folder of a family with dense layers (such as the `model` folder that `dram distill` leaves) or a GGUF file. The file gets its
/// name only after the runtime, opening it, gave the logits that the training code computes for the same rounding (the parity gate).
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dram export out/mine/model student.gguf --linear q4_0
  dram export teacher.gguf teacher-q8_0.gguf --linear q8_0 --embedding q8_0")]
pub(crate) struct Args {
    /// A Hugging Face folder or a GGUF file
    source: PathBuf,
    /// The GGUF file to write
    output: PathBuf,
    /// Block format of the layers' matrices: f32, f16, q8_0 or q4_0
    #[arg(long, default_value = "q4_0")]
    linear: String,
    /// Block format of the embeddings (and of the output matrix when they are tied)
    #[arg(long, default_value = "q8_0")]
    embedding: String,
    /// Block format of an output matrix of its own
    #[arg(long, default_value = "q8_0")]
    head: String,
    #[command(flatten)]
    gate: GateArgs,
    /// Write without comparing
    #[arg(long, conflicts_with = "text")]
    unverified: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let scheme = Scheme::by_name(&args.linear, &args.embedding, &args.head)?;
    let mut checkpoint = Checkpoint::open(&args.source, args.gate.tokenizer.as_deref())?;
    let batches = batches_for(&checkpoint, &args.gate)?;
    let gate = (!args.unverified).then_some((&batches[..], args.gate.threads.count()));
    let parity = checkpoint.export(scheme, &args.output, gate)?;
    if let Some(parity) = parity {
        println!("parity: {parity}");
    }
    println!(
        "{} ({})",
        args.output.display(),
        bytes(std::fs::metadata(&args.output)?.len())
    );
    Ok(())
}
