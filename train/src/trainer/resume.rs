//! A training's checkpoint: what it holds, and how a run goes on from it.

use std::path::Path;

use anyhow::{Result, ensure};

use super::{Trainer, default_warmup};
use crate::checkpoint::{self, Schedule, State};
use crate::identity::Identity;

impl Trainer<'_> {
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
            "checkpoint {}: train.warmup: expected {}, got {}; restore it to resume, choose another output folder, or delete the checkpoint to \
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
