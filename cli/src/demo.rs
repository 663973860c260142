//! `dram demo`: the whole way in a few minutes.

use std::path::{Path, PathBuf};

use anyhow::Result;
use dram_train::tasks::actions::demo::{self, DemoOptions, Event, Outcome, Source};
use serde_json::json;

use crate::args::AllThreads;
use crate::output::write_json;
use crate::progress::Training;

/// Distil the built-in teacher into a 1M-parameter student and compare
///
/// The task: a spoken-style phone request in, a JSON function call out. The demo distils the teacher that lies in this program into a student of
/// about a million parameters with quantisation-aware training, trains a control of the same shape on labels alone, exports both, verifies that the
/// runtime computes what was trained, answers three requests, and prints one table. Ctrl-C stops it; the same command resumes it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dram demo
  dram demo --seed 1 --steps 1500 --json demo.json
  dram run out/demo/student-qat-q4_0.gguf \"wake me at half past six\"")]
pub(crate) struct Args {
    /// Folder for the results
    #[arg(short, long, default_value = "out/demo")]
    out: PathBuf,
    /// Random seed of the initial weights and the training data; the held-out sets are always the same
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Training steps of each model: the budget
    #[arg(long)]
    steps: Option<u64>,
    /// Requests in each held-out set
    #[arg(long)]
    held_out: Option<usize>,
    /// Another teacher of the same task: a GGUF file or a Hugging Face folder
    #[arg(long)]
    teacher: Option<PathBuf>,
    #[command(flatten)]
    threads: AllThreads,
    /// Write table and answers as JSON to this file (-: standard output, and nothing else there)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let teacher = args
        .teacher
        .map_or(Source::Bytes(demo::TEACHER), Source::Path);
    let mut options = DemoOptions::new(teacher, args.out)?;
    options.seed = args.seed;
    options.steps = args.steps.unwrap_or(options.steps);
    options.held_out = args.held_out.unwrap_or(options.held_out);
    options.threads = args.threads.count();

    let mut training = Training::new(options.steps)?;
    let stop = training.stop();
    let outcome = demo::run(&options, &stop, &mut |event| match event {
        Event::Stage { number, of, title } => {
            training.stage(&format!("[{number}/{of}] {title}"));
        }
        Event::Step { step, of } => {
            let rate = step.tokens as f64 / step.seconds.max(1e-9);
            let left = training.left(step.step, of);
            training.step(step, of, rate, left);
        }
        Event::Working { what, done, of } => training.working(what, done, of),
        Event::Note(note) => training.say(&format!("      {note}")),
        Event::Answer(answer) => training.say(&format!(
            "      {}\n        {}  ({:.1} ms)",
            answer.request,
            answer.call,
            answer.total.as_secs_f64() * 1e3
        )),
    })?;
    training.finish();
    let Outcome::Finished(demo) = outcome else {
        eprintln!("stopped; the same command resumes from there");
        return Ok(());
    };
    if args.json.as_deref() != Some(Path::new("-")) {
        println!("\n{}", demo.table.text());
        println!("parity of the student: {}", demo.parity);
        println!(
            "student: {}\nreport: {}",
            demo.student.display(),
            demo.report.display()
        );
        println!(
            "\nTry it: dram run {} \"wake me at half past six tomorrow\"",
            demo.student.display()
        );
    }
    if let Some(path) = &args.json {
        let value = json!({
            "seed": options.seed,
            "steps": options.steps,
            "seconds": demo.elapsed.as_secs_f64(),
            "table": serde_json::from_str::<serde_json::Value>(&demo.table.json()?)?,
            "answers": demo.answers,
            "parity": demo.parity,
            "student": demo.student,
        });
        write_json(path, &value)?;
    }
    Ok(())
}
