//! `dram quantize`: blocks for a file of floating-point weights.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use dram_core::gguf::File;
use dram_files::quantize::{Importance, Mixture, Requantize, Rule};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::output::{bytes, table};

/// Quantise the weights of a GGUF file
///
/// For files in f32, f16 or bf16. Metadata are copied. A student trained by `dram distill` needs no such step: its blocks are the ones it was trained with.
#[derive(clap::Args)]
#[command(after_help = "\
Formats:
  f32 f16 bf16                           floating point
  q8_0 q6_k q5_k q5_1 q5_0               close to the original
  q4_k_m q4_k_s q4_k q4_1 q4_0 iq4_nl iq4_xs mxfp4    about a quarter of f16
  q3_k_m q3_k q2_k tq2_0 tq1_0           smaller still, with losses (tq: for weights trained to be -1, 0, 1)
  _m and _s are llama.cpp's mixtures: some layers get more bits.

Examples:
  dram quantize model-f16.gguf model-q4_0.gguf --format q4_0
  dram quantize model-f16.gguf small.gguf --format q4_k_m --imatrix imatrix.gguf
  dram quantize model-f16.gguf mine.gguf --format q4_0 --tensor 'output.weight=q8_0' --tensor 'blk.*.attn_v.weight=q6_k'
  dram eval model-q4_0.gguf --against model-f16.gguf --text some.txt       what it cost")]
pub(crate) struct Args {
    /// A GGUF file in f32, f16 or bf16
    model: PathBuf,
    /// Where the new file goes
    target: PathBuf,
    /// A block format or a mixture
    #[arg(short, long)]
    format: String,
    /// Another format for the tensors that match; the first match decides; may be given several times
    #[arg(long = "tensor", value_name = "PATTERN=FORMAT")]
    rules: Vec<String>,
    /// An importance matrix in GGUF, from `dram imatrix` or llama-imatrix
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
    /// Threads (default: the processor's)
    #[arg(short, long)]
    threads: Option<usize>,
    /// Print every tensor's formats, size and error as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    ensure!(args.threads != Some(0), "--threads 0: expected at least 1");
    let mixture = Mixture::by_name(&args.format)?;
    let rules = args
        .rules
        .iter()
        .map(|rule| Rule::parse(rule))
        .collect::<Result<Vec<_>>>()?;
    let importance = args.imatrix.as_deref().map(Importance::read).transpose()?;
    let source = File::open(&args.model)?;
    let requantize = Requantize {
        mixture: &mixture,
        rules: &rules,
        importance: importance.as_ref(),
        threads: args
            .threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
    };
    let bar = ProgressBar::new(source.tensors().map(|t| t.bytes().len() as u64).sum());
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left  {msg}",
    )?);
    let mut tensors = Vec::new();
    let mut sizes = source.tensors().map(|t| t.bytes().len() as u64);
    requantize.run(&source, &args.target, &mut |done| {
        bar.set_message(done.name.to_owned());
        bar.inc(sizes.next().unwrap_or(0));
        tensors.push(json!({
            "name": done.name, "from": done.from.name, "to": done.to.name, "bytes": done.bytes, "relative_error": done.error,
        }));
    })?;
    bar.finish_and_clear();
    let size = std::fs::metadata(&args.target)?.len();
    if args.json {
        println!(
            "{}",
            json!({ "file": args.target, "bytes": size, "tensors": tensors })
        );
        return Ok(());
    }
    // One line for each format: how many tensors, how large, how far off at most.
    let mut formats: Vec<(String, usize, u64, f64)> = Vec::new();
    for tensor in &tensors {
        let name = tensor["to"].as_str().unwrap_or_default();
        let at = formats.iter().position(|f| f.0 == name).unwrap_or_else(|| {
            formats.push((name.into(), 0, 0, 0.0));
            formats.len() - 1
        });
        let line = &mut formats[at];
        line.1 += 1;
        line.2 += tensor["bytes"].as_u64().unwrap_or(0);
        line.3 = line.3.max(tensor["relative_error"].as_f64().unwrap_or(0.0));
    }
    let rows: Vec<Vec<String>> = formats
        .into_iter()
        .map(|(name, count, size, error)| {
            vec![
                name,
                count.to_string(),
                bytes(size),
                format!("{:.2} %", 100.0 * error),
            ]
        })
        .collect();
    print!(
        "{}",
        table(
            &["format", "tensors", "size", "relative error, at most"],
            &rows
        )
    );
    println!(
        "{} ({}, was {})",
        args.target.display(),
        bytes(size),
        bytes(source.file_bytes() as u64)
    );
    Ok(())
}
