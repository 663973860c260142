//! A model: an open file, what its metadata says, and views of its weights. Cheap to clone, shared by every session.

pub(crate) mod adapter;
mod config;
mod families;
mod keys;
mod memory;
mod rope;
pub(crate) mod weights;
mod work;

pub use adapter::Adapter;
pub use config::{
    Activation, Config, ExpertScores, Experts, FeedForward, HeadNorm, LayerSpec, Mixer, NormKind,
    Pooling, Rope, Rotation, Scope, Yarn,
};
pub use memory::Memory;

use families::ARCHITECTURES;
use keys::Keys;
use weights::Weights;

#[cfg(feature = "constraint")]
use crate::constraint::Grammars;
use crate::encoder::Encoder;
use crate::gguf;
use crate::hash::Hash;
use crate::session::{Session, SessionOptions, Speculation};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result, kernels};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Context of a session that asks for none, where the model allows it: the cache of a longer one can be large.
const DEFAULT_CONTEXT: usize = 4096;

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
    grammars: Grammars,
    info: ModelInfo,
    chat_template: Option<String>,
    options: OpenOptions,
    fingerprint: OnceLock<u64>,
}

impl Model {
    /// Maps the GGUF file at `path` and checks that this runtime can run it. Weights are not read, let alone copied. Of a model in several files any one
    /// may be named.
    ///
    /// The file must stay as it is while the model or one of its sessions lives. To bring an update, put a new file in its place (write it beside
    /// and rename it) and open that; never write to a file that is open. Each request looks first whether the file was truncated, written to or
    /// replaced, and returns [`Error::FileChanged`] if so. What cannot be read any more in the middle of a request ends it with that error too, where the
    /// system allows it ([`gguf::handle_map_faults`]); elsewhere it ends the process.
    ///
    /// # Errors
    /// What is wrong with the file: it names the key or tensor, what was expected and what was found.
    pub fn open(path: impl AsRef<Path>) -> Result<Model> {
        Model::open_with(path, &OpenOptions::default())
    }

    /// [`Model::open`], refusing a model too large for `options.memory_limit`.
    ///
    /// # Errors
    /// Also [`Error::MemoryLimit`] when not even a session with the smallest context would fit.
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Model> {
        Model::from_gguf(gguf::File::open(path)?, options)
    }

    /// A model in a file that is already open.
    ///
    /// # Errors
    /// As [`Model::open_with`]; [`Error::InstructionSet`] when `DRAM_ISA` asks for what this processor does not have.
    pub fn from_gguf(file: gguf::File, options: &OpenOptions) -> Result<Model> {
        kernels::check_selected()?;
        let name = file.metadata().str("general.architecture")?;
        let Some(family) = ARCHITECTURES.iter().find(|family| family.name == name) else {
            let known: Vec<_> = ARCHITECTURES.iter().map(|family| family.name).collect();
            let keys = Keys {
                file: &file,
                architecture: name,
            };
            return Err(keys.bad(
                "general.architecture",
                format!("one of {}", known.join(", ")),
                name,
            ));
        };
        let config = (family.config)(&Keys {
            file: &file,
            architecture: name,
        })?;
        let keys = Keys {
            file: &file,
            architecture: name,
        };
        keys.check_experts(&config)?;
        let weights = Weights::find(&file, &config, family.names)?;
        let tokenizer = Arc::new(Tokenizer::from_gguf(&file)?);
        let info = info(&file, &config)?;
        let own = file.metadata().opt_str("tokenizer.chat_template")?;
        let chat_template = options.chat_template.clone();
        let chat_template = chat_template.or_else(|| own.map(str::to_owned));
        let model = Model {
            inner: Arc::new(Inner {
                file,
                config,
                weights,
                tokenizer,
                #[cfg(feature = "constraint")]
                grammars: Grammars::default(),
                info,
                chat_template,
                options: options.clone(),
                fingerprint: OnceLock::new(),
            }),
        };
        model.check_memory(
            &SessionOptions {
                context: Some(1),
                ..SessionOptions::default()
            },
            &[],
            &Speculation::Off,
            false,
        )?;
        model.gguf().check_read()?;
        Ok(model)
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

    /// What constraints need of the vocabulary, shared between sessions.
    #[cfg(feature = "constraint")]
    pub(crate) fn grammars(&self) -> &Grammars {
        &self.inner.grammars
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

    pub(crate) fn weights(&self) -> &Weights {
        &self.inner.weights
    }

    /// The context of a session that asks for none: the model's own, at most 4096.
    #[must_use]
    pub fn default_context(&self) -> usize {
        self.inner.config.context_length.min(DEFAULT_CONTEXT)
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

    /// A session: one sequence with its own cache and threads.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a context or thread count of 0, a context longer than the model's, or a cache format that does not suit the
    /// model's heads; [`Error::MemoryLimit`]; [`Error::Thread`] when the system starts no thread; [`Error::WrongUse`] when the model is an encoder.
    pub fn session(&self, options: SessionOptions) -> Result<Session> {
        self.check_generates()?;
        Session::new(self.clone(), options)
    }

    /// Refuses an encoder.
    pub(crate) fn check_generates(&self) -> Result<()> {
        match self.config().pooling {
            None => Ok(()),
            Some(_) => {
                Err(self
                    .wrong_use("generates: this one turns texts into vectors, take Model::encoder"))
            }
        }
    }

    /// An encoder's session: texts to vectors.
    ///
    /// # Errors
    /// As [`Model::session`]; [`Error::WrongUse`] when the model generates.
    pub fn encoder(&self, options: SessionOptions) -> Result<Encoder> {
        match self.config().pooling {
            Some(pooling) => Ok(Encoder::new(Session::new(self.clone(), options)?, pooling)),
            None => {
                Err(self
                    .wrong_use("turns texts into vectors: this one generates, take Model::session"))
            }
        }
    }

    /// Whether `other` is this model, perhaps opened another time.
    pub(crate) fn is(&self, other: &Model) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner) || self.fingerprint() == other.fingerprint()
    }

    fn wrong_use(&self, expected: &'static str) -> Error {
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
