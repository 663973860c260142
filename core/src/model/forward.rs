//! The forward pass: tokens in, logits or the encoder's vectors out.
//!
//! Each token's vector `x` runs through the layers; in each, attention and the feed-forward part read a normalised copy and add what they found.
//! (Vaswani et al. 2017, arXiv:1706.03762; Touvron et al. 2023, arXiv:2302.13971.) What else a family does, norms in other places, scales, caps,
//! windows, is in the config and in which tensors a layer has; what is off costs nothing.

use super::Model;
use super::attention::{Attention, SEGMENT, part_length, segments, visible};
use super::config::{Config, Rotation};
use super::operations::Operations;
use super::parallel::{each, rows_per_job};
use super::weights::{Layer, Norm};
use crate::cancel::Cancellation;
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
            operations: Operations::new(model.gguf(), model.config(), pool),
            cache,
            scratch,
        }
    }

    /// Evaluates `ids` (at most the scratch's tokens) at positions `start` and after. Afterwards their keys and values are in the cache, and the
    /// wanted positions' vectors are the first rows of `x`.
    ///
    /// # Errors
    /// [`Error::Cancelled`], at the latest one layer after it was asked for; [`Error::FileChanged`] likewise. The cache before `start` is untouched.
    pub(crate) fn run(
        &mut self,
        ids: &[u32],
        start: usize,
        want: Want,
        cancellation: &Cancellation,
    ) -> Result<()> {
        self.embed(ids, start);
        self.angles(start..start + ids.len());
        let layers = &self.model.weights().layers;
        for (number, layer) in layers.iter().enumerate() {
            if cancellation.requested() {
                return Err(Error::Cancelled);
            }
            self.check_read()?;
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
        self.check_read()
    }

    /// Whether all weights that were read are those of the files.
    fn check_read(&self) -> Result<()> {
        self.model.gguf().check_read()?;
        let mut adapters = self.scratch.beside.adapters.list().iter();
        adapters.try_for_each(|(adapter, _)| adapter.gguf().check_read())
    }

    /// Logits `[rows, vocabulary]` of the vectors in these rows of `x`; at most the scratch's `logit_rows`.
    ///
    /// # Errors
    /// [`Error::FileChanged`].
    pub(crate) fn logits(&mut self, rows: Range<usize>) -> Result<&[f32]> {
        let (o, weights, s) = (self.operations, self.model.weights(), &mut *self.scratch);
        let (tokens, d) = (rows.len(), self.config.embedding_length);
        let x = &s.x[rows.start * d..rows.end * d];
        let x = o.normalise(
            weights.output_norm.as_ref(),
            x,
            &mut s.branch,
            &mut s.int8,
            &mut s.vector,
            &[&weights.output],
        );
        o.product(x, &weights.output, &mut s.logits, &mut s.beside);
        let logits = &mut s.logits[..tokens * self.config.vocabulary];
        if self.config.logit_scale != 1.0 {
            o.kernels.scale(logits, self.config.logit_scale);
        }
        if let Some(cap) = self.config.logit_cap {
            o.kernels.soft_cap(logits, cap);
        }
        self.check_read()?;
        Ok(&self.scratch.logits[..tokens * self.config.vocabulary])
    }

    /// x = the tokens' rows of the embedding, with what a family adds to them; the first token is at position `start`.
    fn embed(&mut self, ids: &[u32], start: usize) {
        let (o, c, weights) = (self.operations, self.config, self.model.weights());
        let Scratch {
            x, vector, beside, ..
        } = &mut *self.scratch;
        let d = c.embedding_length;
        let x = &mut x[..ids.len() * d];
        for (&id, x) in ids.iter().zip(x.chunks_exact_mut(d)) {
            o.unpack_row(&weights.embedding, id as usize, x);
        }
        beside.adapters.embed(&o, ids, x);
        if c.embedding_scale != 1.0 {
            o.kernels.scale(x, c.embedding_scale);
        }
        if let Some(types) = &weights.token_types {
            o.unpack_row(types, 0, &mut vector[..d]);
            x.chunks_exact_mut(d)
                .for_each(|x| o.kernels.add(x, &vector[..d]));
        }
        if let Some(positions) = &weights.positions {
            for (position, x) in (start..).zip(x.chunks_exact_mut(d)) {
                o.unpack_row(positions, position, &mut vector[..d]);
                o.kernels.add(x, &vector[..d]);
            }
        }
        if let Some(norm) = &weights.embedding_norm {
            o.normalise_in_place(norm, d, x, vector);
        }
    }

    /// How far each pair of a head turns at each of these positions, for each rotary embedding.
    fn angles(&mut self, positions: Range<usize>) {
        let (c, s, context) = (self.config, &mut *self.scratch, self.cache.context());
        let all = s.tokens * (c.rope.dimensions / 2); // angles of one embedding
        for (number, (turns, rope)) in self.model.weights().turns.iter().zip(c.ropes()).enumerate()
        {
            let frequencies = turns.of(rope, context); // [pairs]
            let turns = positions.clone().flat_map(|position| {
                frequencies
                    .iter()
                    .map(move |frequency| position as f32 * frequency)
            });
            let cosine = s.cosine[number * all..].iter_mut();
            for ((cosine, sine), turn) in cosine.zip(&mut s.sine[number * all..]).zip(turns) {
                // In f64, so that platforms' libraries agree on the f32.
                let (sin, cos) = f64::from(turn).sin_cos();
                *cosine = cos as f32 * rope.attention_factor;
                *sine = sin as f32 * rope.attention_factor;
            }
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

        let readers = [&query.matrix, &key.matrix, &value.matrix];
        let x = o.normalise(
            layer.attention_norm.as_ref(),
            &s.x[..tokens * d],
            &mut s.branch,
            &mut s.int8,
            &mut s.vector,
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
            &mut s.beside,
        );
        let (query, key) = (
            &mut s.query[..tokens * queries],
            &mut s.key[..tokens * keys],
        );
        if let (Some(kind), Some([of_queries, of_keys])) = (c.head_norm, &layer.head_norms) {
            o.normalise_in_place(of_queries, kind.length(c, c.heads), query, &mut s.vector);
            o.normalise_in_place(of_keys, kind.length(c, c.kv_heads), key, &mut s.vector);
        }

        let rope = match c.scopes[number].rotation {
            Rotation::None => None,
            Rotation::Global => Some(0),
            Rotation::Local => Some(1),
        };
        if let Some(rope) = rope {
            let per = rows_per_job(o.pool, tokens, (queries + keys) * size_of::<f32>());
            let parts = query
                .chunks_mut(per * queries)
                .zip(key.chunks_mut(per * keys));
            let first = rope * s.tokens * pairs;
            let angles = s.cosine[first..]
                .chunks(per * pairs)
                .zip(s.sine[first..].chunks(per * pairs));
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
        }
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

        let window = c.scopes[number].window;
        let job = |query, scores| Attention {
            kernels: o.kernels,
            config: c,
            cache,
            layer: number,
            window,
            query,
            scores,
        };
        let scores = s.scores.chunks_exact_mut(TOGETHER * SEGMENT);
        let part = part_length(c);
        let position_bytes = cache.position_bytes();
        if tokens.len() == 1 {
            // A job takes some segments of some heads; what they found is folded afterwards.
            let seen = start + tokens.end;
            let segments = segments(visible(window, seen));
            let (count, group) = (segments.len(), c.group());
            let bytes = (seen - segments.start * SEGMENT).min(SEGMENT) * position_bytes;
            let per = rows_per_job(o.pool, c.kv_heads * count, bytes);
            let parts = &mut s.parts[..c.kv_heads * count * group * part]; // [kv_heads, segments, group, part]
            let jobs = parts.chunks_mut(per * group * part).zip(scores);
            each(o.pool, jobs, |lane, (parts, scores)| {
                let mut attention = job(query, scores);
                for (unit, parts) in (lane * per..).zip(parts.chunks_exact_mut(group * part)) {
                    let (head, segment) = (unit / count, segments.start + unit % count);
                    attention.segment_of_one(head, segment, seen, parts);
                }
            });
            for (head, mixed) in mixed.chunks_exact_mut(c.value_length).enumerate() {
                let mut state = [f32::NEG_INFINITY, 0.0];
                let first = head / group * count * group + head % group;
                let parts = parts.chunks_exact(part).skip(first);
                for part in parts.step_by(group).take(count) {
                    o.kernels.fold(mixed, &mut state, part);
                }
                o.kernels.scale(mixed, 1.0 / state[1]);
            }
        } else {
            let bytes = (start + tokens.end) * position_bytes * c.heads;
            let per = rows_per_job(o.pool, tokens.len(), bytes);
            let rows = query
                .chunks(per * c.query_length())
                .zip(mixed.chunks_mut(per * c.mixed_length()))
                .zip(s.states.chunks_mut(per * c.heads));
            let room = scores.zip(s.parts.chunks_exact_mut(TOGETHER * part));
            each(
                o.pool,
                rows.zip(room),
                |lane, (((query, mixed), states), (scores, parts))| {
                    let states = &mut states[..mixed.len() / c.value_length];
                    let first = start + tokens.start + lane * per;
                    let positions = first..first + query.len() / c.query_length();
                    let end = start + tokens.end;
                    job(query, scores).tokens(positions, end, mixed, states, parts);
                },
            );
        }

        let d = c.embedding_length;
        s.x.copy_within(tokens.start * d..tokens.end * d, 0);
        let output = &layer.attention_output;
        let found = o.round(
            &s.mixed[..rows * c.value_length],
            &mut s.int8,
            &[&output.matrix],
        );
        if c.parallel {
            o.project(
                found,
                [(output, &mut s.spare)],
                &mut s.vector,
                &mut s.beside,
            );
            return;
        }
        o.project(
            found,
            [(output, &mut s.branch)],
            &mut s.vector,
            &mut s.beside,
        );
        self.join(
            layer.attention_post_norm.as_ref(),
            layer.attention_sum_norm.as_ref(),
            tokens.len(),
        );
    }

    /// x += down(activation of gate(x) and up(x)), reading a normalised x.
    fn feed_forward(&mut self, layer: &Layer, tokens: usize) {
        let (o, c, s) = (self.operations, self.config, &mut *self.scratch);
        let (d, ff) = (c.embedding_length, c.feed_forward_length);
        let (up, down) = (&layer.up, &layer.down);

        let norm = if c.parallel {
            &layer.attention_norm
        } else {
            &layer.feed_forward_norm
        };
        let readers = [&up.matrix, &layer.gate.as_ref().unwrap_or(up).matrix];
        let x = o.normalise(
            norm.as_ref(),
            &s.x[..tokens * d],
            &mut s.branch,
            &mut s.int8,
            &mut s.vector,
            &readers,
        );
        match &layer.gate {
            Some(gate) => o.project(
                x,
                [(gate, &mut s.gate), (up, &mut s.up)],
                &mut s.vector,
                &mut s.beside,
            ),
            None => o.project(x, [(up, &mut s.gate)], &mut s.vector, &mut s.beside),
        }

        let inner = o.activate(
            &mut s.gate[..tokens * ff],
            &s.up[..tokens * ff],
            &mut s.int8,
            &down.matrix,
        );
        o.project(inner, [(down, &mut s.branch)], &mut s.vector, &mut s.beside);
        if c.parallel {
            o.kernels
                .add(&mut s.x[..tokens * d], &s.spare[..tokens * d]);
        }
        self.join(
            layer.feed_forward_post_norm.as_ref(),
            layer.feed_forward_sum_norm.as_ref(),
            tokens,
        );
    }

    /// x += the branch, by `post` normalised where there is one; then the sum by `sum`.
    fn join(&mut self, post: Option<&Norm>, sum: Option<&Norm>, tokens: usize) {
        let (o, c, s) = (self.operations, self.config, &mut *self.scratch);
        let d = c.embedding_length;
        let (x, branch) = (&mut s.x[..tokens * d], &mut s.branch[..tokens * d]);
        if let Some(norm) = post {
            o.normalise_in_place(norm, d, branch, &mut s.vector);
        }
        if c.residual_scale != 1.0 {
            o.kernels.scale(branch, c.residual_scale);
        }
        o.kernels.add(x, branch);
        if let Some(norm) = sum {
            o.normalise_in_place(norm, d, x, &mut s.vector);
        }
    }
}
