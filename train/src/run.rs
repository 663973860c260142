//! From a recipe to a trained, evaluated and exported model: `dram pretrain` and `dram distill`.

mod report;
mod sources;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::checkpoint::{fingerprint, write_beside};
use crate::data::Batch;
use crate::eval::{Figures, Scorer, evaluate};
use crate::export::{Export, Gate, Limits, Parity, shared_tokens};
use crate::loss::{Losses, Sizes};
use crate::recipe::Recipe;
use crate::report::Table;
use crate::student::{Decoder, Products, QuantMode};
use crate::teacher::{self, Scored, Teacher, Trained};
use crate::trainer::{Outcome, Step, Trainer};
pub use sources::HeldOut;
use sources::Sources;

/// What a listener hears while a run goes on.
#[derive(Debug)]
pub enum Event<'a> {
    /// Something worth a line.
    Note(&'a str),
    /// One more step.
    Step(Progress<'a>),
    /// Held-out figures during training, one for each set.
    Evaluated {
        step: u64,
        figures: &'a [(String, Figures)],
    },
}

/// A finished step, and how the run fares.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    pub step: &'a Step,
    pub of: u64,
    /// Names of `step.terms`.
    pub losses: &'a [&'static str],
    /// Tokens that the student reads per second, over the last seconds.
    pub tokens_per_second: f64,
    /// Time to the last step at this rate.
    pub eta: Duration,
}

/// What a run leaves.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub name: String,
    pub parameters: usize,
    /// Steps finished; fewer than asked for when the run was stopped.
    pub steps: u64,
    pub finished: bool,
    /// Seconds that this start took.
    pub seconds: f64,
    /// Tokens that the student read in this start.
    pub tokens: u64,
    /// Held-out figures of the model as it is exported, one for each set.
    pub figures: Vec<(String, Figures)>,
    /// Share of held-out requests answered exactly, by the runtime on the exported file, for tasks that have one right answer.
    pub exact: Vec<(String, f64)>,
    pub parity: Option<Parity>,
    /// Hugging Face folder with the f32 weights.
    pub folder: PathBuf,
    pub gguf: Option<PathBuf>,
    /// Teacher, control and student side by side, when there is a file to measure.
    pub table: Option<Table>,
}

/// Where one model goes, and what it is reported beside.
struct Place<'a> {
    out: &'a Path,
    /// The finished control.
    control: Option<&'a Path>,
}

/// Names of what lies in the output folder.
const CHECKPOINT: &str = "checkpoint.safetensors";
const LOG: &str = "train.jsonl";
const FOLDER: &str = "model";
const GGUF: &str = "model.gguf";
const CONTROL: &str = "control";

/// Trains on data alone.
///
/// # Errors
/// When the recipe names a teacher; when data, training, export or the gate fail.
pub fn pretrain(
    recipe: &Recipe,
    out: &Path,
    stop: &AtomicBool,
    listener: &mut dyn FnMut(Event),
) -> Result<Summary> {
    recipe.check()?;
    recipe.expect_no_teacher()?;
    let sources = Sources::new(recipe, None, listener)?;
    let place = Place { out, control: None };
    execute(recipe, None, &sources, &place, stop, listener)
}

/// Trains with a teacher.
///
/// # Errors
/// When the recipe names none; when teacher, data, training, export or the gate fail.
pub fn distill(
    recipe: &Recipe,
    out: &Path,
    stop: &AtomicBool,
    listener: &mut dyn FnMut(Event),
) -> Result<Summary> {
    recipe.check()?;
    let teacher = teacher::open(&recipe.expect_teacher()?.path, recipe.train.threads())
        .context("[teacher]")?;
    let sources = Sources::new(recipe, Some(&*teacher), listener)?;
    let control = if recipe.eval.control {
        listener(Event::Note("the control: the student without a teacher"));
        let control = execute(
            &recipe.of_control(),
            None,
            &sources,
            &Place {
                out: &out.join(CONTROL),
                control: None,
            },
            stop,
            listener,
        )?;
        if !control.finished {
            return Ok(control);
        }
        listener(Event::Note("the student"));
        control.gguf
    } else {
        None
    };
    execute(
        recipe,
        Some(&*teacher),
        &sources,
        &Place {
            out,
            control: control.as_deref(),
        },
        stop,
        listener,
    )
}

/// `pretrain` or `distill`, as the recipe says.
///
/// # Errors
/// As there.
pub fn run(
    recipe: &Recipe,
    out: &Path,
    stop: &AtomicBool,
    listener: &mut dyn FnMut(Event),
) -> Result<Summary> {
    if recipe.teacher.is_some() {
        distill(recipe, out, stop, listener)
    } else {
        pretrain(recipe, out, stop, listener)
    }
}

/// The sets that a model of `recipe` is evaluated on; without a teacher, so `data.tokenizer` should name the model.
///
/// # Errors
/// When the data cannot be read, or holds nothing to evaluate.
pub fn held_out_sets(recipe: &Recipe) -> Result<Vec<HeldOut>> {
    Ok(Sources::new(recipe, None, &mut |_| {})?.held_out)
}

/// Trains one model, and reports it beside its teacher and its control.
fn execute(
    recipe: &Recipe,
    teacher: Option<&dyn Teacher>,
    sources: &Sources,
    place: &Place<'_>,
    stop: &AtomicBool,
    listener: &mut dyn FnMut(Event),
) -> Result<Summary> {
    let started = Instant::now();
    let out = place.out;
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let student = student(recipe, sources)?;
    sources.fit(student.config().context_length)?;
    let shared = sources.shared.min(student.config().vocabulary);
    let sharing = teacher.map(|teacher| teacher::sharing(teacher, shared));
    let teacher = sharing.as_ref().map(|sharing| sharing as &dyn Teacher);
    listener(Event::Note(&format!(
        "{} parameters, {} tokens in the vocabulary, {} threads",
        student.layout().total,
        student.config().vocabulary,
        recipe.train.threads()
    )));
    // Evaluation asks the teacher itself, in f32; training may ask a twin with faster products.
    let ask = teacher.map(|teacher| teacher::ask(teacher, recipe.train.precision.into()));
    let losses = losses(recipe, &student, teacher)?;
    let names = losses.names();
    let mut trainer = Trainer::new(student, recipe.settings(), losses, &*sources.training, ask)?;

    let fingerprint = fingerprint(&format!("{} {}", recipe.course()?, sources.fingerprint));
    let checkpoint = out.join(CHECKPOINT);
    if checkpoint.is_file() {
        trainer.resume(&checkpoint, &fingerprint)?;
        listener(Event::Note(&format!(
            "going on after step {}",
            trainer.step()
        )));
    }
    let mut log = Log::open(&out.join(LOG), trainer.step())?;
    let mut pace = Pace::new();
    let mut saved = Instant::now();
    let of = recipe.train.steps;
    let mut tokens = 0;
    let outcome = trainer.run(stop, &mut |trainer, step| {
        tokens += step.tokens;
        pace.add(step);
        log.step(step, &names)?;
        listener(Event::Step(Progress {
            step,
            of,
            losses: &names,
            tokens_per_second: pace.tokens_per_second(),
            eta: Duration::from_secs_f64(pace.seconds_per_step() * (of - step.step) as f64),
        }));
        let every = recipe.eval.every;
        if every > 0 && step.step.is_multiple_of(every) && step.step < of {
            let figures = held_out(
                trainer.decoder(),
                trainer.current_mode(),
                teacher,
                &sources.held_out,
                recipe.train.threads(),
            )?;
            log.figures(step.step, &figures)?;
            listener(Event::Evaluated {
                step: step.step,
                figures: &figures,
            });
        }
        if saved.elapsed().as_secs() >= recipe.train.checkpoint_seconds {
            trainer.save(&checkpoint, &fingerprint)?;
            saved = Instant::now();
        }
        Ok(())
    })?;
    trainer.save(&checkpoint, &fingerprint)?;
    let mut summary = Summary {
        name: recipe.name.clone(),
        parameters: trainer.decoder().layout().total,
        steps: trainer.step(),
        finished: outcome == Outcome::Finished,
        seconds: 0.0,
        tokens,
        figures: Vec::new(),
        exact: Vec::new(),
        parity: None,
        folder: out.join(FOLDER),
        gguf: None,
        table: None,
    };
    if outcome == Outcome::Stopped {
        listener(Event::Note(&format!(
            "stopped after step {}; the next start goes on from there",
            trainer.step()
        )));
        summary.seconds = started.elapsed().as_secs_f64();
        return Ok(summary);
    }
    let mut decoder = trainer.into_decoder();
    decoder.set_products(Products::F32);
    summary.seconds = started.elapsed().as_secs_f64();
    finish(
        recipe,
        &decoder,
        teacher,
        sources,
        place,
        &mut summary,
        listener,
    )?;
    log.figures(summary.steps, &summary.figures)?;
    summary.seconds = started.elapsed().as_secs_f64();
    let text = serde_json::to_string_pretty(&summary)?;
    write_beside(&out.join("summary.json"), |path| {
        Ok(fs::write(path, text + "\n")?)
    })?;
    Ok(summary)
}

/// Saves, exports, evaluates.
fn finish(
    recipe: &Recipe,
    decoder: &Decoder,
    teacher: Option<&dyn Teacher>,
    sources: &Sources,
    place: &Place<'_>,
    summary: &mut Summary,
    listener: &mut dyn FnMut(Event),
) -> Result<()> {
    let threads = recipe.train.threads();
    decoder.save_hugging_face(&summary.folder)?;
    summary.figures = held_out(decoder, QuantMode::On, teacher, &sources.held_out, threads)?;
    if !recipe.export.gguf {
        return Ok(());
    }
    listener(Event::Note(
        "exporting, and comparing the runtime with the training model",
    ));
    let scheme = recipe.scheme()?;
    let path = place.out.join(GGUF);
    let mut vocabulary = sources.vocabulary.clone();
    vocabulary.fit(decoder.config().vocabulary)?;
    let export = Export {
        name: &recipe.name,
        config: decoder.config(),
        weights: decoder.parameters(),
        scheme: &scheme,
        vocabulary: &vocabulary,
        metadata: Vec::new(),
    };
    let reference = Trained::new("training model", decoder, QuantMode::On, threads)?;
    let mut batches: Vec<Batch> = Vec::new();
    for set in &sources.held_out {
        batches.extend(set.batches.iter().take(GATE_BATCHES).cloned());
    }
    let gate = Gate {
        reference: &reference,
        batches: &batches,
        limits: Limits::default(),
        workers: threads,
    };
    summary.parity = Some(export.verified(&path, &gate)?);
    summary.gguf = Some(path);
    report::report(recipe, teacher, sources, place, summary)
}

/// Held-out batches of each set that the gate looks at.
const GATE_BATCHES: usize = 8;

/// Figures on every held-out set.
fn held_out(
    decoder: &Decoder,
    mode: QuantMode,
    teacher: Option<&dyn Teacher>,
    sets: &[HeldOut],
    threads: usize,
) -> Result<Vec<(String, Figures)>> {
    let student = Trained::new("student", decoder, mode, threads)?;
    let scored = teacher.map(|teacher| Scored { teacher, threads });
    sets.iter()
        .map(|set| {
            let figures = evaluate(
                &[&student],
                scored.as_ref().map(|t| t as &dyn Scorer),
                &set.batches,
            )?;
            Ok((set.name.clone(), figures[0]))
        })
        .collect()
}

/// The student before its first step.
fn student(recipe: &Recipe, sources: &Sources) -> Result<Decoder> {
    let mut student = match &recipe.student.init {
        Some(path) => {
            let student = Decoder::load(path).context("[student] init")?;
            // It may have other rows of padding than the data's tokenizer, or the teacher.
            let mut vocabulary = sources.vocabulary.clone();
            vocabulary
                .fit(student.config().vocabulary)
                .context("[student] init")?;
            if let Ok(own) = crate::data::TextTokenizer::open(path) {
                let (own, data) = (&own.vocabulary().tokens, &sources.vocabulary.tokens);
                shared_tokens(own, data, "[student] init", "the data's tokenizer")?;
            }
            student
        }
        None => Decoder::random(
            recipe.student.config(sources.logits_length)?,
            recipe.train.seed,
        )?,
    };
    student.set_scheme(Some(recipe.scheme()?))?;
    student.set_products(recipe.train.precision.into());
    Ok(student)
}

fn losses(recipe: &Recipe, student: &Decoder, teacher: Option<&dyn Teacher>) -> Result<Losses> {
    let config = student.config();
    let sizes = Sizes {
        vocabulary: config.vocabulary,
        layers: config.layers,
        width: config.embedding_length,
        teacher: teacher
            .and_then(Teacher::decoder)
            .map(|d| (d.config().layers, d.config().embedding_length)),
        has_teacher: teacher.is_some(),
    };
    let asked = recipe.asked();
    Losses::new(
        asked.iter().map(|(name, asked)| (name.as_str(), asked)),
        sizes,
    )
}

/// Rates over the last seconds, so that they follow what else the machine does.
struct Pace {
    seconds: f64,
    tokens: f64,
    steps: f64,
}

impl Pace {
    fn new() -> Self {
        Pace {
            seconds: 0.0,
            tokens: 0.0,
            steps: 0.0,
        }
    }

    fn add(&mut self, step: &Step) {
        // Halves the weight of what lies ten seconds back.
        let keep = 0.5f64.powf(step.seconds / 10.0);
        self.seconds = self.seconds * keep + step.seconds;
        self.tokens = self.tokens * keep + step.tokens as f64;
        self.steps = self.steps * keep + 1.0;
    }

    fn tokens_per_second(&self) -> f64 {
        self.tokens / self.seconds.max(1e-9)
    }

    fn seconds_per_step(&self) -> f64 {
        self.seconds / self.steps.max(1.0)
    }
}

/// One JSON object a line: steps, and held-out figures.
struct Log(fs::File);

impl Log {
    /// Keeps what an earlier start wrote up to `step`.
    fn open(path: &Path, step: u64) -> Result<Self> {
        let kept: String = match fs::read_to_string(path) {
            Ok(text) if step > 0 => {
                let old = |line: &&str| {
                    serde_json::from_str::<serde_json::Value>(line)
                        .is_ok_and(|v| v["step"].as_u64().is_some_and(|s| s <= step))
                };
                text.lines()
                    .filter(old)
                    .flat_map(|line| [line, "\n"])
                    .collect()
            }
            _ => String::new(),
        };
        write_beside(path, |beside| Ok(fs::write(beside, kept)?))?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Log(file))
    }

    fn step(&mut self, step: &Step, names: &[&str]) -> Result<()> {
        let mut line = serde_json::to_value(step)?;
        line["terms"] = names
            .iter()
            .zip(&step.terms)
            .map(|(n, t)| ((*n).to_string(), serde_json::Value::from(*t)))
            .collect();
        Ok(writeln!(self.0, "{line}")?)
    }

    fn figures(&mut self, step: u64, figures: &[(String, Figures)]) -> Result<()> {
        for (set, figures) in figures {
            let mut line = serde_json::to_value(figures)?;
            line["step"] = step.into();
            line["set"] = set.as_str().into();
            writeln!(self.0, "{line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
