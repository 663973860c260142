//! What the demo's stages share: teacher, data, held-out sets, the output folder and its files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, ensure};
use dram_files::write::Value;
use dram_files::write_beside;

use super::{Demo, DemoOptions, Event, Source, runs};
use crate::data::actions::{self, ActionExamples, Sample, Set};
use crate::data::{Batch, Example, Grouped, TextTokenizer, evaluation_batches};
use crate::eval::Case;
use crate::export::{Export, Gate, Limits, Parity};
use crate::report::{Curve, Page, duration};
use crate::stop::Watch;
use crate::student::{Config, Decoder, QuantMode, Scheme};
use crate::teacher::{self, Teacher, Trained};

/// Things that every stage reads.
pub(super) struct World<'a> {
    pub(super) options: &'a DemoOptions,
    pub(super) fingerprint: String,
    pub(super) teacher: Box<dyn Teacher>,
    pub(super) config: Config,
    pub(super) scheme: Scheme,
    pub(super) data: Grouped,
    pub(super) sets: Vec<HeldOut>,
    /// First step that rounds.
    pub(super) quantise_from: u64,
}

/// One held-out set, encoded.
pub(super) struct HeldOut {
    pub(super) name: &'static str,
    pub(super) cases: Vec<Case>,
    pub(super) batches: Vec<Batch>,
}

impl<'a> World<'a> {
    pub(super) fn new(
        options: &'a DemoOptions,
        listener: &mut dyn FnMut(Event<'_>),
    ) -> Result<Self> {
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

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.options.out_dir.join(name)
    }

    fn write_export(
        &self,
        decoder: &Decoder,
        name: &str,
        scheme: &Scheme,
        watch: Option<&mut Watch<'_>>,
    ) -> Result<(PathBuf, Parity)> {
        let path = self.path(name);
        let export = Export {
            name: name.trim_end_matches(".gguf"),
            config: decoder.config(),
            weights: decoder.parameters(),
            scheme,
            vocabulary: self.teacher.vocabulary(),
            metadata: vec![
                ("dram.task".into(), Value::Text("actions".into())),
                actions::greedy(),
                ("dram.recipe".into(), Value::Text(self.fingerprint.clone())),
            ],
        };
        let Some(watch) = watch else {
            export.unverified(&path)?;
            return Ok((path, Parity::default()));
        };
        let reference = Trained::new(name, decoder, QuantMode::On, self.options.threads)?;
        let gate = Gate {
            reference: &reference,
            batches: &self.sets[0].batches,
            limits: Limits::default(),
            workers: self.options.threads,
        };
        let parity = export.verified_with(&path, &gate, watch)?;
        Ok((path, parity))
    }

    /// Writes every file; those trained with rounding go through the gate.
    pub(super) fn export(
        &self,
        plain: &Decoder,
        student: &Decoder,
        control: &Decoder,
        stop: &AtomicBool,
        listener: &mut dyn FnMut(Event<'_>),
    ) -> Result<Exported> {
        let mut tell = |done, of| {
            listener(Event::Working {
                what: "comparing",
                done,
                of,
            });
        };
        let mut watch = Watch::new(stop, &mut tell);
        let full = Scheme::by_name("f32", "f32", "f32")?;
        let (control, _) =
            self.write_export(control, "control-q4_0.gguf", &self.scheme, Some(&mut watch))?;
        let (f32, _) = self.write_export(plain, "student-f32.gguf", &full, None)?;
        let (rounded, _) = self.write_export(
            plain,
            "student-rounded-q4_0.gguf",
            &self.scheme,
            Some(&mut watch),
        )?;
        let (student, parity) = self.write_export(
            student,
            "student-qat-q4_0.gguf",
            &self.scheme,
            Some(&mut watch),
        )?;
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

    pub(super) fn report(&self, demo: &Demo, curves: Vec<Curve>) -> Result<()> {
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
pub(super) struct Exported {
    pub(super) teacher: PathBuf,
    pub(super) control: PathBuf,
    pub(super) f32: PathBuf,
    pub(super) rounded: PathBuf,
    pub(super) student: PathBuf,
    pub(super) parity: Parity,
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
