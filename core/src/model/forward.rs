//! The forward pass of a decoder: tokens in, logits out.
//!
//! Each token's vector `x` runs through the layers; in each, attention and the feed-forward part read a normalised copy and add what they found.
//! (Vaswani et al. 2017, arXiv:1706.03762; Touvron et al. 2023, arXiv:2302.13971.)

use super::attention::Attention;
use super::operations::Operations;
use super::parallel::{each, rows_per_job};
use super::weights::Layer;
use super::{Config, Model};
use crate::cancel::Cancellation;
use crate::kernels::KEYS;
use crate::kv::KvCache;
use crate::scratch::{Scratch, TOGETHER};
use crate::threads::Pool;
use crate::{Error, Result};
use std::ops::Range;

/// Which positions' logits are wanted after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Nothing,
    Last,
    All,
}

/// A model with the memory and threads of one session.
pub(crate) struct Decoder<'a> {
    model: &'a Model,
    config: &'a Config,
    operations: Operations<'a>,
    cache: &'a mut KvCache,
    scratch: &'a mut Scratch,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(
        model: &'a Model,
        pool: &'a Pool,
        cache: &'a mut KvCache,
        scratch: &'a mut Scratch,
    ) -> Self {
        Decoder {
            model,
            config: model.config(),
            operations: Operations::new(model.gguf(), pool),
            cache,
            scratch,
        }
    }

    /// Evaluates `ids` (at most the scratch's tokens) at positions `start` and after. Afterwards their keys and values are in the cache, and the
    /// wanted positions' vectors are the first rows of `x`.
    ///
    /// # Errors
    /// [`Error::Cancelled`], at the latest one layer after it was asked for. The cache before `start` is untouched.
    pub(crate) fn run(
        &mut self,
        ids: &[u32],
        start: usize,
        want: Want,
        cancellation: &Cancellation,
    ) -> Result<()> {
        self.embed(ids);
        self.angles(start..start + ids.len());
        let layers = &self.model.weights().layers;
        for (number, layer) in layers.iter().enumerate() {
            if cancellation.requested() {
                return Err(Error::Cancelled);
            }
            // Once the last layer's keys and values are stored, only the wanted positions go on.
            let unwanted = match want {
                Want::All => 0,
                _ if number + 1 < layers.len() => 0,
                Want::Last => ids.len() - 1,
                Want::Nothing => ids.len(),
            };
            self.remember(layer, number, start, ids.len());
            if unwanted == ids.len() {
                break;
            }
            self.attend(layer, number, start, unwanted..ids.len());
            self.feed_forward(layer, ids.len() - unwanted);
        }
        Ok(())
    }

    /// Logits `[rows, vocabulary]` of the vectors in these rows of `x`; at most the scratch's `logit_rows`.
    pub(crate) fn logits(&mut self, rows: Range<usize>) -> &[f32] {
        let (o, weights, s) = (self.operations, self.model.weights(), &mut *self.scratch);
        let (tokens, d) = (rows.len(), self.config.embedding_length);
        let x = &s.x[rows.start * d..rows.end * d];
        o.unpack(&weights.output_norm, &mut s.vector);
        let x = o.normalise(
            x,
            &s.vector[..d],
            self.config.norm_epsilon,
            &mut s.branch,
            &mut s.int8,
            &[&weights.output],
        );
        o.product(x, &weights.output, &mut s.logits);
        &s.logits[..tokens * self.config.vocabulary]
    }

    /// x = the tokens' rows of the embedding.
    fn embed(&mut self, ids: &[u32]) {
        let embedding = &self.model.weights().embedding;
        for (&id, x) in ids
            .iter()
            .zip(self.scratch.x.chunks_exact_mut(embedding.cols))
        {
            self.operations.unpack_row(embedding, id as usize, x);
        }
    }

    /// How far each pair of a head turns at each of these positions.
    fn angles(&mut self, positions: Range<usize>) {
        let frequencies = &self.model.weights().frequencies; // [pairs]
        let turns = positions.flat_map(|position| {
            frequencies
                .iter()
                .map(move |frequency| position as f32 * frequency)
        });
        let s = &mut *self.scratch;
        for ((cosine, sine), turn) in s.cosine.iter_mut().zip(&mut s.sine).zip(turns) {
            // In f64, so that platforms' libraries agree on the f32.
            let (sin, cos) = f64::from(turn).sin_cos();
            (*cosine, *sine) = (cos as f32, sin as f32);
        }
    }

    /// Normalises x, projects it to queries, keys and values, rotates queries and keys to their positions, and stores keys and values.
    fn remember(&mut self, layer: &Layer, number: usize, start: usize, tokens: usize) {
        let (o, c, s) = (self.operations, self.config, &mut *self.scratch);
        let (queries, keys, values) = (c.query_length(), c.keys_length(), c.values_length());
        let (d, pairs) = (c.embedding_length, c.rope.dimensions / 2);
        let Layer {
            query, key, value, ..
        } = layer;

        o.unpack(&layer.attention_norm, &mut s.vector);
        let readers = [&query.matrix, &key.matrix, &value.matrix];
        let x = o.normalise(
            &s.x[..tokens * d],
            &s.vector[..d],
            c.norm_epsilon,
            &mut s.branch,
            &mut s.int8,
            &readers,
        );
        o.project(
            x,
            [
                (query, &mut s.query),
                (key, &mut s.key),
                (value, &mut s.value),
            ],
            &mut s.vector,
        );

        let per = rows_per_job(o.pool, tokens, (queries + keys) * size_of::<f32>());
        let parts = s.query[..tokens * queries]
            .chunks_mut(per * queries)
            .zip(s.key[..tokens * keys].chunks_mut(per * keys));
        let angles = s.cosine.chunks(per * pairs).zip(s.sine.chunks(per * pairs));
        each(
            o.pool,
            parts.zip(angles),
            |_, ((query, key), (cosine, sine))| {
                let rows = query
                    .chunks_exact_mut(queries)
                    .zip(key.chunks_exact_mut(keys));
                let angles = cosine.chunks_exact(pairs).zip(sine.chunks_exact(pairs));
                for ((query, key), (cosine, sine)) in rows.zip(angles) {
                    o.kernels
                        .rope(query, c.key_length, cosine, sine, c.rope.pairs);
                    o.kernels
                        .rope(key, c.key_length, cosine, sine, c.rope.pairs);
                }
            },
        );
        self.cache.write(
            o.kernels,
            number,
            start,
            &s.key[..tokens * keys],
            &s.value[..tokens * values],
        );
    }

    /// x += what the queries of these tokens find in the cache. Their vectors move to the front of x.
    fn attend(&mut self, layer: &Layer, number: usize, start: usize, tokens: Range<usize>) {
        let (o, c, cache, s) = (
            self.operations,
            self.config,
            &*self.cache,
            &mut *self.scratch,
        );
        let rows = tokens.len() * c.heads; // a row is one head of one token
        let query = &s.query[tokens.start * c.query_length()..tokens.end * c.query_length()]; // [rows, key_length]
        let mixed = &mut s.mixed[..rows * c.value_length]; // [rows, value_length]

        // One token's queries go together where they share keys; of several tokens, the same head's do.
        let single = tokens.len() == 1;
        let whole = if single { c.group() } else { c.heads };
        let bytes = (start + tokens.end) * (c.key_length + c.value_length) * size_of::<half::f16>();
        let per = rows_per_job(o.pool, rows, bytes).next_multiple_of(whole);
        let parts = query
            .chunks(per * c.key_length)
            .zip(mixed.chunks_mut(per * c.value_length));
        let scores = s
            .scores
            .chunks_mut(TOGETHER * cache.context().next_multiple_of(KEYS));
        each(
            o.pool,
            parts.zip(scores),
            |lane, ((query, mixed), scores)| {
                let (first, rows) = (lane * per, query.len() / c.key_length);
                let mut attention = Attention {
                    kernels: o.kernels,
                    config: c,
                    cache,
                    layer: number,
                    query,
                    mixed,
                    scores,
                };
                if single {
                    attention.heads(first..first + rows, start + tokens.start);
                } else {
                    let first = start + tokens.start + first / c.heads;
                    attention.tokens(first..first + rows / c.heads);
                }
            },
        );

        let d = c.embedding_length;
        s.x.copy_within(tokens.start * d..tokens.end * d, 0);
        let output = &layer.attention_output;
        let found = o.round(
            &s.mixed[..rows * c.value_length],
            &mut s.int8,
            &output.matrix,
        );
        o.project(found, [(output, &mut s.branch)], &mut s.vector);
        o.kernels
            .add(&mut s.x[..tokens.len() * d], &s.branch[..tokens.len() * d]);
    }

    /// x += down(silu(gate(x)) · up(x)), reading a normalised x.
    fn feed_forward(&mut self, layer: &Layer, tokens: usize) {
        let (o, c, s) = (self.operations, self.config, &mut *self.scratch);
        let (d, ff) = (c.embedding_length, c.feed_forward_length);
        let Layer { gate, up, down, .. } = layer;

        o.unpack(&layer.feed_forward_norm, &mut s.vector);
        let readers = [&gate.matrix, &up.matrix];
        let x = o.normalise(
            &s.x[..tokens * d],
            &s.vector[..d],
            c.norm_epsilon,
            &mut s.branch,
            &mut s.int8,
            &readers,
        );
        o.project(x, [(gate, &mut s.gate), (up, &mut s.up)], &mut s.vector);

        let inner = o.gated(
            &mut s.gate[..tokens * ff],
            &s.up[..tokens * ff],
            &mut s.int8,
            &down.matrix,
        );
        o.project(inner, [(down, &mut s.branch)], &mut s.vector);
        o.kernels
            .add(&mut s.x[..tokens * d], &s.branch[..tokens * d]);
    }
}
