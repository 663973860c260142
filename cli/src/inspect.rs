//! `dram inspect`: what is in a GGUF file.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use dram_core::gguf::{File, Value};
use serde_json::{Map, json};

use crate::output::{bytes, table};

/// Show a GGUF file's metadata and tensors
///
/// Reads any GGUF, also one that the runtime cannot run.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dram inspect model.gguf
  dram inspect model.gguf --check          read it a second time with the independent gguf-rs reader and compare
  dram inspect model.gguf --json | jq '.tensors[].format' | sort | uniq -c")]
pub(crate) struct Args {
    /// A GGUF file
    model: PathBuf,
    /// Read the file with gguf-rs too and compare every key and tensor
    #[arg(long)]
    check: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let file = File::open(&args.model)?;
    if args.check {
        check(&file, &args.model)?;
    }
    if args.json {
        print_json(&file)
    } else {
        print_text(&file)
    }
    if args.check && !args.json {
        println!("\nread again with gguf-rs: the same keys and tensors");
    }
    Ok(())
}

fn print_json(file: &File) {
    let metadata: Map<String, serde_json::Value> = file
        .metadata()
        .iter()
        .map(|(key, value)| (key.into(), to_json(value)))
        .collect();
    let tensors: Vec<_> = file
        .tensors()
        .map(|t| json!({ "name": t.name(), "format": t.format().name, "shape": t.shape(), "bytes": t.bytes().len() }))
        .collect();
    println!(
        "{}",
        json!({ "version": file.version(), "bytes": file.file_bytes(), "metadata": metadata, "tensors": tensors })
    );
}

fn print_text(file: &File) {
    println!(
        "{}: GGUF v{}, {}\n",
        file.name(),
        file.version(),
        bytes(file.file_bytes() as u64)
    );
    for (key, value) in file.metadata().iter() {
        println!("{key} = {}", brief(value));
    }
    println!();
    let rows: Vec<Vec<String>> = file
        .tensors()
        .map(|t| {
            let shape: Vec<String> = t.shape().iter().map(usize::to_string).collect();
            vec![
                t.name().into(),
                t.format().name.into(),
                shape.join(" × "),
                bytes(t.bytes().len() as u64),
            ]
        })
        .collect();
    print!("{}", table(&["tensor", "format", "shape", "size"], &rows));
    let parameters: usize = file
        .tensors()
        .map(|t| t.shape().iter().product::<usize>())
        .sum();
    println!("\n{} tensors, {parameters} parameters", rows.len());
}

/// One line for a value: long strings and arrays are cut.
fn brief(value: Value<'_>) -> String {
    const SHOWN: usize = 6;
    const CHARS: usize = 100;
    match value {
        Value::Array(array) => {
            let first: Vec<String> = array.iter().take(SHOWN).map(brief).collect();
            let more = if array.len() > SHOWN {
                format!(", … {} in all", array.len())
            } else {
                String::new()
            };
            format!("[{}{more}]", first.join(", "))
        }
        Value::String(text) => {
            let short: String = text.chars().take(CHARS).collect();
            let more = if short.len() < text.len() { "…" } else { "" };
            format!("{short:?}{more}")
        }
        other => to_json(other).to_string(),
    }
}

fn to_json(value: Value<'_>) -> serde_json::Value {
    match value {
        Value::U8(v) => v.into(),
        Value::I8(v) => v.into(),
        Value::U16(v) => v.into(),
        Value::I16(v) => v.into(),
        Value::U32(v) => v.into(),
        Value::I32(v) => v.into(),
        Value::U64(v) => v.into(),
        Value::I64(v) => v.into(),
        Value::F32(v) => v.into(),
        Value::F64(v) => v.into(),
        Value::Bool(v) => v.into(),
        Value::String(v) => v.into(),
        Value::Array(v) => v.iter().map(to_json).collect(),
    }
}

/// Compares what this project's reader sees with what gguf-rs sees: the same keys, and each tensor's type, shape and place.
fn check(file: &File, path: &std::path::Path) -> Result<()> {
    let path = path.to_str().context("gguf-rs takes only UTF-8 paths")?;
    let other = gguf_rs::get_gguf_container(path)?
        .decode()
        .context("gguf-rs cannot read the file")?;
    for (key, _) in file.metadata().iter() {
        ensure!(
            other.metadata().contains_key(key),
            "gguf-rs does not see the key {key}"
        );
    }
    ensure!(
        other.num_kv() == file.metadata().iter().count() as u64,
        "gguf-rs sees {} keys, this reader {}",
        other.num_kv(),
        file.metadata().iter().count()
    );
    ensure!(
        other.tensors().len() == file.tensors().len(),
        "gguf-rs sees {} tensors, this reader {}",
        other.tensors().len(),
        file.tensors().len()
    );
    for tensor in file.tensors() {
        let name = tensor.name();
        let seen = other
            .tensors()
            .iter()
            .find(|t| t.name == name)
            .with_context(|| format!("gguf-rs does not see the tensor {name}"))?;
        let start = (other.data_offset() + seen.offset) as usize;
        let shape: Vec<usize> = seen
            .shape
            .iter()
            .map(|&n| n as usize)
            .filter(|&n| n > 0)
            .collect();
        ensure!(
            seen.kind == tensor.format().ggml_id
                && shape == tensor.shape()
                && start == tensor.range().start,
            "tensor {name}: gguf-rs sees type {}, shape {shape:?} at byte {start}; this reader {}, {:?} at byte {}",
            seen.kind,
            tensor.format().ggml_id,
            tensor.shape(),
            tensor.range().start
        );
    }
    Ok(())
}
