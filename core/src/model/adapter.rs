//! Low-rank adapters (LoRA: Hu et al. 2021, arXiv:2106.09685): files of small matrices that change what a model answers, beside its own weights.
//!
//! The layout is that of llama.cpp's `convert_lora_to_gguf.py`: for a matrix NAME `[rows, cols]` of the base model, `NAME.lora_a` `[rank, cols]` and
//! `NAME.lora_b` `[rows, rank]`. Its product gains `scale · alpha / rank · B(A·x)`. Of the token embedding, which is looked up, A is
//! `[vocabulary, rank]`: a token's row of it is what B is multiplied with.

use super::weights::{Finder, Matrix};
use super::{Model, hash_of};
use crate::decoder::{Operations, each, rows_per_job};
use crate::gguf;
use crate::kernels::Activations;
use crate::quant::activation::{Buffer, Quantized};
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
struct Pair {
    a: Matrix,
    b: Matrix,
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

    fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.inner.pairs.values().chain(&self.inner.embedding)
    }

    /// What tells it from another, for saved sessions: see [`Model::fingerprint`].
    pub(crate) fn fingerprint(&self) -> u64 {
        let hash = || hash_of(&self.inner.file).finish();
        *self.inner.fingerprint.get_or_init(hash)
    }

    /// `scale · alpha / rank`.
    fn factor(&self, scale: f32, pair: &Pair) -> f32 {
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

/// The adapters of a session with the room they need. None is the rule, and takes neither room nor time.
#[derive(Default)]
pub(crate) struct Adapters {
    list: Vec<(Adapter, f32)>,
    hidden: Vec<f32>, // [tokens, greatest rank]: A·x
    change: Vec<f32>, // [tokens, most rows]: B(A·x); of logits [logit_rows, vocabulary]
    int8: Buffer,     // [tokens, widest]: inputs of quantised A and B
}

/// The number of values in each buffer of [`Adapters`].
fn sizes(list: &[(Adapter, f32)], tokens: usize, logit_rows: usize) -> [usize; 3] {
    let [mut hidden, mut change, mut int8] = [0usize; 3];
    for (adapter, _) in list {
        let head = adapter.base().weights().output.range.start;
        let inner = &adapter.inner;
        let pairs = inner.pairs.iter().map(|(at, pair)| (*at == head, pair));
        for (is_head, Pair { a, b }) in pairs.chain(inner.embedding.iter().map(|p| (false, p))) {
            let most = if is_head { logit_rows } else { tokens };
            hidden = hidden.max(most * b.cols);
            change = change.max(most * b.rows);
            for matrix in [a, b].iter().filter(|matrix| matrix.format.takes_int8()) {
                int8 = int8.max(most * matrix.cols);
            }
        }
    }
    [hidden, change, int8]
}

/// Bytes that [`Adapters::new`] allocates.
pub(crate) fn bytes(list: &[(Adapter, f32)], tokens: usize, logit_rows: usize) -> u64 {
    let [hidden, change, int8] = sizes(list, tokens, logit_rows);
    ((hidden + change) * size_of::<f32>() + Buffer::bytes(int8)) as u64
}

impl Adapters {
    /// `list`, with room for as many tokens, and rows of logits, as are evaluated together.
    pub(crate) fn new(list: &[(Adapter, f32)], tokens: usize, logit_rows: usize) -> Self {
        let [hidden, change, int8] = sizes(list, tokens, logit_rows);
        Adapters {
            list: list.to_vec(),
            hidden: vec![0.0; hidden],
            change: vec![0.0; change],
            int8: Buffer::new(int8),
        }
    }

    pub(crate) fn list(&self) -> &[(Adapter, f32)] {
        &self.list
    }

    /// `out` `[tokens, rows]`, the product of `matrix` with `x`, gains what the adapters change of it.
    pub(crate) fn apply(
        &mut self,
        o: &Operations<'_>,
        x: Activations<'_>,
        matrix: &Matrix,
        out: &mut [f32],
    ) {
        for (adapter, scale) in &self.list {
            let Some(pair) = adapter.inner.pairs.get(&matrix.range.start) else {
                continue;
            };
            let hidden = &mut self.hidden[..x.tokens * pair.a.rows];
            let x = rounded(o, x.float, &pair.a, &mut self.int8);
            o.kernels
                .product(o.pool, x, pair.a.view(adapter.gguf()), hidden);
            o.kernels.scale(hidden, adapter.factor(*scale, pair));
            raise(
                o,
                adapter,
                &pair.b,
                hidden,
                &mut self.change,
                &mut self.int8,
                out,
            );
        }
    }

    /// `x` `[ids, embedding]`, the tokens' rows of the embedding, gains what the adapters change of them.
    pub(crate) fn embed(&mut self, o: &Operations<'_>, ids: &[u32], x: &mut [f32]) {
        for (adapter, scale) in &self.list {
            let Some(pair) = &adapter.inner.embedding else {
                continue;
            };
            let (rank, a) = (pair.a.cols, pair.a.view(adapter.gguf()));
            let hidden = &mut self.hidden[..ids.len() * rank];
            for (&id, hidden) in ids.iter().zip(hidden.chunks_exact_mut(rank)) {
                o.kernels.dequantize(a.format, a.row(id as usize), hidden);
            }
            o.kernels.scale(hidden, adapter.factor(*scale, pair));
            raise(
                o,
                adapter,
                &pair.b,
                hidden,
                &mut self.change,
                &mut self.int8,
                x,
            );
        }
    }
}

/// `out` `[tokens, rows]` += B · `hidden` `[tokens, rank]`.
fn raise(
    o: &Operations<'_>,
    adapter: &Adapter,
    b: &Matrix,
    hidden: &[f32],
    change: &mut [f32],
    int8: &mut Buffer,
    out: &mut [f32],
) {
    let hidden = rounded(o, hidden, b, int8);
    let change = &mut change[..hidden.tokens * b.rows];
    o.kernels
        .product(o.pool, hidden, b.view(adapter.gguf()), change);
    let per = b.rows * rows_per_job(o.pool, hidden.tokens, 2 * b.rows * size_of::<f32>());
    let parts = out.chunks_mut(per).zip(change.chunks(per));
    each(o.pool, parts, |_, (out, change)| o.kernels.add(out, change));
}

/// `x` `[tokens, cols]` as `matrix` takes it.
fn rounded<'x>(
    o: &Operations<'_>,
    x: &'x [f32],
    matrix: &Matrix,
    int8: &'x mut Buffer,
) -> Activations<'x> {
    if matrix.format.takes_int8() {
        return o.round(x, int8, &[matrix]);
    }
    Activations {
        tokens: x.len() / matrix.cols,
        float: x,
        int8: Quantized::default(),
    }
}
