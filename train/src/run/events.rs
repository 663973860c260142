//! What a run tells while it goes on, and what it leaves.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::eval::Figures;
use crate::export::Parity;
use crate::report::Table;
use crate::trainer::Step;

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
