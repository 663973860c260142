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
    pub(super) window: Option<usize>, // how many of the positions up to its own a query sees, in an encoder as many after it too; none: all
    pub(super) end: usize,            // positions of the sequence so far
    pub(super) query: &'a [f32],      // [rows, key_length]
    pub(super) scores: &'a mut [f32], // [TOGETHER, SEGMENT]
}

/// Rows of queries that read one head's keys and values: `first`, `first + step`, … They are of the token at `position`, or each of the next one.
struct Bundle {
    first: usize,
    step: usize,
    count: usize,
    head: usize,
    position: usize,
    next: usize,
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
    /// The positions that the query of a token at `position` sees.
    fn sees(&self, position: usize) -> Range<usize> {
        let Attention { window, end, .. } = *self;
        let seen = visible(window, position + 1);
        match window {
            _ if self.config.causal => seen,
            None => 0..end,
            Some(window) => seen.start..end.min(position + window),
        }
    }

    /// What the queries of head `head` of keys and values find in `segment`, of the last token alone. `partials`: `[group, partial]`.
    pub(super) fn segment_of_one(&mut self, head: usize, segment: usize, partials: &mut [f32]) {
        let group = self.heads.group();
        let bundles = partials.chunks_mut(TOGETHER * partial_length(&self.heads));
        for (within, partials) in (0..group).step_by(TOGETHER).zip(bundles) {
            let bundle = Bundle {
                first: head * group + within,
                step: 1,
                count: TOGETHER.min(group - within),
                head,
                position: self.end - 1,
                next: 0,
            };
            self.segment(&bundle, segment, partials);
        }
    }

    /// All heads of the tokens at `positions`: neighbouring tokens' queries of one head go together.
    /// `mixed`: `[tokens, heads, value_length]`, the result; `states`: `[tokens, heads]`; `partials`: `[TOGETHER, partial]`.
    pub(super) fn tokens(
        &mut self,
        positions: Range<usize>,
        mixed: &mut [f32],
        states: &mut [[f32; 2]],
        partials: &mut [f32],
    ) {
        let Heads {
            queries: heads,
            value_length,
            ..
        } = self.heads;
        let (kernels, group) = (self.kernels, self.heads.group());
        mixed.fill(0.0);
        states.fill([f32::NEG_INFINITY, 0.0]);
        let last = self.sees(positions.end - 1);
        for segment in segments(self.sees(positions.start).start..last.end) {
            for head in 0..heads {
                for token in (0..positions.len()).step_by(TOGETHER) {
                    let bundle = Bundle {
                        first: token * heads + head,
                        step: heads,
                        count: TOGETHER.min(positions.len() - token),
                        head: head / group,
                        position: positions.start + token,
                        next: 1,
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
            position,
            next,
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
        let start = self.sees(position).start / KEYS * KEYS;
        let start = start.max(segment * SEGMENT);
        let longest = self.sees(position + (count - 1) * next).end;
        let longest = longest.min((segment + 1) * SEGMENT);
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
        for (row, partial) in partials.chunks_exact_mut(partial).enumerate() {
            let sees = self.sees(position + row * next);
            let weights = &mut self.scores[row * stride..][..stride];
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
