//! Rotation, and what queries find in the cache.

use super::Cpu;
use super::parallel::{each, rows_per_job};
use super::scratch::TOGETHER;
use super::segments::{Attention, partial_length, segments, visible};
use crate::decoder::{Place, View};
use crate::model::{Rope, Scope};
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
    s.first_angle = positions.start;
    let mut first = 0;
    for (turns, rope) in model.weights().turns.iter().zip(c.ropes()) {
        let frequencies = turns.of(rope, state.context()); // [pairs]
        let turns = positions.clone().flat_map(|position| {
            frequencies
                .iter()
                .map(move |frequency| position as f32 * frequency)
        });
        let cosine = s.cosine[first..].iter_mut();
        for ((cosine, sine), turn) in cosine.zip(&mut s.sine[first..]).zip(turns) {
            // In f64, so that platforms' libraries agree on the f32.
            let (sin, cos) = f64::from(turn).sin_cos();
            *cosine = cos as f32 * rope.attention_factor;
            *sine = sin as f32 * rope.attention_factor;
        }
        first += s.tokens * (rope.dimensions / 2);
    }
}

/// Rotates heads of `length` values by [`angles`].
pub(super) fn rotate(cpu: &mut Cpu, rope: usize, start: usize, length: usize, x: View) {
    let (o, s, _) = cpu.split();
    let pairs = |rope: &Rope| rope.dimensions / 2;
    let before: usize = o.config.ropes().take(rope).map(pairs).sum();
    let Some(rope) = o.config.ropes().nth(rope) else {
        return;
    };
    let (pairs, layout) = (pairs(rope), rope.layout);
    let per = rows_per_job(o.pool, x.rows, x.cols * size_of::<f32>());
    let first = s.tokens * before + (start - s.first_angle) * pairs;
    let angles = s.cosine[first..]
        .chunks(per * pairs)
        .zip(s.sine[first..].chunks(per * pairs));
    let parts = s.places.get_mut(x).chunks_mut(per * x.cols);
    each(o.pool, parts.zip(angles), |_, (part, (cosine, sine))| {
        let angles = cosine.chunks_exact(pairs).zip(sine.chunks_exact(pairs));
        for (row, (cosine, sine)) in part.chunks_exact_mut(x.cols).zip(angles) {
            o.kernels.rope(row, length, cosine, sine, layout);
        }
    });
}

/// [`Place::Mixed`] = what these queries find in the cache.
pub(super) fn attend(cpu: &mut Cpu, layer: usize, scope: &Scope, start: usize, query: View) {
    let (o, s, state) = cpu.split();
    let (cache, tokens) = (&state.kv, query.rows);
    let &Scope { heads, window, .. } = scope;
    let (query, [mixed]) = s.places.split(query, [Place::Mixed]);
    let mixed = &mut mixed[..tokens * heads.mixed_length()]; // [tokens, heads, value_length]

    let end = start + tokens;
    let job = |query, scores| Attention {
        kernels: o.kernels,
        config: o.config,
        cache,
        layer,
        heads,
        window,
        end,
        query,
        scores,
    };
    let scores = s.scores.chunks_exact_mut(TOGETHER * SEGMENT);
    let partial = partial_length(&heads);
    let position_bytes = cache.position_bytes(layer);
    if tokens == 1 {
        // A job takes some segments of some heads; what they found is folded afterwards.
        let segments = segments(visible(window, end));
        let (count, group) = (segments.len(), heads.group());
        let bytes = (end - segments.start * SEGMENT).min(SEGMENT) * position_bytes;
        let per = rows_per_job(o.pool, heads.kv * count, bytes);
        let partials = &mut s.partials[..heads.kv * count * group * partial]; // [kv_heads, segments, group, partial]
        let jobs = partials.chunks_mut(per * group * partial).zip(scores);
        each(o.pool, jobs, |lane, (partials, scores)| {
            let mut attention = job(query, scores);
            let units = partials.chunks_exact_mut(group * partial);
            for (unit, partials) in (lane * per..).zip(units) {
                let (head, segment) = (unit / count, segments.start + unit % count);
                attention.segment_of_one(head, segment, partials);
            }
        });
        for (head, mixed) in mixed.chunks_exact_mut(heads.value_length).enumerate() {
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
    let bytes = end * position_bytes * heads.queries;
    let per = rows_per_job(o.pool, tokens, bytes);
    let rows = query
        .chunks(per * heads.query_length())
        .zip(mixed.chunks_mut(per * heads.mixed_length()))
        .zip(s.states.chunks_mut(per * heads.queries));
    let room = scores.zip(s.partials.chunks_exact_mut(TOGETHER * partial));
    each(
        o.pool,
        rows.zip(room),
        |lane, (((query, mixed), states), (scores, partials))| {
            let states = &mut states[..mixed.len() / heads.value_length];
            let first = start + lane * per;
            let positions = first..first + query.len() / heads.query_length();
            job(query, scores).tokens(positions, mixed, states, partials);
        },
    );
}
