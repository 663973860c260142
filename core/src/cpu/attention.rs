//! Rotation, and what queries find in the cache.

use super::Cpu;
use super::parallel::{each, rows_per_job};
use super::scratch::TOGETHER;
use super::segments::{Attention, partial_length, segments, visible};
use crate::decoder::{Place, View};
use crate::state::SEGMENT;
use std::ops::Range;

/// How far each pair of a head turns at each of these positions, for each rotary embedding.
pub(super) fn angles(cpu: &mut Cpu, positions: Range<usize>) {
    let Cpu {
        model,
        state,
        scratch: s,
        ..
    } = cpu;
    let c = model.config();
    let all = s.tokens * (c.rope.dimensions / 2); // angles of one embedding
    for (number, (turns, rope)) in model.weights().turns.iter().zip(c.ropes()).enumerate() {
        let frequencies = turns.of(rope, state.context()); // [pairs]
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

/// Rotates queries and keys by [`angles`].
pub(super) fn rotate(cpu: &mut Cpu, rope: usize, query: View, key: View) {
    let (o, s, _) = cpu.split();
    let (c, pairs) = (o.config, o.config.rope.dimensions / 2);
    let (queries, keys) = (query.cols, key.cols);
    let per = rows_per_job(o.pool, query.rows, (queries + keys) * size_of::<f32>());
    let [query, key] = s.places.both_mut(query, key);
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
                let (length, order) = (c.key_length, c.rope.layout);
                o.kernels.rope(query, length, cosine, sine, order);
                o.kernels.rope(key, length, cosine, sine, order);
            }
        },
    );
}

/// [`Place::Mixed`] = what these queries find in the cache.
pub(super) fn attend(
    cpu: &mut Cpu,
    layer: usize,
    window: Option<usize>,
    start: usize,
    query: View,
) {
    let (o, s, state) = cpu.split();
    let (c, cache, tokens) = (o.config, &state.kv, query.rows);
    let (query, [mixed]) = s.places.split(query, [Place::Mixed]);
    let mixed = &mut mixed[..tokens * c.mixed_length()]; // [tokens, heads, value_length]

    let end = start + tokens;
    let job = |query, scores| Attention {
        kernels: o.kernels,
        config: c,
        cache,
        layer,
        window,
        end,
        query,
        scores,
    };
    let scores = s.scores.chunks_exact_mut(TOGETHER * SEGMENT);
    let partial = partial_length(c);
    let position_bytes = cache.position_bytes();
    if tokens == 1 {
        // A job takes some segments of some heads; what they found is folded afterwards.
        let segments = segments(visible(window, end));
        let (count, group) = (segments.len(), c.group());
        let bytes = (end - segments.start * SEGMENT).min(SEGMENT) * position_bytes;
        let per = rows_per_job(o.pool, c.kv_heads * count, bytes);
        let partials = &mut s.partials[..c.kv_heads * count * group * partial]; // [kv_heads, segments, group, partial]
        let jobs = partials.chunks_mut(per * group * partial).zip(scores);
        each(o.pool, jobs, |lane, (partials, scores)| {
            let mut attention = job(query, scores);
            let units = partials.chunks_exact_mut(group * partial);
            for (unit, partials) in (lane * per..).zip(units) {
                let (head, segment) = (unit / count, segments.start + unit % count);
                attention.segment_of_one(head, segment, partials);
            }
        });
        for (head, mixed) in mixed.chunks_exact_mut(c.value_length).enumerate() {
            let mut state = [f32::NEG_INFINITY, 0.0];
            let first = head / group * count * group + head % group;
            let partials = partials.chunks_exact(partial).skip(first);
            for partial in partials.step_by(group).take(count) {
                o.kernels.softmax_merge(mixed, &mut state, partial);
            }
            o.kernels.scale(mixed, 1.0 / state[1]);
        }
        return;
    }
    let bytes = end * position_bytes * c.heads;
    let per = rows_per_job(o.pool, tokens, bytes);
    let rows = query
        .chunks(per * c.query_length())
        .zip(mixed.chunks_mut(per * c.mixed_length()))
        .zip(s.states.chunks_mut(per * c.heads));
    let room = scores.zip(s.partials.chunks_exact_mut(TOGETHER * partial));
    each(
        o.pool,
        rows.zip(room),
        |lane, (((query, mixed), states), (scores, partials))| {
            let states = &mut states[..mixed.len() / c.value_length];
            let first = start + lane * per;
            let positions = first..first + query.len() / c.query_length();
            job(query, scores).tokens(positions, mixed, states, partials);
        },
    );
}
