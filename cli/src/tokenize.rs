//! `dram tokenize`: text to token ids, and back.

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use dram_core::Tokenizer;
use dram_core::gguf::File;

/// Turn text on standard input into token ids, or ids into text
///
/// The ids are those of the text alone, separated by spaces. The model file needs no weights: a vocabulary is enough. Bytes that are not UTF-8
/// count as U+FFFD.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  echo -n 'Hello, world' | dram tokenize model.gguf
  echo -n '<|im_start|>user' | dram tokenize model.gguf --special
  echo '9906 11 1917' | dram tokenize model.gguf --decode")]
pub(crate) struct Args {
    /// A GGUF file
    model: PathBuf,
    /// Parse control tokens in the text
    #[arg(long, conflicts_with = "decode")]
    special: bool,
    /// Add BOS and EOS where the model adds them
    #[arg(long, conflicts_with = "decode")]
    add_special: bool,
    /// Read ids, write the text's bytes
    #[arg(long)]
    decode: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let tokenizer = Tokenizer::from_gguf(&File::open(&args.model)?)?;
    let mut input = Vec::new();
    io::stdin()
        .read_to_end(&mut input)
        .context("cannot read standard input")?;
    let input = String::from_utf8_lossy(&input);
    let mut output = Vec::new();
    if args.decode {
        for id in parse_ids(&input, tokenizer.len())? {
            tokenizer.decode_bytes(id, &mut output);
        }
    } else {
        let ids = if args.add_special {
            tokenizer.encode_with_ends(&input, args.special)
        } else {
            tokenizer.encode(&input, args.special)
        };
        let words: Vec<String> = ids.iter().map(u32::to_string).collect();
        writeln!(output, "{}", words.join(" "))?;
    }
    io::stdout().write_all(&output)?;
    Ok(())
}

/// Ids separated by blanks or commas, each below `vocabulary`.
pub(crate) fn parse_ids(text: &str, vocabulary: usize) -> Result<Vec<u32>> {
    text.split([' ', '\t', '\r', '\n', ','])
        .filter(|word| !word.is_empty())
        .map(|word| {
            word.parse()
                .ok()
                .filter(|&id: &u32| (id as usize) < vocabulary)
                .with_context(|| format!("{word}: expected token ids from 0 to {}", vocabulary - 1))
        })
        .collect()
}
