//! Texts to vectors: an encoder's session.

use crate::model::{Adapter, Model, Pooling};
use crate::session::{Session, SessionOptions};
use crate::{CancelToken, Result};

/// Embeds texts: vectors whose dot product says how alike the texts are. See [`Model::encoder`].
pub struct Encoder {
    session: Session,
    pooling: Pooling,
}

impl Model {
    /// An encoder's session: texts to vectors.
    ///
    /// # Errors
    /// As [`Model::session`]; [`Error::WrongUse`] when the model generates.
    pub fn encoder(&self, options: SessionOptions) -> Result<Encoder> {
        match self.config().pooling {
            Some(pooling) => Ok(Encoder::new(Session::new(self.clone(), options)?, pooling)),
            None => {
                Err(self
                    .wrong_use("makes embeddings: this model generates text, use Model::session"))
            }
        }
    }
}

impl Encoder {
    pub(crate) fn new(session: Session, pooling: Pooling) -> Encoder {
        Encoder { session, pooling }
    }

    /// The model it evaluates.
    #[must_use]
    pub fn model(&self) -> &Model {
        self.session.model()
    }

    /// Most tokens a text may have.
    #[must_use]
    pub fn context(&self) -> usize {
        self.session.context()
    }

    /// A token that cancels the call that runs now, or else the next one.
    #[must_use]
    pub fn cancel_token(&self) -> CancelToken {
        self.session.cancel_token()
    }

    /// As [`Session::set_adapters`].
    ///
    /// # Errors
    /// As there.
    pub fn set_adapters(&mut self, adapters: &[(Adapter, f32)]) -> Result<()> {
        self.session.set_adapters(adapters)
    }

    /// The vector `[embedding_length]` of a text given as tokens, those that begin and end a text among them: the tokens' vectors pooled as the
    /// model's metadata says, and normalised to length 1 (Reimers and Gurevych 2019, arXiv:1908.10084).
    ///
    /// # Errors
    /// [`crate::Error::EmptyPrompt`], [`crate::Error::BadToken`], [`crate::Error::ContextFull`], [`crate::Error::Cancelled`],
    /// [`crate::Error::FileChanged`].
    pub fn embed(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        let vectors = self.session.vectors(ids)?; // [ids, embedding]
        let length = vectors.len() / ids.len();
        let mut pooled = match self.pooling {
            Pooling::Cls => vectors[..length].to_vec(),
            Pooling::Mean => {
                let mut sum = vec![0f32; length];
                for vector in vectors.chunks_exact(length) {
                    sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
                }
                sum
            }
        };
        // The mean's division by the number of tokens goes with the length.
        let squares: f64 = pooled.iter().map(|x| f64::from(*x).powi(2)).sum();
        let scale = 1.0 / squares.sqrt().max(1e-12);
        pooled
            .iter_mut()
            .for_each(|x| *x = (f64::from(*x) * scale) as f32);
        Ok(pooled)
    }
}
