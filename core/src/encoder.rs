//! Texts to vectors: an encoder's session.

use crate::model::{Adapter, Model, Pooling};
use crate::session::{Session, SessionOptions};
use crate::{CancelToken, Error, Result};

/// Embeds texts: vectors whose dot product says how alike the texts are. See [`Model::encoder`].
pub struct Encoder {
    session: Session,
    pooling: Pooling,
}

/// How a text is embedded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmbedOptions {
    /// What stands before the text: many models were trained with one prompt for questions and another for what answers them, which their
    /// documentation names (`search_query: `).
    pub prompt: String,
    /// How many values of the vector are kept, from its beginning; `None`: all. For models that were trained to be shortened (Matryoshka
    /// representations, arXiv:2205.13147).
    pub dimension: Option<usize>,
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

    /// How the vectors of a text's tokens become one.
    #[must_use]
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Values of a vector.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.model().config().embedding_length
    }

    /// The vector of a text, with the tokens around it that the model asks for: see [`Encoder::embed`].
    ///
    /// # Errors
    /// As there; [`Error::InvalidOption`] for a dimension of 0 or greater than [`Encoder::dimension`].
    pub fn embed_text(&mut self, text: &str, options: &EmbedOptions) -> Result<Vec<f32>> {
        let most = self.dimension();
        let dimension = options.dimension.unwrap_or(most);
        if !(1..=most).contains(&dimension) {
            return Err(Error::InvalidOption {
                option: "dimension",
                expected: format!("from 1 to the model's {most}"),
                got: dimension.to_string(),
            });
        }
        let text = format!("{}{text}", options.prompt);
        let ids = self.model().tokenizer().encode_with_ends(&text, false);
        let mut vector = self.pooled(&ids)?;
        vector.truncate(dimension);
        normalise(&mut vector);
        Ok(vector)
    }

    /// The vector `[dimension]` of a text given as tokens, those that begin and end a text among them: the tokens' vectors pooled as the model's metadata
    /// says, and normalised to length 1 (Reimers and Gurevych 2019, arXiv:1908.10084).
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::BadToken`], [`Error::ContextFull`], [`Error::Cancelled`], [`Error::FileChanged`].
    pub fn embed(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        let mut vector = self.pooled(ids)?;
        normalise(&mut vector);
        Ok(vector)
    }

    /// The vectors of a text's tokens as one; a mean is their sum, because what follows has nothing to do with its length.
    fn pooled(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        let (pooling, length) = (self.pooling, self.model().config().embedding_length);
        let mut pooled = vec![0f32; length];
        let only_last = pooling == Pooling::Last;
        self.session
            .vectors(ids, only_last, &mut |position, vector| match pooling {
                Pooling::Mean => pooled.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x),
                Pooling::Cls if position > 0 => {}
                Pooling::Cls | Pooling::Last => pooled.copy_from_slice(vector),
            })?;
        Ok(pooled)
    }
}

/// Scales a vector to length 1.
fn normalise(vector: &mut [f32]) {
    let squares: f64 = vector.iter().map(|x| f64::from(*x).powi(2)).sum();
    let scale = 1.0 / squares.sqrt().max(1e-12);
    vector
        .iter_mut()
        .for_each(|x| *x = (f64::from(*x) * scale) as f32);
}
