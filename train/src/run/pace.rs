//! How fast a run goes.

use crate::trainer::Step;

/// Rates over the last seconds, so that they follow what else the machine does.
#[derive(Default)]
pub(super) struct Pace {
    seconds: f64,
    tokens: f64,
    steps: f64,
}

impl Pace {
    pub(super) fn add(&mut self, step: &Step) {
        // Halves the weight of what lies ten seconds back.
        let keep = 0.5f64.powf(step.seconds / 10.0);
        self.seconds = self.seconds * keep + step.seconds;
        self.tokens = self.tokens * keep + step.tokens as f64;
        self.steps = self.steps * keep + 1.0;
    }

    pub(super) fn tokens_per_second(&self) -> f64 {
        self.tokens / self.seconds.max(1e-9)
    }

    pub(super) fn seconds_per_step(&self) -> f64 {
        self.seconds / self.steps.max(1.0)
    }
}
