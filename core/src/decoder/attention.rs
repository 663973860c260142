//! Attention: queries, keys and values of the tokens, and what the queries find in the cache.

use super::Place::{Branch, GatedQuery, Key, Mixed, OutputGate, Query, Value};
use super::{Decoder, Steps, View};
use crate::model::Rotation;
use crate::model::weights::{AttentionWeights, KeyValueWeights, Layer};
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
        let (c, heads, tokens) = (self.config, weights.scope.heads, wanted.end);
        let query = &weights.query;
        let queries = if c.gated_attention { GatedQuery } else { Query };
        let (norm, x) = (layer.mixer_norm.as_ref(), self.stream(tokens));
        if let Some(KeyValueWeights { key, value, .. }) = &weights.key_value {
            let of_values = value.as_ref().unwrap_or(key);
            let readers = [&query.matrix, &key.matrix, &of_values.matrix];
            let x = self.steps.normalise(norm, x, Branch, &readers);
            match value {
                Some(value) => self
                    .steps
                    .project(x, [(query, queries), (key, Key), (value, Value)]),
                None => self.steps.project(x, [(query, queries), (key, Key)]),
            }
        } else {
            let x = self.steps.normalise(norm, x, Branch, &[&query.matrix]);
            self.steps.project(x, [(query, queries)]);
        }
        if c.gated_attention {
            self.steps.split_gated_query(&heads, tokens);
        }

        let q = Query.view(tokens, heads.query_length());
        if let (Some(kind), Some(norm)) = (c.head_norm, &weights.query_norm) {
            let group = kind.length(heads.key_length, heads.queries);
            self.steps.normalise_in_place(norm, group, q);
        }
        let own = weights.key_value.as_ref();
        let own = own.map(|own| self.keys_and_values(weights, own, tokens));
        let rope = match weights.scope.rotation {
            Rotation::None => None,
            Rotation::Global => Some(0),
            Rotation::Local => Some(1),
        };
        if let Some(rope) = rope {
            for x in std::iter::once(q).chain(own.map(|[k, _]| k)) {
                self.steps.rotate(rope, start, heads.key_length, x);
            }
        }
        if let Some([k, v]) = own {
            self.steps.write_kv(weights.number, start, k, v);
        }
        if !wanted.is_empty() {
            let first = start + wanted.start;
            let q = q.rows(wanted.clone());
            self.steps.attend(weights.number, &weights.scope, first, q);
            if c.gated_attention {
                let length = heads.mixed_length();
                let gate = OutputGate.view(tokens, length).rows(wanted.clone());
                let mixed = Mixed.view(wanted.len(), length);
                self.steps.multiply_by_sigmoid(mixed, gate);
            }
            self.add_mixed(layer, &weights.output, wanted);
        }
    }

    /// Keys and values, normalised.
    fn keys_and_values(
        &mut self,
        weights: &AttentionWeights,
        own: &KeyValueWeights,
        tokens: usize,
    ) -> [View; 2] {
        let (c, heads) = (self.config, weights.scope.heads);
        let k = Key.view(tokens, heads.keys_length());
        let v = Value.view(tokens, heads.values_length());
        if own.value.is_none() {
            self.steps.copy_columns(k, 0, v);
        }
        if let (Some(kind), Some(norm)) = (c.head_norm, &own.key_norm) {
            let group = kind.length(heads.key_length, heads.kv);
            self.steps.normalise_in_place(norm, group, k);
        }
        if c.value_norm {
            self.steps.divide_by_rms(heads.value_length, v);
        }
        [k, v]
    }
}
