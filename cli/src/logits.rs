//! `dram logits`: what a model answers at every position, for comparison with other runtimes.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Result, ensure};
use dram_core::{Model, SessionOptions};
use dram_files::write_beside;

use crate::args::LoraArgs;
use crate::tokenize::parse_ids;

/// Write the logits at every position of a sequence as a NumPy array
///
/// The array is f32, [positions, vocabulary]: row i is what the model answers after the first i + 1 ids.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dram logits model.gguf --ids '1 15043 3186' --out x.npy
  dram logits model.gguf --ids \"$(dram tokenize model.gguf --add-special < text.txt)\" --out x.npy
  python3 -c 'import numpy; print(numpy.load(\"x.npy\").argmax(1))'")]
pub(crate) struct Args {
    /// A GGUF file
    model: PathBuf,
    /// Token ids, separated by blanks or commas, used verbatim
    #[arg(long)]
    ids: String,
    /// Where the array goes
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Threads (default: the processor's)
    #[arg(short, long)]
    threads: Option<usize>,
    #[command(flatten)]
    lora: LoraArgs,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let model = Model::open(&args.model)?;
    let vocabulary = model.config().vocabulary;
    let ids = parse_ids(&args.ids, vocabulary)?;
    ensure!(!ids.is_empty(), "--ids: expected at least one token id");
    let mut session = model.session(SessionOptions {
        context: Some(ids.len()),
        threads: args.threads,
        ..SessionOptions::default()
    })?;
    session.set_adapters(&args.lora.open(&model)?)?;
    let mut logits = Vec::with_capacity(ids.len() * vocabulary);
    session.evaluate(&ids, &mut |_, row| logits.extend_from_slice(row))?;
    write_beside(&args.out, |path| {
        let mut file = BufWriter::new(File::create(path)?);
        write_npy(&mut file, [ids.len(), vocabulary], &logits)?;
        Ok(file.flush()?)
    })
}

/// NumPy's array format, version 1.0 (numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
fn write_npy(out: &mut impl Write, [rows, columns]: [usize; 2], values: &[f32]) -> Result<()> {
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    // The data starts at a multiple of 64 bytes, behind magic, version, length and a line that ends.
    let filled = 10 + header.len() + 1;
    header += &" ".repeat(filled.next_multiple_of(64) - filled);
    header.push('\n');
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&u16::try_from(header.len())?.to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for value in values {
        out.write_all(&value.to_le_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_header_is_numpys() {
        // numpy 2.3: numpy.save of numpy.zeros((1, 2), "<f4")
        let mut bytes = Vec::new();
        super::write_npy(&mut bytes, [1, 2], &[0.0, 1.0]).unwrap();
        let header =
            b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }";
        assert!(bytes.starts_with(header));
        assert_eq!((bytes.len(), bytes[127]), (128 + 8, b'\n'));
    }
}
