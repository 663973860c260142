//! An open model.

use crate::adapter::{DramAdapter, ScaledAdapter, scaled};
use crate::bench::{self, BenchOptions, BenchReport};
use crate::encoder::NativeEncoder;
use crate::error::{DramError, contain};
use crate::sampling::SamplingOptions;
use crate::session::NativeSession;
use crate::types::{
    FormatShare, GenerationRequest, MemoryNeed, ModelInfo, ModelOptions, SessionOptions, count,
};
use dram_core::MemoryQuery;
use dram_core::model::Pooling;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// Whether the file of a model that is opened from now on is watched for faults, by a handler for SIGBUS that the first such model installs: see
/// [`NativeModel::open`]. It is on unless this turns it off.
#[uniffi::export]
pub fn handle_map_faults(on: bool) {
    dram_core::gguf::handle_map_faults(on);
}

impl From<ModelOptions> for dram_core::OpenOptions {
    fn from(options: ModelOptions) -> Self {
        dram_core::OpenOptions {
            memory_limit: options.memory_limit,
            chat_template: options.chat_template,
        }
    }
}

/// The open file of a descriptor that stays the caller's.
#[cfg(unix)]
fn duplicate(descriptor: i32) -> io::Result<File> {
    use std::os::fd::BorrowedFd;
    if descriptor < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: it is not −1, and borrowed for this call only; the system refuses one that is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    Ok(borrowed.try_clone_to_owned()?.into())
}

#[cfg(not(unix))]
fn duplicate(_: i32) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// An open model file. Opening maps it and reads its header, which takes milliseconds; weights are paged in as they are used.
/// It may be shared between threads, and sessions keep it alive.
#[derive(uniffi::Object)]
pub struct NativeModel {
    pub(crate) inner: dram_core::Model,
}

#[uniffi::export]
impl NativeModel {
    /// Opens the GGUF file at `path`. Of a model in several files (`NAME-00001-of-00003.gguf`) any one may be named.
    ///
    /// The file must stay as it is while the model or one of its sessions lives. To bring an update, write a new file, rename it over the old one
    /// and open it: never write to a file that is open. Each call of a session looks first whether the file was truncated, written to or replaced,
    /// and fails with `FileProblem` if so. Where the file is truncated in the middle of a generation, that ends with `FileProblem` too; for
    /// this the library installs a handler for SIGBUS, which passes faults outside its models on to the handler that was there before. An app whose
    /// crash reporter handles SIGBUS starts it before it opens the first model, or turns the library's handler off with
    /// `handle_map_faults`; a truncated file then ends the process.
    ///
    /// # Errors
    /// `FileProblem` when it cannot be read or is damaged, `UnsupportedModel` when its family, weight format or tokenizer is
    /// unknown, `OutOfMemory` when it cannot fit the limit.
    #[uniffi::constructor]
    pub fn open(path: String, options: ModelOptions) -> Result<Arc<Self>, DramError> {
        contain(|| {
            let inner = dram_core::Model::open_with(path, &options.into())?;
            Ok(Arc::new(NativeModel { inner }))
        })
    }

    /// Opens the GGUF file that `length` bytes of an open file hold, from `offset` on, such as an asset that an Android package holds uncompressed. The file
    /// descriptor stays the caller's, who may close it afterwards. Errors call the file `name`. Everything else is as for `open`; a model in
    /// several files is refused.
    ///
    /// # Errors
    /// As `open`; `FileProblem` when the descriptor is not that of a file with so many bytes.
    #[uniffi::constructor]
    pub fn open_at(
        name: String,
        descriptor: i32,
        offset: u64,
        length: u64,
        options: ModelOptions,
    ) -> Result<Arc<Self>, DramError> {
        contain(|| {
            let file = duplicate(descriptor)
                .map_err(|error| DramError::FileProblem(format!("{name}: {error}")))?;
            let inner = dram_core::Model::open_at(name, file, offset, length, &options.into())?;
            Ok(Arc::new(NativeModel { inner }))
        })
    }

    /// What the file says about the model.
    pub fn info(&self) -> ModelInfo {
        let info = self.inner.info();
        ModelInfo {
            name: info.name.clone(),
            architecture: info.architecture.clone(),
            parameters: info.parameters,
            layers: count(info.layers),
            embedding_length: count(info.embedding_length),
            vocabulary: count(info.vocabulary),
            context_length: count(info.context_length),
            file_bytes: info.file_bytes,
            has_chat_template: self.inner.chat_template().is_some(),
            is_encoder: self.inner.config().pooling.is_some(),
            is_reranker: self.inner.config().pooling == Some(Pooling::Rank),
            formats: info
                .formats
                .iter()
                .map(|(format, bytes)| FormatShare {
                    format: format.to_string(),
                    bytes: *bytes,
                })
                .collect(),
        }
    }

    /// How to sample this model where nobody says how: as its file says (`general.sampling.*`), else as the makers of its family recommend, else with a
    /// temperature of 0.7. A request without sampling takes the likeliest token always.
    ///
    /// # Errors
    /// `FileProblem` when the file holds something else than a number there.
    pub fn default_sampling(&self) -> Result<SamplingOptions, DramError> {
        contain(|| Ok(self.inner.default_sampling()?.0.into()))
    }

    /// Bytes that a session with these options and adapters will take, known before it is opened.
    pub fn memory(&self, options: SessionOptions, adapters: Vec<ScaledAdapter>) -> MemoryNeed {
        let memory = self.inner.memory(MemoryQuery {
            adapters: &scaled(&adapters),
            ..dram_core::SessionOptions::from(options).into()
        });
        MemoryNeed {
            mapped: memory.mapped,
            kv_cache: memory.kv_cache,
            scratch: memory.scratch,
        }
    }

    /// Opens a session: a KV cache and the threads that fill it.
    ///
    /// # Errors
    /// `OutOfMemory` when cache and scratch do not fit the limit, `InvalidRequest` when the context or the cache's format is none the model can have, or
    /// when the model is an encoder.
    pub fn session(&self, options: SessionOptions) -> Result<Arc<NativeSession>, DramError> {
        contain(|| Ok(NativeSession::new(self.inner.session(options.into())?)))
    }

    /// Opens an embedding model or a reranker: it has an encoder instead of sessions.
    ///
    /// # Errors
    /// As `session`; `InvalidRequest` when the model generates.
    pub fn encoder(&self, options: SessionOptions) -> Result<Arc<NativeEncoder>, DramError> {
        contain(|| Ok(NativeEncoder::new(self.inner.encoder(options.into())?)))
    }

    /// Opens the LoRA adapter at `path`, a GGUF file made for this model. It is mapped as the model is.
    ///
    /// # Errors
    /// `FileProblem` when it cannot be read or is damaged, `UnsupportedModel` when it belongs to another model or is no plain LoRA.
    pub fn adapter(&self, path: String) -> Result<Arc<DramAdapter>, DramError> {
        contain(|| Ok(DramAdapter::new(self.inner.adapter(path)?)))
    }

    /// Token ids of `text`, without the tokens that begin and end a sequence. With `parse_special`, special tokens written in the text
    /// (`<|im_start|>`) become these tokens.
    pub fn tokenize(&self, text: String, parse_special: bool) -> Vec<u32> {
        self.inner.tokenizer().encode(&text, parse_special)
    }

    /// A request's prompt as token ids, as a generation will read it: its length says whether it fits a context.
    ///
    /// # Errors
    /// `InvalidRequest` for a chat with a model that has no template for it, or when the template refuses it.
    pub fn prompt_tokens(&self, request: GenerationRequest) -> Result<Vec<u32>, DramError> {
        contain(|| Ok(self.inner.prompt_tokens(&request.try_into()?)?))
    }

    /// The text of `ids`, special tokens as they are written. What is no whole code point becomes U+FFFD; ids out of range are passed over.
    pub fn detokenize(&self, ids: Vec<u32>) -> String {
        self.inner.tokenizer().decode(&ids)
    }

    /// The id of the token whose text is exactly `text`, special tokens among them.
    pub fn token_id(&self, text: String) -> Option<u32> {
        self.inner.tokenizer().token_id(&text)
    }

    /// Measures latency on this device. It takes seconds and uses every core that decoding uses: not on the main thread.
    ///
    /// # Errors
    /// `InvalidRequest` when prompt, generated tokens and depth do not fit the model's context.
    pub fn bench(&self, options: BenchOptions) -> Result<BenchReport, DramError> {
        contain(|| bench::run(&self.inner, &options))
    }
}
