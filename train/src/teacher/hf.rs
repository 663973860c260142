//! A Hugging Face folder as a teacher: `config.json`, safetensors (one file or shards), `tokenizer.json`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use dram_files::folder::{read_json, weight_files};
use dram_files::tokenizer::Vocabulary;
use dram_files::tokenizer::vocabulary_of_folder;
use serde_json::Value as Json;

use super::families::{self, Family};
use super::network::Network;
use super::{Targets, Teacher, decoder_targets, only_logits};
use crate::data::Batch;
use crate::student::{Config, Decoder, OutputSpec};

/// See [`super`].
pub struct HuggingFace {
    name: String,
    vocabulary: Vocabulary,
    logits_length: usize,
    context_length: usize,
    model: Model,
}

enum Model {
    Own(Box<Decoder>),
    Candle {
        network: Box<dyn Network>,
        window: Option<usize>,
        family: &'static Family,
    },
}

/// Which code computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// The project's decoder where it computes the family, else candle-transformers.
    #[default]
    Auto,
    /// candle-transformers, for comparison.
    Candle,
}

impl HuggingFace {
    /// # Errors
    /// When a file is missing or malformed, or the family is unknown.
    pub fn open(folder: &Path) -> Result<Self> {
        Self::open_with(folder, Engine::Auto)
    }

    /// [`HuggingFace::open`] with a choice of engine.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(folder: &Path, engine: Engine) -> Result<Self> {
        let at = || folder.display().to_string();
        let config = read_json(&folder.join("config.json"))?;
        let size = |key: &str| -> Result<usize> {
            let n = config[key].as_u64().and_then(|n| usize::try_from(n).ok());
            n.filter(|n| (1..=1 << 28).contains(n)).with_context(|| {
                format!(
                    "{}: config.json: {key} is missing or no sensible number",
                    at()
                )
            })
        };
        let rows = size("vocab_size")?;
        let own = engine == Engine::Auto && Config::from_hugging_face(&config).is_ok();
        let model = if own {
            Model::Own(Box::new(Decoder::from_hugging_face(folder)?))
        } else {
            candle(folder, &config).with_context(at)?
        };
        Ok(Self {
            name: folder
                .file_name()
                .map_or_else(at, |n| n.to_string_lossy().into_owned()),
            vocabulary: vocabulary_of_folder(folder, rows)?,
            logits_length: rows,
            context_length: size("max_position_embeddings")?,
            model,
        })
    }
}

fn candle(folder: &Path, config: &Json) -> Result<Model> {
    let family = families::family(config)?;
    let files = weight_files(folder)?;
    // SAFETY: the map is read-only and private; every tensor's place was checked against the file's length when it was opened. A file that
    // is changed while a teacher is loaded is outside what a process can prevent.
    let vb = unsafe { VarBuilder::from_mmaped_safetensors(&files, DType::F32, &Device::Cpu) }?;
    Ok(Model::Candle {
        network: family.load(config, vb)?,
        window: family.window(config),
        family,
    })
}

impl Teacher for HuggingFace {
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
        self.context_length
    }

    fn decoder(&self) -> Option<&Decoder> {
        match &self.model {
            Model::Own(decoder) => Some(decoder),
            Model::Candle { .. } => None,
        }
    }

    fn targets(&self, batch: &Batch, outputs: &OutputSpec) -> Result<Targets> {
        match &self.model {
            Model::Own(decoder) => decoder_targets(decoder, batch, outputs),
            Model::Candle {
                network,
                window,
                family,
            } => {
                only_logits(&self.name, outputs)?;
                let longest = window.unwrap_or(usize::MAX).min(self.context_length);
                ensure!(
                    batch.length <= longest,
                    "{}: sequences of {} tokens; candle-transformers' {} is exact up to {longest}",
                    self.name,
                    batch.length,
                    family.model_type
                );
                if outputs.positions.is_empty() {
                    return Ok(Targets::default());
                }
                let most = batch.ids.iter().max().copied().unwrap_or(0) as usize;
                ensure!(
                    most < self.logits_length,
                    "{}: token {most} in a vocabulary of {}",
                    self.name,
                    self.logits_length
                );
                let ids =
                    Tensor::from_slice(&batch.ids, (batch.batch, batch.length), &Device::Cpu)?;
                let logits = network
                    .logits(&ids, &outputs.positions)?
                    .flatten_all()?
                    .to_vec1::<f32>()?; // [s, vocabulary]
                Ok(Targets {
                    logits,
                    hidden: Vec::new(),
                })
            }
        }
    }
}
