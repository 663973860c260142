//! Teachers: models that say, for every position that has a loss, how likely each token is.
//!
//! | source | logits | hidden states |
//! | --- | --- | --- |
//! | Hugging Face folder, a family with dense layers ([`crate::student::families`]) | the project's decoder | yes |
//! | Hugging Face folder, another family | candle-transformers | no |
//! | GGUF that fits memory as f32 | the project's decoder, dequantised | yes |
//! | larger GGUF | the runtime, on the file's own blocks | no |

mod families;
mod gguf;
mod hf;
mod network;

pub use gguf::{Gguf, Placement};
pub use hf::{Engine, HuggingFace};

/// What a teacher answers: logits `[s, vocabulary]`, and for each layer asked for `[s, width]`.
pub use crate::student::Output as Targets;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, bail, ensure};
use dram_files::parallel;
use dram_files::tokenizer::Vocabulary;
use dram_files::tokenizer::shared_tokens;

use crate::data::Batch;
use crate::eval::{Scorer, Take, most_positions, pieces};
use crate::stop;
use crate::student::{Decoder, OutputSpec, Prepared, Products, QuantMode};
use crate::trainer::TeacherQuery;

/// How a training asks `teacher`: itself, or for bf16 products a twin of its decoder, where it has one.
pub fn ask(teacher: &dyn Teacher, products: Products) -> Box<TeacherQuery<'_>> {
    match teacher.decoder().filter(|_| products == Products::Bf16) {
        Some(decoder) => {
            let mut twin = decoder.clone();
            twin.set_products(products);
            let (rows, shared) = (decoder.config().vocabulary, teacher.logits_length());
            Box::new(move |batch, outputs| {
                known(batch, rows, shared)?;
                let mut targets = twin.forward(&batch.ids, batch.length, outputs)?;
                keep_first(&mut targets.logits, rows, shared);
                Ok(targets)
            })
        }
        None => Box::new(move |batch, outputs| teacher.targets(batch, outputs)),
    }
}

/// A model to learn from.
pub trait Teacher: Send + Sync {
    /// What reports call it.
    fn name(&self) -> &str;

    /// Its tokens, which the student must share.
    fn vocabulary(&self) -> &Vocabulary;

    /// Number of logits per position: the rows of its output matrix, or the tokens that it shares with the student ([`sharing`]).
    fn logits_length(&self) -> usize;

    /// Longest sequence it takes, in tokens.
    fn context_length(&self) -> usize;

    /// The decoder behind it, where there is one: the layers and width of hidden states, and weights to start a student from.
    fn decoder(&self) -> Option<&Decoder>;

    /// Logits at `outputs.positions` (flat indices into `batch.ids`, ascending), and hidden states after `outputs.hidden_layers` layers (0: the
    /// embeddings). Computes on the calling thread where it can, so that shards of a batch may ask at the same time.
    ///
    /// # Errors
    /// When the batch does not fit the model, or hidden states are wanted of a teacher that has none to give.
    fn targets(&self, batch: &Batch, outputs: &OutputSpec) -> Result<Targets>;

    /// Hands over the logits at `batch.targets` as [`Scorer::visit`] does, on up to `threads` threads.
    ///
    /// # Errors
    /// As there. A model of candle's looks at `stop` only between sequences, or several short ones.
    fn visit(
        &self,
        batch: &Batch,
        threads: usize,
        stop: &AtomicBool,
        take: Take<'_>,
    ) -> Result<()> {
        if let Some(decoder) = self.decoder() {
            return stream(
                &decoder.prepare(QuantMode::Off, 1)?,
                batch,
                threads,
                stop,
                take,
            );
        }
        for (first, piece) in pieces(batch, self.logits_length()) {
            stop::check(stop)?;
            take(first, &self.targets(&piece, &wanted(&piece))?.logits)?;
        }
        Ok(())
    }

    /// How many ids, from 0 on, are the same tokens for a student with these token strings; rows of padding, and a few tokens at the end that
    /// only one of the two knows, are no hindrance.
    ///
    /// # Errors
    /// With the first token that differs, when it is another tokenizer.
    fn check_tokens(&self, student: &[String]) -> Result<usize> {
        shared_tokens(
            &self.vocabulary().tokens,
            student,
            "the teacher",
            "the student",
        )
    }
}

/// Opens a Hugging Face folder or a GGUF file; `threads` is for teachers that run in the runtime.
///
/// # Errors
/// When `path` is neither, or what it holds cannot teach.
pub fn open(path: &Path, threads: usize) -> Result<Box<dyn Teacher>> {
    if path.join("config.json").is_file() {
        return Ok(Box::new(HuggingFace::open(path)?));
    }
    ensure!(path.exists(), "{}: no such file or folder", path.display());
    if path.is_dir() {
        bail!(
            "{}: expected a Hugging Face folder with config.json, safetensors and tokenizer.json, or a GGUF file",
            path.display()
        );
    }
    Ok(Box::new(Gguf::open(path, threads)?))
}

/// `teacher` for a student that shares its first `shared` tokens: it gives the logits of these.
pub fn sharing(teacher: &dyn Teacher, shared: usize) -> Sharing<'_> {
    let shared = shared.min(teacher.logits_length());
    Sharing { teacher, shared }
}

/// See [`sharing`].
pub struct Sharing<'a> {
    teacher: &'a dyn Teacher,
    shared: usize,
}

impl Teacher for Sharing<'_> {
    fn name(&self) -> &str {
        self.teacher.name()
    }

    fn vocabulary(&self) -> &Vocabulary {
        self.teacher.vocabulary()
    }

    fn logits_length(&self) -> usize {
        self.shared
    }

    fn context_length(&self) -> usize {
        self.teacher.context_length()
    }

    fn decoder(&self) -> Option<&Decoder> {
        self.teacher.decoder()
    }

    fn targets(&self, batch: &Batch, outputs: &OutputSpec) -> Result<Targets> {
        let rows = self.teacher.logits_length();
        known(batch, rows, self.shared)?;
        let mut targets = self.teacher.targets(batch, outputs)?;
        keep_first(&mut targets.logits, rows, self.shared);
        Ok(targets)
    }

    fn visit(
        &self,
        batch: &Batch,
        threads: usize,
        stop: &AtomicBool,
        take: Take<'_>,
    ) -> Result<()> {
        let rows = self.teacher.logits_length();
        known(batch, rows, self.shared)?;
        self.teacher.visit(batch, threads, stop, &|first, logits| {
            if self.shared == rows {
                return take(first, logits);
            }
            let mut kept = logits.to_vec();
            keep_first(&mut kept, rows, self.shared);
            take(first, &kept)
        })
    }
}

/// Checks that a teacher of `rows` rows knows every token of the batch, where it shares only the first with the student.
fn known(batch: &Batch, rows: usize, shared: usize) -> Result<()> {
    match batch.ids.iter().find(|&&id| id as usize >= shared) {
        Some(id) if shared < rows => bail!(
            "the data holds token {id}, which the teacher does not know: teacher and student share tokens 0 to {}",
            shared.saturating_sub(1)
        ),
        _ => Ok(()),
    }
}

/// Of each position's `rows` logits the first `kept`.
fn keep_first(logits: &mut Vec<f32>, rows: usize, kept: usize) {
    if kept < rows {
        let positions = logits.len() / rows.max(1);
        for position in 1..positions {
            logits.copy_within(position * rows..position * rows + kept, position * kept);
        }
        logits.truncate(positions * kept);
    }
}

/// Logits and hidden states of the project's own decoder.
fn decoder_targets(decoder: &Decoder, batch: &Batch, outputs: &OutputSpec) -> Result<Targets> {
    decoder
        .prepare(QuantMode::Off, 1)?
        .forward(&batch.ids, batch.length, outputs)
}

/// Refuses hidden states.
fn only_logits(name: &str, outputs: &OutputSpec) -> Result<()> {
    ensure!(
        outputs.hidden_layers.is_empty(),
        "{name} gives logits only: take the hidden-state losses out of the recipe, or use a teacher with dense layers that fits memory as f32"
    );
    Ok(())
}

/// All positions that count.
fn wanted(batch: &Batch) -> OutputSpec {
    OutputSpec {
        positions: batch.targets.iter().map(|t| t.0).collect(),
        hidden_layers: Vec::new(),
    }
}

/// A teacher as evaluation sees it, on several threads.
pub struct Scored<'a> {
    pub teacher: &'a dyn Teacher,
    pub threads: usize,
}

impl Scorer for Scored<'_> {
    fn name(&self) -> String {
        self.teacher.name().to_owned()
    }

    fn vocabulary(&self) -> usize {
        self.teacher.logits_length()
    }

    fn visit(&self, batch: &Batch, stop: &AtomicBool, take: Take<'_>) -> Result<()> {
        self.teacher.visit(batch, self.threads, stop, take)
    }
}

/// A decoder as evaluation sees it, rounded or not, on several threads.
pub struct Trained<'a> {
    pub name: String,
    pub model: Prepared<'a>,
    pub threads: usize,
}

impl<'a> Trained<'a> {
    /// # Errors
    /// When rounding is asked for and the decoder has no block formats.
    pub fn new(
        name: impl Into<String>,
        decoder: &'a Decoder,
        mode: QuantMode,
        threads: usize,
    ) -> Result<Self> {
        Ok(Self {
            name: name.into(),
            model: decoder.prepare(mode, threads)?,
            threads,
        })
    }

    /// See [`Prepared::perturbed`].
    #[must_use]
    pub fn perturbed(&self) -> Trained<'_> {
        Trained {
            name: self.name.clone(),
            model: self.model.perturbed(),
            threads: self.threads,
        }
    }
}

impl Scorer for Trained<'_> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn vocabulary(&self) -> usize {
        self.model.decoder().config().vocabulary
    }

    fn visit(&self, batch: &Batch, stop: &AtomicBool, take: Take<'_>) -> Result<()> {
        stream(&self.model, batch, self.threads, stop, take)
    }
}

/// Multiply-adds of a part's pass through one layer, unless it is one sequence: what lies between two looks at the stop flag.
const LAYER_WORK: usize = 1 << 32;

/// Logits of a batch whose sequences are shared out among `threads` threads.
fn stream(
    model: &Prepared<'_>,
    batch: &Batch,
    threads: usize,
    stop: &AtomicBool,
    take: Take<'_>,
) -> Result<()> {
    let config = model.decoder().config();
    let most = most_positions(config.vocabulary, threads);
    let row = config.parameters() / config.layers.max(1) * batch.length;
    let parts = batch.batch.div_ceil((LAYER_WORK / row.max(1)).max(1));
    let mut next = 0;
    let parts = batch.split(parts.max(threads)).into_iter().map(|part| {
        next += part.targets.len();
        (next - part.targets.len(), part)
    });
    let failed = Mutex::new(None);
    parallel::for_each(threads, parts.collect(), |(first, part): (usize, Batch)| {
        if part.targets.is_empty() {
            return;
        }
        let done = model.forward_in_portions(
            (&part.ids, part.length),
            &wanted(&part).positions,
            most,
            stop,
            &mut |at, logits| take(first + at, logits),
        );
        if let Err(error) = done {
            *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
        }
    });
    match failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(error) => Err(error.context("evaluating a shard of the batch")),
        None => Ok(()),
    }
}
