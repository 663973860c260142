//! The gated short convolution of LFM2 (arXiv:2511.23404): `out(c · conv(b · x))`, channel by channel.

use super::Place::{Branch, ConvInput};
use super::{Decoder, Steps};
use crate::model::weights::{Layer, ShortConvWeights};
use std::ops::Range;

impl<S: Steps> Decoder<'_, S> {
    /// The state gains what the convolution reads of tokens up to `wanted.end`; the stream += what it makes of the wanted ones.
    pub(super) fn short_conv(
        &mut self,
        layer: &Layer,
        weights: &ShortConvWeights,
        start: usize,
        wanted: Range<usize>,
    ) {
        let input = &weights.input;
        let (norm, x) = (layer.mixer_norm.as_ref(), self.stream(wanted.end));
        let x = self.steps.normalise(norm, x, Branch, &[&input.matrix]);
        self.steps.project(x, [(input, ConvInput)]);
        let gates = ConvInput.view(wanted.end, input.matrix.rows);
        self.steps.write_conv(weights, start, gates);
        if !wanted.is_empty() {
            self.steps.convolve(weights, gates.rows(wanted.clone()));
            self.add_mixed(layer, &weights.output, wanted);
        }
    }
}
