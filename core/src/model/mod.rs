//! A model: an open file, what its metadata says, and views of its weights. Cheap to clone, shared by every session.

pub(crate) mod adapter;
mod config;
mod families;
#[cfg(feature = "folders")]
pub mod folder;
mod keys;
mod rope;
mod scope;
pub(crate) mod weights;

pub use adapter::Adapter;
pub use config::{
    Activation, Config, ExpertScores, Experts, FeedForward, HeadNorm, Heads, LayerSpec,
    LinearAttention, Mixer, NormKind, Pooling, Rope, Rotation, Scope, SharedExpert, StateRule,
    Yarn,
};

use families::ARCHITECTURES;
use keys::Keys;
use weights::Weights;

use crate::gguf;
use crate::hash::Hash;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
#[cfg(feature = "constraint")]
use std::any::Any;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// How to open a model.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Most bytes that the file and one session may take together: mapped weights, cache and scratch, those of a draft model too. `None` sets no limit.
    pub memory_limit: Option<u64>,
    /// The chat template, instead of the one that the file has.
    pub chat_template: Option<String>,
}

/// What a person wants to know about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// `general.name`, or the file's name where it has none.
    pub name: String,
    /// `general.architecture`.
    pub architecture: String,
    /// Number of weights.
    pub parameters: u64,
    /// Layers.
    pub layers: usize,
    /// Length of the residual stream.
    pub embedding_length: usize,
    /// Number of tokens.
    pub vocabulary: usize,
    /// Positions the model was trained for.
    pub context_length: usize,
    /// Size of the file.
    pub file_bytes: u64,
    /// Block formats in the file and the bytes of tensors in each, most bytes first.
    pub formats: Vec<(&'static str, u64)>,
}

/// An open model. Clones share one map of the file.
#[derive(Clone)]
pub struct Model {
    inner: Arc<Inner>,
}

struct Inner {
    file: gguf::File,
    config: Config,
    weights: Weights,
    tokenizer: Arc<Tokenizer>,
    #[cfg(feature = "constraint")]
    shared: OnceLock<Box<dyn Any + Send + Sync>>,
    info: ModelInfo,
    chat_template: Option<String>,
    options: OpenOptions,
    fingerprint: OnceLock<u64>,
}

impl Model {
    /// The model in `file`, if this runtime can run it.
    pub(crate) fn read(file: gguf::File, options: &OpenOptions) -> Result<Model> {
        let name = file.metadata().str("general.architecture")?;
        let Some(family) = ARCHITECTURES.iter().find(|family| family.name == name) else {
            let known: Vec<_> = ARCHITECTURES.iter().map(|family| family.name).collect();
            return Err(Error::BadKey {
                file: file.name().to_owned(),
                key: "general.architecture".into(),
                expected: format!("one of {}", known.join(", ")),
                got: name.into(),
            });
        };
        let keys = Keys {
            file: &file,
            family,
        };
        let config = (family.config)(&keys)?;
        keys.check_experts(&config)?;
        let weights = Weights::find(&file, &config, family.names, keys.blocks()?)?;
        let tokenizer = Arc::new(Tokenizer::from_gguf(&file)?);
        let info = info(&file, &config)?;
        let own = file.metadata().opt_str("tokenizer.chat_template")?;
        let chat_template = options.chat_template.clone();
        let chat_template = chat_template.or_else(|| own.map(str::to_owned));
        Ok(Model {
            inner: Arc::new(Inner {
                file,
                config,
                weights,
                tokenizer,
                #[cfg(feature = "constraint")]
                shared: OnceLock::new(),
                info,
                chat_template,
                options: options.clone(),
                fingerprint: OnceLock::new(),
            }),
        })
    }

    /// What the file holds.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.inner.info
    }

    /// The shape of the model.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The model's tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.inner.tokenizer
    }

    #[cfg(feature = "constraint")]
    pub(crate) fn shared_tokenizer(&self) -> &Arc<Tokenizer> {
        &self.inner.tokenizer
    }

    /// What constraints keep with the model for all its sessions; of one type, so that the model needs not know them.
    #[cfg(feature = "constraint")]
    pub(crate) fn shared<T: Any + Send + Sync + Default>(&self) -> Option<&T> {
        let made = || Box::new(T::default()) as Box<dyn Any + Send + Sync>;
        self.inner.shared.get_or_init(made).downcast_ref()
    }

    /// The open file.
    #[must_use]
    pub fn gguf(&self) -> &gguf::File {
        &self.inner.file
    }

    /// The template that turns messages into a prompt: the one that it was opened with, or else the file's.
    #[must_use]
    pub fn chat_template(&self) -> Option<&str> {
        self.inner.chat_template.as_deref()
    }

    /// How it was opened.
    pub(crate) fn options(&self) -> &OpenOptions {
        &self.inner.options
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.inner.weights
    }

    /// What tells this model from another, for saved sessions: a hash of the file's size, of its metadata and tensor table, of the first bytes of
    /// every tensor, and of the decoder's shape as this build reads it. Computed once, when it is first asked for.
    pub(crate) fn fingerprint(&self) -> u64 {
        *self.inner.fingerprint.get_or_init(|| {
            let mut hash = hash_of(&self.inner.file);
            hash.update(format!("{:?}", self.config()).as_bytes());
            hash.finish()
        })
    }

    /// Whether `other` is this model, perhaps opened another time.
    pub(crate) fn is(&self, other: &Model) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner) || self.fingerprint() == other.fingerprint()
    }

    pub(crate) fn wrong_use(&self, expected: &'static str) -> Error {
        Error::WrongUse {
            file: self.inner.file.name().to_owned(),
            expected,
        }
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("file", &self.inner.file)
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

/// A hash of a file's size, of its metadata and tensor table, and of the first bytes of every tensor.
fn hash_of(file: &gguf::File) -> Hash {
    let mut hash = Hash::default();
    hash.update(&(file.file_bytes() as u64).to_le_bytes());
    let first = file.tensors().map(|tensor| tensor.range().start).min();
    hash.update(&file.bytes()[..first.unwrap_or(0).min(file.bytes().len())]);
    for tensor in file.tensors() {
        let bytes = tensor.bytes();
        hash.update(&bytes[..bytes.len().min(64)]);
    }
    hash
}

fn info(file: &gguf::File, config: &Config) -> Result<ModelInfo> {
    let metadata = file.metadata();
    let stem = || {
        Path::new(file.name())
            .file_stem()
            .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
    };
    let mut formats: Vec<(&'static str, u64)> = Vec::new();
    for tensor in file.tensors() {
        let (name, bytes) = (tensor.format().name, tensor.range().len() as u64);
        match formats.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += bytes,
            None => formats.push((name, bytes)),
        }
    }
    formats.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
    Ok(ModelInfo {
        name: metadata
            .opt_str("general.name")?
            .map_or_else(stem, str::to_owned),
        architecture: metadata.str("general.architecture")?.to_owned(),
        parameters: file.tensors().map(|tensor| tensor.values() as u64).sum(),
        layers: config.layers.len(),
        embedding_length: config.embedding_length,
        vocabulary: config.vocabulary,
        context_length: config.context_length,
        file_bytes: file.file_bytes() as u64,
        formats,
    })
}
