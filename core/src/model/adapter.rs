//! Low-rank adapters (LoRA: Hu et al. 2021, arXiv:2106.09685): files of small matrices that change what a model answers, beside its own weights.
//!
//! The layout is that of llama.cpp's `convert_lora_to_gguf.py`: for a matrix NAME `[rows, cols]` of the base model, `NAME.lora_a` `[rank, cols]` and
//! `NAME.lora_b` `[rows, rank]`. Its product gains `scale · alpha / rank · B(A·x)`. Of the token embedding, which is looked up, A is
//! `[vocabulary, rank]`: a token's row of it is what B is multiplied with.

use super::weights::{Finder, Matrix};
use super::{Model, hash_of};
use crate::gguf;
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

const EMBEDDING: &str = "token_embd.weight";

/// An open LoRA adapter of one base model: [`Model::adapter`] opens it, [`crate::Session::set_adapters`] puts it to use. Cheap to clone; its weights
/// stay in the map of its file.
#[derive(Clone)]
pub struct Adapter {
    inner: Arc<Inner>,
}

struct Inner {
    file: gguf::File,
    base: Model,
    /// `adapter.lora.alpha`; without it the scale is the user's alone.
    alpha: Option<f32>,
    /// By where the adapted matrix begins in the base model's file.
    pairs: HashMap<usize, Pair>,
    embedding: Option<Pair>,
    fingerprint: OnceLock<u64>,
}

/// What one matrix `[rows, cols]` gains: B `[rows, rank]` times A `[rank, cols]`. Of the embedding, A is `[vocabulary, rank]`.
pub(crate) struct Pair {
    pub(crate) a: Matrix,
    pub(crate) b: Matrix,
}

impl Adapter {
    /// Checks `file` against `base`.
    pub(super) fn new(file: gguf::File, base: &Model) -> Result<Adapter> {
        let metadata = file.metadata();
        let expect = |key: &str, expected: &str| match metadata.str(key)? {
            got if got == expected => Ok(()),
            got => Err(bad(&file, key, format!("`{expected}`"), format!("`{got}`"))),
        };
        expect("general.type", "adapter")?;
        expect("adapter.type", "lora")?;
        expect("general.architecture", &base.info().architecture)?;
        let alpha = metadata.opt_f32("adapter.lora.alpha")?;
        if let Some(alpha) = alpha.filter(|alpha| !alpha.is_finite()) {
            return Err(bad(&file, "adapter.lora.alpha", "a finite number", alpha));
        }
        const INVOCATION: &str = "adapter.alora.invocation_tokens";
        if metadata.get(INVOCATION).is_some() {
            let got =
                "tokens that turn it on in the middle of a text, which this runtime does not do";
            return Err(bad(&file, INVOCATION, "none", got));
        }
        let (pairs, embedding) = pairs(&file, base)?;
        file.check_read()?;
        Ok(Adapter {
            inner: Arc::new(Inner {
                base: base.clone(),
                alpha: alpha.filter(|alpha| *alpha != 0.0),
                pairs,
                embedding,
                fingerprint: OnceLock::new(),
                file,
            }),
        })
    }

    /// The open file.
    #[must_use]
    pub fn gguf(&self) -> &gguf::File {
        &self.inner.file
    }

    /// The model it was checked against.
    #[must_use]
    pub fn base(&self) -> &Model {
        &self.inner.base
    }

    /// Matrices that it changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs().count()
    }

    /// Never: an adapter that changes nothing is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the matrix that begins at `at` in the base model's file gains.
    pub(crate) fn pair(&self, at: usize) -> Option<&Pair> {
        self.inner.pairs.get(&at)
    }

    /// What the token embedding gains.
    pub(crate) fn embedding(&self) -> Option<&Pair> {
        self.inner.embedding.as_ref()
    }

    /// All of them.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.inner.pairs.values().chain(&self.inner.embedding)
    }

    /// What tells it from another, for saved sessions: see [`Model::fingerprint`].
    pub(crate) fn fingerprint(&self) -> u64 {
        let hash = || hash_of(&self.inner.file).finish();
        *self.inner.fingerprint.get_or_init(hash)
    }

    /// `scale · alpha / rank`.
    pub(crate) fn factor(&self, scale: f32, pair: &Pair) -> f32 {
        let rank = pair.b.cols as f32;
        self.inner.alpha.map_or(scale, |alpha| scale * alpha / rank)
    }
}

impl std::fmt::Debug for Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adapter")
            .field("file", &self.inner.file)
            .field("alpha", &self.inner.alpha)
            .finish_non_exhaustive()
    }
}

fn bad(file: &gguf::File, key: &str, expected: impl ToString, got: impl ToString) -> Error {
    Error::BadKey {
        file: file.name().to_owned(),
        key: key.to_owned(),
        expected: expected.to_string(),
        got: got.to_string(),
    }
}

/// Every pair in `file`, by the matrices of `base` that it changes, and the embedding's.
fn pairs(file: &gguf::File, base: &Model) -> Result<(HashMap<usize, Pair>, Option<Pair>)> {
    let mut find = Finder::new(file);
    let (mut pairs, mut embedding) = (HashMap::new(), None);
    for tensor in file.tensors() {
        let Some(name) = tensor.name().strip_suffix(".lora_a") else {
            continue;
        };
        let no_base = || Error::NotAdapted {
            file: file.name().to_owned(),
            tensor: tensor.name().to_owned(),
            base: base.gguf().name().to_owned(),
        };
        let changed = base.gguf().get_tensor(name).ok_or_else(no_base)?;
        let (rows, cols) = (changed.rows(), changed.cols());
        let looked_up = name == EMBEDDING;
        let rank = if looked_up {
            tensor.cols()
        } else {
            tensor.rows()
        };
        // More would change nothing, and a session has a buffer of this length for every token.
        let most = rows.max(cols);
        if rank > most {
            return Err(Error::Corrupt {
                file: file.name().to_owned(),
                what: format!("tensor `{}`", tensor.name()),
                expected: format!("a rank of at most {most}"),
                got: rank.to_string(),
            });
        }
        let halves = ["lora_a", "lora_b"].map(|half| format!("{name}.{half}"));
        if looked_up {
            let a = find.matrix(&halves[0], rows, rank)?;
            let b = find.matrix(&halves[1], cols, rank)?;
            embedding = Some(Pair { a, b });
            continue;
        }
        // One tensor may be several matrices of the forward pass, such as queries, keys and values: each has its rows of B.
        let weights = base.weights().multiplied();
        let parts: Vec<&Matrix> = weights
            .filter(|matrix| changed.range().contains(&matrix.range.start))
            .collect();
        if parts.is_empty() {
            return Err(no_base());
        }
        let a = find.matrix(&halves[0], rank, cols)?;
        let b = find.matrix(&halves[1], rows, rank)?;
        let row_bytes = changed.range().len() / rows;
        for matrix in parts {
            let first = (matrix.range.start - changed.range().start) / row_bytes;
            let b = b.rows(first..first + matrix.rows);
            pairs.insert(matrix.range.start, Pair { a: a.clone(), b });
        }
    }
    if let Some(stranger) = find.unused() {
        // Half a pair, or a weight that is no pair at all.
        let half = stranger.name().strip_suffix(".lora_b");
        let missing = half.map(|name| file.tensor(&format!("{name}.lora_a")).map(|_| ()));
        return Err(missing
            .and_then(Result::err)
            .unwrap_or_else(|| Error::NotLowRank {
                file: file.name().to_owned(),
                tensor: stranger.name().to_owned(),
            }));
    }
    if pairs.is_empty() && embedding.is_none() {
        return Err(Error::Corrupt {
            file: file.name().to_owned(),
            what: "tensors".into(),
            expected: "pairs NAME.lora_a and NAME.lora_b".into(),
            got: "none".into(),
        });
    }
    Ok((pairs, embedding))
}

impl Model {
    /// Maps the LoRA adapter at `path` and checks that it belongs to this model: `general.type` is `adapter`, `adapter.type` is `lora`, and every pair of
    /// matrices fits one of the model's. Its weights are not read, let alone copied.
    ///
    /// # Errors
    /// What is wrong with the file: another architecture, a tensor that the model lacks ([`Error::NotAdapted`]), half a pair ([`Error::MissingTensor`]),
    /// another shape, anything but pairs ([`Error::NotLowRank`]).
    pub fn adapter(&self, path: impl AsRef<Path>) -> Result<Adapter> {
        self.adapter_from_gguf(gguf::File::open(path)?)
    }

    /// An adapter in a file that is already open.
    ///
    /// # Errors
    /// As [`Model::adapter`].
    pub fn adapter_from_gguf(&self, file: gguf::File) -> Result<Adapter> {
        Adapter::new(file, self)
    }
}
