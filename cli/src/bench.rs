//! `dram bench`: how fast a model answers on this machine. Takes llama-bench's flags.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use dram_core::latency::{self, Latency, LatencyOptions};
use dram_core::{Limits, Model, SessionOptions};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::DraftArgs;

mod drafts;
mod output;
mod peer;

use output::{print_csv, print_tables};
use peer::Peer;

/// Measure latency, speed and memory of GGUF models
///
/// Flags are llama-bench's: lists are separated by commas, and every combination is measured. For each model the load time is measured twice,
/// with the file's pages dropped from the page cache (cold) and with them there (warm).
/// The device's limits are measured too: prefill multiplies int8, decoding reads the weights from memory. With --compare,
/// llama.cpp's llama-bench runs in turns with it, once after each repetition.
#[derive(clap::Args)]
#[command(after_help = "\
Columns:
  prefill, decode   tokens per second, the median of the repetitions; ± is half of (greatest − least)
  of limit          prefill's multiply-adds of int8, or the bytes that decoding reads, as a share of the device's limit
  ttft              time to first token: prefill of the prompt and the first choice
  p50, p95          time from one token to the next
  mapped            pages of mapped files in memory (the model's weights among them); shared and reclaimable
  anonymous         the process's own memory: KV cache, buffers, tables

Examples:
  dram bench -m student.gguf
  dram bench -m a.gguf -m b.gguf -p 128,512 -n 64 -d 0,2048 -t 1,2 -r 5
  dram bench -m student.gguf -p 0 -n 64 -d 2048 --compare llama.cpp/build/bin/llama-bench
  dram bench -m student.gguf -o json > latency.json
  dram bench -m teacher.gguf --draft student.gguf      what drafts gain: answers with and without them, in turns")]
pub(crate) struct Args {
    /// A GGUF file; may be repeated
    #[arg(short, long, required = true)]
    model: Vec<PathBuf>,
    /// Prompt lengths in tokens
    #[arg(short = 'p', long, value_delimiter = ',', default_values_t = [16, 128])]
    n_prompt: Vec<usize>,
    /// Tokens to generate
    #[arg(short = 'n', long, value_delimiter = ',', default_values_t = [64])]
    n_gen: Vec<usize>,
    /// Tokens already in the cache
    #[arg(short = 'd', long, value_delimiter = ',', default_values_t = [0])]
    n_depth: Vec<usize>,
    /// Threads (default: the processor's fast cores)
    #[arg(short, long, value_delimiter = ',')]
    threads: Vec<usize>,
    /// Repetitions of each combination
    #[arg(short, long, default_value_t = 5)]
    repetitions: usize,
    /// llama.cpp's llama-bench, run in turns with this
    #[arg(long, value_name = "PROGRAM")]
    compare: Option<PathBuf>,
    /// Do not measure the device's limits (which takes 256 MB for a second)
    #[arg(long)]
    no_limits: bool,
    /// Format of the output
    #[arg(short, long, default_value = "md", conflicts_with = "json")]
    output: Output,
    /// The same as -o json
    #[arg(long)]
    json: bool,
    /// With --draft or --lookup: prompts to answer, one a line (default: the built-in task's held-out requests)
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    #[command(flatten)]
    draft: DraftArgs,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Output {
    /// A table
    Md,
    /// One array
    Json,
    /// One object a line
    Jsonl,
    /// Comma-separated values
    Csv,
}

/// One measured combination.
struct Row<'a> {
    model: String,
    parameters: u64,
    load: Load,
    latency: Latency,
    limits: Option<Limits>,
    peer: Option<Peer<'a>>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let threads: Vec<Option<usize>> = if args.threads.is_empty() {
        vec![None]
    } else {
        args.threads.iter().copied().map(Some).collect()
    };
    let output = if args.json { Output::Json } else { args.output };
    if let Some(note) = args.draft.note() {
        let work = drafts::Work {
            speculation: args.draft.speculation()?,
            note,
            prompts: args.prompts.as_deref(),
            max_tokens: args.n_gen[0],
            repetitions: args.repetitions,
        };
        return drafts::compare(&args.model, &threads, &work, output != Output::Md);
    }
    let combinations: Vec<LatencyOptions> = threads
        .iter()
        .flat_map(|&threads| args.n_depth.iter().map(move |&depth| (threads, depth)))
        .flat_map(|(threads, depth)| {
            args.n_prompt
                .iter()
                .map(move |&prompt| (threads, depth, prompt))
        })
        .flat_map(|(threads, depth, prompt)| {
            args.n_gen.iter().map(move |&generate| LatencyOptions {
                prompt,
                generate,
                depth,
                threads,
                repetitions: args.repetitions,
            })
        })
        .collect();
    let bar = ProgressBar::new((args.model.len() * combinations.len() * args.repetitions) as u64)
        .with_style(ProgressStyle::with_template(
            "{msg} {wide_bar} {pos}/{len} {eta}",
        )?);
    let mut rows: Vec<Row<'_>> = Vec::new();
    for path in &args.model {
        bar.set_message(format!("{}: loading", path.display()));
        let load = Load::measure(path)?;
        let model = Model::open(path)?;
        for options in &combinations {
            bar.set_message(format!(
                "{}: p{} n{} d{}",
                path.display(),
                options.prompt,
                options.generate,
                options.depth
            ));
            let mut peer = args.compare.as_deref().map(Peer::new);
            let mut turn = Ok(());
            let latency = latency::measure(&model, options, &mut |progress| {
                if progress.done > 0 {
                    bar.inc(1);
                    if let (Some(peer), Ok(())) = (&mut peer, &turn) {
                        turn = peer.turn(path, options);
                    }
                }
            })
            .with_context(|| {
                format!(
                    "{}: -p {} -n {} -d {}",
                    path.display(),
                    options.prompt,
                    options.generate,
                    options.depth
                )
            })?;
            turn?;
            let known = rows.iter().filter_map(|row| row.limits);
            let known = known
                .into_iter()
                .find(|limits| limits.threads == latency.threads);
            let limits = match known {
                None if !args.no_limits => Some(Limits::measure(Some(latency.threads))?),
                known => known,
            };
            let row = Row {
                model: model_name(path),
                parameters: model.info().parameters,
                load,
                latency,
                limits,
                peer,
            };
            if output == Output::Jsonl {
                println!("{}", row.json());
            }
            rows.push(row);
        }
    }
    bar.finish_and_clear();
    match output {
        Output::Md => print_tables(&rows),
        Output::Json => println!(
            "{}",
            serde_json::to_string_pretty(&rows.iter().map(Row::json).collect::<Vec<_>>())?
        ),
        Output::Jsonl => {}
        Output::Csv => print_csv(&rows),
    }
    Ok(())
}

fn model_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

/// Times from nothing to an open model, and on to the first token after a prompt of one token.
#[derive(Clone, Copy)]
struct Load {
    /// `None` where the system does not let a program drop a file's pages.
    cold: Option<(Duration, Duration)>,
    warm: (Duration, Duration),
}

impl Load {
    fn measure(path: &Path) -> Result<Load> {
        let cold = if drop_pages(path) {
            Some(Load::once(path)?)
        } else {
            None
        };
        let mut warm: Vec<_> = (0..5).map(|_| Load::once(path)).collect::<Result<_>>()?;
        warm.sort_by_key(|&(_, first_token)| first_token);
        Ok(Load {
            cold,
            warm: warm[warm.len() / 2],
        })
    }

    fn once(path: &Path) -> Result<(Duration, Duration)> {
        let start = Instant::now();
        let model = Model::open(path)?;
        let open = start.elapsed();
        let mut session = model.session(SessionOptions {
            context: Some(16.min(model.config().context_length)),
            ..Default::default()
        })?;
        session.prefill(&[model.tokenizer().bos().unwrap_or(0)])?;
        Ok((open, start.elapsed()))
    }
}

/// Asks the system to forget the file's pages, so that the next reading comes from the disk.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn drop_pages(path: &Path) -> bool {
    use rustix::fs::{Advice, fadvise};
    let Ok(file) = std::fs::File::open(path) else {
        return false;
    };
    // Only clean pages are dropped.
    file.sync_all().is_ok() && fadvise(&file, 0, None, Advice::DontNeed).is_ok()
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn drop_pages(_: &Path) -> bool {
    false
}
