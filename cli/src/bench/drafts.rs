//! What drafts gain: the part of `dram bench` that answers prompts with and without them.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use dram_core::{
    Completion, Message, Model, Prompt, Request, Session, SessionOptions, Speculation,
};
use dram_train::recipe::{Data, Eval, Kind, Recipe};
use dram_train::run::held_out_sets;
use serde_json::{Value, json};

use super::model_name;
use crate::output::table;

/// Requests of the built-in task that are answered.
const EXAMPLES: usize = 50;

pub(super) struct Work<'a> {
    pub(super) speculation: Speculation,
    /// What the table calls it.
    pub(super) note: String,
    /// Prompts, one a line; without, the built-in task's.
    pub(super) prompts: Option<&'a Path>,
    /// Most tokens of an answer to one of those prompts.
    pub(super) max_tokens: usize,
    pub(super) repetitions: usize,
}

/// One model on one number of threads.
struct Row {
    model: String,
    threads: usize,
    answers: usize,
    tokens: usize,
    steps: usize,
    drafted: usize,
    accepted: usize,
    /// Tokens per second after each answer's first, medians of the repetitions
    plain: f64,
    drafting: f64,
    /// Of the rates of one repetition: the median, the least, the greatest
    gain: [f64; 3],
}

/// Answers every prompt greedily, once without and once with drafts, in turns, and prints what that gained.
pub(super) fn compare(
    models: &[PathBuf],
    threads: &[Option<usize>],
    work: &Work<'_>,
    as_json: bool,
) -> Result<()> {
    ensure!(work.repetitions > 0, "-r 0: expected at least 1");
    let mut rows = Vec::new();
    for path in models {
        let model = Model::open(path)?;
        let requests = requests(path, &model, work)?;
        for &threads in threads {
            rows.push(measure(path, &model, threads, &requests, work)?);
        }
    }
    if as_json {
        let rows: Vec<Value> = rows.iter().map(|row| row.json(&work.note)).collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    let header = [
        "model",
        "drafts",
        "threads",
        "answers",
        "tokens",
        "accepted",
        "of drafted",
        "tokens/step",
        "plain tok/s",
        "with drafts",
        "gain",
    ];
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.cells(&work.note)).collect();
    print!("{}", table(&header, &cells));
    Ok(())
}

/// The prompts as greedy requests.
fn requests(path: &Path, model: &Model, work: &Work<'_>) -> Result<Vec<Request>> {
    let Some(file) = work.prompts else {
        let recipe = Recipe {
            data: Data {
                kind: Kind::Actions,
                tokenizer: Some(path.to_owned()),
                ..Data::default()
            },
            eval: Eval {
                examples: EXAMPLES,
                ..Eval::default()
            },
            ..Recipe::default()
        };
        let cases = held_out_sets(&recipe, &mut |_| {})?
            .into_iter()
            .flat_map(|set| set.cases);
        return Ok(cases
            .map(|case| Request {
                max_tokens: case.max_tokens,
                ..Request::new(Prompt::Tokens(case.prompt))
            })
            .collect());
    };
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let requests: Vec<_> = lines
        .map(|line| Request {
            max_tokens: work.max_tokens,
            ..Request::new(match model.chat_template() {
                Some(_) => Prompt::Chat(vec![Message::new("user", line)]),
                None => Prompt::Text(line.to_owned()),
            })
        })
        .collect();
    ensure!(!requests.is_empty(), "{}: no prompts", file.display());
    Ok(requests)
}

fn measure(
    path: &Path,
    model: &Model,
    threads: Option<usize>,
    requests: &[Request],
    work: &Work<'_>,
) -> Result<Row> {
    let options = SessionOptions {
        threads,
        ..SessionOptions::default()
    };
    let mut sessions = [model.session(options)?, model.session(options)?];
    sessions[1].set_speculation(&work.speculation)?;
    let mut row = Row {
        model: model_name(path),
        threads: sessions[0].threads(),
        answers: requests.len(),
        tokens: 0,
        steps: 0,
        drafted: 0,
        accepted: 0,
        plain: 0.0,
        drafting: 0.0,
        gain: [0.0; 3],
    };
    let mut rates = [Vec::new(), Vec::new()];
    // The first round pages in the weights and is not counted.
    for round in 0..=work.repetitions {
        let (mut made, mut seconds) = (0, [0.0; 2]);
        (row.tokens, row.steps, row.drafted, row.accepted) = (0, 0, 0, 0);
        for (number, request) in requests.iter().enumerate() {
            let mut texts = [Vec::new(), Vec::new()];
            // Whoever comes second finds the caches warm: each does every other time.
            for turn in 0..2 {
                let which = (number + turn) % 2;
                let completion = answer(&mut sessions[which], request)?;
                seconds[which] += completion.timings.decode.as_secs_f64();
                if which == 1 {
                    row.tokens += completion.tokens.len();
                    row.steps += completion.decode_steps;
                    row.drafted += completion.drafted_tokens;
                    row.accepted += completion.accepted_tokens;
                    made += completion.tokens.len().saturating_sub(1);
                }
                texts[which] = completion.tokens;
            }
            ensure!(
                texts[0] == texts[1],
                "prompt {}: the answer with drafts is another one",
                number + 1
            );
        }
        if round > 0 {
            for (rates, seconds) in rates.iter_mut().zip(seconds) {
                rates.push(made as f64 / f64::max(seconds, 1e-9));
            }
        }
    }
    let mut gains: Vec<f64> = rates[1].iter().zip(&rates[0]).map(|(a, b)| a / b).collect();
    (row.plain, row.drafting) = (median(&mut rates[0]), median(&mut rates[1]));
    let middle = median(&mut gains);
    row.gain = [middle, gains[0], gains[gains.len() - 1]];
    Ok(row)
}

fn answer(session: &mut Session, request: &Request) -> Result<Completion> {
    // Every prompt is evaluated as a whole.
    session.reset();
    Ok(session.generate(request, &mut |_| ControlFlow::Continue(()))?)
}

/// Sorts `values`, of which there is at least one.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Row {
    fn tokens_per_step(&self) -> f64 {
        1.0 + self.accepted as f64 / self.steps.max(1) as f64
    }

    fn cells(&self, note: &str) -> Vec<String> {
        let [gain, least, most] = self.gain;
        let share = 100.0 * self.accepted as f64 / self.drafted.max(1) as f64;
        vec![
            self.model.clone(),
            note.to_owned(),
            self.threads.to_string(),
            self.answers.to_string(),
            self.tokens.to_string(),
            format!("{} ({share:.0} %)", self.accepted),
            self.drafted.to_string(),
            format!("{:.2}", self.tokens_per_step()),
            format!("{:.0}", self.plain),
            format!("{:.0}", self.drafting),
            format!("{gain:.2} ({least:.2}–{most:.2})"),
        ]
    }

    fn json(&self, note: &str) -> Value {
        let [gain, least, most] = self.gain;
        json!({
            "model": self.model,
            "drafts": note,
            "threads": self.threads,
            "answers": self.answers,
            "tokens": self.tokens,
            "decode_steps": self.steps,
            "drafted_tokens": self.drafted,
            "accepted_tokens": self.accepted,
            "plain_tokens_per_second": self.plain,
            "drafting_tokens_per_second": self.drafting,
            "gain": gain,
            "gain_least": least,
            "gain_greatest": most,
        })
    }
}
