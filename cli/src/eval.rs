//! `dram eval`: how good GGUF models are on held-out data.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, ensure};
use dram_core::Model;
use dram_train::data::actions;
use dram_train::eval::Reference;
use dram_train::recipe::{Data, Eval, Kind, Recipe};
use dram_train::report::{Measure, Table};
use dram_train::run::{Event, held_out_sets};
use dram_train::stop::Watch;
use dram_train::teacher::{self, Scored};

use crate::common::LoraArgs;
use crate::progress::{show_work, working_bar};

/// Evaluate GGUF models on held-out data
///
/// NLL and perplexity on every set; KL and top-1 agreement with --against; exact match where the task has one right answer; and the speed, size and
/// memory of each file. All models must share one tokenizer.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dram eval out/demo/student-qat-q4_0.gguf                                   the built-in task
  dram eval student.gguf student-f32.gguf --against teacher.gguf
  dram eval model.gguf --text novel.txt
  dram eval model.gguf --lora adapter.gguf --text novel.txt
  dram eval model.gguf --jsonl chats.jsonl --json")]
pub(crate) struct Args {
    /// GGUF files
    #[arg(required = true)]
    models: Vec<PathBuf>,
    /// Compare with this teacher: a GGUF file or a Hugging Face folder
    #[arg(long)]
    against: Option<PathBuf>,
    /// Evaluate on this text instead of the built-in task
    #[arg(long, value_name = "FILE", conflicts_with = "jsonl")]
    text: Option<PathBuf>,
    /// Evaluate on these records: JSON Lines or Parquet, in the shapes that `dram distill --help` lists
    #[arg(long, value_name = "FILE")]
    jsonl: Option<PathBuf>,
    /// Examples of each set, at most
    #[arg(long, default_value_t = 500)]
    examples: usize,
    /// Tokens of the text, at most (0: all)
    #[arg(long, default_value_t = 0)]
    tokens: usize,
    /// Longest sequence in tokens (default: the model's context, at most 1024)
    #[arg(long)]
    sequence: Option<usize>,
    /// Threads (default: the processor's)
    #[arg(short, long)]
    threads: Option<usize>,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lora: LoraArgs,
}

pub(crate) fn run(args: Args) -> Result<()> {
    ensure!(args.examples > 0, "--examples 0: expected at least 1");
    let threads = args
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let context = Model::open(&args.models[0])?.config().context_length;
    let sequence = args.sequence.unwrap_or(context.min(1024));
    let (kind, path) = match (&args.text, &args.jsonl) {
        (Some(path), _) => (Kind::Text, Some(path.clone())),
        (_, Some(path)) => (Kind::Jsonl, Some(path.clone())),
        _ => (Kind::Actions, None),
    };
    let mut recipe = Recipe {
        data: Data {
            kind,
            held_out: path.clone(),
            path,
            sequence: Some(sequence),
            tokenizer: Some(args.models[0].clone()),
            ..Data::default()
        },
        eval: Eval {
            examples: args.examples,
            tokens: args.tokens,
            ..Eval::default()
        },
        ..Recipe::default()
    };
    recipe.student.context_length = sequence;
    let mut left_out = Vec::new();
    let sets = held_out_sets(&recipe, &mut |event| {
        if let Event::Note(note) = event
            && kind == Kind::Jsonl
        {
            left_out.push(
                note.replace("data.sequence", "--sequence")
                    .replace("eval.examples", "--examples"),
            );
        }
    })?;

    let teacher = args
        .against
        .as_deref()
        .map(|path| teacher::open(path, threads))
        .transpose()?;
    if let Some(teacher) = &teacher {
        let model = dram_core::gguf::File::open(&args.models[0])?;
        teacher.check_tokens(&dram_train::export::vocabulary_of_gguf(&model)?.tokens)?;
    }
    let scored = teacher
        .as_deref()
        .map(|teacher| Scored { teacher, threads });
    let batches: Vec<_> = sets
        .iter()
        .flat_map(|set| set.batches.iter().cloned())
        .collect();
    let cases: Vec<&[_]> = sets
        .iter()
        .map(|set| &set.cases[..])
        .filter(|cases| !cases.is_empty())
        .collect();
    let reference = scored.as_ref().map(|scored| Reference::new(scored, None));
    let measure = Measure {
        teacher: reference.as_ref(),
        batches: &batches,
        cases: &cases,
        same: &actions::exact_match,
        workers: threads,
        speed: Measure::short_request(),
    };
    let mut table = Table {
        sets: sets
            .iter()
            .filter(|set| !set.cases.is_empty())
            .map(|set| set.name.clone())
            .collect(),
        rows: Vec::new(),
        notes: vec![
            format!(
                "NLL, KL and top-1 over {} tokens",
                batches.iter().map(|b| b.targets.len()).sum::<usize>()
            ),
            measure.speed_note(),
        ],
    };
    let bar = working_bar()?;
    for path in &args.models {
        let name = path
            .file_stem()
            .unwrap_or(path.as_os_str())
            .to_string_lossy();
        let model = Model::open(path)?;
        let mut tell = |done, of| show_work(&bar, &name, done, of);
        // Ctrl-C ends the process: there is nothing to save.
        let never = AtomicBool::new(false);
        let mut watch = Watch::new(&never, &mut tell);
        let adapters = args.lora.open(&model)?;
        let row = measure.row_of(&name, &model, &adapters, &mut watch)?;
        table.rows.push(row);
    }
    table.notes.extend(left_out);
    bar.finish_and_clear();
    table.notes.extend(args.lora.note());
    if args.json {
        println!("{}", table.json()?)
    } else {
        print!("{}", table.text())
    }
    Ok(())
}
