//! What the demo's stages share: teacher, data, held-out sets, the output folder and its files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, ensure};
use dram_core::hash::fnv1a;
use dram_files::write_beside;

use super::recipes::RUNS;
use super::{Demo, DemoOptions, Event, Source};
use crate::export::{Export, Gate, Limits, Parity};
use crate::recipe::Recipe;
use crate::report::{Curve, Page, duration};
use crate::run::{self, Sources};
use crate::stop::Watch;
use crate::student::{Config, Decoder, QuantMode, Scheme};
use crate::tasks::actions;
use crate::teacher::{self, Teacher, Trained};

/// Things that every stage reads.
pub(super) struct World<'a> {
    pub(super) options: &'a DemoOptions,
    pub(super) fingerprint: String,
    pub(super) teacher: Box<dyn Teacher>,
    pub(super) teacher_hash: String,
    /// Of [`RUNS`].
    pub(super) recipes: Vec<Recipe>,
    pub(super) sources: Sources,
    config: Config,
    scheme: Scheme,
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
        let (path, teacher_hash) = place_teacher(options)?;
        let teacher = teacher::open(&path, options.threads)?;
        let recipes = RUNS
            .iter()
            .map(|run| run.recipe(options, &path, &*teacher))
            .collect::<Result<Vec<Recipe>>>()?;
        let recipe = &recipes[0];
        let mut hear = |event: run::Event<'_>| {
            if let run::Event::Note(note) = event {
                listener(Event::Note(note));
            }
        };
        let sources = Sources::new(recipe, Some(&*teacher), &mut hear)
            .with_context(|| format!("{} is not a teacher of the actions task", path.display()))?;
        let config = recipe.student.config(sources.logits_length)?;
        let fingerprint = options.fingerprint(&teacher_hash)?;
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
            teacher_hash,
            scheme: recipe.scheme()?,
            recipes,
            sources,
            config,
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
                ("dram.task".into(), "actions".into()),
                actions::greedy(),
                ("dram.recipe".into(), self.fingerprint.clone().into()),
            ],
        };
        let Some(watch) = watch else {
            export.unverified(&path)?;
            return Ok((path, Parity::default()));
        };
        let reference = Trained::new(name, decoder, QuantMode::On, self.options.threads)?;
        let gate = Gate {
            reference: &reference,
            batches: &self.sources.held_out[0].batches,
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

/// Puts the teacher in the output folder where the measuring runtime finds it as a GGUF file; returns it and a hash of its bytes.
fn place_teacher(options: &DemoOptions) -> Result<(PathBuf, String)> {
    let target = options.out_dir.join("teacher.gguf");
    let bytes = match &options.teacher {
        Source::Bytes(bytes) => std::borrow::Cow::Borrowed(*bytes),
        Source::Path(path) if path.is_dir() => {
            let teacher = teacher::open(path, options.threads)?;
            let decoder = teacher
                .decoder()
                .context("a folder that is to be measured must hold a model that the training decoder computes")?;
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
    let hash = fnv1a(bytes.iter().copied());
    Ok((target, format!("{hash:016x}")))
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
            listener(Event::Note("resuming the run in the output folder"));
            return Ok(());
        }
        Ok(_) => {
            listener(Event::Note(
                "the output folder holds a run with other options: starting over",
            ));
            for name in RUNS.iter().map(|r| r.name).chain(["measured"]) {
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
