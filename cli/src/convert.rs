//! `dram convert`: a GGUF file from a Hugging Face folder.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use dram_files::convert::Convert;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::output::bytes;

/// Convert a Hugging Face folder to GGUF
///
/// The folder has config.json, safetensors (one file or shards with their index) and a tokenizer: tokenizer.json, tokenizer.model or vocab.txt. The file
/// has the names, shapes and metadata that llama.cpp's converter writes, with tokenizer and chat template. Before it gets its name, the runtime opens it
/// and its tokens are compared with those of the folder's tokenizer.json.
#[derive(clap::Args)]
#[command(after_help = "\
Families: Llama 2 and 3, Mistral, Qwen 2, 2.5, 3 and 3.5 (text), StableLM, Gemma 2 and 3 (text), Phi 3 and 4, SmolLM 3, OLMo 2 and 3, Granite 3, LFM2, BERT;
with experts: Qwen 3 and 3.5, LFM2, OLMoE, Granite 3

Examples:
  dram convert Qwen3-0.6B --out qwen3.gguf                  the folder's own type
  dram convert Llama-3.2-1B --out llama-f16.gguf --type f16
  dram quantize qwen3.gguf qwen3-q4_k_m.gguf --format q4_k_m    then smaller
  dram run qwen3-q4_k_m.gguf \"Why is the sky blue?\"
  dram convert out/mine/model --out mine-f16.gguf --type f16    a student, from what `dram distill` leaves")]
pub(crate) struct Args {
    /// A Hugging Face model folder
    folder: PathBuf,
    /// Where the file goes
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// The type of matrices; auto is the folder's own, which loses nothing. Vectors are always f32
    #[arg(long = "type", value_name = "TYPE", value_parser = ["auto", "f32", "f16", "bf16"], default_value = "auto")]
    float: String,
    /// The model's name in the file (default: from config.json or the folder's name)
    #[arg(long)]
    name: Option<String>,
    /// A folder or GGUF file with the tokenizer, where the model's folder has none
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Take this pre-tokenizer (tokenizer.ggml.pre) instead of recognising it, and compare no tokens
    #[arg(long, value_name = "NAME")]
    pre: Option<String>,
    /// Do not compare the file's tokens with tokenizer.json's
    #[arg(long)]
    no_verify: bool,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    ensure!(
        args.out.extension().is_some_and(|e| e == "gguf"),
        "--out {}: expected a name that ends in .gguf",
        args.out.display()
    );
    let convert = Convert {
        float: (args.float != "auto").then_some(&*args.float),
        pre: args.pre.as_deref(),
        name: args.name.as_deref(),
        tokenizer: args.tokenizer.as_deref(),
        unverified: args.no_verify,
    };
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left  {msg}",
    )?);
    let made = convert.run(&args.folder, &args.out, &mut |done| {
        bar.set_length(done.total as u64);
        bar.set_message(done.name.to_owned());
        bar.inc(done.bytes as u64);
    })?;
    bar.finish_and_clear();
    let size = std::fs::metadata(&args.out)?.len();
    if args.json {
        println!(
            "{}",
            json!({
                "file": args.out, "bytes": size, "architecture": made.architecture, "type": made.float, "tensors": made.tensors,
                "parameters": made.parameters, "tokenizer": made.tokenizer, "tokens": made.tokens,
                "texts_compared": made.verified.as_ref().map(|v| v.texts),
                "tokens_apart": made.verified.as_ref().map(|v| &v.apart),
            })
        );
        return Ok(());
    }
    println!(
        "{} ({}): {}, {} tensors in {}, {} parameters",
        args.out.display(),
        bytes(size),
        made.architecture,
        made.tensors,
        made.float,
        made.parameters
    );
    println!("{} tokens, {}", made.tokens, made.tokenizer);
    match made.verified {
        None => println!("tokens were not compared with a tokenizer.json"),
        Some(verified) => {
            println!("{} texts have the tokens of tokenizer.json", verified.texts);
            if let Some(first) = verified.apart.first() {
                println!(
                    "beside {} of the added tokens, such as {first}, white space is cut otherwise",
                    verified.apart.len()
                );
            }
        }
    }
    Ok(())
}
