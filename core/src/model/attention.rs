//! What queries find in the cache: softmax(query · keysᵀ · scale) · values, for one job's share of the heads.

use super::Config;
use crate::kernels::{KEYS, Kernels, Mix, Scores};
use crate::kv::KvCache;
use crate::scratch::TOGETHER;
use std::ops::Range;

/// One job's share: consecutive rows of `[tokens, heads]`.
pub(super) struct Attention<'a> {
    pub(super) kernels: &'static Kernels,
    pub(super) config: &'a Config,
    pub(super) cache: &'a KvCache,
    pub(super) layer: usize,
    pub(super) window: Option<usize>, // how many of the positions up to its own a query sees; none: all
    pub(super) query: &'a [f32],      // [rows, key_length]
    pub(super) mixed: &'a mut [f32],  // [rows, value_length]: the result
    pub(super) scores: &'a mut [f32], // [TOGETHER, positions in whole blocks]
}

/// Rows that read one head's keys and values: `first`, `first + step`, … Each sees `more` positions more than the one before, or the last `window`
/// of these.
struct Bundle {
    first: usize,
    step: usize,
    count: usize,
    head: usize,
    seen: usize,
    more: usize,
}

impl Attention<'_> {
    /// Heads `heads` of the token at `position`, in whole groups: the heads of a group go together.
    pub(super) fn heads(&mut self, heads: Range<usize>, position: usize) {
        let group = self.config.group();
        for head in heads.clone().step_by(group) {
            for within in (0..group).step_by(TOGETHER) {
                let count = TOGETHER.min(group - within);
                let first = head - heads.start + within;
                self.bundle(&Bundle {
                    first,
                    step: 1,
                    count,
                    head: head / group,
                    seen: position + 1,
                    more: 0,
                });
            }
        }
    }

    /// All heads of the tokens at `positions`, of a sequence of `end` positions so far: neighbouring tokens' queries of one head go together.
    pub(super) fn tokens(&mut self, positions: Range<usize>, end: usize) {
        let (heads, group) = (self.config.heads, self.config.group());
        for token in (0..positions.len()).step_by(TOGETHER) {
            let count = TOGETHER.min(positions.len() - token);
            let (seen, more) = if self.config.causal {
                (positions.start + token + 1, 1)
            } else {
                (end, 0)
            };
            for head in 0..heads {
                let first = token * heads + head;
                self.bundle(&Bundle {
                    first,
                    step: heads,
                    count,
                    head: head / group,
                    seen,
                    more,
                });
            }
        }
    }

    fn bundle(&mut self, bundle: &Bundle) {
        let &Bundle {
            first,
            step,
            count,
            head,
            seen,
            more,
        } = bundle;
        let Config {
            key_length,
            value_length,
            ..
        } = *self.config;
        let longest = seen + (count - 1) * more;
        // Whole blocks that no row's window reaches are left out.
        let left = |seen: usize| self.window.map_or(0, |window| seen.saturating_sub(window));
        let start = left(seen) / KEYS * KEYS;
        let stride = longest.next_multiple_of(KEYS) - start;
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
        let (kernels, layer) = (self.kernels, self.layer);
        self.cache
            .scores(kernels, layer, head, start..longest, scores);
        for (row, weights) in self.scores.chunks_exact_mut(stride).take(count).enumerate() {
            let seen = seen + row * more;
            let (weights, later) = weights.split_at_mut(seen - start);
            let (earlier, weights) = weights.split_at_mut(left(seen) - start);
            if let Some(cap) = self.config.attention_cap {
                self.kernels.soft_cap(weights, cap);
            }
            self.kernels.softmax(weights);
            earlier.fill(0.0);
            later.fill(0.0);
        }
        let mix = Mix {
            weights: self.scores,
            weight_stride: stride,
            count,
            positions: longest - start,
            head_dim: value_length,
            values: &[],
            out: &mut self.mixed[first * value_length..],
            out_stride: step * value_length,
        };
        self.cache.mix(kernels, layer, head, start, mix);
    }
}
