//! One model of a run: made or resumed, trained, finished.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::events::{Event, Progress, Summary};
use super::log::Log;
use super::pace::Pace;
use super::sources::Sources;
use super::{CHECKPOINT, FOLDER, LOG, identity};
use crate::checkpoint;
use crate::data::TextTokenizer;
use crate::eval::Reference;
use crate::loss::{Losses, Sizes};
use crate::recipe::Recipe;
use crate::stop::stopped;
use crate::student::{Decoder, Products};
use crate::teacher::{self, Teacher};
use crate::trainer::{Outcome, Trainer};
use dram_files::tokenizer::shared_tokens;
use dram_files::write_beside;

/// A model to train, and where it goes.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) recipe: &'a Recipe,
    pub(crate) teacher: Option<OpenTeacher<'a>>,
    pub(crate) sources: &'a Sources,
    /// Its folder.
    pub(crate) out: &'a Path,
    /// The finished control's file, which is reported beside it.
    pub(crate) control: Option<&'a Path>,
    pub(crate) stop: &'a AtomicBool,
}

/// A teacher, and what is known of it.
#[derive(Clone, Copy)]
pub(crate) struct OpenTeacher<'a> {
    pub(crate) teacher: &'a dyn Teacher,
    /// Hash of its file or folder.
    pub(crate) contents: &'a str,
    /// Its answers on held-out data.
    pub(crate) reference: &'a Reference<'a>,
}

/// A training that has ended.
pub(crate) struct Training {
    summary: Summary,
    log: Log,
    /// `None` where it was stopped.
    pub(crate) decoder: Option<Decoder>,
}

impl Job<'_> {
    /// Trains the model, or goes on; exports it, and reports it beside its teacher and its control.
    pub(crate) fn run(&self, listener: &mut dyn FnMut(Event)) -> Result<Summary> {
        let started = Instant::now();
        let student = self.student()?;
        let recipe = &self.with_shards(student.layout().total);
        let job = Job { recipe, ..*self };
        let Training {
            mut summary,
            mut log,
            decoder,
        } = job.train(student, None, listener)?;
        if let Some(decoder) = decoder {
            summary.seconds = started.elapsed().as_secs_f64();
            match job.finish(&decoder, &mut summary, listener) {
                Err(error) if stopped(&error) => {
                    summary.finished = false;
                    note_stop(&summary, listener);
                }
                other => other?,
            }
        }
        summary.seconds = started.elapsed().as_secs_f64();
        if !summary.finished {
            return Ok(summary);
        }
        if !log.evaluated(summary.steps) {
            log.figures(summary.steps, &summary.figures)?;
        }
        let text = serde_json::to_string_pretty(&summary)?;
        write_beside(&self.out.join("summary.json"), |path| {
            Ok(fs::write(path, text + "\n")?)
        })?;
        Ok(summary)
    }

    /// Trains `student`, or goes on with what is in the folder. `fork` is the same model until it begins to round: up to that step it is trained
    /// here, and from there on in its own folder.
    pub(crate) fn train(
        &self,
        student: Decoder,
        fork: Option<&Job<'_>>,
        listener: &mut dyn FnMut(Event),
    ) -> Result<Training> {
        let recipe = self.recipe;
        let checkpoint = self.out.join(CHECKPOINT);
        self.sources.fit(student.config().context_length)?;
        listener(Event::Note(&format!(
            "{} parameters, {} tokens in the vocabulary, {} threads",
            student.layout().total,
            student.config().vocabulary,
            recipe.train.threads()
        )));
        let identity = identity::identity(self, &student)?;
        let fork = match fork {
            Some(fork) => Some((fork, identity::identity(fork, &student)?)),
            None => None,
        };
        // Evaluation asks the teacher itself, in f32; training may ask a twin with faster products.
        let rows = student.config().vocabulary;
        let sharing = self.teacher.map(|t| teacher::sharing(t.teacher, rows));
        let teacher = sharing.as_ref().map(|sharing| sharing as &dyn Teacher);
        let query = teacher.map(|teacher| teacher::ask(teacher, recipe.train.precision.into()));
        let losses = self.losses(&student, teacher)?;
        let names = losses.names();
        let data = &*self.sources.training;
        let mut trainer = Trainer::new(student, recipe.settings(), losses, data, query)?;

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
                "resuming after step {}{grown}",
                trainer.step()
            )));
        }
        listener(Event::Begun {
            step: trainer.step(),
        });
        let mut log = Log::open(&self.out.join(LOG), trainer.step())?;
        let mut pace = Pace::default();
        let mut saved = Instant::now();
        let of = recipe.train.steps;
        let mut tokens = 0;
        // An evaluation that was cut short by the last stop is made good.
        let begun = if trainer.step() > 0 {
            self.evaluate(&trainer, &mut log, listener)
        } else {
            Ok(())
        };
        let outcome = begun.and_then(|()| {
            trainer.run(self.stop, &mut |trainer, step| {
                tokens += step.tokens;
                pace.add(step);
                log.step(step, &names)?;
                if let Some((fork, identity)) = &fork
                    && fork.recipe.settings().quantise_from == Some(step.step)
                {
                    fs::create_dir_all(fork.out)?;
                    fs::copy(self.out.join(LOG), fork.out.join(LOG))?;
                    trainer.save(&fork.out.join(CHECKPOINT), identity)?;
                }
                listener(Event::Step(Progress {
                    step,
                    of,
                    losses: &names,
                    tokens_per_second: pace.tokens_per_second(),
                    eta: Duration::from_secs_f64(pace.seconds_per_step() * (of - step.step) as f64),
                }));
                self.evaluate(trainer, &mut log, listener)?;
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
        let summary = Summary {
            name: recipe.name.clone(),
            parameters: trainer.decoder().layout().total,
            steps: trainer.step(),
            finished: outcome == Outcome::Finished,
            seconds: 0.0,
            tokens,
            figures: Vec::new(),
            exact: Vec::new(),
            parity: None,
            folder: self.out.join(FOLDER),
            gguf: None,
            table: None,
        };
        if !summary.finished {
            note_stop(&summary, listener);
        }
        let decoder = summary.finished.then(|| {
            let mut decoder = trainer.into_decoder();
            decoder.set_products(Products::F32);
            decoder
        });
        Ok(Training {
            summary,
            log,
            decoder,
        })
    }

    /// Held-out figures during training, where the step is one of those that have them.
    fn evaluate(
        &self,
        trainer: &Trainer<'_>,
        log: &mut Log,
        listener: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let (step, every) = (trainer.step(), self.recipe.eval.every);
        let is_last = step >= self.recipe.train.steps;
        if every == 0 || !step.is_multiple_of(every) || is_last || log.evaluated(step) {
            return Ok(());
        }
        let figures = self.held_out(trainer.decoder(), trainer.current_mode(), listener)?;
        log.figures(step, &figures)?;
        listener(Event::Evaluated {
            step,
            figures: &figures,
        });
        Ok(())
    }

    /// The recipe with its number of shards: where it names none, that of the run that goes on, or as many as there are threads.
    fn with_shards(&self, parameters: usize) -> Recipe {
        let mut recipe = self.recipe.clone();
        if recipe.train.shards.is_none() {
            let before = checkpoint::identity_of(&self.out.join(CHECKPOINT));
            let before = before.and_then(|identity| identity.get("train.shards")?.parse().ok());
            recipe.train.shards =
                Some(before.unwrap_or_else(|| recipe.train.default_shards(parameters)));
        }
        recipe
    }

    /// The student before its first step.
    pub(crate) fn student(&self) -> Result<Decoder> {
        let (recipe, sources) = (self.recipe, self.sources);
        let mut student = match &recipe.student.init {
            Some(path) => {
                let student = Decoder::load(path).context("[student] init")?;
                student.config().check_file().context("[student] init")?;
                // It may have other rows of padding than the data's tokenizer, or the teacher.
                let mut vocabulary = sources.vocabulary.clone();
                vocabulary
                    .fit(student.config().vocabulary)
                    .context("[student] init")?;
                if let Ok(own) = TextTokenizer::open(path) {
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

    fn losses(&self, student: &Decoder, teacher: Option<&dyn Teacher>) -> Result<Losses> {
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
        let configs = self.recipe.loss_configs();
        Losses::new(configs.iter().map(|(name, c)| (name.as_str(), c)), sizes)
    }
}

fn note_stop(summary: &Summary, listener: &mut dyn FnMut(Event)) {
    listener(Event::Note(&format!(
        "stopped after step {}; the next start resumes from there",
        summary.steps
    )));
}
