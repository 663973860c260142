//! An open model.

use crate::bench::{self, BenchOptions, BenchReport};
use crate::error::{DramError, contain};
use crate::session::NativeSession;
use crate::types::{FormatShare, MemoryNeed, ModelInfo, ModelOptions, SessionOptions, count};
use std::sync::Arc;

/// An open model file. Opening maps it and reads its header, which takes milliseconds; weights are paged in as they are used.
/// It may be shared between threads, and sessions keep it alive.
#[derive(uniffi::Object)]
pub struct NativeModel {
    inner: dram_core::Model,
}

#[uniffi::export]
impl NativeModel {
    /// Opens the GGUF file at `path`.
    ///
    /// # Errors
    /// `FileProblem` when it cannot be read or is damaged, `UnsupportedModel` when its family, weight format or tokenizer is
    /// unknown, `OutOfMemory` when it cannot fit the limit.
    #[uniffi::constructor]
    pub fn open(path: String, options: ModelOptions) -> Result<Arc<Self>, DramError> {
        contain(|| {
            let options = dram_core::OpenOptions {
                memory_limit: options.memory_limit,
            };
            let inner = dram_core::Model::open_with(path, &options)?;
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

    /// Bytes that a session with this many positions will take, known before it is opened.
    pub fn memory(&self, context: u32) -> MemoryNeed {
        let memory = self.inner.memory(context as usize);
        MemoryNeed {
            mapped: memory.mapped,
            kv_cache: memory.kv_cache,
            scratch: memory.scratch,
        }
    }

    /// Opens a session: a KV cache and the threads that fill it.
    ///
    /// # Errors
    /// `OutOfMemory` when cache and scratch do not fit the limit, `InvalidRequest` when the context is none the model can have.
    pub fn session(&self, options: SessionOptions) -> Result<Arc<NativeSession>, DramError> {
        contain(|| {
            let session = self.inner.session(dram_core::SessionOptions {
                context: options.context.map(|n| n as usize),
                threads: options.threads.map(|n| n as usize),
                ..dram_core::SessionOptions::default()
            })?;
            Ok(NativeSession::new(session))
        })
    }

    /// Measures latency on this device. It takes seconds and uses every core that decoding uses: not on the main thread.
    ///
    /// # Errors
    /// `InvalidRequest` when prompt, generated tokens and depth do not fit the model's context.
    pub fn bench(&self, options: BenchOptions) -> Result<BenchReport, DramError> {
        contain(|| bench::run(&self.inner, &options))
    }
}
