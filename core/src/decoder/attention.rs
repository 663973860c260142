//! Attention: queries, keys and values of the tokens, and what the queries find in the cache.

use super::Place::{Branch, GatedQuery, Key, Mixed, OutputGate, Query, Value};
use super::{Decoder, Steps};
use crate::model::Rotation;
use crate::model::weights::{AttentionWeights, Layer};
use std::ops::Range;

impl<S: Steps> Decoder<'_, S> {
    /// The cache gains the keys and values of tokens up to `wanted.end`; the stream += output(what the queries of the wanted ones find there).
    pub(super) fn attention(
        &mut self,
        layer: &Layer,
        weights: &AttentionWeights,
        start: usize,
        wanted: Range<usize>,
    ) {
        let (c, tokens) = (self.config, wanted.end);
        let AttentionWeights {
            query, key, value, ..
        } = weights;
        let readers = [&query.matrix, &key.matrix, &value.matrix];
        let (norm, x) = (layer.mixer_norm.as_ref(), self.stream(tokens));
        let x = self.steps.normalise(norm, x, Branch, &readers);
        let queries = if c.gated_attention { GatedQuery } else { Query };
        self.steps
            .project(x, [(query, queries), (key, Key), (value, Value)]);
        if c.gated_attention {
            self.steps.split_gated_query(tokens);
        }

        let q = Query.view(tokens, c.query_length());
        let k = Key.view(tokens, c.keys_length());
        let v = Value.view(tokens, c.values_length());
        if let (Some(kind), Some([of_queries, of_keys])) = (c.head_norm, &weights.head_norms) {
            self.steps
                .normalise_in_place(of_queries, kind.length(c, c.heads), q);
            self.steps
                .normalise_in_place(of_keys, kind.length(c, c.kv_heads), k);
        }
        match weights.scope.rotation {
            Rotation::None => {}
            Rotation::Global => self.steps.rotate(0, q, k),
            Rotation::Local => self.steps.rotate(1, q, k),
        }
        self.steps.write_kv(weights.number, start, k, v);
        if !wanted.is_empty() {
            let (window, first) = (weights.scope.window, start + wanted.start);
            let q = q.rows(wanted.clone());
            self.steps.attend(weights.number, window, first, q);
            if c.gated_attention {
                let length = c.mixed_length();
                let gate = OutputGate.view(tokens, length).rows(wanted.clone());
                let mixed = Mixed.view(wanted.len(), length);
                self.steps.multiply_by_sigmoid(mixed, gate);
            }
            self.add_mixed(layer, &weights.output, wanted);
        }
    }
}
