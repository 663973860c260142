//! The mixture of experts (arXiv:1701.06538): each token takes some of many feed-forward parts.

use super::Place::{Branch, ExpertSum, Router};
use super::{Decoder, Steps};
use crate::model::weights::{ExpertsWeights, Layer};

impl<S: Steps> Decoder<'_, S> {
    /// The stream += the weighted sum of what its experts make of a normalised x.
    pub(super) fn experts(&mut self, layer: &Layer, weights: &ExpertsWeights, tokens: usize) {
        let router = &weights.router;
        let (norm, x) = (self.feed_forward_norm(layer), self.stream(tokens));
        let x = self.steps.normalise(norm, x, Branch, &[&router.matrix]);
        self.steps.project(x, [(router, Router)]);
        let scores = Router.view(tokens, weights.spec.count);
        self.steps.mix_experts(weights, x, scores);
        self.add_feed_forward(layer, ExpertSum, tokens);
    }
}
