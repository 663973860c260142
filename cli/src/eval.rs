//! `dram eval`: how good GGUF models are on held-out data.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, ensure};
use dram_core::Model;
use dram_files::tokenizer::{shared_tokens, vocabulary_of_gguf};
use dram_train::data::Batch;
use dram_train::eval::Reference;
use dram_train::recipe::{Data, Eval, Kind, Recipe};
use dram_train::report::{Measure, Table};
use dram_train::run::{Event, held_out_sets};
use dram_train::stop::Watch;
use dram_train::tasks::actions;
use dram_train::teacher::{self, Scored};

use crate::args::{AllThreads, LoraArgs};
use crate::progress::{show_work, working_bar};

/// Evaluate GGUF models on held-out data
///
/// NLL and perplexity on every set; KL and top-1 agreement with --against; exact match where the task has one right answer; and the speed, size and
/// memory of each file. Text is encoded by the model's own tokenizer, and every sequence begins with BOS where the model adds it. All models must
/// share one tokenizer; they may differ in rows of padding, and a teacher in a few tokens at the end.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dram eval out/demo/student-qat-q4_0.gguf                                   the built-in task
  dram eval student.gguf student-f32.gguf --against teacher.gguf
  dram eval model.gguf --text novel.txt
  dram eval model.gguf --text wiki.txt --chunk 512 --chunks 20               as llama-perplexity -f wiki.txt -c 512 --chunks 20
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
    /// Maximum number of examples in each set
    #[arg(long, default_value_t = 500)]
    examples: usize,
    /// Maximum number of tokens of the text (0: all)
    #[arg(long, default_value_t = 0)]
    tokens: usize,
    /// Longest sequence in tokens (default: the model's context, at most 1024)
    #[arg(long)]
    sequence: Option<usize>,
    /// Score the text as llama.cpp's llama-perplexity does: in chunks of N tokens, the first of each replaced by BOS where the model adds it, of which
    /// the second half counts; special tokens spelt in the text are text (default: every token counts once)
    #[arg(long, value_name = "N", requires = "text", conflicts_with_all = ["sequence", "tokens"])]
    chunk: Option<usize>,
    /// Maximum number of chunks (0: all)
    #[arg(long, value_name = "N", default_value_t = 0, requires = "chunk")]
    chunks: usize,
    /// Separator between documents in the text (default: the text is one document)
    #[arg(long, value_name = "TEXT", requires = "text")]
    separator: Option<String>,
    #[command(flatten)]
    threads: AllThreads,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lora: LoraArgs,
}

/// What the figures are over.
fn counted(args: &Args, batches: &[Batch]) -> String {
    let tokens: usize = batches.iter().map(|batch| batch.targets.len()).sum();
    let chunks: usize = batches.iter().map(|batch| batch.batch).sum();
    let how = args.chunk.map_or(String::new(), |length| {
        format!(" in the second halves of {chunks} chunks of {length}, as llama-perplexity counts")
    });
    format!("NLL, perplexity, KL and top-1 over {tokens} tokens{how}")
}

pub(crate) fn run(args: Args) -> Result<()> {
    ensure!(args.examples > 0, "--examples 0: expected at least 1");
    let threads = args.threads.count();
    let context = Model::open(&args.models[0])?.config().context_length;
    let sequence = args.sequence.unwrap_or(context.min(1024));
    let longest = args.chunk.unwrap_or(sequence);
    ensure!(
        longest <= context,
        "sequences of {longest} tokens: {} takes {context}",
        args.models[0].display()
    );
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
            separator: args.separator.clone(),
            tokenizer: Some(args.models[0].clone()),
            ..Data::default()
        },
        eval: Eval {
            examples: args.examples,
            tokens: args.tokens,
            chunk: args.chunk,
            chunks: args.chunks,
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
    let tokens = |path: &PathBuf| -> Result<Vec<String>> {
        Ok(vocabulary_of_gguf(&dram_core::gguf::File::open(path)?)?.tokens)
    };
    let first = tokens(&args.models[0])?;
    for other in &args.models[1..] {
        let names = [&args.models[0], other].map(|path| path.display().to_string());
        shared_tokens(&first, &tokens(other)?, &names[0], &names[1])?;
    }
    let teacher = match teacher.as_deref() {
        Some(teacher) => Some(teacher::sharing(teacher, teacher.check_tokens(&first)?)),
        None => None,
    };
    let scored = teacher.as_ref().map(|teacher| Scored { teacher, threads });
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
        speed: Measure::short_request_within(context),
    };
    let mut table = Table {
        sets: sets
            .iter()
            .filter(|set| !set.cases.is_empty())
            .map(|set| set.name.clone())
            .collect(),
        rows: Vec::new(),
        notes: vec![counted(&args, &batches), measure.speed_note()],
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
