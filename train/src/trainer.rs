//! The training loop: data-parallel shards, losses, AdamW, checkpoints.
//!
//! A step's batch is cut into a fixed number of shards. Each runs forward, losses and backward on one thread into its own gradient;
//! the gradients are added in order. So a run depends on the recipe alone, not on how many threads there were.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dram_files::parallel;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, Schedule, State};
use crate::data::{Batch, Batches};
use crate::identity::Identity;
use crate::loss::{Gradients, Inputs, Losses};
use crate::optim::{self, AdamW, Moments, Rate};
use crate::student::{Decoder, Output, QuantMode, Role, Tape, Want};

/// Numbers of the loop; the recipe's `[train]` section says what each is for.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub steps: u64,
    pub learning_rate: f64,
    pub warmup: u64,
    /// The last learning rate as a share of the peak.
    pub final_share: f64,
    pub optimiser: AdamW,
    /// Gradients longer than this are shortened to it; 0: never.
    pub clip: f64,
    /// Batches per step.
    pub accumulate: u64,
    pub shards: usize,
    pub threads: usize,
    /// First step that rounds as the runtime does; `None`: none does.
    pub quantise_from: Option<u64>,
    pub seed: u64,
}

/// Updates of warm-up where a recipe does not say: a twentieth of the steps.
pub(crate) fn default_warmup(steps: u64) -> u64 {
    steps / 20
}

/// What answers when losses compare with a teacher: given a batch and what is wanted, logits and hidden states.
pub type TeacherQuery<'a> = dyn Fn(&Batch, &Want) -> Result<Output> + Send + Sync + 'a;

/// One finished step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Steps finished, from 1.
    pub step: u64,
    /// The weighted sum of the losses.
    pub loss: f64,
    /// Each loss, without weight, in the order of [`Losses::names`].
    pub terms: Vec<f64>,
    pub learning_rate: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Tokens that the student read.
    pub tokens: u64,
    /// Tokens that were predicted.
    pub positions: u64,
    /// Whether the step rounded as the runtime does.
    pub quantised: bool,
    pub seconds: f64,
}

/// Where a step's time went: sums over threads, so that two busy threads count twice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    pub teacher: Duration,
    pub forward: Duration,
    pub losses: Duration,
    pub backward: Duration,
    /// Everything outside the shards, in wall time: data, rounding weights, adding gradients, the optimiser.
    pub between: Duration,
    /// The step in wall time.
    pub wall: Duration,
}

/// Why [`Trainer::run`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Finished,
    /// The stop flag was set. The state can be saved and resumed.
    Stopped,
}

/// One shard's memory.
#[derive(Default)]
struct Shard {
    tape: Tape,
    losses: Gradients,
    gradient: Vec<f32>,
    terms: Vec<f64>,
    tokens: u64,
    times: Times,
}

/// A student being trained.
pub struct Trainer<'a> {
    decoder: Decoder,
    settings: Settings,
    losses: Losses,
    data: &'a dyn Batches,
    teacher: Option<Box<TeacherQuery<'a>>>,
    /// Projections of hidden-state losses: trained along, never exported.
    extra: Vec<f32>,
    moments: Moments,
    extra_moments: Moments,
    step: u64,
    decays: Vec<Range<usize>>,
    shards: Vec<Shard>,
    rounded: Vec<f32>,
    times: Times,
}

impl<'a> Trainer<'a> {
    /// # Errors
    /// When rounding is asked for and the decoder has no block formats, or a teacher is needed and missing.
    pub fn new(
        decoder: Decoder,
        settings: Settings,
        losses: Losses,
        data: &'a dyn Batches,
        teacher: Option<Box<TeacherQuery<'a>>>,
    ) -> Result<Self> {
        ensure!(
            settings.quantise_from.is_none() || decoder.scheme().is_some(),
            "rounding in training needs block formats"
        );
        ensure!(
            settings.shards > 0 && settings.accumulate > 0,
            "at least one shard and one batch per step"
        );
        ensure!(
            teacher.is_some() || losses.teacher_want(Vec::new()).is_none(),
            "a loss compares with a teacher, and there is none"
        );
        let n = decoder.layout().total;
        let zeros = |n: usize| Moments {
            first: vec![0.0; n],
            second: vec![0.0; n],
            updates: 0,
        };
        let extra = losses.initial_projections(settings.seed);
        let decays = decoder
            .layout()
            .parameters
            .iter()
            .filter(|p| p.role == Role::Linear)
            .map(|p| p.range.clone())
            .collect();
        let mut shards = Vec::new();
        shards.resize_with(settings.shards, Shard::default);
        Ok(Trainer {
            extra_moments: zeros(extra.len()),
            moments: zeros(n),
            decoder,
            settings,
            losses,
            data,
            teacher,
            extra,
            step: 0,
            decays,
            shards,
            rounded: Vec::new(),
            times: Times::default(),
        })
    }

    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    pub fn into_decoder(self) -> Decoder {
        self.decoder
    }

    pub fn losses(&self) -> &Losses {
        &self.losses
    }

    /// Steps finished.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Sums since the trainer was made.
    pub fn times(&self) -> Times {
        self.times
    }

    /// Whether step number `step` (from 0) rounds.
    fn mode(&self, step: u64) -> QuantMode {
        match self.settings.quantise_from {
            Some(from) if step >= from => QuantMode::On,
            _ => QuantMode::Off,
        }
    }

    /// How the student runs now: rounded once rounding has begun.
    pub fn current_mode(&self) -> QuantMode {
        self.mode(self.step)
    }

    /// Runs until the last step, a stop, or an error. `each` sees every finished step and may evaluate or save; what it returns as an
    /// error ends the run.
    ///
    /// # Errors
    /// When the loss is no longer a finite number, or data, teacher or `each` fail.
    pub fn run(
        &mut self,
        stop: &AtomicBool,
        each: &mut dyn FnMut(&Trainer, &Step) -> Result<()>,
    ) -> Result<Outcome> {
        while self.step < self.settings.steps {
            if stop.load(Ordering::Relaxed) {
                return Ok(Outcome::Stopped);
            }
            let step = self.advance()?;
            each(self, &step)?;
        }
        Ok(Outcome::Finished)
    }

    /// One step.
    ///
    /// # Errors
    /// When the loss is no longer a finite number, or data or teacher fail. The weights are then as they were.
    pub fn advance(&mut self) -> Result<Step> {
        let started = Instant::now();
        let Settings {
            threads,
            accumulate,
            ..
        } = self.settings;
        let mode = self.mode(self.step);
        let batches: Vec<Batch> = (0..accumulate)
            .map(|i| self.data.batch(self.step * accumulate + i))
            .collect();
        let positions: usize = batches.iter().map(|b| b.targets.len()).sum();
        ensure!(
            positions > 0,
            "step {}: the batch has no token that counts",
            self.step + 1
        );
        let scale = 1.0 / positions as f32;

        let rounding = self.decoder.round_into(mode, threads, &mut self.rounded)?;
        let prepared = self.decoder.prepared(mode, &self.rounded, rounding);
        for shard in &mut self.shards {
            shard.gradient.clear();
            shard.gradient.resize(self.decoder.layout().total, 0.0);
            shard.losses.extra.fill(0.0);
            shard.terms.clear();
            shard.terms.resize(self.losses.names().len(), 0.0);
            shard.tokens = 0;
        }
        let before = started.elapsed();
        for batch in &batches {
            let work: Vec<_> = batch
                .split(self.shards.len())
                .into_iter()
                .zip(&mut self.shards)
                .collect();
            let failed = std::sync::Mutex::new(None);
            let (losses, teacher, extra) = (&self.losses, self.teacher.as_deref(), &self.extra[..]);
            parallel::for_each(threads, work, |(batch, shard)| {
                if let Err(error) = shard.run(&prepared, losses, teacher, extra, &batch, scale) {
                    *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
                }
            });
            if let Some(error) = failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
                return Err(error.context(format!("step {}", self.step + 1)));
            }
        }
        let after = Instant::now();

        let mut terms = vec![0f64; self.losses.names().len()];
        for shard in &self.shards {
            terms
                .iter_mut()
                .zip(&shard.terms)
                .for_each(|(t, s)| *t += s);
        }
        let loss = self.losses.total(&terms);
        let (first, others) = self.shards.split_first_mut().expect("at least one shard");
        let gradients: Vec<&[f32]> = others.iter().map(|s| &s.gradient[..]).collect();
        optim::sum_into(&mut first.gradient, &gradients, threads);
        let mut gradient_norm = optim::norm(&first.gradient, threads);
        if !self.extra.is_empty() {
            first.losses.extra.resize(self.extra.len(), 0.0);
            let gradients: Vec<&[f32]> = others
                .iter()
                .map(|s| &s.losses.extra[..])
                .filter(|g| !g.is_empty())
                .collect();
            optim::sum_into(&mut first.losses.extra, &gradients, threads);
            gradient_norm = gradient_norm.hypot(optim::norm(&first.losses.extra, threads));
        }
        let learning_rate = optim::schedule(
            self.settings.learning_rate,
            self.step,
            self.settings.steps,
            self.settings.warmup,
            self.settings.final_share,
        );
        ensure!(
            loss.is_finite() && gradient_norm.is_finite(),
            "step {}: the loss is {loss} and the gradient's norm {gradient_norm} ({}). Training has diverged: lower train.learning_rate \
             (peak now {}), lengthen train.warmup, or lower train.clip, and start again from the last checkpoint or anew",
            self.step + 1,
            self.losses
                .names()
                .iter()
                .zip(&terms)
                .map(|(n, t)| format!("{n} {t:.4}"))
                .collect::<Vec<_>>()
                .join(", "),
            self.settings.learning_rate,
        );
        let clip = self.settings.clip;
        let shrink = if clip > 0.0 && gradient_norm > clip {
            (clip / gradient_norm) as f32
        } else {
            1.0
        };
        let (optimiser, rate) = (
            self.settings.optimiser,
            Rate {
                scale: shrink,
                learning_rate: learning_rate as f32,
            },
        );
        optimiser.update(
            self.decoder.parameters_mut(),
            &mut self.moments,
            &first.gradient,
            rate,
            &self.decays,
            threads,
        );
        optimiser.update(
            &mut self.extra,
            &mut self.extra_moments,
            &first.losses.extra,
            rate,
            &[],
            threads,
        );
        self.step += 1;

        let wall = started.elapsed();
        self.times.between += before + after.elapsed();
        self.times.wall += wall;
        for shard in &mut self.shards {
            let t = std::mem::take(&mut shard.times);
            self.times.teacher += t.teacher;
            self.times.forward += t.forward;
            self.times.losses += t.losses;
            self.times.backward += t.backward;
        }
        Ok(Step {
            step: self.step,
            loss,
            terms,
            learning_rate,
            gradient_norm,
            tokens: self.shards.iter().map(|s| s.tokens).sum(),
            positions: positions as u64,
            quantised: mode == QuantMode::On,
            seconds: wall.as_secs_f64(),
        })
    }

    /// Writes everything that the next steps depend on. `identity` says what decides the run.
    ///
    /// # Errors
    /// When the disk does not take it; the checkpoint that was there is then untouched.
    pub fn save(&self, path: &Path, identity: &Identity) -> Result<()> {
        checkpoint::save(
            path,
            &State {
                step: self.step,
                updates: self.moments.updates,
                identity: identity.clone(),
                schedule: Schedule {
                    steps: self.settings.steps,
                    warmup: self.settings.warmup,
                    quantise_from: self.settings.quantise_from,
                },
            },
            &[
                ("parameters", self.decoder.parameters()),
                ("first", &self.moments.first),
                ("second", &self.moments.second),
                ("extra", &self.extra),
                ("extra_first", &self.extra_moments.first),
                ("extra_second", &self.extra_moments.second),
            ],
        )
    }

    /// Goes on where [`Trainer::save`] was: the steps that follow are the same, bit for bit, as if nothing had happened.
    ///
    /// The run may have more steps than the one that was saved. The steps that follow then have the learning rates that the larger number gives
    /// them, and rounding begins where it says, unless it has begun: then it stays. Gives the number of steps that the saved run was to have.
    ///
    /// # Errors
    /// When the file is damaged, or belongs to a run that something else decides, or to a longer one.
    pub fn resume(&mut self, path: &Path, identity: &Identity) -> Result<u64> {
        let state = checkpoint::load(
            path,
            identity,
            &mut [
                ("parameters", self.decoder.parameters_mut()),
                ("first", &mut self.moments.first),
                ("second", &mut self.moments.second),
                ("extra", &mut self.extra),
                ("extra_first", &mut self.extra_moments.first),
                ("extra_second", &mut self.extra_moments.second),
            ],
        )?;
        let (old, new) = (state.schedule, &mut self.settings);
        ensure!(
            new.steps >= old.steps,
            "checkpoint {}: train.steps: expected {} or more, got {}; the steps of a run may grow, not shrink. Choose another output folder, or \
             delete the checkpoint to start anew",
            path.display(),
            old.steps,
            new.steps
        );
        // Where the recipe does not say, the warm-up is a share of the steps.
        let follows = new.steps > old.steps && new.warmup == default_warmup(new.steps);
        ensure!(
            new.warmup == old.warmup || follows,
            "checkpoint {}: train.warmup: expected {}, got {}; restore it to go on, choose another output folder, or delete the checkpoint to \
             start anew",
            path.display(),
            old.warmup,
            new.warmup
        );
        if old.quantise_from.is_some_and(|from| state.step > from) {
            new.quantise_from = old.quantise_from;
        }
        self.step = state.step;
        self.moments.updates = state.updates;
        self.extra_moments.updates = state.updates;
        Ok(old.steps)
    }
}

impl Shard {
    /// Forward, losses and backward of one part of a batch, added to this shard's gradient.
    fn run(
        &mut self,
        student: &crate::student::Prepared,
        losses: &Losses,
        teacher: Option<&TeacherQuery>,
        extra: &[f32],
        batch: &Batch,
        scale: f32,
    ) -> Result<()> {
        if batch.targets.is_empty() {
            return Ok(());
        }
        let (positions, labels): (Vec<usize>, Vec<u32>) = batch.targets.iter().copied().unzip();
        let clock = Instant::now();
        let targets = match (losses.teacher_want(positions.clone()), teacher) {
            (Some(want), Some(ask)) => ask(batch, &want)?,
            _ => Output::default(),
        };
        let asked = clock.elapsed();
        student.run(
            &batch.ids,
            batch.length,
            &losses.student_want(positions),
            true,
            &mut self.tape,
        )?;
        let forward = clock.elapsed();
        let vocabulary = student.decoder().config().vocabulary;
        if let Some(id) = labels.iter().find(|&&id| id as usize >= vocabulary) {
            anyhow::bail!(
                "label {id} in a vocabulary of {vocabulary}; was the data tokenised with another tokenizer?"
            );
        }
        let inputs = Inputs {
            logits: &self.tape.logits,
            hidden: &self.tape.hidden,
            labels: &labels,
            teacher_logits: &targets.logits,
            teacher_hidden: &targets.hidden,
            extra,
            scale,
        };
        let terms = losses.run(&inputs, &mut self.losses);
        let lost = clock.elapsed();
        student.backward(
            &mut self.tape,
            &self.losses.logits,
            &self.losses.hidden,
            &mut self.gradient,
        );
        let backward = clock.elapsed();
        self.terms
            .iter_mut()
            .zip(terms)
            .for_each(|(sum, t)| *sum += t);
        self.tokens += self.tape.tokens() as u64;
        self.times.teacher += asked;
        self.times.forward += forward - asked;
        self.times.losses += lost - forward;
        self.times.backward += backward - lost;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
