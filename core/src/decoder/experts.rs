//! The mixture of experts (arXiv:1701.06538): each token takes some of many feed-forward parts.

use super::Place::{Branch, ExpertOutput, ExpertSum, Router, SharedGate};
use super::{Decoder, Steps, View, feed_forward, readers};
use crate::model::weights::{ExpertsWeights, Layer, SharedExpertWeights};

impl<S: Steps> Decoder<'_, S> {
    /// The stream += the weighted sum of what its experts make of a normalised x, and what the expert makes that all tokens take.
    pub(super) fn experts(&mut self, layer: &Layer, weights: &ExpertsWeights, tokens: usize) {
        let router = &weights.router;
        let (norm, x) = (self.feed_forward_norm(layer), self.stream(tokens));
        let x = self.steps.normalise(norm, x, Branch, &[&router.matrix]);
        self.steps.project(x, [(router, Router)]);
        let scores = Router.view(tokens, weights.spec.count);
        self.steps.mix_experts(weights, x, scores);
        if let Some(shared) = &weights.shared {
            self.add_shared_expert(shared, x);
        }
        self.add_feed_forward(layer, ExpertSum, tokens);
    }

    fn add_shared_expert(&mut self, shared: &SharedExpertWeights, x: View) {
        if let Some(gate) = &shared.gate {
            let x = self.steps.prepare(x, &[&gate.matrix]);
            self.steps.project(x, [(gate, SharedGate)]);
        }
        let x = self.steps.prepare(x, &readers(&shared.mlp));
        feed_forward(self.steps, &shared.mlp, x, ExpertOutput);
        if shared.gate.is_some() {
            let out = ExpertOutput.view(x.rows, x.cols);
            let gate = SharedGate.view(x.rows, 1);
            self.steps.multiply_by_sigmoid(out, gate);
        }
        self.steps.add(ExpertSum.view(x.rows, x.cols), ExpertOutput);
    }
}
