//! Texts to vectors.

use crate::adapter::{ScaledAdapter, scaled};
use crate::error::{DramError, contain};
use crate::types::count;
use std::sync::{Arc, Mutex};

/// Embeds texts: vectors whose dot product says how alike the texts are. Calls wait for each other.
#[derive(uniffi::Object)]
pub struct NativeEncoder {
    inner: Mutex<dram_core::Encoder>,
    context: u32,
}

impl NativeEncoder {
    pub(crate) fn new(inner: dram_core::Encoder) -> Arc<Self> {
        Arc::new(NativeEncoder {
            context: count(inner.context()),
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
    /// The vector of `text`, of length 1, with as many values as `ModelInfo.embedding_length` says.
    ///
    /// # Errors
    /// `InvalidRequest` when the text has more tokens than `context`.
    pub fn embed(&self, text: String) -> Result<Vec<f32>, DramError> {
        self.with(|encoder| {
            let ids = encoder.model().tokenizer().encode_with_ends(&text, false);
            encoder.embed(&ids)
        })
    }

    /// As for a session.
    ///
    /// # Errors
    /// `InvalidRequest` for an adapter of another model or a scale that is not finite; `OutOfMemory`.
    pub fn set_adapters(&self, adapters: Vec<ScaledAdapter>) -> Result<(), DramError> {
        self.with(|encoder| encoder.set_adapters(&scaled(&adapters)))
    }

    /// Most tokens that a text may have, those that begin and end it among them.
    pub fn context(&self) -> u32 {
        self.context
    }
}
