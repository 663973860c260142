//! Dram beside llama.cpp: speed, start and memory on the same files and threads, in turns, so that what else the machine does slows both.

mod groups;
mod programs;

use crate::{markdown, peers, sh};
use anyhow::{Context, Result, bail, ensure};
use clap::{Arg, ArgAction, Command as Cli, value_parser};
use groups::{GROUPS, Group};
use indicatif::{ProgressBar, ProgressStyle};
use programs::Programs;
use serde_json::json;
use std::fmt::Write as _;
use std::path::PathBuf;

/// A file to measure.
struct Model {
    path: PathBuf,
    name: String,
    /// Positions it was made for
    context: usize,
    parameters: u64,
    /// That of most of the layers' bytes
    format: String,
}

/// What was measured of one file.
struct Row {
    /// The model's name
    file: String,
    what: String,
    threads: usize,
    /// A value for each turn
    ours: Vec<f64>,
    /// A value for each turn
    theirs: Vec<f64>,
    /// Of what the device does at most
    share: Option<f64>,
    /// The ratio aimed at
    aim: f64,
}

impl Row {
    /// A row that holds no values yet; [`run`] says whose it is.
    fn new(what: String, threads: usize) -> Row {
        Row {
            file: String::new(),
            what,
            threads,
            ours: Vec::new(),
            theirs: Vec::new(),
            share: None,
            aim: f64::NAN,
        }
    }
}

/// What to measure, and with what.
struct Settings {
    threads: Vec<usize>,
    rounds: usize,
    generate: usize,
    depths: Vec<usize>,
    programs: Programs,
    bar: ProgressBar,
}

fn arguments() -> Cli {
    let path = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_parser(value_parser!(PathBuf))
            .help(help)
    };
    Cli::new("compare")
        .no_binary_name(true)
        .about("Dram beside llama.cpp, medians of interleaved turns")
        .arg(
            Arg::new("models")
                .required(true)
                .action(ArgAction::Append)
                .value_parser(value_parser!(PathBuf))
                .help("GGUF files, made by `dram convert` or `dram quantize`, say"),
        )
        .arg(path(
            "llama-bench",
            "llama.cpp's program, with llama-completion beside it [default: built once from the sdist that `peers` takes]",
        ))
        .arg(path("dram", "Dram's program [default: built from this repository]"))
        .arg(path("out", "A Markdown file: each table goes between its comments there"))
        .arg(path("json", "Where every turn's value goes"))
        .arg(
            Arg::new("only")
                .long("only")
                .value_delimiter(',')
                .value_parser(GROUPS.iter().map(|group| group.name).collect::<Vec<_>>())
                .help("Only these tables"),
        )
        .arg(
            Arg::new("threads")
                .long("threads")
                .value_delimiter(',')
                .default_value("2,1")
                .value_parser(value_parser!(usize))
                .help("Threads of both"),
        )
        .arg(
            Arg::new("rounds")
                .long("rounds")
                .default_value("5")
                .value_parser(value_parser!(usize))
                .help("Turns of each"),
        )
        .arg(
            Arg::new("quick")
                .long("quick")
                .action(ArgAction::SetTrue)
                .help("Two turns, eight tokens, no depth beyond 2048: only to see that it works"),
        )
}

/// Measures, prints the tables and writes them.
pub(crate) fn run(rest: &[String]) -> Result<()> {
    let matches = match arguments().try_get_matches_from(rest) {
        Err(error) if !error.use_stderr() => {
            print!("{error}");
            return Ok(());
        }
        parsed => parsed?,
    };
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
    let many = |name: &str| matches.get_many::<PathBuf>(name).into_iter().flatten();
    let files: Vec<PathBuf> = many("models").cloned().collect();
    if let Some(missing) = files.iter().find(|file| !file.is_file()) {
        bail!(
            "there is no file {}; GGUF files are made by `dram convert` from a Hugging Face folder or `dram quantize` from another GGUF",
            missing.display()
        );
    }
    let only = matches.get_many::<String>("only").into_iter().flatten();
    let only: Vec<&str> = only.map(String::as_str).collect();
    let groups: Vec<&Group> = GROUPS
        .iter()
        .filter(|group| only.is_empty() || only.contains(&group.name))
        .collect();
    let threads: Vec<usize> = matches
        .get_many::<usize>("threads")
        .expect("has a default")
        .copied()
        .collect();
    let quick = matches.get_flag("quick");
    let rounds = *matches.get_one::<usize>("rounds").expect("has a default");
    ensure!(rounds > 0, "--rounds 0 measures nothing");

    let dram = path("dram").map_or_else(build, Ok)?;
    let bench = path("llama-bench").map_or_else(peers::llama_bench, Ok)?;
    let programs = Programs::new(dram, bench)?;
    let models = files.into_iter().map(|file| programs.inspect(file));
    let models = models.collect::<Result<Vec<_>>>()?;
    let settings = Settings {
        threads,
        rounds: if quick { 2 } else { rounds },
        generate: if quick { 8 } else { 32 },
        depths: if quick { vec![2048] } else { vec![2048, 8192] },
        programs,
        bar: ProgressBar::new((groups.len() * models.len()) as u64).with_style(
            ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed}")?,
        ),
    };
    settings
        .bar
        .enable_steady_tick(std::time::Duration::from_secs(1));
    let mut raw = Vec::new();
    for group in groups {
        let mut rows = Vec::new();
        for model in &models {
            let what = format!("{} of {}", group.name, model.name);
            settings.bar.set_message(what.clone());
            let measured = (group.measure)(&settings, model).context(what)?;
            rows.extend(measured.into_iter().map(|row| Row {
                file: model.name.clone(),
                aim: (group.aim)(model, &row.what),
                ..row
            }));
            settings.bar.inc(1);
        }
        let table = table(group, &rows, &settings);
        settings.bar.suspend(|| println!("{table}"));
        if let Some(out) = path("out") {
            markdown::put(&out, &format!("compare {}", group.name), &table)?;
        }
        raw.extend(rows.iter().map(|row| {
            json!({
                "table": group.name, "file": row.file, "what": row.what, "threads": row.threads, "unit": group.unit,
                "dram": row.ours, "llama.cpp": row.theirs, "ratio": ratio(group, row), "aim": row.aim, "share": row.share,
            })
        }));
        // After each table, so that a run that is stopped leaves what it has.
        if let Some(out) = path("json") {
            let text = serde_json::to_string_pretty(&json!({
                "machine": machine(), "limits": settings.programs.notes(), "rows": raw,
            }))?;
            std::fs::write(&out, text).with_context(|| format!("writing {}", out.display()))?;
        }
    }
    settings.bar.finish_and_clear();
    Ok(())
}

fn build() -> Result<PathBuf> {
    sh::run(&mut sh::cargo(&["build", "--release", "--package", "dram"]))?;
    Ok(crate::bindings::target_dir().join("release/dram"))
}

/// Above 1 Dram is better.
fn ratio(group: &Group, row: &Row) -> f64 {
    let (ours, theirs) = (median(&row.ours), median(&row.theirs));
    if group.more_is_better {
        ours / theirs
    } else {
        theirs / ours
    }
}

fn table(group: &Group, rows: &[Row], settings: &Settings) -> String {
    let turns = match rows.first().map_or(0, |row| row.ours.len()) {
        0 => return format!("{}: no file is made for so many tokens.", group.title),
        1 => String::new(),
        many => format!(" Medians of {many} turns each."),
    };
    let shares = rows.iter().any(|row| row.share.is_some());
    let columns = if shares { 9 } else { 8 };
    let mut text = format!(
        "{}, on {}.{turns} {}\n\n",
        group.title,
        machine(),
        group.how
    );
    let mut line = |cells: [&str; 9]| {
        let _ = writeln!(text, "| {} |", cells[..columns].join(" | "));
    };
    line([
        "file",
        "",
        "threads",
        "Dram",
        "llama.cpp",
        "ratio",
        "at least",
        "",
        "of limit",
    ]);
    line([
        "---", "---", "---:", "---:", "---:", "---:", "---:", "---", "---:",
    ]);
    for row in rows {
        let ratio = ratio(group, row);
        let number = |values: &[f64]| match median(values) {
            value if value >= 100.0 => format!("{value:.0}"),
            value => format!("{value:.1}"),
        };
        line([
            &row.file,
            &row.what,
            &row.threads.to_string(),
            &number(&row.ours),
            &number(&row.theirs),
            &format!("{ratio:.2}"),
            &format!("{:.2}", row.aim),
            if ratio >= row.aim {
                "reached"
            } else {
                "not reached"
            },
            &row.share
                .map_or("–".into(), |share| format!("{:.0} %", share * 100.0)),
        ]);
    }
    if shares {
        let _ = writeln!(text, "\n{}", settings.programs.notes());
    }
    text
}

/// The processor's name and how many of it there are.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let name = name.map_or("this processor", |rest| {
        rest.trim_start_matches(['\t', ' ', ':'])
    });
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{name} with {count} cores")
}

/// The middle value, the upper one of two; NaN of nothing.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
