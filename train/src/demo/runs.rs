//! The three trainings of the demo.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dram_files::tokenizer::add_tokenizer;
use dram_files::write_beside;

use super::Event;
use super::world::World;
use crate::identity::Identity;
use crate::loss::{LossConfig, Losses, Mapping, Sizes};
use crate::optim::AdamW;
use crate::student::{Decoder, Products, bf16_is_native};
use crate::teacher;
use crate::trainer::{Outcome, Settings, Trainer};

/// One training.
pub(super) struct Run {
    /// Its folder.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// Learns from the teacher, not from labels alone.
    distilled: bool,
    /// Rounds as the runtime does in the second half.
    quantised: bool,
}

/// f32 first: the first half of its steps is the first half of the quantised student's.
pub(super) static RUNS: &[Run] = &[
    Run {
        name: "plain",
        title: "student, f32",
        distilled: true,
        quantised: false,
    },
    Run {
        name: "student",
        title: "student, quantisation-aware",
        distilled: true,
        quantised: true,
    },
    Run {
        name: "control",
        title: "control: labels alone, quantisation-aware",
        distilled: false,
        quantised: true,
    },
];

/// A finished training.
pub(super) struct Finished {
    pub(super) title: &'static str,
    pub(super) decoder: Decoder,
    /// (step, cross entropy on the training batch).
    pub(super) losses: Vec<(f64, f64)>,
}

/// How long a crash may throw a run back.
const SAVE_EVERY: Duration = Duration::from_secs(15);
const HALFWAY: &str = "halfway";

impl World<'_> {
    /// Trains, or goes on, or reads what is there; `None` when it was stopped.
    pub(super) fn train(
        &self,
        run: &Run,
        stop: &AtomicBool,
        listener: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<Finished>> {
        let folder = self.path(run.name);
        let (checkpoint, losses_path) = (folder.join("checkpoint"), folder.join("loss.json"));
        let mut losses: Vec<(f64, f64)> = read_losses(&losses_path);
        if folder.join("model.safetensors").is_file() {
            let mut decoder = Decoder::from_hugging_face(&folder)?;
            decoder.set_scheme(Some(self.scheme))?;
            return Ok(Some(Finished {
                title: run.title,
                decoder,
                losses,
            }));
        }
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;

        let mut trainer = self.trainer(run)?;
        let identity = Identity::of("options", &self.fingerprint);
        let shared = self.path(RUNS[0].name).join(HALFWAY);
        if checkpoint.is_file() {
            trainer.resume(&checkpoint, &identity)?;
            listener(Event::Note(&format!("going on at step {}", trainer.step())));
        } else if run.distilled && run.quantised && shared.is_file() {
            trainer.resume(&shared, &identity)?;
            losses = read_losses(&self.path(RUNS[0].name).join("loss.json"));
        }
        losses.retain(|(step, _)| *step <= trainer.step() as f64);

        let mut saved = Instant::now();
        let of = self.options.steps;
        let save = |trainer: &Trainer<'_>, losses: &[(f64, f64)]| -> Result<()> {
            write_losses(&losses_path, losses)?;
            trainer.save(&checkpoint, &identity)
        };
        let outcome = trainer.run(stop, &mut |trainer, step| {
            // The first term of every run is the cross entropy, which all share.
            losses.push((step.step as f64, step.terms[0]));
            listener(Event::Step { step, of });
            if run.distilled && !run.quantised && step.step == self.quantise_from {
                trainer.save(&shared, &identity)?;
            }
            if saved.elapsed() > SAVE_EVERY && step.step < of {
                save(trainer, &losses)?;
                saved = Instant::now();
            }
            Ok(())
        })?;
        if outcome == Outcome::Stopped {
            save(&trainer, &losses)?;
            listener(Event::Note(&format!(
                "stopped at step {}; the next start goes on from there",
                trainer.step()
            )));
            return Ok(None);
        }
        write_losses(&losses_path, &losses)?;
        let mut decoder = trainer.into_decoder();
        decoder.set_products(Products::F32);
        decoder.save_hugging_face(&folder)?;
        if let Err(error) = add_tokenizer(&folder, self.teacher.vocabulary(), None) {
            // What follows does not need it.
            listener(Event::Note(&format!(
                "{} has no tokenizer: {error:#}",
                folder.display()
            )));
        }
        let _ = fs::remove_file(&checkpoint);
        Ok(Some(Finished {
            title: run.title,
            decoder,
            losses,
        }))
    }

    fn trainer(&self, run: &Run) -> Result<Trainer<'_>> {
        let options = self.options;
        let mut decoder = Decoder::random(self.config.clone(), options.seed)?;
        decoder.set_scheme(Some(self.scheme))?;
        let products = if bf16_is_native() {
            Products::Bf16
        } else {
            Products::F32
        };
        decoder.set_products(products);
        let settings = Settings {
            steps: options.steps,
            learning_rate: options.learning_rate,
            warmup: (options.steps / 20).max(1),
            final_share: 0.02,
            optimiser: AdamW {
                beta1: 0.9,
                beta2: 0.98,
                eps: 1e-8,
                weight_decay: 0.05,
            },
            clip: 1.0,
            accumulate: 1,
            shards: 4,
            threads: options.threads,
            quantise_from: run.quantised.then_some(self.quantise_from),
            seed: options.seed,
        };
        let sizes = Sizes {
            vocabulary: self.config.vocabulary,
            layers: self.config.layers,
            width: self.config.embedding_length,
            teacher: self
                .teacher
                .decoder()
                .map(|d| (d.config().layers, d.config().embedding_length)),
            has_teacher: run.distilled,
        };
        let asked = |weight| LossConfig {
            weight,
            temperature: 1.0,
            layers: Mapping::Uniform,
        };
        let losses = if run.distilled {
            let mut losses = vec![("cross_entropy", asked(0.3)), ("forward_kl", asked(1.0))];
            if self.teacher.decoder().is_some() {
                losses.push(("hidden_cosine", asked(1.0)));
            }
            losses
        } else {
            vec![("cross_entropy", asked(1.0))]
        };
        let losses = Losses::new(losses.iter().map(|(name, asked)| (*name, asked)), sizes)?;
        let ask = run
            .distilled
            .then(|| teacher::ask(&*self.teacher, products));
        Trainer::new(decoder, settings, losses, &self.data, ask)
    }
}

fn read_losses(path: &Path) -> Vec<(f64, f64)> {
    fs::read_to_string(path)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

fn write_losses(path: &Path, losses: &[(f64, f64)]) -> Result<()> {
    let text = serde_json::to_string(losses)?;
    write_beside(path, |beside| Ok(fs::write(beside, text)?))
}
