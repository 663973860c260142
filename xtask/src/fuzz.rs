//! Fuzzing with libFuzzer: `cargo xtask fuzz [--seconds N] [TARGET…]`. First inputs come from a script, and what a run finds is kept in
//! `target/fuzz-corpus` for the next.

use crate::{peers, sh};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What an input may take: seconds, and megabytes of the process.
const TIMEOUT: u32 = 2;
const MEMORY: u32 = 1024;

/// Seconds for a target, where none are given: what CI has room for.
const SECONDS: u32 = 20;

/// What a target did.
struct Outcome {
    target: String,
    executions: u64,
    seconds: f64,
    /// Megabytes at most.
    memory: u64,
    failed: bool,
}

/// Builds all targets, runs those named, or all, for some seconds each and prints their executions. One that panics, takes longer than two seconds
/// or more than 1 GB is a failure; the input is kept.
pub(crate) fn run(rest: &[String]) -> Result<()> {
    let mut seconds = SECONDS;
    let mut wanted: Vec<&str> = Vec::new();
    let mut words = rest.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seconds" => {
                let number = words.next().context("--seconds: expected a number")?;
                seconds = number.parse().context("--seconds: expected a number")?;
            }
            name => wanted.push(name),
        }
    }
    let targets = targets()?;
    if let Some(unknown) = wanted.iter().find(|w| !targets.contains(&(**w).to_owned())) {
        bail!("no target is called {unknown:?}; there are {targets:?}");
    }
    let corpus = sh::root().join("target/fuzz-corpus");
    seeds(&corpus)?;
    let programs = build(&targets)?;
    let mut outcomes = Vec::new();
    for target in targets {
        if wanted.is_empty() || wanted.contains(&target.as_str()) {
            outcomes.push(fuzz_one(&programs.join(&target), &corpus, target, seconds)?);
        }
    }
    println!("\ntarget           executions  a second  MB at most");
    for o in &outcomes {
        let rate = o.executions as f64 / o.seconds.max(1e-9);
        let end = if o.failed { "  FAILED" } else { "" };
        println!(
            "{:<16} {:>10}  {rate:>8.0}  {:>10}{end}",
            o.target, o.executions, o.memory
        );
    }
    let total: u64 = outcomes.iter().map(|o| o.executions).sum();
    println!("{total} executions");
    let failed: Vec<_> = outcomes
        .iter()
        .filter(|o| o.failed)
        .map(|o| o.target.as_str())
        .collect();
    ensure!(
        failed.is_empty(),
        "failed: {}; the inputs are in fuzz/artifacts",
        failed.join(", ")
    );
    Ok(())
}

/// The targets' names: one file each.
fn targets() -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(sh::root().join("fuzz/targets"))?
        .map(|entry| {
            Ok(entry?
                .path()
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned())
        })
        .collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Builds the targets beside everything else of the workspace, so that dependencies are those of the other legs, without counters.
fn build(targets: &[String]) -> Result<PathBuf> {
    let mut command = sh::cargo(&["build", "--release", "--quiet", "--workspace"]);
    command.args(["--features", "dram-fuzz/libfuzzer"]);
    for target in targets {
        command.args(["--bin", target]);
    }
    sh::run(command.env(
        "RUSTC_WORKSPACE_WRAPPER",
        sh::root().join("fuzz/rustc-coverage.sh"),
    ))?;
    Ok(release())
}

/// Built as the tests are, with their dependencies.
fn seeds(corpus: &Path) -> Result<()> {
    let arguments = ["build", "--release", "--quiet", "--workspace"];
    sh::run(sh::cargo(&arguments).args(["--example", "fuzz_seeds"]))?;
    let mut command = Command::new(release().join("examples/fuzz_seeds"));
    command.arg(corpus);
    if let Ok(source) = peers::llama_source() {
        command.arg(source.join("models/templates"));
    }
    sh::run(&mut command)
}

/// Where cargo puts what it builds for release.
fn release() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    sh::root().join(target).join("release")
}

fn fuzz_one(program: &Path, corpus: &Path, target: String, seconds: u32) -> Result<Outcome> {
    let log = corpus.join(format!("{target}.log"));
    println!("\n=== {target}: {seconds} s");
    let artifacts = sh::root().join("fuzz/artifacts");
    fs::create_dir_all(&artifacts)?;
    let mut run = Command::new(program);
    run.arg(corpus.join(&target))
        .args([
            format!("-artifact_prefix={}/{target}-", artifacts.display()),
            format!("-max_total_time={seconds}"),
            format!("-timeout={TIMEOUT}"),
            format!("-rss_limit_mb={MEMORY}"),
            "-max_len=262144".into(),
            "-print_final_stats=1".into(),
        ])
        .stdin(Stdio::null())
        .stderr(fs::File::create(&log)?);
    let start = std::time::Instant::now();
    let status = run
        .status()
        .with_context(|| format!("could not start {}", program.display()))?;
    let seconds = start.elapsed().as_secs_f64();
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let number = |name: &str| {
        let line = text.lines().rev().find(|l| l.contains(name));
        let word = line.and_then(|l| l.split_whitespace().last());
        word.and_then(|w| w.parse::<u64>().ok()).unwrap_or(0)
    };
    let outcome = Outcome {
        executions: number("stat::number_of_executed_units"),
        memory: number("stat::peak_rss_mb"),
        failed: !status.success(),
        target,
        seconds,
    };
    if outcome.failed {
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.len().saturating_sub(60);
        println!("{}", lines[tail..].join("\n"));
    }
    Ok(outcome)
}
