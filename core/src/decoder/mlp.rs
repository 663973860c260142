//! The dense feed-forward part (arXiv:2002.05202).

use super::Place::{self, Branch, Gate, Parallel, Up};
use super::{Decoder, Steps, View};
use crate::model::weights::{Layer, Matrix, MlpWeights, Norm};

impl<S: Steps> Decoder<'_, S> {
    /// The stream += down(activation of gate(x) and up(x)) of a normalised x.
    pub(super) fn mlp(&mut self, layer: &Layer, weights: &MlpWeights, tokens: usize) {
        let (norm, x) = (self.feed_forward_norm(layer), self.stream(tokens));
        let x = self.steps.normalise(norm, x, Branch, &readers(weights));
        feed_forward(self.steps, weights, x, Branch);
        self.add_feed_forward(layer, Branch, tokens);
    }

    /// The norm of what the feed-forward part reads.
    pub(super) fn feed_forward_norm<'l>(&self, layer: &'l Layer) -> Option<&'l Norm> {
        if self.config.parallel {
            layer.mixer_norm.as_ref()
        } else {
            layer.feed_forward_norm.as_ref()
        }
    }

    /// The stream += the feed-forward part's branch, and the mixer's where they are parallel.
    pub(super) fn add_feed_forward(&mut self, layer: &Layer, branch: Place, tokens: usize) {
        if self.config.parallel {
            self.steps.add(self.stream(tokens), Parallel);
        }
        let (post, sum) = (&layer.feed_forward_post_norm, &layer.feed_forward_sum_norm);
        self.add_branch(branch, post.as_ref(), sum.as_ref(), tokens);
    }
}

/// The matrices that read the part's input.
pub(crate) fn readers(weights: &MlpWeights) -> [&Matrix; 2] {
    let MlpWeights { gate, up, .. } = weights;
    [&up.matrix, &gate.as_ref().unwrap_or(up).matrix]
}

/// `to` = down(activation of gate(x) and up(x)), of an `x` prepared for [`readers`].
pub(crate) fn feed_forward<S: Steps>(steps: &mut S, weights: &MlpWeights, x: View, to: Place) {
    let MlpWeights { gate, up, down } = weights;
    match gate {
        Some(gate) => steps.project(x, [(gate, Gate), (up, Up)]),
        None => steps.project(x, [(up, Gate)]),
    }
    let inner = steps.activate(x.rows, &down.matrix);
    steps.project(inner, [(down, to)]);
}
