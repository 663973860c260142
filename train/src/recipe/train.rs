//! `[train]`: the numbers of the training loop.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::Quant;
use crate::optim::AdamW;
use crate::student::Products;
use crate::trainer::{Settings, default_warmup};

/// What the products compute with; master weights, gradients and moments are f32 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    #[default]
    F32,
    /// Operands of products rounded to bf16, sums in f32; forward passes that round as the runtime does stay f32.
    Bf16,
}

impl From<Precision> for Products {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Products::F32,
            Precision::Bf16 => Products::Bf16,
        }
    }
}

/// `[train]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Optimiser updates. Default 2000. A run may go on with more: the steps that follow have the learning rates that the larger number gives
    /// them, and rounding begins at its share of the larger number, unless it has begun.
    pub steps: u64,
    /// Sequences per batch. Default 32.
    pub batch: usize,
    /// Batches per update, whose gradients are added. Default 1.
    pub accumulate: u64,
    /// Peak learning rate. Default 0.002, for about a million parameters; five million want 0.001, larger models less.
    pub learning_rate: f64,
    /// Updates over which the learning rate rises from 0. Default: a twentieth of the steps.
    pub warmup: Option<u64>,
    /// Learning rate of the last update as a share of the peak; between lies half a cosine. Default 0.02.
    pub final_share: f64,
    /// Decay of the layers' matrices, per update and unit of learning rate. Default 0.05.
    pub weight_decay: f32,
    /// Decay rate of the mean of gradients, 0 to 1. Default 0.9.
    pub beta1: f32,
    /// Decay rate of the mean of squared gradients, 0 to 1. Default 0.98.
    pub beta2: f32,
    /// Added to the root of the square. Default 1e-8.
    pub eps: f32,
    /// Maximum norm of the gradient, which is clipped to it; 0: none. Default 1.
    pub clip: f64,
    /// Random seed of the initial weights and of the order of the data. Default 0.
    pub seed: u64,
    /// "f32" or "bf16": what products are computed with, the teacher's too where it is a model with dense layers. bf16 is about 1.5 times as fast where the processor
    /// has AVX512-BF16, and no faster elsewhere. Default "f32".
    pub precision: Precision,
    /// Parts that a batch is cut into, one thread each. Results depend on it in the last bits, and not on how many threads there are. Default: one
    /// for each core that the process may use, at least 2, at most one per sequence of the batch, and no more than whose gradients take 4 GiB; a
    /// run that goes on keeps its number. Give it for the same bits on machines with other numbers of cores.
    pub shards: Option<usize>,
    /// Threads. Default: the cores that the process may use; training uses at most one per shard, evaluation all.
    pub threads: Option<usize>,
    /// Seconds between checkpoints. Default 30.
    pub checkpoint_seconds: u64,
}

impl Default for Train {
    fn default() -> Self {
        Train {
            steps: 2000,
            batch: 32,
            accumulate: 1,
            learning_rate: 2e-3,
            warmup: None,
            final_share: 0.02,
            weight_decay: 0.05,
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-8,
            clip: 1.0,
            seed: 0,
            precision: Precision::F32,
            shards: None,
            threads: None,
            checkpoint_seconds: 30,
        }
    }
}

/// Gradients of all shards together take at most this much by default; in bytes.
const GRADIENTS: usize = 4 << 30;

impl Train {
    pub(super) fn check(&self) -> Result<()> {
        ensure!(self.steps > 0, "[train] steps = 0");
        ensure!(
            self.batch > 0 && self.accumulate > 0,
            "[train] batch and accumulate must be at least 1"
        );
        ensure!(
            self.shards
                .is_none_or(|shards| (1..=1024).contains(&shards)),
            "[train] shards = {}; expected 1 to 1024",
            self.shards.unwrap_or_default()
        );
        ensure!(
            self.threads != Some(0),
            "[train] threads = 0; leave it out to use all"
        );
        ensure!(
            self.learning_rate.is_finite() && self.learning_rate > 0.0,
            "[train] learning_rate = {}; expected more than 0",
            self.learning_rate
        );
        ensure!(
            (0.0..=1.0).contains(&self.final_share),
            "[train] final_share = {}; expected 0 to 1",
            self.final_share
        );
        ensure!(
            (0.0..1.0).contains(&self.beta1) && (0.0..1.0).contains(&self.beta2),
            "[train] beta1 and beta2 must be at least 0 and below 1"
        );
        ensure!(
            self.weight_decay >= 0.0 && self.weight_decay.is_finite(),
            "[train] weight_decay = {}; expected 0 or more",
            self.weight_decay
        );
        ensure!(
            self.eps > 0.0 && self.eps.is_finite(),
            "[train] eps = {}; expected more than 0",
            self.eps
        );
        ensure!(
            self.clip >= 0.0 && self.clip.is_finite(),
            "[train] clip = {}; expected 0 or more",
            self.clip
        );
        if let Some(warmup) = self.warmup {
            ensure!(
                warmup <= self.steps,
                "[train] warmup = {warmup} is more than steps = {}",
                self.steps
            );
        }
        Ok(())
    }

    /// The numbers of the loop.
    pub(super) fn settings(&self, quant: Option<&Quant>) -> Settings {
        Settings {
            steps: self.steps,
            learning_rate: self.learning_rate,
            warmup: self.warmup.unwrap_or(default_warmup(self.steps)),
            final_share: self.final_share,
            optimiser: AdamW {
                beta1: self.beta1,
                beta2: self.beta2,
                eps: self.eps,
                weight_decay: self.weight_decay,
            },
            clip: self.clip,
            accumulate: self.accumulate,
            shards: self.shards.unwrap_or(2),
            threads: self.threads(),
            quantise_from: quant.map(|q| (q.start * self.steps as f64).round() as u64),
            seed: self.seed,
        }
    }

    /// Threads that train.
    pub fn threads(&self) -> usize {
        self.all_threads().clamp(1, self.shards.unwrap_or(2).max(1))
    }

    /// Threads that evaluate: all that the recipe or the machine allows.
    pub fn all_threads(&self) -> usize {
        self.threads.unwrap_or_else(cores).max(1)
    }

    /// Shards of a student with this many parameters, where the recipe does not say.
    pub(crate) fn default_shards(&self, parameters: usize) -> usize {
        let room = GRADIENTS / 4 / parameters.max(1);
        cores().min(self.batch).min(room).max(2)
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
