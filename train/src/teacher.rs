//! Teachers: models that say, for every position that counts, how likely each token is.
//!
//! | source | logits | hidden states |
//! | --- | --- | --- |
//! | Hugging Face folder, `llama` or `mistral` | the project's decoder | yes |
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

use anyhow::{Context, Result, bail, ensure};

use crate::data::{Batch, Vocabulary};
use crate::eval::Scorer;
use crate::export::shared_tokens;
use crate::parallel;
use crate::student::{Decoder, Prepared, Products, QuantMode, Want};
use crate::trainer::Ask;

/// How a training asks `teacher`: itself, or for bf16 products a twin of its decoder, where it has one.
pub fn ask(teacher: &dyn Teacher, products: Products) -> Box<Ask<'_>> {
    match teacher.decoder().filter(|_| products == Products::Bf16) {
        Some(decoder) => {
            let mut twin = decoder.clone();
            twin.set_products(products);
            let (rows, shared) = (decoder.config().vocabulary, teacher.logits_length());
            Box::new(move |batch, want| {
                known(batch, rows, shared)?;
                let mut targets = twin.forward(&batch.ids, batch.length, want)?;
                keep_first(&mut targets.logits, rows, shared);
                Ok(targets)
            })
        }
        None => Box::new(move |batch, want| teacher.targets(batch, want)),
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

    /// Logits at `want.positions` (flat indices into `batch.ids`, ascending), and hidden states after `want.hidden_layers` layers (0: the
    /// embeddings). Computes on the calling thread where it can, so that shards of a batch may ask at the same time.
    ///
    /// # Errors
    /// When the batch does not fit the model, or hidden states are wanted of a teacher that has none to give.
    fn targets(&self, batch: &Batch, want: &Want) -> Result<Targets>;

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

    fn targets(&self, batch: &Batch, want: &Want) -> Result<Targets> {
        let rows = self.teacher.logits_length();
        known(batch, rows, self.shared)?;
        let mut targets = self.teacher.targets(batch, want)?;
        keep_first(&mut targets.logits, rows, self.shared);
        Ok(targets)
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
fn decoder_targets(decoder: &Decoder, batch: &Batch, want: &Want) -> Result<Targets> {
    decoder
        .prepare(QuantMode::Off, 1)?
        .forward(&batch.ids, batch.length, want)
}

/// Refuses hidden states.
fn only_logits(name: &str, want: &Want) -> Result<()> {
    ensure!(
        want.hidden_layers.is_empty(),
        "{name} gives logits only: take the hidden-state losses out of the recipe, or use a llama-family teacher that fits memory as f32"
    );
    Ok(())
}

/// All positions that count.
fn wanted(batch: &Batch) -> Want {
    Want {
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

    fn logits(&self, batch: &Batch) -> Result<Vec<f32>> {
        let threads = if self.teacher.decoder().is_some() {
            self.threads
        } else {
            1
        };
        sharded(batch, threads, |part| {
            Ok(self.teacher.targets(part, &wanted(part))?.logits)
        })
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

    /// See [`Prepared::shaken`].
    #[must_use]
    pub fn shaken(&self) -> Trained<'_> {
        Trained {
            name: self.name.clone(),
            model: self.model.shaken(),
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

    fn logits(&self, batch: &Batch) -> Result<Vec<f32>> {
        sharded(batch, self.threads, |part| {
            Ok(self
                .model
                .forward(&part.ids, part.length, &wanted(part))?
                .logits)
        })
    }
}

/// Answers for shards of a batch, one after the other in the result whichever thread made them.
fn sharded(
    batch: &Batch,
    threads: usize,
    answer: impl Fn(&Batch) -> Result<Vec<f32>> + Sync,
) -> Result<Vec<f32>> {
    let parts = batch.split(threads);
    let mut answers: Vec<Result<Vec<f32>>> = parts.iter().map(|_| Ok(Vec::new())).collect();
    parallel::for_each(
        threads,
        parts.iter().zip(&mut answers).collect(),
        |(part, out)| {
            *out = if part.targets.is_empty() {
                Ok(Vec::new())
            } else {
                answer(part)
            };
        },
    );
    let mut all = Vec::new();
    for part in answers {
        all.extend(part.context("evaluating a shard of the batch")?);
    }
    Ok(all)
}
