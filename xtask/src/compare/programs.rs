//! Running both programs, timing them from outside and watching their memory.

use super::{Model, Row, Settings};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub(super) struct Programs {
    dram: PathBuf,
    bench: PathBuf,
    completion: PathBuf,
    /// What the device does at most, for each number of threads, as last measured: bytes read and multiply-adds per second
    limits: Mutex<Vec<(usize, f64, f64)>>,
}

impl Programs {
    pub(super) fn new(dram: PathBuf, bench: PathBuf) -> Result<Programs> {
        let completion = bench.with_file_name("llama-completion");
        for program in [&dram, &bench, &completion] {
            ensure!(
                program.is_file(),
                "there is no program {}",
                program.display()
            );
        }
        Ok(Programs {
            dram,
            bench,
            completion,
            limits: Mutex::default(),
        })
    }

    /// Every combination on one file by `dram bench --compare`, which runs both in turns.
    pub(super) fn bench(
        &self,
        settings: &Settings,
        model: &Model,
        prompt: &[usize],
        generate: &[usize],
        depth: &[usize],
        limits: bool,
    ) -> Result<Vec<Row>> {
        if depth.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = Command::new(&self.dram);
        command.arg("bench").arg("--compare").arg(&self.bench);
        command.args(["-o", "json", "-m"]).arg(&model.path);
        for (flag, values) in [
            ("-p", prompt),
            ("-n", generate),
            ("-d", depth),
            ("-t", &settings.threads),
        ] {
            let values: Vec<String> = values.iter().map(usize::to_string).collect();
            command.args([flag, &values.join(",")]);
        }
        command.args(["-r", &settings.rounds.to_string()]);
        if !limits {
            command.arg("--no-limits");
        }
        let mut rows = Vec::new();
        for measured in json(&mut command)?.as_array().into_iter().flatten() {
            let number = |key: &str| measured[key].as_u64().unwrap_or_default() as usize;
            let samples = |key: &str| -> Vec<f64> {
                let values = measured[key].as_array().into_iter().flatten();
                values.filter_map(Value::as_f64).collect()
            };
            let (phase, tokens) = match number("n_prompt") {
                0 => ("decode", number("n_gen")),
                tokens => ("prefill", tokens),
            };
            let threads = number("threads");
            self.remember(threads, measured);
            let what = match number("n_depth") {
                0 => format!("{phase} {tokens}"),
                depth => format!("at {depth}"),
            };
            rows.push(Row {
                ours: samples(&format!("{phase}_samples")),
                theirs: samples(&format!("peer_{phase}_samples")),
                share: measured[format!("{phase}_share_of_limit")].as_f64(),
                ..Row::new(what, threads)
            });
        }
        Ok(rows)
    }

    fn remember(&self, threads: usize, measured: &Value) {
        let rate = |key: &str| measured[key].as_f64();
        if let (Some(read), Some(multiply)) = (
            rate("limit_read_bytes_per_second"),
            rate("limit_multiply_adds_per_second"),
        ) {
            let mut limits = self.limits.lock().expect("nobody panicked with it");
            limits.retain(|known| known.0 != threads);
            limits.push((threads, read, multiply));
        }
    }

    /// What the device does at most, in words.
    pub(super) fn notes(&self) -> String {
        let limits = self.limits.lock().expect("nobody panicked with it");
        let of = |(threads, read, multiply): &(usize, f64, f64)| {
            format!(
                "{threads} thread{} {:.1} GB/s and {:.0} billion multiply-adds",
                if *threads == 1 { "" } else { "s" },
                read / 1e9,
                multiply / 1e9
            )
        };
        let limits: Vec<String> = limits.iter().map(of).collect();
        format!("Limits, as last measured: {}.", limits.join("; "))
    }

    /// What `dram inspect` says of a file.
    pub(super) fn inspect(&self, path: PathBuf) -> Result<Model> {
        let inspected = json(
            Command::new(&self.dram)
                .arg("inspect")
                .arg(&path)
                .arg("--json"),
        )?;
        let metadata = &inspected["metadata"];
        let family = metadata["general.architecture"]
            .as_str()
            .unwrap_or_default();
        let context = metadata[format!("{family}.context_length")].as_u64();
        let context =
            context.with_context(|| format!("{}: no context_length", path.display()))? as usize;
        let mut bytes: BTreeMap<&str, u64> = BTreeMap::new(); // of the layers
        let mut parameters = 0;
        for tensor in inspected["tensors"].as_array().into_iter().flatten() {
            let shape = tensor["shape"].as_array().into_iter().flatten();
            parameters += shape.filter_map(Value::as_u64).product::<u64>();
            if tensor["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("blk."))
            {
                let format = tensor["format"].as_str().unwrap_or_default();
                *bytes.entry(format).or_default() += tensor["bytes"].as_u64().unwrap_or_default();
            }
        }
        let most = bytes.into_iter().max_by_key(|&(_, bytes)| bytes);
        let name = path.file_stem().unwrap_or_default();
        Ok(Model {
            name: name.to_string_lossy().into_owned(),
            context,
            parameters,
            format: most.map_or("", |(format, _)| format).to_owned(),
            path,
        })
    }

    /// Dram's and llama.cpp's commands that open the file, tokenise a prompt and make a token.
    pub(super) fn first_token(&self, file: &Path, threads: usize, context: usize) -> [Command; 2] {
        const PROMPT: &str = "Once upon a time";
        let (threads, context) = (threads.to_string(), context.to_string());
        let mut ours = Command::new(&self.dram);
        ours.arg("run").arg(file);
        ours.args([
            PROMPT,
            "--raw",
            "-n",
            "1",
            "--context",
            &context,
            "--threads",
            &threads,
            "--temperature",
            "0",
        ]);
        let mut theirs = Command::new(&self.completion);
        theirs.arg("-m").arg(file);
        theirs.args([
            "-p", PROMPT, "-n", "1", "-c", &context, "-t", &threads, "--temp", "0",
        ]);
        theirs.args(["-no-cnv", "--no-warmup", "-fit", "off"]);
        [ours, theirs]
    }

    /// Dram's and llama.cpp's commands that fill a context.
    pub(super) fn fill(&self, file: &Path, threads: usize, context: usize) -> [Command; 2] {
        const LAST: usize = 8;
        let numbers = [0, LAST, context.saturating_sub(LAST), threads, 1];
        let with = |mut command: Command| {
            for (flag, number) in ["-p", "-n", "-d", "-t", "-r"].into_iter().zip(numbers) {
                command.args([flag, &number.to_string()]);
            }
            command.args(["-o", "json", "-m"]).arg(file);
            command
        };
        let mut ours = Command::new(&self.dram);
        ours.args(["bench", "--no-limits"]);
        [with(ours), with(Command::new(&self.bench))]
    }

    /// From start to exit.
    pub(super) fn time(&self, command: &mut Command) -> Result<Duration> {
        let start = Instant::now();
        let output = run(command)?;
        let time = start.elapsed();
        check(command, &output)?;
        Ok(time)
    }

    /// Runs it to its end and looks at its memory all the while.
    pub(super) fn watch(&self, command: &mut Command) -> Result<Memory> {
        const BETWEEN_LOOKS: Duration = Duration::from_micros(500);
        silent(command);
        let mut child = command
            .spawn()
            .with_context(|| format!("could not start {}", command.get_program().display()))?;
        let status = PathBuf::from(format!("/proc/{}/status", child.id()));
        let mut most = Memory::default();
        let ended = loop {
            if let Some(ended) = child.try_wait()? {
                break ended;
            }
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let bytes = |key: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(key));
                let number =
                    line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok());
                number.unwrap_or(0u64) * 1024
            };
            most.anonymous = most.anonymous.max(bytes("RssAnon:"));
            most.resident = most.resident.max(bytes("VmHWM:"));
            std::thread::sleep(BETWEEN_LOOKS);
        };
        if !ended.success() || most.resident == 0 {
            bail!(
                "{}: {ended}; its memory is looked up in /proc",
                command.get_program().display()
            );
        }
        Ok(most)
    }
}

/// A process's greatest sizes, in bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Memory {
    /// Its own pages (RssAnon).
    pub(super) anonymous: u64,
    /// All pages (VmHWM).
    pub(super) resident: u64,
}

/// A process that never sleeps; ended when this is dropped.
pub(super) struct Busy {
    child: Child,
    place: &'static str,
}

impl Busy {
    pub(super) fn start() -> Result<Busy> {
        let looping = ["sh", "-c", "while :; do :; done"];
        let mut pinned = Command::new("taskset");
        silent(pinned.args(["-c", "1"]).args(looping));
        if let Ok(mut child) = pinned.spawn() {
            std::thread::sleep(Duration::from_millis(100));
            if child.try_wait()?.is_none() {
                return Ok(Busy {
                    child,
                    place: "core 1 busy",
                });
            }
        }
        let mut free = Command::new(looping[0]);
        let child = silent(free.args(&looping[1..])).spawn();
        Ok(Busy {
            child: child.context("could not start sh")?,
            place: "a loop on any core",
        })
    }

    /// Where it runs.
    pub(super) fn place(&self) -> &'static str {
        self.place
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn silent(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}

fn run(command: &mut Command) -> Result<Output> {
    let output = command.stdin(Stdio::null()).output();
    output.with_context(|| format!("could not start {}", command.get_program().display()))
}

fn check(command: &Command, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().take(3).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    bail!(
        "{}: {}: {}",
        command.get_program().display(),
        output.status,
        last.join("\n")
    )
}

fn json(command: &mut Command) -> Result<Value> {
    let output = run(command)?;
    check(command, &output)?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{} did not print JSON", command.get_program().display()))
}
