//! Speed beside llama.cpp's: `dram bench` and llama-bench on the same files and threads, in turns, so that what else the machine does slows both.

use crate::{bindings, sh};
use anyhow::{Context, Result, bail};
use clap::{Arg, ArgAction, Command as Cli, value_parser};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Prints a table of medians and their ratios; `--out` writes it.
pub(crate) fn run(rest: &[String]) -> Result<()> {
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .default_value(default)
            .value_parser(value_parser!(usize))
            .help(help)
    };
    let matches = Cli::new("compare")
        .no_binary_name(true)
        .arg(
            Arg::new("models")
                .required(true)
                .action(ArgAction::Append)
                .value_parser(value_parser!(PathBuf))
                .help("GGUF files"),
        )
        .arg(
            Arg::new("llama-bench")
                .long("llama-bench")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("llama.cpp's own program, built with -DGGML_NATIVE=ON"),
        )
        .arg(
            Arg::new("out")
                .long("out")
                .value_parser(value_parser!(PathBuf))
                .help("Where the table goes, in Markdown"),
        )
        .arg(number("prompt", "128", "Tokens of the prompt"))
        .arg(number("generate", "32", "Tokens to make"))
        .arg(number("threads", "2", "Threads of both"))
        .arg(number("rounds", "5", "Turns of each"))
        .try_get_matches_from(rest)?;
    let count = |name: &str| *matches.get_one::<usize>(name).expect("has a default");
    let path = |name: &str| matches.get_one::<PathBuf>(name);
    let (prompt, generate, threads, rounds) = (
        count("prompt"),
        count("generate"),
        count("threads"),
        count("rounds"),
    );
    let peer = path("llama-bench").expect("is required");

    sh::run(&mut sh::cargo(&["build", "--release", "--package", "dram"]))?;
    let dram = bindings::target_dir().join("release/dram");
    let flags = [("-p", prompt), ("-n", generate), ("-t", threads), ("-r", 1)];
    let bench = |program: &Path, words: &[&str], model: &Path| -> Result<Value> {
        let mut command = Command::new(program);
        command
            .args(words)
            .arg("-m")
            .arg(model)
            .args(["-o", "json"]);
        for (flag, value) in flags {
            command.args([flag, &value.to_string()]);
        }
        let output = command.stderr(Stdio::null()).output();
        let output = output.with_context(|| format!("could not start {}", program.display()))?;
        if !output.status.success() {
            bail!(
                "{} on {}: {}",
                program.display(),
                model.display(),
                output.status
            );
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{} did not print JSON", program.display()))
    };

    let mut table = format!(
        "| file | prefill of {prompt}: Dram | llama.cpp | ratio | decode: Dram | llama.cpp | ratio |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    );
    for model in matches.get_many::<PathBuf>("models").expect("is required") {
        let mut rates = [const { Vec::new() }; 4]; // prefill and decode, Dram's and the peer's
        for round in 0..rounds {
            eprintln!("{}: round {} of {rounds}", model.display(), round + 1);
            let ours = bench(&dram, &["bench"], model)?;
            rates[0].extend(ours[0]["prefill_tokens_per_second"].as_f64());
            rates[2].extend(ours[0]["decode_tokens_per_second"].as_f64());
            for test in bench(peer, &[], model)?.as_array().into_iter().flatten() {
                let at = if test["n_gen"] == 0 { 1 } else { 3 };
                rates[at].extend(test["avg_ts"].as_f64());
            }
        }
        let [prefill, peer_prefill, decode, peer_decode] = rates.map(median);
        let name = model.file_stem().unwrap_or_default().to_string_lossy();
        let _ = writeln!(
            table,
            "| {name} | {prefill:.0} | {peer_prefill:.0} | {:.2} | {decode:.1} | {peer_decode:.1} | {:.2} |",
            prefill / peer_prefill,
            decode / peer_decode
        );
    }
    let table =
        format!("Tokens per second, {threads} threads, medians of {rounds} turns.\n\n{table}");
    println!("{table}");
    if let Some(out) = path("out") {
        std::fs::write(out, &table).with_context(|| format!("writing {}", out.display()))?;
    }
    Ok(())
}

/// NaN of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
