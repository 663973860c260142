//! Linear attention: heads that keep a matrix, in place of a KV cache.

use super::Place::{Beta, Branch, ConvInput, OutputGate, Step};
use super::{Decoder, Steps};
use crate::model::weights::{Layer, LinearAttentionWeights};
use std::ops::Range;

impl<S: Steps> Decoder<'_, S> {
    /// The state takes up the tokens up to `wanted.end`; the stream += output(what the wanted ones read there).
    pub(super) fn linear_attention(
        &mut self,
        layer: &Layer,
        weights: &LinearAttentionWeights,
        start: usize,
        wanted: Range<usize>,
    ) {
        let LinearAttentionWeights {
            input, gate, step, ..
        } = weights;
        let beta = weights.beta.as_ref();
        let readers = [input, gate, step, beta.unwrap_or(step)].map(|linear| &linear.matrix);
        let (norm, x) = (layer.mixer_norm.as_ref(), self.stream(wanted.end));
        let x = self.steps.normalise(norm, x, Branch, &readers);
        self.steps
            .project(x, [(input, ConvInput), (gate, OutputGate), (step, Step)]);
        if let Some(beta) = beta {
            self.steps.project(x, [(beta, Beta)]);
        }
        self.steps.linear_attention(weights, start, wanted.clone());
        if !wanted.is_empty() {
            self.add_mixed(layer, &weights.output, wanted);
        }
    }
}
