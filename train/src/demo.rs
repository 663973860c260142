//! `dram demo`: the whole way in a few minutes. A teacher for the actions task is distilled into a student a fifth its size, in f32 and with
//! quantisation-aware training; a control of the same shape learns from labels alone; all are exported, verified, measured and asked.
//!
//! Every stage leaves its result in the output folder. A run that is stopped goes on where it was; one with other options starts over.

mod measure;
mod runs;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dram_core::{Finish, Model, Prompt, Request, SessionOptions};
use gguf_rs::writer::MetadataValue;

use crate::checkpoint::write_beside;
use crate::data::actions::{self, ActionExamples, Sample, Set};
use crate::data::{Batch, Example, Grouped, TextTokenizer, evaluation_batches};
use crate::eval::Case;
use crate::export::{Export, Gate, Limits, Parity};
use crate::report::{Curve, Page, Table, duration};
use crate::student::{Config, Decoder, QuantMode, Scheme};
use crate::teacher::{self, Teacher, Trained};
use crate::trainer::Step;

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
    pub student: Config,
    /// Requests in each held-out set.
    pub held_out: usize,
    pub threads: usize,
}

impl DemoOptions {
    /// The demo as it is timed: under six minutes on two cores.
    #[must_use]
    pub fn new(teacher: Source, out_dir: PathBuf) -> Self {
        DemoOptions {
            teacher,
            out_dir,
            seed: 0,
            steps: 3000,
            batch: 32,
            learning_rate: 4e-3,
            student: Config::default(),
            held_out: 500,
            threads: std::thread::available_parallelism()
                .map_or(2, usize::from)
                .min(8),
        }
    }

    /// Everything that the results depend on.
    fn fingerprint(&self, teacher: u64) -> String {
        let DemoOptions {
            seed,
            steps,
            batch,
            learning_rate,
            student,
            held_out,
            ..
        } = self;
        format!(
            "dram demo {}: teacher {teacher:016x}, seed {seed}, steps {steps}, batch {batch}, learning rate {learning_rate}, held out {held_out}, \
             student {student:?}",
            env!("CARGO_PKG_VERSION")
        )
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

/// Things that every stage reads.
pub(crate) struct World<'a> {
    options: &'a DemoOptions,
    fingerprint: String,
    teacher: Box<dyn Teacher>,
    config: Config,
    scheme: Scheme,
    data: Grouped,
    sets: Vec<HeldOut>,
    /// First step that rounds.
    quantise_from: u64,
}

/// One held-out set, encoded.
pub(crate) struct HeldOut {
    name: &'static str,
    cases: Vec<Case>,
    batches: Vec<Batch>,
}

/// Runs the demo, or goes on with one that was stopped. `stop` is looked at between steps and stages.
///
/// # Errors
/// When the teacher cannot teach the task, training diverges, a file does not pass the gate, or the disk refuses.
pub fn run(
    options: &DemoOptions,
    stop: &AtomicBool,
    listener: &mut dyn FnMut(Event<'_>),
) -> Result<Outcome> {
    let started = Instant::now();
    fs::create_dir_all(&options.out_dir)
        .with_context(|| format!("making {}", options.out_dir.display()))?;
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
    let mut models = Vec::with_capacity(runs::RUNS.len());
    for run in runs::RUNS {
        if !begin(run.title, listener) {
            return Ok(Outcome::Stopped);
        }
        match world.train(run, stop, listener)? {
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
    let exported = world.export(&plain.decoder, &student.decoder, &control.decoder, listener)?;
    let Some(table) = world.measure(&exported, stop, listener)? else {
        return Ok(Outcome::Stopped);
    };

    if !begin("three requests", listener) {
        return Ok(Outcome::Stopped);
    }
    let answers = ask(&exported.student, listener)?;
    let curves = models
        .iter()
        .map(|m| Curve {
            name: m.title.into(),
            points: m.losses.clone(),
        })
        .collect();
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

impl<'a> World<'a> {
    fn new(options: &'a DemoOptions, listener: &mut dyn FnMut(Event<'_>)) -> Result<Self> {
        ensure!(
            options.steps > 0 && options.batch > 0 && options.held_out > 0,
            "steps, batch and held-out requests must be at least 1"
        );
        let (path, hash) = place_teacher(options)?;
        let teacher = teacher::open(&path, options.threads)?;
        let tokenizer = Arc::new(TextTokenizer::from_vocabulary(
            teacher.vocabulary().clone(),
        )?);
        let config = Config {
            vocabulary: teacher.logits_length(),
            context_length: teacher.context_length().min(options.student.context_length),
            ..options.student.clone()
        };
        config.check()?;
        let training = ActionExamples::new(tokenizer.clone(), Set::Train, options.seed)
            .with_context(|| format!("{} was not made for the actions task", path.display()))?;
        let sets = [
            ("new phrasings", Set::HeldOut),
            ("no function fits", Set::NoFunction),
        ];
        let sets =
            sets.map(|(name, set)| HeldOut::new(name, set, tokenizer.clone(), options.held_out));
        let fingerprint = options.fingerprint(hash);
        start_over_if_other(&options.out_dir, &fingerprint, listener)?;
        listener(Event::Note(&format!(
            "teacher {}: {} parameters; student: {}",
            teacher.name(),
            crate::report::count(teacher.decoder().map_or(0, |d| d.config().parameters()) as u64),
            crate::report::count(config.parameters() as u64)
        )));
        Ok(World {
            options,
            fingerprint,
            teacher,
            config,
            scheme: Scheme::by_name("q4_0", "q8_0", "q8_0")?,
            data: Grouped::new(Arc::new(training), options.batch, 16, options.seed)?,
            sets: sets.into_iter().collect::<Result<_>>()?,
            quantise_from: options.steps / 2,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.options.out_dir.join(name)
    }

    fn write_export(
        &self,
        decoder: &Decoder,
        name: &str,
        scheme: &Scheme,
        verified: bool,
    ) -> Result<(PathBuf, Parity)> {
        let path = self.path(name);
        let export = Export {
            name: name.trim_end_matches(".gguf"),
            config: decoder.config(),
            weights: decoder.parameters(),
            scheme,
            vocabulary: self.teacher.vocabulary(),
            metadata: vec![
                ("dram.task".into(), MetadataValue::String("actions".into())),
                (
                    "dram.recipe".into(),
                    MetadataValue::String(self.fingerprint.clone()),
                ),
            ],
        };
        if !verified {
            export.unverified(&path)?;
            return Ok((path, Parity::default()));
        }
        let reference = Trained::new(name, decoder, QuantMode::On, self.options.threads)?;
        let gate = Gate {
            reference: &reference,
            batches: &self.sets[0].batches,
            limits: Limits::default(),
            workers: self.options.threads,
        };
        let parity = export.verified(&path, &gate)?;
        Ok((path, parity))
    }

    /// Writes every file; those trained with rounding go through the gate.
    fn export(
        &self,
        plain: &Decoder,
        student: &Decoder,
        control: &Decoder,
        listener: &mut dyn FnMut(Event<'_>),
    ) -> Result<Exported> {
        let full = Scheme::by_name("f32", "f32", "f32")?;
        let (control, _) = self.write_export(control, "control-q4_0.gguf", &self.scheme, true)?;
        let (f32, _) = self.write_export(plain, "student-f32.gguf", &full, false)?;
        let (rounded, _) =
            self.write_export(plain, "student-rounded-q4_0.gguf", &self.scheme, true)?;
        let (student, parity) =
            self.write_export(student, "student-qat-q4_0.gguf", &self.scheme, true)?;
        listener(Event::Note(&format!("parity: {parity}")));
        Ok(Exported {
            teacher: self.path("teacher.gguf"),
            control,
            f32,
            rounded,
            student,
            parity,
        })
    }

    fn report(&self, demo: &Demo, curves: Vec<Curve>) -> Result<()> {
        let answers: Vec<String> = demo
            .answers
            .iter()
            .map(|a| format!("- {}\n  `{}`", a.request, a.call))
            .collect();
        let page = Page {
            title: "Dram demo".into(),
            command: Some(format!(
                "dram demo --seed {} --steps {}",
                self.options.seed, self.options.steps
            )),
            lead: vec![format!(
                "A teacher of the actions task distilled into a student of {} parameters in {} steps.",
                crate::report::count(self.config.parameters() as u64),
                self.options.steps
            )],
            table: demo.table.clone(),
            curves,
            sections: vec![
                (
                    "Parity".into(),
                    format!(
                        "`student-qat-q4_0.gguf` in the runtime against the training model: {}.",
                        demo.parity
                    ),
                ),
                ("Answers".into(), answers.join("\n")),
                (
                    "Time".into(),
                    format!("This start took {}.", duration(demo.elapsed)),
                ),
            ],
        };
        crate::report::write(&self.options.out_dir, &page)
    }
}

/// The files to compare.
pub(crate) struct Exported {
    teacher: PathBuf,
    control: PathBuf,
    f32: PathBuf,
    rounded: PathBuf,
    student: PathBuf,
    parity: Parity,
}

impl HeldOut {
    fn new(
        name: &'static str,
        set: Set,
        tokenizer: Arc<TextTokenizer>,
        count: usize,
    ) -> Result<Self> {
        // The same questions whatever the seed of a run.
        const SEED: u64 = 0;
        let samples: Vec<Sample> = actions::distinct(set, SEED, count);
        let encoder = ActionExamples::new(tokenizer, set, SEED)?;
        let examples = samples
            .iter()
            .map(|s| encoder.encode(s))
            .collect::<Result<Vec<Example>>>()?;
        let cases = samples.iter().zip(&examples).map(|(sample, example)| {
            let prompt = example
                .counts
                .iter()
                .position(|&c| c)
                .unwrap_or(example.ids.len());
            Case {
                prompt: example.ids[..prompt].to_vec(),
                answer: sample.call.clone(),
                max_tokens: example.ids.len() - prompt + 16,
            }
        });
        Ok(HeldOut {
            name,
            cases: cases.collect(),
            batches: evaluation_batches(&examples, 16),
        })
    }
}

/// Puts the teacher in the output folder where the measuring runtime finds it as a GGUF file; returns it and a hash of its bytes.
fn place_teacher(options: &DemoOptions) -> Result<(PathBuf, u64)> {
    let target = options.out_dir.join("teacher.gguf");
    let bytes = match &options.teacher {
        Source::Bytes(bytes) => std::borrow::Cow::Borrowed(*bytes),
        Source::Path(path) if path.is_dir() => {
            let teacher = teacher::open(path, options.threads)?;
            let decoder = teacher
                .decoder()
                .context("a folder that is to be measured must hold a llama-family model")?;
            let scheme = Scheme::by_name("f16", "f16", "f16")?;
            Export {
                name: teacher.name(),
                config: decoder.config(),
                weights: decoder.parameters(),
                scheme: &scheme,
                vocabulary: teacher.vocabulary(),
                metadata: Vec::new(),
            }
            .unverified(&target)?;
            fs::read(&target)?.into()
        }
        Source::Path(path) => fs::read(path)
            .with_context(|| format!("reading the teacher {}", path.display()))?
            .into(),
    };
    if fs::read(&target).ok().as_deref() != Some(&bytes[..]) {
        write_beside(&target, |beside| Ok(fs::write(beside, &bytes)?))?;
    }
    // FNV-1a
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    Ok((target, hash))
}

/// Removes what an earlier run with other options left.
fn start_over_if_other(
    out_dir: &Path,
    fingerprint: &str,
    listener: &mut dyn FnMut(Event<'_>),
) -> Result<()> {
    let path = out_dir.join("demo.txt");
    match fs::read_to_string(&path) {
        Ok(text) if text == fingerprint => {
            listener(Event::Note("going on with the run in the output folder"));
            return Ok(());
        }
        Ok(_) => {
            listener(Event::Note(
                "the output folder holds a run with other options: starting over",
            ));
            for name in runs::RUNS.iter().map(|r| r.name).chain(["measured"]) {
                let folder = out_dir.join(name);
                if folder.exists() {
                    fs::remove_dir_all(&folder)
                        .with_context(|| format!("removing {}", folder.display()))?;
                }
            }
        }
        Err(_) => {}
    }
    write_beside(&path, |beside| Ok(fs::write(beside, fingerprint)?))
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
