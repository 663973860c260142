//! Texts to vectors, or to scores: an encoder's session.

mod pair;

use crate::model::{Adapter, Model, Pooling};
use crate::session::{Session, SessionOptions};
use crate::{CancelToken, Error, Result};
use pair::Pair;

/// Embeds texts: vectors whose dot product says how alike the texts are. A reranker's scores documents instead. See [`Model::encoder`].
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
    /// An encoder's session: texts to vectors, or a reranker's, which scores documents.
    ///
    /// # Errors
    /// As [`Model::session`]; [`Error::WrongUse`] when the model generates.
    pub fn encoder(&self, options: SessionOptions) -> Result<Encoder> {
        match self.config().pooling {
            Some(pooling) => Ok(Encoder::new(Session::new(self.clone(), options)?, pooling)),
            None => Err(self.wrong_use(
                "makes embeddings or ranks: this model generates text, use Model::session",
            )),
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
        let model = self.model();
        match model.weights().dense.last() {
            Some(linear) => linear.matrix.rows,
            None => model.config().embedding_length,
        }
    }

    /// Whether texts can be embedded so.
    ///
    /// # Errors
    /// [`Error::WrongUse`] when the model is a reranker; [`Error::InvalidOption`] for a dimension of 0 or greater than [`Encoder::dimension`].
    pub fn check(&self, options: &EmbedOptions) -> Result<()> {
        self.check_embeds()?;
        let most = self.dimension();
        match options.dimension {
            Some(dimension) if !(1..=most).contains(&dimension) => Err(Error::InvalidOption {
                option: "dimension",
                expected: format!("from 1 to the model's {most}"),
                got: dimension.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// The vector of a text, with the tokens around it that the model asks for: see [`Encoder::embed`].
    ///
    /// # Errors
    /// As there, and as [`Encoder::check`].
    pub fn embed_text(&mut self, text: &str, options: &EmbedOptions) -> Result<Vec<f32>> {
        self.check(options)?;
        let text = format!("{}{text}", options.prompt);
        let ids = self.model().tokenizer().encode_with_ends(&text, false);
        let mut vector = self.pooled(&ids, ids.len())?;
        vector.truncate(options.dimension.unwrap_or(vector.len()));
        normalise(&mut vector);
        Ok(vector)
    }

    /// The vector `[dimension]` of a text given as tokens, those that begin and end a text among them: the tokens' vectors pooled as the model's metadata
    /// says, and normalised to length 1 (Reimers and Gurevych 2019, arXiv:1908.10084).
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::BadToken`], [`Error::ContextFull`], [`Error::Cancelled`], [`Error::FileChanged`]; [`Error::WrongUse`] when the
    /// model is a reranker.
    pub fn embed(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        self.check_embeds()?;
        let mut vector = self.pooled(ids, ids.len())?;
        normalise(&mut vector);
        Ok(vector)
    }

    /// How well each document answers the query: a reranker's scores, in the documents' order, the greater the better. A decoder's lie between 0 and 1;
    /// others have no bounds.
    ///
    /// # Errors
    /// As [`Encoder::embed`] for the query and one document together; [`Error::WrongUse`] when the model is no reranker.
    pub fn rank(&mut self, query: &str, documents: &[&str]) -> Result<Vec<f32>> {
        let model = self.model().clone();
        let Some(classifier) = &model.weights().classifier else {
            return Err(model.wrong_use("ranks: this model makes embeddings, use Encoder::embed"));
        };
        let mut score = |document: &&str| {
            let Pair { ids, second } = Pair::new(&model, query, document)?;
            let mut vector = self.pooled(&ids, second)?;
            if let Some(dense) = &classifier.dense {
                vector = self.session.project_vector(dense, &vector)?;
                vector.iter_mut().for_each(|x| *x = x.tanh());
            }
            let labels = self.session.project_vector(&classifier.output, &vector)?;
            Ok(match model.config().causal {
                // Their labels are the logits of "yes" and "no".
                true => 1.0 / labels.iter().map(|x| (x - labels[0]).exp()).sum::<f32>(),
                false => labels[0],
            })
        };
        documents.iter().map(&mut score).collect()
    }

    /// Refuses a reranker.
    fn check_embeds(&self) -> Result<()> {
        match self.pooling {
            Pooling::Rank => Err(self
                .model()
                .wrong_use("makes embeddings: this model is a reranker, use Encoder::rank")),
            _ => Ok(()),
        }
    }

    /// The vectors of a text's tokens as one; from `second` on they are of a pair's second text. A mean that nothing but its length changes any more is left a sum.
    fn pooled(&mut self, ids: &[u32], second: usize) -> Result<Vec<f32>> {
        let config = self.model().config();
        let pooling = match self.pooling {
            Pooling::Rank if config.causal => Pooling::Last,
            Pooling::Rank => Pooling::Cls,
            other => other,
        };
        let mut pooled = vec![0f32; config.embedding_length];
        let is_last = pooling == Pooling::Last;
        let mut each = |position: usize, vector: &[f32]| match pooling {
            Pooling::Mean => pooled.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x),
            _ if is_last || position == 0 => pooled.copy_from_slice(vector),
            _ => {}
        };
        self.session.vectors(ids, second, is_last, &mut each)?;
        let model = self.model().clone();
        if pooling == Pooling::Mean && !model.weights().dense.is_empty() {
            pooled.iter_mut().for_each(|x| *x /= ids.len() as f32);
        }
        for linear in &model.weights().dense {
            pooled = self.session.project_vector(linear, &pooled)?;
        }
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
