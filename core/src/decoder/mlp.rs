//! The dense feed-forward part (arXiv:2002.05202).

use super::Decoder;
use crate::model::weights::{Layer, MlpWeights, Norm};

impl Decoder<'_> {
    /// x += down(activation of gate(x) and up(x)), reading a normalised x.
    pub(super) fn mlp(&mut self, layer: &Layer, weights: &MlpWeights, tokens: usize) {
        let norm = self.feed_forward_norm(layer);
        let (o, s) = (self.operations, &mut *self.scratch);
        let MlpWeights { gate, up, down } = weights;
        let (d, ff) = (self.config.embedding_length, down.matrix.cols);

        let readers = [&up.matrix, &gate.as_ref().unwrap_or(up).matrix];
        let x = o.normalise(
            norm,
            &s.x[..tokens * d],
            &mut s.branch,
            &mut s.int8,
            &mut s.vector,
            &readers,
        );
        match gate {
            Some(gate) => o.project(
                x,
                [(gate, &mut s.gate), (up, &mut s.up)],
                &mut s.vector,
                &mut s.hooks,
            ),
            None => o.project(x, [(up, &mut s.gate)], &mut s.vector, &mut s.hooks),
        }

        let inner = o.activate(
            &mut s.gate[..tokens * ff],
            &s.up[..tokens * ff],
            &mut s.int8,
            &down.matrix,
        );
        o.project(inner, [(down, &mut s.branch)], &mut s.vector, &mut s.hooks);
        self.add_feed_forward(layer, tokens);
    }

    /// The norm of what the feed-forward part reads.
    pub(super) fn feed_forward_norm<'l>(&self, layer: &'l Layer) -> Option<&'l Norm> {
        if self.config.parallel {
            layer.mixer_norm.as_ref()
        } else {
            layer.feed_forward_norm.as_ref()
        }
    }

    /// x += the feed-forward part's branch, and the mixer's where they are parallel.
    pub(super) fn add_feed_forward(&mut self, layer: &Layer, tokens: usize) {
        let (o, s) = (self.operations, &mut *self.scratch);
        let values = tokens * self.config.embedding_length;
        if self.config.parallel {
            o.kernels.add(&mut s.x[..values], &s.spare[..values]);
        }
        self.join(
            layer.feed_forward_post_norm.as_ref(),
            layer.feed_forward_sum_norm.as_ref(),
            tokens,
        );
    }
}
