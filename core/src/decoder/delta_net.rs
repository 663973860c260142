//! The gated delta net (arXiv:2412.06464).

use super::Place::{Branch, ConvInput, DeltaBeta, DeltaStep, OutputGate};
use super::{Decoder, Steps};
use crate::model::weights::{DeltaNetWeights, Layer};
use std::ops::Range;

impl<S: Steps> Decoder<'_, S> {
    /// The state takes up the tokens up to `wanted.end`; the stream += output(what the wanted ones read there).
    pub(super) fn delta_net(
        &mut self,
        layer: &Layer,
        weights: &DeltaNetWeights,
        start: usize,
        wanted: Range<usize>,
    ) {
        let DeltaNetWeights {
            input,
            gate,
            step,
            beta,
            ..
        } = weights;
        let readers = [input, gate, step, beta].map(|linear| &linear.matrix);
        let (norm, x) = (layer.mixer_norm.as_ref(), self.stream(wanted.end));
        let x = self.steps.normalise(norm, x, Branch, &readers);
        self.steps.project(
            x,
            [
                (input, ConvInput),
                (gate, OutputGate),
                (step, DeltaStep),
                (beta, DeltaBeta),
            ],
        );
        self.steps.delta_net(weights, start, wanted.clone());
        if !wanted.is_empty() {
            self.add_mixed(layer, &weights.output, wanted);
        }
    }
}
