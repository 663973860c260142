//! Perplexity of a text by `dram eval --chunk` and by llama.cpp's llama-perplexity, on the same chunks.

use crate::{peers, sh};
use anyhow::{Context, Result, ensure};
use clap::{Arg, Command as Cli, value_parser};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How far the two may lie apart, as a share.
const APART: f64 = 0.005;

pub(crate) fn run(rest: &[String]) -> Result<()> {
    let number = |name: &'static str, usual: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .default_value(usual)
            .value_parser(value_parser!(usize))
            .help(help)
    };
    let path = value_parser!(PathBuf);
    let matches = Cli::new("perplexity")
        .no_binary_name(true)
        .arg(
            Arg::new("text")
                .long("text")
                .required(true)
                .value_parser(path.clone())
                .help("The text to score"),
        )
        .arg(number("chunk", "512", "Tokens of a chunk"))
        .arg(number("chunks", "16", "Chunks"))
        .arg(
            Arg::new("programs")
                .long("programs")
                .value_parser(path.clone())
                .help("The folder with llama-perplexity, where it is built already"),
        )
        .arg(
            Arg::new("models")
                .required(true)
                .num_args(1..)
                .value_parser(path)
                .help("GGUF files"),
        )
        .get_matches_from(rest);
    let text: &PathBuf = matches.get_one("text").expect("required");
    let size = |name: &str| {
        matches
            .get_one::<usize>(name)
            .expect("defaulted")
            .to_string()
    };
    let (chunk, chunks) = (size("chunk"), size("chunks"));
    let theirs = match matches.get_one::<PathBuf>("programs") {
        Some(folder) => folder.join("llama-perplexity"),
        None => peers::llama_bench()?.with_file_name("llama-perplexity"),
    };
    sh::run(&mut sh::cargo(&["build", "--release", "--package", "dram"]))?;
    let mut table =
        String::from("| model | Dram | llama.cpp | apart |\n| --- | ---: | ---: | ---: |\n");
    let mut good = true;
    for model in matches.get_many::<PathBuf>("models").expect("required") {
        let mut ours = Command::new(crate::bindings::target_dir().join("release/dram"));
        ours.args(["eval", "--json", "--chunk", &chunk, "--chunks", &chunks]);
        ours.arg("--text").arg(text).arg(model);
        let ours: serde_json::Value = serde_json::from_str(&sh::tee(&mut ours)?)?;
        let ours = ours["rows"][0]["perplexity"].as_f64();
        let ours = ours.context("dram eval printed no perplexity")?;
        let theirs = peer(&theirs, model, text, &chunk, &chunks)?;
        let apart = ours / theirs - 1.0;
        good &= apart.abs() <= APART;
        let name = model.file_stem().unwrap_or_default().to_string_lossy();
        table += &format!(
            "| {name} | {ours:.4} | {theirs:.4} | {:+.2} % |\n",
            100.0 * apart
        );
    }
    println!("{table}");
    ensure!(
        good,
        "expected perplexities at most {} % apart",
        100.0 * APART
    );
    Ok(())
}

/// The last line but timings is `Final estimate: PPL = 12.3456 +/- 0.12345`.
fn peer(program: &Path, model: &Path, text: &Path, chunk: &str, chunks: &str) -> Result<f64> {
    let output = Command::new(program)
        .args(["-c", chunk, "--chunks", chunks])
        // From the file's own blocks, as Dram computes; and no AMX, which virtual machines name and refuse.
        .arg("--no-repack")
        .arg("-m")
        .arg(model)
        .arg("-f")
        .arg(text)
        .output()
        .with_context(|| format!("could not start {}", program.display()))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let estimate = said.lines().find_map(|line| line.split("PPL = ").nth(1));
    let number = estimate.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("{}: no estimate in\n{said}", program.display()))
}
