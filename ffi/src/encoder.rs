//! Texts to vectors, or to scores.

use crate::adapter::{ScaledAdapter, scaled};
use crate::error::{DramError, contain};
use crate::types::count;
use dram_core::EmbedOptions;
use std::sync::{Arc, Mutex};

/// Embeds texts: vectors whose dot product says how alike the texts are. A reranker's scores documents instead. Calls wait for each other.
#[derive(uniffi::Object)]
pub struct NativeEncoder {
    inner: Mutex<dram_core::Encoder>,
    context: u32,
    dimension: u32,
}

impl NativeEncoder {
    pub(crate) fn new(inner: dram_core::Encoder) -> Arc<Self> {
        Arc::new(NativeEncoder {
            context: count(inner.context()),
            dimension: count(inner.dimension()),
            inner: Mutex::new(inner),
        })
    }

    fn with<T>(
        &self,
        body: impl FnOnce(&mut dram_core::Encoder) -> dram_core::error::Result<T>,
    ) -> Result<T, DramError> {
        contain(|| match self.inner.lock() {
            Ok(mut encoder) => Ok(body(&mut encoder)?),
            Err(_) => Err(DramError::Internal(
                "an earlier internal error ended this encoder: open a new one".into(),
            )),
        })
    }
}

#[uniffi::export]
impl NativeEncoder {
    /// The vector of `text` behind `prompt`, of length 1, with the first `dimension` of its values, or all of them.
    ///
    /// # Errors
    /// `InvalidRequest` when the text has more tokens than `context`, for a dimension that the model does not have, or when it is a reranker.
    pub fn embed(
        &self,
        text: String,
        prompt: String,
        dimension: Option<u32>,
    ) -> Result<Vec<f32>, DramError> {
        let options = EmbedOptions {
            prompt,
            dimension: dimension.map(|n| n as usize),
        };
        self.with(|encoder| encoder.embed_text(&text, &options))
    }

    /// How well each document answers the query: a reranker's scores, in the documents' order, the greater the better.
    ///
    /// # Errors
    /// `InvalidRequest` when the query and a document have more tokens than `context`, or the model is no reranker.
    pub fn rank(&self, query: String, documents: Vec<String>) -> Result<Vec<f32>, DramError> {
        let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
        self.with(|encoder| encoder.rank(&query, &documents))
    }

    /// As for a session.
    ///
    /// # Errors
    /// `InvalidRequest` for an adapter of another model or a scale that is not finite; `OutOfMemory`.
    pub fn set_adapters(&self, adapters: Vec<ScaledAdapter>) -> Result<(), DramError> {
        self.with(|encoder| encoder.set_adapters(&scaled(&adapters)))
    }

    /// Values of a vector.
    pub fn dimension(&self) -> u32 {
        self.dimension
    }

    /// Most tokens that a text may have, those that begin and end it among them.
    pub fn context(&self) -> u32 {
        self.context
    }
}
