//! From a recipe to a trained, evaluated and exported model: `dram pretrain` and `dram distill`.

mod identity;
mod log;
mod pace;
mod records;
mod render;
mod report;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dram_files::tokenizer::{add_tokenizer, shared_tokens};
use dram_files::write_beside;
use serde::Serialize;

use self::log::Log;
use self::pace::Pace;
use crate::checkpoint;
use crate::data::{Batch, actions};
use crate::eval::{Figures, Reference, evaluate_with};
use crate::export::{Export, Gate, Limits, Parity};
use crate::identity::hash_of_model;
use crate::lock::FolderLock;
use crate::loss::{Losses, Sizes};
use crate::recipe::{Kind, Recipe};
use crate::report::Table;
use crate::stop::{self, Watch, stopped};
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
    /// Training begins after so many steps: from now on there is something to lose.
    Begun { step: u64 },
    /// How far something is that takes its time, such as "evaluating".
    Working {
        what: &'a str,
        done: usize,
        of: usize,
    },
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
    stop: &'a AtomicBool,
}

/// A teacher and what stands for it.
#[derive(Clone, Copy)]
struct Learnt<'a> {
    teacher: &'a dyn Teacher,
    /// Hash of its file or folder.
    contents: &'a str,
    /// Its answers on held-out data.
    reference: &'a Reference<'a>,
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
/// When the recipe names a teacher; when another run has the folder; when data, training, export or the gate fail.
pub fn pretrain(
    recipe: &Recipe,
    out: &Path,
    stop: &AtomicBool,
    listener: &mut dyn FnMut(Event),
) -> Result<Summary> {
    recipe.check()?;
    recipe.expect_no_teacher()?;
    let _lock = FolderLock::take(out)?;
    let sources = Sources::new(recipe, None, listener)?;
    let place = Place {
        out,
        control: None,
        stop,
    };
    execute(recipe, None, &sources, &place, listener)
}

/// Trains with a teacher.
///
/// # Errors
/// When the recipe names none; when another run has the folder; when teacher, data, training, export or the gate fail.
pub fn distill(
    recipe: &Recipe,
    out: &Path,
    stop: &AtomicBool,
    listener: &mut dyn FnMut(Event),
) -> Result<Summary> {
    recipe.check()?;
    let _lock = FolderLock::take(out)?;
    let path = &recipe.expect_teacher()?.path;
    let threads = recipe.train.all_threads();
    let teacher = teacher::open(path, threads).context("[teacher]")?;
    let contents = hash_of_model(path, stop).context("[teacher]")?;
    let sources = Sources::new(recipe, Some(&*teacher), listener)?;
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let teacher = teacher::sharing(&*teacher, sources.shared);
    let scored = Scored {
        teacher: &teacher,
        threads,
    };
    let reference = Reference::new(&scored, Some(out));
    let learnt = Learnt {
        teacher: &teacher,
        contents: &contents,
        reference: &reference,
    };
    let control = if recipe.eval.control {
        let _lock = FolderLock::take(&out.join(CONTROL))?;
        listener(Event::Note("the control: the student without a teacher"));
        let control = execute(
            &recipe.of_control(),
            None,
            &sources,
            &Place {
                out: &out.join(CONTROL),
                control: None,
                stop,
            },
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
        Some(learnt),
        &sources,
        &Place {
            out,
            control: control.as_deref(),
            stop,
        },
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

/// The sets that a model of `recipe` is evaluated on; without a teacher, so `data.tokenizer` should name the model. `listener` hears what of the data is
/// left out.
///
/// # Errors
/// When the data cannot be read, or holds nothing to evaluate.
pub fn held_out_sets(recipe: &Recipe, listener: &mut dyn FnMut(Event)) -> Result<Vec<HeldOut>> {
    Ok(Sources::held_out(recipe, listener)?.held_out)
}

/// Trains one model, and reports it beside its teacher and its control.
fn execute(
    recipe: &Recipe,
    learnt: Option<Learnt<'_>>,
    sources: &Sources,
    place: &Place<'_>,
    listener: &mut dyn FnMut(Event),
) -> Result<Summary> {
    let started = Instant::now();
    let (out, stop) = (place.out, place.stop);
    let checkpoint = out.join(CHECKPOINT);
    let student = student(recipe, sources)?;
    sources.fit(student.config().context_length)?;
    let recipe = &sharded(recipe, student.layout().total, &checkpoint);
    listener(Event::Note(&format!(
        "{} parameters, {} tokens in the vocabulary, {} threads",
        student.layout().total,
        student.config().vocabulary,
        recipe.train.threads()
    )));
    let identity = identity::identity(recipe, learnt.as_ref(), sources, &student)?;
    // Evaluation asks the teacher itself, in f32; training may ask a twin with faster products.
    let rows = student.config().vocabulary;
    let sharing = learnt.map(|l| teacher::sharing(l.teacher, rows));
    let teacher = sharing.as_ref().map(|sharing| sharing as &dyn Teacher);
    let ask = teacher.map(|teacher| teacher::ask(teacher, recipe.train.precision.into()));
    let losses = losses(recipe, &student, teacher)?;
    let names = losses.names();
    let mut trainer = Trainer::new(student, recipe.settings(), losses, &*sources.training, ask)?;

    if checkpoint.is_file() {
        let before = trainer.resume(&checkpoint, &identity)?;
        let grown = if before < recipe.train.steps {
            format!(
                "; its {before} steps have become {}, whose learning rates it has from here on",
                recipe.train.steps
            )
        } else {
            String::new()
        };
        listener(Event::Note(&format!(
            "going on after step {}{grown}",
            trainer.step()
        )));
    }
    listener(Event::Begun {
        step: trainer.step(),
    });
    let mut log = Log::open(&out.join(LOG), trainer.step())?;
    let mut pace = Pace::default();
    let mut saved = Instant::now();
    let of = recipe.train.steps;
    let mut tokens = 0;
    let figures =
        |trainer: &Trainer<'_>, log: &mut Log, listener: &mut dyn FnMut(Event)| -> Result<()> {
            let (step, every) = (trainer.step(), recipe.eval.every);
            if every == 0 || !step.is_multiple_of(every) || step >= of || log.evaluated(step) {
                return Ok(());
            }
            let decoder = (trainer.decoder(), trainer.current_mode());
            let figures = held_out(recipe, decoder, learnt.as_ref(), sources, place, listener)?;
            log.figures(step, &figures)?;
            listener(Event::Evaluated {
                step,
                figures: &figures,
            });
            Ok(())
        };
    // An evaluation that was cut short by the last stop is made good.
    let begun = if trainer.step() > 0 {
        figures(&trainer, &mut log, listener)
    } else {
        Ok(())
    };
    let outcome = begun.and_then(|()| {
        trainer.run(stop, &mut |trainer, step| {
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
            figures(trainer, &mut log, listener)?;
            if saved.elapsed().as_secs() >= recipe.train.checkpoint_seconds {
                trainer.save(&checkpoint, &identity)?;
                saved = Instant::now();
            }
            Ok(())
        })
    });
    let outcome = match outcome {
        Err(error) if stopped(&error) => Outcome::Stopped,
        other => other?,
    };
    trainer.save(&checkpoint, &identity)?;
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
    if summary.finished {
        let mut decoder = trainer.into_decoder();
        decoder.set_products(Products::F32);
        summary.seconds = started.elapsed().as_secs_f64();
        let finished = finish(
            recipe,
            &decoder,
            learnt.as_ref(),
            sources,
            place,
            &mut summary,
            listener,
        );
        match finished {
            Err(error) if stopped(&error) => summary.finished = false,
            other => other?,
        }
    }
    summary.seconds = started.elapsed().as_secs_f64();
    if !summary.finished {
        listener(Event::Note(&format!(
            "stopped after step {}; the next start goes on from there",
            summary.steps
        )));
        return Ok(summary);
    }
    if !log.evaluated(summary.steps) {
        log.figures(summary.steps, &summary.figures)?;
    }
    let text = serde_json::to_string_pretty(&summary)?;
    write_beside(&out.join("summary.json"), |path| {
        Ok(fs::write(path, text + "\n")?)
    })?;
    Ok(summary)
}

/// The recipe with its number of shards: where it names none, that of the run that goes on, or as many as there are threads.
fn sharded(recipe: &Recipe, parameters: usize, checkpoint: &Path) -> Recipe {
    let mut recipe = recipe.clone();
    if recipe.train.shards.is_none() {
        let before = checkpoint::identity_of(checkpoint);
        let before = before.and_then(|identity| identity.get("train.shards")?.parse().ok());
        recipe.train.shards =
            Some(before.unwrap_or_else(|| recipe.train.default_shards(parameters)));
    }
    recipe
}

/// Saves, exports, evaluates.
fn finish(
    recipe: &Recipe,
    decoder: &Decoder,
    learnt: Option<&Learnt<'_>>,
    sources: &Sources,
    place: &Place<'_>,
    summary: &mut Summary,
    listener: &mut dyn FnMut(Event),
) -> Result<()> {
    let threads = recipe.train.all_threads();
    stop::check(place.stop)?;
    decoder.save_hugging_face(&summary.folder)?;
    if let Err(error) = add_tokenizer(
        &summary.folder,
        &sources.vocabulary,
        recipe.tokenizer_folder(),
    ) {
        // The weights are as good without, and the GGUF file has a tokenizer of its own.
        listener(Event::Note(&format!(
            "{} has no tokenizer: {error:#}",
            summary.folder.display()
        )));
    }
    summary.figures = held_out(
        recipe,
        (decoder, QuantMode::On),
        learnt,
        sources,
        place,
        listener,
    )?;
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
        metadata: match recipe.data.kind {
            Kind::Actions => vec![actions::greedy()],
            Kind::Text | Kind::Jsonl => Vec::new(),
        },
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
    let mut tell = |done, of| {
        listener(Event::Working {
            what: "comparing",
            done,
            of,
        });
    };
    let mut watch = Watch::new(place.stop, &mut tell);
    summary.parity = Some(export.verified_with(&path, &gate, &mut watch)?);
    summary.gguf = Some(path);
    report::report(recipe, learnt, sources, place, summary, listener)
}

/// Held-out batches of each set that the gate looks at.
const GATE_BATCHES: usize = 8;

/// Figures of a decoder on every held-out set.
fn held_out(
    recipe: &Recipe,
    (decoder, mode): (&Decoder, QuantMode),
    learnt: Option<&Learnt<'_>>,
    sources: &Sources,
    place: &Place<'_>,
    listener: &mut dyn FnMut(Event),
) -> Result<Vec<(String, Figures)>> {
    let student = Trained::new("student", decoder, mode, recipe.train.all_threads())?;
    let reference = learnt.map(|l| l.reference);
    sources
        .held_out
        .iter()
        .map(|set| {
            let what = format!("evaluating {}", set.name);
            let mut tell = |done, of| {
                listener(Event::Working {
                    what: &what,
                    done,
                    of,
                });
            };
            let mut watch = Watch::new(place.stop, &mut tell);
            let figures = evaluate_with(&[&student], reference, &set.batches, &mut watch)?;
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

#[cfg(test)]
mod tests;
