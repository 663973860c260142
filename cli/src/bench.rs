//! `dram bench`: how fast a model answers on this machine. Takes llama-bench's flags.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use dram_core::latency::{self, Latency, LatencyOptions};
use dram_core::{Model, SessionOptions};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::common::{DraftArgs, bytes, table};
use crate::drafts;

/// Measure latency, speed and memory of GGUF models
///
/// Flags are llama-bench's: lists are separated by commas, and every combination is measured. For each model the load time is measured twice,
/// with the file's pages dropped from the page cache (cold) and with them there (warm).
#[derive(clap::Args)]
#[command(after_help = "\
Columns:
  prefill, decode   tokens per second, the median of the repetitions; ± is half of (greatest − least)
  ttft              time to first token: prefill of the prompt and the first choice
  p50, p95          time from one token to the next
  mapped            pages of mapped files in memory (the model's weights among them); shared and reclaimable
  anonymous         the process's own memory: KV cache, buffers, tables

Examples:
  dram bench -m student.gguf
  dram bench -m a.gguf -m b.gguf -p 128,512 -n 64 -d 0,2048 -t 1,2 -r 5
  dram bench -m student.gguf -o json > latency.json
  dram bench -m teacher.gguf --draft student.gguf      what drafts gain: answers with and without them, in turns")]
pub(crate) struct Args {
    /// A GGUF file; may be given several times
    #[arg(short, long, required = true)]
    model: Vec<PathBuf>,
    /// Prompt lengths in tokens
    #[arg(short = 'p', long, value_delimiter = ',', default_values_t = [16, 128])]
    n_prompt: Vec<usize>,
    /// Tokens to make
    #[arg(short = 'n', long, value_delimiter = ',', default_values_t = [64])]
    n_gen: Vec<usize>,
    /// Tokens already in the cache
    #[arg(short = 'd', long, value_delimiter = ',', default_values_t = [0])]
    n_depth: Vec<usize>,
    /// Threads (default: the processor's fast cores)
    #[arg(short, long, value_delimiter = ',')]
    threads: Vec<usize>,
    /// How often each combination is measured
    #[arg(short, long, default_value_t = 5)]
    repetitions: usize,
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
struct Row {
    model: String,
    parameters: u64,
    load: Load,
    latency: Latency,
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
    let mut rows = Vec::new();
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
            let latency = latency::measure(&model, options, &mut |progress| {
                bar.inc(u64::from(progress.done > 0))
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
            let row = Row {
                model: model_name(path),
                parameters: model.info().parameters,
                load,
                latency,
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

pub(crate) fn model_name(path: &Path) -> String {
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

impl Row {
    fn json(&self) -> Value {
        let l = &self.latency;
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        json!({
            "model": self.model,
            "file_bytes": l.file_bytes,
            "parameters": self.parameters,
            "isa": l.isa,
            "threads": l.threads,
            "n_prompt": l.options.prompt,
            "n_gen": l.options.generate,
            "n_depth": l.options.depth,
            "repetitions": l.options.repetitions,
            "prefill_tokens_per_second": l.prefill,
            "prefill_samples": l.prefill_rates,
            "decode_tokens_per_second": l.decode,
            "decode_samples": l.decode_rates,
            "first_token_ms": ms(l.first_token),
            "between_tokens_p50_ms": ms(l.p50),
            "between_tokens_p95_ms": ms(l.p95),
            "open_cold_ms": self.load.cold.map(|(open, _)| ms(open)),
            "open_warm_ms": ms(self.load.warm.0),
            "start_to_first_token_cold_ms": self.load.cold.map(|(_, first)| ms(first)),
            "start_to_first_token_warm_ms": ms(self.load.warm.1),
            "memory_mapped_bytes": l.memory.mapped,
            "memory_kv_cache_bytes": l.memory.kv_cache,
            "memory_scratch_bytes": l.memory.scratch,
            "resident_mapped_bytes": l.resident.map(|r| r.mapped),
            "resident_anonymous_bytes": l.resident.map(|r| r.anonymous),
        })
    }
}

fn millis(d: Duration) -> String {
    let ms = d.as_secs_f64() * 1e3;
    if ms < 1.0 {
        format!("{:.0} µs", ms * 1e3)
    } else if ms < 100.0 {
        format!("{ms:.2} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

fn per_second(rate: f64, spread: f64) -> String {
    if rate == 0.0 {
        "–".into()
    } else {
        format!("{rate:.0} ± {:.0}", rate * spread / 2.0)
    }
}

fn print_tables(rows: &[Row]) {
    let mut models: Vec<Vec<String>> = Vec::new();
    for row in rows {
        let cold = |pick: fn((Duration, Duration)) -> Duration| {
            row.load
                .cold
                .map_or("–".into(), |times| millis(pick(times)))
        };
        let cells = vec![
            row.model.clone(),
            bytes(row.latency.file_bytes),
            row.parameters.to_string(),
            cold(|t| t.0),
            millis(row.load.warm.0),
            cold(|t| t.1),
            millis(row.load.warm.1),
        ];
        if !models.contains(&cells) {
            models.push(cells);
        }
    }
    let header = [
        "model",
        "file",
        "parameters",
        "open cold",
        "open warm",
        "to first token cold",
        "to first token warm",
    ];
    println!("{}", table(&header, &models));
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let l = &row.latency;
            let resident = |pick: fn(latency::Resident) -> u64| {
                l.resident.map_or("–".into(), |r| bytes(pick(r)))
            };
            vec![
                row.model.clone(),
                l.options.prompt.to_string(),
                l.options.generate.to_string(),
                l.options.depth.to_string(),
                l.threads.to_string(),
                l.isa.into(),
                per_second(l.prefill, l.prefill_spread),
                per_second(l.decode, l.decode_spread),
                if l.options.prompt > 0 {
                    millis(l.first_token)
                } else {
                    "–".into()
                },
                if l.options.generate > 0 {
                    millis(l.p50)
                } else {
                    "–".into()
                },
                if l.options.generate > 0 {
                    millis(l.p95)
                } else {
                    "–".into()
                },
                resident(|r| r.mapped),
                resident(|r| r.anonymous),
            ]
        })
        .collect();
    let header = [
        "model",
        "prompt",
        "gen",
        "depth",
        "threads",
        "isa",
        "prefill tok/s",
        "decode tok/s",
        "ttft",
        "p50",
        "p95",
        "mapped",
        "anonymous",
    ];
    print!("{}", table(&header, &cells));
}

fn print_csv(rows: &[Row]) {
    let mut header_done = false;
    for row in rows {
        let Value::Object(fields) = row.json() else {
            continue;
        };
        let scalars = || fields.iter().filter(|(_, value)| !value.is_array());
        if !header_done {
            println!(
                "{}",
                scalars()
                    .map(|(key, _)| key.as_str())
                    .collect::<Vec<_>>()
                    .join(",")
            );
            header_done = true;
        }
        let cells: Vec<String> = scalars()
            .map(|(_, value)| match value {
                Value::Null => String::new(),
                Value::String(text) => format!("\"{}\"", text.replace('"', "\"\"")),
                other => other.to_string(),
            })
            .collect();
        println!("{}", cells.join(","));
    }
}
