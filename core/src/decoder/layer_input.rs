//! Per-layer embeddings, as Gemma 3n and 4 have them: beside the stream, each layer reads a short vector of the token itself.

use super::Place::{Branch, Gate, LayerInput, Up};
use super::{Decoder, Steps};
use crate::model::weights::{LayerInputWeights, TokenInputWeights};
use std::f32::consts::FRAC_1_SQRT_2;
use std::ops::Range;

impl<S: Steps> Decoder<'_, S> {
    /// All layers' inputs = (norm(projection(stream) / √embedding) + table[token] · √length) / √2, each layer's by itself.
    pub(super) fn token_input(&mut self, weights: &TokenInputWeights, ids: &[u32]) {
        let TokenInputWeights {
            table,
            projection,
            norm,
        } = weights;
        let length = table.cols / self.config.layers.len();
        let inputs = LayerInput.view(ids.len(), table.cols); // [tokens, layers, length]
        let x = self.stream(ids.len());
        let x = self.steps.prepare(x, &[&projection.matrix]);
        self.steps.project(x, [(projection, LayerInput)]);
        self.steps.scale(inputs, 1.0 / (x.cols as f32).sqrt());
        self.steps.normalise_in_place(norm, length, inputs);
        let factor = (length as f32).sqrt();
        self.steps.add_looked_up(table, ids, factor, inputs);
        self.steps.scale(inputs, FRAC_1_SQRT_2);
    }

    /// The stream += norm(projection(activation of gate(stream) and this layer's inputs)) of the tokens whose inputs lie in `rows`.
    pub(super) fn layer_input(
        &mut self,
        weights: &LayerInputWeights,
        number: usize,
        rows: Range<usize>,
    ) {
        let LayerInputWeights {
            gate,
            projection,
            norm,
        } = weights;
        let (tokens, length) = (rows.len(), gate.matrix.rows);
        let all = length * self.config.layers.len();
        let x = self.stream(tokens);
        let x = self.steps.prepare(x, &[&gate.matrix]);
        self.steps.project(x, [(gate, Gate)]);
        let inputs = LayerInput.view(rows.end, all).rows(rows);
        let up = Up.view(tokens, length);
        self.steps.copy_columns(inputs, number * length, up);
        let inner = self.steps.activate(tokens, &projection.matrix);
        self.steps.project(inner, [(projection, Branch)]);
        self.add_branch(Branch, Some(norm), None, tokens);
    }
}
