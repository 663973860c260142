//! `dram verify`: does the runtime compute what was trained?

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use dram_train::data::{Batch, TextTokenizer, sequential_blocks};
use dram_train::export::{Checkpoint, Limits};

use crate::args::AllThreads;

/// Compare a GGUF file with the checkpoint it was made from
///
/// Compares the runtime's logits on the file with the training code's on the checkpoint, rounded to the file's own block formats, and fails unless they
/// agree: greedy top-1 on at least 99.9 % of the positions, and differences within float rounding. Where that is exceeded, the model's
/// sensitivity to float rounding is measured.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dram verify out/mine/model.gguf out/mine/model
  dram verify student.gguf student-checkpoint --text held-out.txt --json")]
pub(crate) struct Args {
    /// The GGUF file
    gguf: PathBuf,
    /// The checkpoint: a Hugging Face folder or an f32 GGUF file
    checkpoint: PathBuf,
    #[command(flatten)]
    gate: GateArgs,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// What a file is compared on; `export` takes the same.
#[derive(clap::Args)]
pub(crate) struct GateArgs {
    /// Compare on this text (default: token sequences drawn by a fixed seed)
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// A folder or GGUF file with the tokenizer, for checkpoints that have none beside them
    #[arg(long)]
    pub tokenizer: Option<PathBuf>,
    /// Number of positions to compare
    #[arg(long, default_value_t = 2048)]
    pub positions: usize,
    #[command(flatten)]
    pub threads: AllThreads,
}

/// Sequences to compare on: the text's first tokens, or random ones.
pub(crate) fn batches_for(checkpoint: &Checkpoint, args: &GateArgs) -> Result<Vec<Batch>> {
    ensure!(args.positions > 0, "--positions 0: expected at least 1");
    let config = checkpoint.decoder.config();
    let length = config.context_length.min(256);
    let vocabulary = &checkpoint.vocabulary;
    let bos = vocabulary
        .bos
        .filter(|_| vocabulary.add_bos && args.text.is_some());
    let ids = match &args.text {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let tokenizer = TextTokenizer::from_vocabulary(checkpoint.vocabulary.clone())?;
            let mut ids = tokenizer.runtime().encode_with_ends(&text, false);
            ids.truncate(args.positions + 1);
            ids
        }
        None => {
            let mut rng = dram_files::Rng::new(&[0]);
            (0..=args.positions)
                .map(|_| rng.below(config.vocabulary) as u32)
                .collect()
        }
    };
    ensure!(ids.len() > 1, "the text is empty");
    Ok(sequential_blocks(&ids, length, 16, bos))
}

pub(crate) fn run(args: Args) -> Result<()> {
    let mut checkpoint = Checkpoint::open(
        &args.checkpoint,
        args.gate.tokenizer.as_deref().or(Some(&args.gguf)),
    )?;
    let batches = batches_for(&checkpoint, &args.gate)?;
    let parity = checkpoint.verify(&args.gguf, &batches, args.gate.threads.count())?;
    let good = parity.check(&Limits::default());
    if args.json {
        let mut value = serde_json::to_value(parity)?;
        value["agrees"] = good.is_ok().into();
        println!("{value}");
    } else {
        println!("parity: {parity}");
    }
    good
}
