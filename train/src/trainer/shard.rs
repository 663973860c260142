//! One part of a batch, on one thread.

use std::time::Instant;

use anyhow::{Result, bail};

use super::{TeacherQuery, Times};
use crate::data::Batch;
use crate::loss::{Gradients, Inputs, Losses};
use crate::student::{Output, Prepared, Tape};

/// One shard's memory.
#[derive(Default)]
pub(super) struct Shard {
    tape: Tape,
    pub(super) losses: Gradients,
    pub(super) gradient: Vec<f32>,
    pub(super) terms: Vec<f64>,
    pub(super) tokens: u64,
    pub(super) times: Times,
}

impl Shard {
    /// Forward, losses and backward of one part of a batch, added to this shard's gradient.
    pub(super) fn run(
        &mut self,
        student: &Prepared,
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
        let targets = match (losses.teacher_outputs(positions.clone()), teacher) {
            (Some(want), Some(ask)) => ask(batch, &want)?,
            _ => Output::default(),
        };
        let asked = clock.elapsed();
        student.run(
            &batch.ids,
            batch.length,
            &losses.student_outputs(positions),
            true,
            &mut self.tape,
        )?;
        let forward = clock.elapsed();
        let vocabulary = student.decoder().config().vocabulary;
        if let Some(id) = labels.iter().find(|&&id| id as usize >= vocabulary) {
            bail!(
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
