//! Which matrices which tokens are multiplied with.

use super::{FeedForwardWeights, Layer, Matrix, MixerWeights, MlpWeights, Weights};

impl Weights {
    /// Every matrix that all tokens are multiplied with.
    pub(crate) fn multiplied(&self) -> impl Iterator<Item = &Matrix> {
        let input = self
            .token_input
            .iter()
            .map(|input| &input.projection.matrix);
        let layers = self.layers.iter().flat_map(Layer::multiplied);
        input.chain(layers).chain([&self.output])
    }

    /// The layers up to the last one that keeps state of what it evaluates: those after it read what these keep.
    pub(crate) fn stateful_layers(&self) -> usize {
        let reads_only = |layer: &Layer| match &layer.mixer {
            MixerWeights::Attention(attention) => attention.key_value.is_none(),
            _ => false,
        };
        let last = self.layers.iter().rposition(|layer| !reads_only(layer));
        last.map_or(0, |last| last + 1)
    }

    /// Of the matrices that all tokens are multiplied with, those that a prompt needs for its last token only: once the last state is stored, the others are
    /// left out.
    pub(crate) fn of_last_token(&self) -> impl Iterator<Item = &Matrix> {
        let (stateful, rest) = self.layers.split_at(self.stateful_layers());
        let last = stateful.last().into_iter().flat_map(Layer::after_mixing);
        let rest = rest.iter().flat_map(Layer::multiplied);
        last.chain(rest).chain([&self.output])
    }

    /// The experts' matrices, each with the share of tokens that are multiplied with it.
    pub(crate) fn of_experts(&self) -> impl Iterator<Item = (&Matrix, f64)> {
        self.layers.iter().flat_map(|layer| {
            let (experts, share) = match &layer.feed_forward {
                FeedForwardWeights::Dense(_) => (&[][..], 0.0),
                FeedForwardWeights::Experts(all) => {
                    let share = all.spec.used as f64 / all.spec.count as f64;
                    (&all.experts[..], share)
                }
            };
            let matrices = experts.iter().flat_map(MlpWeights::linears);
            matrices.map(move |linear| (&linear.matrix, share))
        })
    }
}
