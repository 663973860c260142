//! `dram demo`: the whole way in a few minutes. A teacher for the actions task is distilled into a student a fifth its size, in f32 and with
//! quantisation-aware training; a control of the same shape learns from labels alone; all are exported, verified, measured and asked.
//!
//! Every stage leaves its result in the output folder. A run that is stopped goes on where it was; one with other options starts over.

mod measure;
mod recipes;
mod world;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use dram_core::{Finish, Model, Prompt, Request, SessionOptions};

use crate::eval::Reference;
use crate::export::Parity;
use crate::lock::FolderLock;
use crate::recipe::Student;
use crate::report::Table;
use crate::stop::stopped;
use crate::student::Config;
use crate::tasks::actions;
use crate::teacher::Scored;
use crate::trainer::Step;
use recipes::RUNS;
use world::World;

/// The teacher of the actions task that lies in the program: a GGUF file, made by `dram pretrain recipes/actions-teacher.toml`.
pub static TEACHER: &[u8] = include_bytes!("../../../../assets/actions-teacher.gguf");

/// Where the teacher comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A GGUF file in memory, such as the one that lies in the program.
    Bytes(&'static [u8]),
    /// A GGUF file or a Hugging Face folder.
    Path(PathBuf),
}

/// What a demo may be told.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    pub teacher: Source,
    /// Where files go; an earlier run with the same options is continued.
    pub out_dir: PathBuf,
    /// Of the students' first weights and of the training data. The held-out sets are the same for every seed.
    pub seed: u64,
    /// Training steps of each model: the budget.
    pub steps: u64,
    /// Examples per step.
    pub batch: usize,
    pub learning_rate: f64,
    /// Shape of the students; vocabulary and context come from the teacher.
    pub student: Student,
    /// Requests in each held-out set.
    pub held_out: usize,
    pub threads: usize,
}

impl DemoOptions {
    /// The demo as it is timed: six to fifteen minutes on two cores, by their speed.
    ///
    /// # Errors
    /// Never for the recipes that lie in the program.
    pub fn new(teacher: Source, out_dir: PathBuf) -> Result<Self> {
        let recipe = recipes::student()?;
        Ok(DemoOptions {
            teacher,
            out_dir,
            seed: recipe.train.seed,
            steps: recipe.train.steps,
            batch: recipe.train.batch,
            learning_rate: recipe.train.learning_rate,
            student: recipe.student,
            held_out: recipe.eval.examples,
            threads: std::thread::available_parallelism().map_or(2, usize::from),
        })
    }

    /// Everything that the results depend on.
    fn fingerprint(&self, teacher: &str) -> Result<String> {
        let DemoOptions {
            seed,
            steps,
            batch,
            learning_rate,
            held_out,
            ..
        } = self;
        let student = self.student.config(Config::default().vocabulary)?;
        Ok(format!(
            "dram demo {}: teacher {teacher}, seed {seed}, steps {steps}, batch {batch}, learning rate {learning_rate}, held out {held_out}, \
             student {student:?}",
            env!("CARGO_PKG_VERSION")
        ))
    }
}

/// What a listener hears.
#[derive(Debug)]
pub enum Event<'a> {
    /// A stage begins; `number` counts from 1.
    Stage {
        number: usize,
        of: usize,
        title: &'a str,
    },
    /// How far something is that takes its time.
    Working {
        what: &'a str,
        done: usize,
        of: usize,
    },
    /// One more step of the stage's model.
    Step { step: &'a Step, of: u64 },
    /// Something worth a line.
    Note(&'a str),
    /// The student's answer to one request.
    Answer(&'a Answer),
}

/// One request, asked of the finished student.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Answer {
    pub request: String,
    pub call: String,
    pub first_token: Duration,
    pub total: Duration,
}

/// What a finished demo leaves.
#[derive(Clone, Debug)]
pub struct Demo {
    pub table: Table,
    pub answers: Vec<Answer>,
    /// The student to put in an app.
    pub student: PathBuf,
    pub report: PathBuf,
    /// The student's, by the gate.
    pub parity: Parity,
    pub elapsed: Duration,
}

/// How a demo ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    Finished(Box<Demo>),
    /// The stop flag was raised; the next start goes on from here.
    Stopped,
}

/// Requests asked aloud at the end: phrasings of the held-out kind, and one that no function fits.
const ALOUD: [&str; 3] = [
    "get me out of bed at quarter to seven",
    "let the landlord know that the heating is off again",
    "how deep is the deepest lake",
];

const STAGES: usize = 6;

/// Runs the demo, or goes on with one that was stopped. `stop` is looked at between steps, and several times a second in what else takes long.
///
/// # Errors
/// When another run has the folder, the teacher cannot teach the task, training diverges, a file does not pass the gate, or the disk refuses.
pub fn run(
    options: &DemoOptions,
    stop: &AtomicBool,
    listener: &mut dyn FnMut(Event<'_>),
) -> Result<Outcome> {
    match stages(options, stop, listener) {
        Err(error) if stopped(&error) => Ok(Outcome::Stopped),
        other => other,
    }
}

fn stages(
    options: &DemoOptions,
    stop: &AtomicBool,
    listener: &mut dyn FnMut(Event<'_>),
) -> Result<Outcome> {
    let started = Instant::now();
    let _lock = FolderLock::take(&options.out_dir)?;
    let mut stage = 0;
    let mut begin = |title: &str, listener: &mut dyn FnMut(Event<'_>)| {
        stage += 1;
        listener(Event::Stage {
            number: stage,
            of: STAGES,
            title,
        });
        !stop.load(Ordering::Relaxed)
    };

    begin("teacher and data", listener);
    let world = World::new(options, listener)?;
    let scored = Scored {
        teacher: &*world.teacher,
        threads: options.threads,
    };
    let reference = Reference::new(&scored, Some(&options.out_dir));
    let mut models = Vec::with_capacity(RUNS.len());
    for at in 0..RUNS.len() {
        if !begin(&world.recipes[at].name, listener) {
            return Ok(Outcome::Stopped);
        }
        match world.train(at, &reference, stop, listener)? {
            Some(model) => models.push(model),
            None => return Ok(Outcome::Stopped),
        }
    }
    if !begin("export, verify, measure", listener) {
        return Ok(Outcome::Stopped);
    }
    let [plain, student, control] = models.as_slice() else {
        anyhow::bail!("expected three trained models, got {}", models.len())
    };
    let exported = world.export(
        &plain.decoder,
        &student.decoder,
        &control.decoder,
        stop,
        listener,
    )?;
    let table = world.measure(&exported, &reference, stop, listener)?;

    if !begin("three requests", listener) {
        return Ok(Outcome::Stopped);
    }
    let answers = ask(&exported.student, listener)?;
    let curves = models.into_iter().map(|model| model.curve).collect();
    let demo = Demo {
        table,
        answers,
        student: exported.student.clone(),
        report: options.out_dir.join("report.md"),
        parity: exported.parity,
        elapsed: started.elapsed(),
    };
    world.report(&demo, curves)?;
    Ok(Outcome::Finished(Box::new(demo)))
}

/// Asks the finished student.
fn ask(student: &Path, listener: &mut dyn FnMut(Event<'_>)) -> Result<Vec<Answer>> {
    let model = Model::open(student)?;
    let mut session = model.session(SessionOptions {
        threads: Some(1),
        ..SessionOptions::default()
    })?;
    let mut answers = Vec::new();
    for text in ALOUD {
        let request = Request {
            max_tokens: 96,
            parse_special: true,
            ..Request::new(Prompt::Text(actions::prompt(text)))
        };
        let started = Instant::now();
        let completion =
            session.generate(&request, &mut |_| std::ops::ControlFlow::Continue(()))?;
        let ended = if completion.finish == Finish::EndOfText {
            ""
        } else {
            " …"
        };
        let answer = Answer {
            request: text.into(),
            call: completion.text + ended,
            first_token: completion.timings.first_token,
            total: started.elapsed(),
        };
        listener(Event::Answer(&answer));
        answers.push(answer);
    }
    Ok(answers)
}

#[cfg(test)]
mod tests;
