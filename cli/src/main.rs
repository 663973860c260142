//! `dram`: distil a language model into a small quantised one, verify it, run it, measure it.
//!
//! One file per subcommand: each exports an `Args` with its help and a `run(Args) -> Result<()>`; the enum below is their table. What several of them
//! share has rooms: `args` (options), `answer`, `output`, `errors`, `progress`, `interrupt`.

/// As the standard library's, but for a reader that has gone (`dram … | head`): then the command ends, and that is no failure.
macro_rules! println {
    () => { $crate::output::print(format_args!("\n")) };
    ($($text:tt)*) => { $crate::output::print(format_args!("{}\n", format_args!($($text)*))) };
}
macro_rules! print {
    ($($text:tt)*) => { $crate::output::print(format_args!($($text)*)) };
}

mod answer;
mod args;
mod bench;
mod chat;
mod convert;
mod demo;
mod distill;
mod embed;
mod errors;
mod eval;
mod export;
mod imatrix;
mod inspect;
mod interrupt;
mod logits;
mod output;
mod progress;
mod quantize;
mod rerank;
mod run;
mod tokenize;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const AFTER_HELP: &str = "\
Start here:
  dram demo                                   distil the built-in teacher into a 0.8 MB student and compare (6 to 15 minutes)
  dram run out/demo/student-qat-q4_0.gguf \"wake me at half past six\"
  dram distill my-recipe.toml --out out/mine  the same on data of your own
  dram bench -m out/mine/model.gguf -p 16,128 -n 64

Environment:
  DRAM_ISA=scalar|avx2|avx512vnni|neon|dotprod|i8mm   force one instruction set (default: the best this processor has)";

#[derive(Parser)]
#[command(name = "dram", version, about, after_help = AFTER_HELP, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Pretrain(distill::PretrainArgs),
    Distill(distill::DistillArgs),
    Eval(eval::Args),
    Convert(convert::Args),
    Export(export::Args),
    Imatrix(imatrix::Args),
    Quantize(quantize::Args),
    Verify(verify::Args),
    Run(run::Args),
    Chat(chat::Args),
    Bench(bench::Args),
    Inspect(inspect::Args),
    Embed(embed::Args),
    Rerank(rerank::Args),
    Tokenize(tokenize::Args),
    Logits(logits::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(args) => demo::run(args),
        Command::Pretrain(args) => distill::pretrain(args),
        Command::Distill(args) => distill::distill(args),
        Command::Eval(args) => eval::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Export(args) => export::run(args),
        Command::Imatrix(args) => imatrix::run(args),
        Command::Quantize(args) => quantize::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Run(args) => run::run(args),
        Command::Chat(args) => chat::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Embed(args) => embed::run(args),
        Command::Rerank(args) => rerank::run(args),
        Command::Tokenize(args) => tokenize::run(args),
        Command::Logits(args) => logits::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", errors::message(&error));
            ExitCode::FAILURE
        }
    }
}
