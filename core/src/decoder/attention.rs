//! Attention: queries, keys and values of new tokens, and what the queries find in the cache.

use super::Decoder;
use super::parallel::{each, rows_per_job};
use super::scratch::TOGETHER;
use super::segments::{Attention, part_length, segments, visible};
use crate::model::Rotation;
use crate::model::weights::{AttentionWeights, Layer};
use crate::state::SEGMENT;
use std::ops::Range;

impl Decoder<'_> {
    /// Normalises x, projects it to queries, keys and values, rotates queries and keys to their positions, and writes keys and values to the KV cache.
    pub(super) fn write_kv(
        &mut self,
        layer: &Layer,
        weights: &AttentionWeights,
        start: usize,
        tokens: usize,
    ) {
        let (o, c, s) = (self.operations, self.config, &mut *self.scratch);
        let (queries, keys, values) = (c.query_length(), c.keys_length(), c.values_length());
        let (d, pairs) = (c.embedding_length, c.rope.dimensions / 2);
        let AttentionWeights {
            query, key, value, ..
        } = weights;

        let readers = [&query.matrix, &key.matrix, &value.matrix];
        let x = o.normalise(
            layer.mixer_norm.as_ref(),
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
            &mut s.hooks,
        );
        let (query, key) = (
            &mut s.query[..tokens * queries],
            &mut s.key[..tokens * keys],
        );
        if let (Some(kind), Some([of_queries, of_keys])) = (c.head_norm, &weights.head_norms) {
            o.normalise_in_place(of_queries, kind.length(c, c.heads), query, &mut s.vector);
            o.normalise_in_place(of_keys, kind.length(c, c.kv_heads), key, &mut s.vector);
        }

        let rope = match weights.scope.rotation {
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
        self.state.kv.write(
            o.kernels,
            weights.number,
            start,
            &s.key[..tokens * keys],
            &s.value[..tokens * values],
        );
    }

    /// x += what the queries of these tokens find in the cache. Their vectors move to the front of x.
    pub(super) fn attend(
        &mut self,
        layer: &Layer,
        weights: &AttentionWeights,
        start: usize,
        tokens: Range<usize>,
    ) {
        let (o, c, cache, s) = (
            self.operations,
            self.config,
            &self.state.kv,
            &mut *self.scratch,
        );
        let rows = tokens.len() * c.heads; // a row is one head of one token
        let query = &s.query[tokens.start * c.query_length()..tokens.end * c.query_length()]; // [rows, key_length]
        let mixed = &mut s.mixed[..rows * c.value_length]; // [rows, value_length]

        let window = weights.scope.window;
        let job = |query, scores| Attention {
            kernels: o.kernels,
            config: c,
            cache,
            layer: weights.number,
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
                    o.kernels.softmax_merge(mixed, &mut state, part);
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

        self.add_mixed(layer, &weights.output, tokens);
    }
}
