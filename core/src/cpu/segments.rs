//! What queries find in the cache: softmax(query · keysᵀ · scale) · values.
//!
//! The positions are taken in segments, and what a query finds in one is folded into what it found in those before: the sums are rescaled when a
//! greater score turns up (Milakov and Gimelshein 2018, arXiv:1805.02867). So the scores take little room, keys and values are read once
//! while they are near, and one token's segments can be shared out to threads. Segments begin at the same positions for every query: which tokens are
//! evaluated together changes no bit.

use super::scratch::TOGETHER;
use crate::kernels::{KEYS, Kernels, Scores, WeightedSum};
use crate::model::{Config, Heads};
use crate::state::{KvCache, SEGMENT};
use std::ops::Range;

/// Values of what one query finds in one segment: its sum of values under their weights, the greatest score, and the sum of the weights.
pub(super) fn partial_length(heads: &Heads) -> usize {
    heads.value_length + 2
}

/// What a job reads, and its room.
pub(super) struct Attention<'a> {
    pub(super) kernels: &'static Kernels,
    pub(super) config: &'a Config,
    pub(super) cache: &'a KvCache,
    pub(super) layer: usize, // its cache's number
    pub(super) heads: Heads,
    pub(super) window: Option<usize>, // how many of the positions up to its own a query sees; none: all
    pub(super) query: &'a [f32],      // [rows, key_length]
    pub(super) scores: &'a mut [f32], // [TOGETHER, SEGMENT]
}

/// Rows of queries that read one head's keys and values: `first`, `first + step`, … Each sees `more` positions more than the one before, or the
/// last `window` of these.
struct Bundle {
    first: usize,
    step: usize,
    count: usize,
    head: usize,
    seen: usize,
    more: usize,
}

/// The segments that hold `positions`.
pub(super) fn segments(positions: Range<usize>) -> Range<usize> {
    positions.start / SEGMENT..positions.end.div_ceil(SEGMENT)
}

/// The positions that a query sees of the first `seen` ones.
pub(super) fn visible(window: Option<usize>, seen: usize) -> Range<usize> {
    window.map_or(0, |window| seen.saturating_sub(window))..seen
}

impl Attention<'_> {
    /// What the queries of head `head` of keys and values find in `segment`, of one token that sees `seen` positions. `partials`: `[group, partial]`.
    pub(super) fn segment_of_one(
        &mut self,
        head: usize,
        segment: usize,
        seen: usize,
        partials: &mut [f32],
    ) {
        let group = self.heads.group();
        let bundles = partials.chunks_mut(TOGETHER * partial_length(&self.heads));
        for (within, partials) in (0..group).step_by(TOGETHER).zip(bundles) {
            let bundle = Bundle {
                first: head * group + within,
                step: 1,
                count: TOGETHER.min(group - within),
                head,
                seen,
                more: 0,
            };
            self.segment(&bundle, segment, partials);
        }
    }

    /// All heads of the tokens at `positions`, of a sequence of `end` positions so far: neighbouring tokens' queries of one head go together.
    /// `mixed`: `[tokens, heads, value_length]`, the result; `states`: `[tokens, heads]`; `partials`: `[TOGETHER, partial]`.
    pub(super) fn tokens(
        &mut self,
        positions: Range<usize>,
        end: usize,
        mixed: &mut [f32],
        states: &mut [[f32; 2]],
        partials: &mut [f32],
    ) {
        let Heads {
            queries: heads,
            value_length,
            ..
        } = self.heads;
        let causal = self.config.causal;
        let (kernels, group) = (self.kernels, self.heads.group());
        mixed.fill(0.0);
        states.fill([f32::NEG_INFINITY, 0.0]);
        let seen = |token: usize| {
            if causal {
                positions.start + token + 1
            } else {
                end
            }
        };
        let first = visible(self.window, seen(0)).start;
        for segment in segments(first..seen(positions.len() - 1)) {
            for head in 0..heads {
                for token in (0..positions.len()).step_by(TOGETHER) {
                    let bundle = Bundle {
                        first: token * heads + head,
                        step: heads,
                        count: TOGETHER.min(positions.len() - token),
                        head: head / group,
                        seen: seen(token),
                        more: usize::from(causal),
                    };
                    self.segment(&bundle, segment, partials);
                    let rows = (bundle.first..).step_by(heads).take(bundle.count);
                    for (row, partial) in rows.zip(partials.chunks_exact(value_length + 2)) {
                        let mixed = &mut mixed[row * value_length..][..value_length];
                        kernels.softmax_merge(mixed, &mut states[row], partial);
                    }
                }
            }
        }
        for (mixed, [_, sum]) in mixed.chunks_exact_mut(value_length).zip(states) {
            kernels.scale(mixed, 1.0 / *sum);
        }
    }

    /// What the bundle finds in `segment`, `[count, partial]`.
    fn segment(&mut self, bundle: &Bundle, segment: usize, partials: &mut [f32]) {
        let &Bundle {
            first,
            step,
            count,
            head,
            seen,
            more,
        } = bundle;
        let Heads {
            key_length,
            value_length,
            ..
        } = self.heads;
        let (kernels, layer) = (self.kernels, self.layer);
        let partial = value_length + 2;
        let partials = &mut partials[..count * partial];
        // Whole blocks that no row's window reaches are left out.
        let start = visible(self.window, seen).start / KEYS * KEYS;
        let start = start.max(segment * SEGMENT);
        let longest = (seen + (count - 1) * more).min((segment + 1) * SEGMENT);
        if start >= longest {
            partials.fill(0.0); // a sum of 0 counts for nothing
            return;
        }
        let stride = (longest - start).next_multiple_of(KEYS);
        let scores = Scores {
            queries: &self.query[first * key_length..],
            query_stride: step * key_length,
            count,
            head_dim: key_length,
            keys: &[],
            scale: self.config.attention_scale,
            out: self.scores,
            out_stride: stride,
        };
        self.cache
            .scores(kernels, layer, head, start..longest, scores);
        let rows = self.scores.chunks_exact_mut(stride).take(count);
        for ((row, weights), partial) in rows.enumerate().zip(partials.chunks_exact_mut(partial)) {
            let sees = visible(self.window, seen + row * more);
            let [from, to] = [sees.start, sees.end].map(|at| at.clamp(start, longest) - start);
            if let Some(cap) = self.config.attention_cap {
                kernels.soft_cap(&mut weights[from..to], cap);
            }
            let [most, sum] = kernels.softmax_exp(&mut weights[from..to]);
            partial[value_length..].copy_from_slice(&[most, sum]);
            weights[..from].fill(0.0);
            weights[to..].fill(0.0);
        }
        let weighted_sum = WeightedSum {
            weights: self.scores,
            weight_stride: stride,
            count,
            positions: longest - start,
            head_dim: value_length,
            values: &[],
            out: partials,
            out_stride: partial,
        };
        self.cache
            .weighted_sum(kernels, layer, head, start, weighted_sum);
    }
}
