//! The three trainings of the demo: recipes, which the common pipeline runs.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};

use super::world::World;
use super::{DemoOptions, Event};
use crate::eval::Reference;
use crate::recipe::{Precision, Recipe, Student};
use crate::report::Curve;
use crate::run::{self, Job, OpenTeacher, loss_of_steps};
use crate::student::{Decoder, bf16_is_native};
use crate::teacher::Teacher;

/// One training.
pub(super) struct Run {
    /// Its folder.
    pub(super) name: &'static str,
    recipe: &'static str,
}

/// In the order in which they run: the first half of the f32 student's steps is the first half of the quantised one's.
pub(super) static RUNS: &[Run] = &[
    Run {
        name: "plain",
        recipe: include_str!("../../../../../recipes/demo-f32.toml"),
    },
    Run {
        name: "student",
        recipe: include_str!("../../../../../recipes/demo-student.toml"),
    },
    Run {
        name: "control",
        recipe: include_str!("../../../../../recipes/demo-control.toml"),
    },
];

/// Places in [`RUNS`].
const F32: usize = 0;
const STUDENT: usize = 1;

/// The recipe that says what a student is trained for, how long, and on how much.
pub(super) fn student() -> Result<Recipe> {
    Recipe::parse(RUNS[STUDENT].recipe).context("recipes/demo-student.toml")
}

impl Run {
    /// Its recipe with a demo's options.
    pub(super) fn recipe(
        &self,
        options: &DemoOptions,
        path: &Path,
        teacher: &dyn Teacher,
    ) -> Result<Recipe> {
        let mut recipe = Recipe::parse(self.recipe).context(self.name)?;
        let steps = options.steps;
        recipe.student = Student {
            context_length: teacher.context_length().min(options.student.context_length),
            ..options.student.clone()
        };
        recipe.data.tokenizer = Some(path.to_owned());
        if let Some(section) = &mut recipe.teacher {
            section.path = path.to_owned();
        }
        if teacher.decoder().is_none() {
            recipe.losses.remove("hidden_cosine");
        }
        let train = &mut recipe.train;
        train.steps = steps;
        train.batch = options.batch;
        train.learning_rate = options.learning_rate;
        train.warmup = Some((steps / 20).max(1));
        train.seed = options.seed;
        train.threads = Some(options.threads);
        if !bf16_is_native() {
            train.precision = Precision::F32;
        }
        // Half of an odd number of steps, rounded down.
        if let Some(quant) = recipe.quant.as_mut().filter(|quant| quant.start == 0.5) {
            quant.start = (steps / 2) as f64 / steps as f64;
        }
        recipe.eval.examples = options.held_out;
        recipe.check()?;
        Ok(recipe)
    }
}

/// A finished training.
pub(super) struct Finished {
    pub(super) decoder: Decoder,
    /// Cross entropy on the training batches.
    pub(super) curve: Curve,
}

impl World<'_> {
    /// Trains one of [`RUNS`], or goes on, or reads what is there; `None` when it was stopped.
    pub(super) fn train(
        &self,
        at: usize,
        reference: &Reference<'_>,
        stop: &AtomicBool,
        listener: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<Finished>> {
        let out = self.path(RUNS[at].name);
        fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
        let recipe = &self.recipes[at];
        let open = OpenTeacher {
            teacher: &*self.teacher,
            contents: &self.teacher_hash,
            reference,
        };
        let job = Job {
            recipe,
            teacher: recipe.teacher.is_some().then_some(open),
            sources: &self.sources,
            out: &out,
            control: None,
            stop,
        };
        // What both students have in common is trained once.
        let student = self.path(RUNS[STUDENT].name);
        let fork = Job {
            recipe: &self.recipes[STUDENT],
            out: &student,
            ..job
        };
        let fork = (at == F32).then_some(&fork);
        let mut hear = |event: run::Event<'_>| match event {
            run::Event::Note(note) => listener(Event::Note(note)),
            run::Event::Working { what, done, of } => listener(Event::Working { what, done, of }),
            run::Event::Step(progress) => listener(Event::Step {
                step: progress.step,
                of: progress.of,
            }),
            run::Event::Begun { .. } | run::Event::Evaluated { .. } => {}
        };
        let training = job.train(job.student()?, fork, &mut hear)?;
        let Some(decoder) = training.decoder else {
            return Ok(None);
        };
        job.save_weights(&decoder, &mut hear)?;
        Ok(Some(Finished {
            decoder,
            curve: Curve {
                name: recipe.name.clone(),
                points: loss_of_steps(&out, "cross_entropy")?,
            },
        }))
    }
}
