//! A GGUF file as a teacher: dequantised into the project's decoder, or, if it is too large for that, in the runtime.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use dram_core::Model;
use dram_files::tokenizer::Vocabulary;
use dram_files::tokenizer::vocabulary_of_gguf;

use super::{Targets, Teacher, decoder_targets, only_logits, stream};
use crate::data::Batch;
use crate::eval::{Runtime, Scorer, Take};
use crate::export::import;
use crate::student::{Decoder, OutputSpec, QuantMode};

/// See [`super`].
pub struct Gguf {
    name: String,
    vocabulary: Vocabulary,
    logits_length: usize,
    context_length: usize,
    engine: Running,
}

enum Running {
    Decoder(Box<Decoder>),
    Runtime(Runtime),
}

/// Where a GGUF teacher computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// In the decoder if its f32 weights take at most half of the memory that is free, and it has the layers of the file.
    #[default]
    Auto,
    /// In the decoder: batched products, hidden states; unrounded activations.
    Decoder,
    /// In the runtime: the file's own blocks and rounded activations; logits only.
    Runtime,
}

impl Gguf {
    /// # Errors
    /// When the runtime refuses the file.
    pub fn open(path: &Path, threads: usize) -> Result<Self> {
        Self::open_with(path, threads, Placement::Auto)
    }

    /// [`Gguf::open`] with a choice of place.
    ///
    /// # Errors
    /// As there; and when the decoder is asked for and lacks something the file has.
    pub fn open_with(path: &Path, threads: usize, placement: Placement) -> Result<Self> {
        let model = Model::open(path)?;
        let vocabulary = vocabulary_of_gguf(model.gguf())?;
        let (name, config) = (model.info().name.clone(), model.config().clone());
        let fits = model.info().parameters.saturating_mul(4) <= free_memory() / 2;
        let decoder = match placement {
            Placement::Runtime => None,
            Placement::Auto if !fits => None,
            Placement::Auto => import(model.gguf(), model.config()).ok(),
            Placement::Decoder => Some(import(model.gguf(), model.config())?),
        };
        let engine = match decoder {
            Some((config, parameters)) => {
                Running::Decoder(Box::new(Decoder::new(config, parameters)?))
            }
            None => Running::Runtime(Runtime::wide(name.clone(), model, threads.max(1), None)?),
        };
        Ok(Self {
            name,
            vocabulary,
            logits_length: config.vocabulary,
            context_length: config.context_length,
            engine,
        })
    }
}

/// Bytes the system can still give; where it does not say, a cautious 4 GB.
fn free_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kilobytes.map_or(4_000_000_000, |k| k.saturating_mul(1024))
}

impl Teacher for Gguf {
    fn name(&self) -> &str {
        &self.name
    }

    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    fn logits_length(&self) -> usize {
        self.logits_length
    }

    fn context_length(&self) -> usize {
        match &self.engine {
            Running::Decoder(_) => self.context_length,
            Running::Runtime(runtime) => runtime.context(),
        }
    }

    fn decoder(&self) -> Option<&Decoder> {
        match &self.engine {
            Running::Decoder(decoder) => Some(decoder),
            Running::Runtime(_) => None,
        }
    }

    fn targets(&self, batch: &Batch, outputs: &OutputSpec) -> Result<Targets> {
        match &self.engine {
            Running::Decoder(decoder) => decoder_targets(decoder, batch, outputs),
            Running::Runtime(runtime) => {
                only_logits(&self.name, outputs)?;
                // The runtime answers at a batch's targets: those are the positions wanted.
                let asked = Batch {
                    targets: outputs.positions.iter().map(|&p| (p, 0)).collect(),
                    ..batch.clone()
                };
                Ok(Targets {
                    logits: runtime.logits(&asked)?,
                    hidden: Vec::new(),
                })
            }
        }
    }

    fn visit(
        &self,
        batch: &Batch,
        threads: usize,
        stop: &AtomicBool,
        take: Take<'_>,
    ) -> Result<()> {
        match &self.engine {
            Running::Decoder(decoder) => stream(
                &decoder.prepare(QuantMode::Off, 1)?,
                batch,
                threads,
                stop,
                take,
            ),
            Running::Runtime(runtime) => runtime.visit(batch, stop, take),
        }
    }
}
