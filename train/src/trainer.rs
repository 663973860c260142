//! The training loop: data-parallel shards, losses, AdamW, checkpoints.
//!
//! A step's batch is cut into a fixed number of shards. Each runs forward, losses and backward on one thread into its own gradient;
//! the gradients are added in order. So a run depends on the recipe alone, not on how many threads there were.

mod resume;
mod shard;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::data::{Batch, Batches};
use crate::loss::Losses;
use crate::optim::{self, AdamW, Moments, Rate};
use crate::student::{Decoder, Output, OutputSpec, QuantMode, Role};
use dram_files::parallel;
use shard::Shard;

/// Numbers of the loop; the recipe's `[train]` section says what each is for.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub steps: u64,
    pub learning_rate: f64,
    pub warmup: u64,
    /// The last learning rate as a share of the peak.
    pub final_share: f64,
    pub optimiser: AdamW,
    /// Maximum norm of the gradient, which is clipped to it; 0: none.
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
pub type TeacherQuery<'a> = dyn Fn(&Batch, &OutputSpec) -> Result<Output> + Send + Sync + 'a;

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
            teacher.is_some() || losses.teacher_outputs(Vec::new()).is_none(),
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
            "step {}: the batch has no target token",
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
        let gradient_norm = self.sum_gradients();
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
        self.update(learning_rate as f32, gradient_norm);
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

    /// Adds the shards' gradients in their order into the first's; gives the norm of the sum.
    fn sum_gradients(&mut self) -> f64 {
        let threads = self.settings.threads;
        let (first, others) = self.shards.split_first_mut().expect("at least one shard");
        let gradients: Vec<&[f32]> = others.iter().map(|s| &s.gradient[..]).collect();
        optim::sum_into(&mut first.gradient, &gradients, threads);
        let norm = optim::norm(&first.gradient, threads);
        if self.extra.is_empty() {
            return norm;
        }
        first.losses.extra.resize(self.extra.len(), 0.0);
        let gradients: Vec<&[f32]> = others
            .iter()
            .map(|s| &s.losses.extra[..])
            .filter(|g| !g.is_empty())
            .collect();
        optim::sum_into(&mut first.losses.extra, &gradients, threads);
        norm.hypot(optim::norm(&first.losses.extra, threads))
    }

    /// The optimiser's update by the first shard's gradients, clipped.
    fn update(&mut self, learning_rate: f32, gradient_norm: f64) {
        let Settings {
            clip,
            optimiser,
            threads,
            ..
        } = self.settings;
        let scale = if clip > 0.0 && gradient_norm > clip {
            (clip / gradient_norm) as f32
        } else {
            1.0
        };
        let rate = Rate {
            scale,
            learning_rate,
        };
        let gradients = &self.shards[0];
        optimiser.update(
            self.decoder.parameters_mut(),
            &mut self.moments,
            &gradients.gradient,
            rate,
            &self.decays,
            threads,
        );
        optimiser.update(
            &mut self.extra,
            &mut self.extra_moments,
            &gradients.losses.extra,
            rate,
            &[],
            threads,
        );
    }
}

#[cfg(test)]
mod tests;
