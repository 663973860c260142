//! The forward pass: tokens in, logits or the encoder's vectors out.
//!
//! Each token's vector runs through the layers in the residual stream; in each, a mixer (attention, a short convolution, linear attention) and the feed-forward part read a
//! normalised copy and add what they found.
//! (Vaswani et al. 2017, arXiv:1706.03762; Touvron et al. 2023, arXiv:2302.13971.) What else a family does, norms in other places, scales, caps,
//! windows, is in the config and in which tensors a layer has; what is off costs nothing. Who computes it is [`Steps`].

mod attention;
mod experts;
mod layer_input;
mod linear_attention;
mod mlp;
mod short_conv;
mod steps;
mod work;

pub(crate) use mlp::{feed_forward, readers};
pub(crate) use steps::{Place, Steps, View};

use crate::cancel::Cancellation;
use crate::model::weights::{FeedForwardWeights, Layer, Linear, MixerWeights, Norm};
use crate::model::{Config, Model};
use crate::{Error, Result};
use Place::{Branch, Logits, Mixed, Parallel, Stream};
use std::ops::Range;

/// Which positions' logits are wanted after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outputs {
    None,
    Last,
    All,
}

/// A model, and who carries out its steps.
pub(crate) struct Decoder<'a, S> {
    model: &'a Model,
    config: &'a Config,
    steps: &'a mut S,
    /// The position from which tokens are of a pair's second text.
    second: usize,
}

impl<'a, S: Steps> Decoder<'a, S> {
    pub(crate) fn new(model: &'a Model, steps: &'a mut S) -> Self {
        Decoder {
            model,
            config: model.config(),
            steps,
            second: usize::MAX,
        }
    }

    /// The same, for a pair of texts of which the second begins at this position.
    pub(crate) fn with_second(self, position: usize) -> Self {
        Decoder {
            second: position,
            ..self
        }
    }

    /// Evaluates `ids`, at most as many as go together, at positions `start` and after. Afterwards the state has them, and the wanted positions' vectors are
    /// the first rows of the stream.
    ///
    /// # Errors
    /// [`Error::Cancelled`], at the latest one layer after it was asked for; [`Error::FileChanged`] likewise. The state before `start` is untouched.
    pub(crate) fn run(
        &mut self,
        ids: &[u32],
        start: usize,
        outputs: Outputs,
        cancellation: &Cancellation,
    ) -> Result<()> {
        self.steps.begin(start, ids.len());
        self.embed(ids, start);
        let weights = self.model.weights();
        if let Some(input) = &weights.token_input {
            self.token_input(input, ids);
        }
        let (layers, stateful) = (&weights.layers, weights.stateful_layers());
        let mut tokens = 0..ids.len(); // whose vectors are the stream
        for (number, layer) in layers.iter().enumerate() {
            if cancellation.requested() {
                return Err(Error::Cancelled);
            }
            self.steps.check_read()?;
            // Once all state is stored, only the wanted positions go on.
            let unwanted = match outputs {
                Outputs::All => 0,
                _ if number + 1 < stateful => 0,
                Outputs::Last => tokens.len() - 1,
                Outputs::None => tokens.len(),
            };
            let (start, wanted) = (start + tokens.start, unwanted..tokens.len());
            tokens.start += unwanted;
            match &layer.mixer {
                MixerWeights::Attention(attention) => {
                    self.attention(layer, attention, start, wanted.clone());
                }
                MixerWeights::ShortConv(conv) => {
                    self.short_conv(layer, conv, start, wanted.clone());
                }
                MixerWeights::LinearAttention(net) => {
                    self.linear_attention(layer, net, start, wanted.clone());
                }
            }
            if wanted.is_empty() {
                break;
            }
            match &layer.feed_forward {
                FeedForwardWeights::Dense(mlp) => self.mlp(layer, mlp, wanted.len()),
                FeedForwardWeights::Experts(experts) => {
                    self.experts(layer, experts, wanted.len());
                }
            }
            if let Some(input) = &layer.layer_input {
                self.layer_input(input, number, tokens.clone());
            }
            if let Some(scale) = layer.output_scale {
                self.steps.scale(self.stream(wanted.len()), scale);
            }
        }
        self.steps.check_read()?;
        self.steps.commit(ids.len());
        Ok(())
    }

    /// Logits `[rows, vocabulary]` of the vectors in these rows of the stream; at most as many as there is room for.
    ///
    /// # Errors
    /// [`Error::FileChanged`].
    pub(crate) fn logits(&mut self, rows: Range<usize>) -> Result<&[f32]> {
        let (c, weights) = (self.config, self.model.weights());
        let x = self.stream(rows.end).rows(rows);
        let norm = weights.output_norm.as_ref();
        let x = self.steps.normalise(norm, x, Branch, &[&weights.output]);
        self.steps.product(x, &weights.output, Logits);
        let logits = Logits.view(x.rows, c.vocabulary);
        if c.logit_scale != 1.0 {
            self.steps.scale(logits, c.logit_scale);
        }
        if let Some(cap) = c.logit_cap {
            self.steps.soft_cap(logits, cap);
        }
        self.steps.check_read()?;
        Ok(self.steps.values(logits))
    }

    /// An encoder's vectors `[tokens, embedding]` of the first `tokens` rows of the stream, which become them.
    ///
    /// # Errors
    /// [`Error::FileChanged`].
    pub(crate) fn vectors(&mut self, tokens: usize) -> Result<&[f32]> {
        let x = self.stream(tokens);
        if let Some(norm) = &self.model.weights().output_norm {
            self.steps.normalise_in_place(norm, x.cols, x);
        }
        self.steps.check_read()?;
        Ok(self.steps.values(x))
    }

    /// The first `tokens` rows of the residual stream.
    fn stream(&self, tokens: usize) -> View {
        Stream.view(tokens, self.config.embedding_length)
    }

    /// The stream = the tokens' rows of the embedding, with what a family adds to them; the first token is at position `start`.
    fn embed(&mut self, ids: &[u32], start: usize) {
        let (c, weights) = (self.config, self.model.weights());
        let x = self.stream(ids.len());
        self.steps.embed(ids);
        if c.embedding_scale != 1.0 {
            self.steps.scale(x, c.embedding_scale);
        }
        if let Some(types) = &weights.token_types {
            let second = self.second.saturating_sub(start).min(x.rows);
            self.steps.add_rows(types, 0, 0, x.rows(0..second));
            // Some models have one type for both.
            let last = types.rows.min(2) - 1;
            self.steps.add_rows(types, last, 0, x.rows(second..x.rows));
        }
        if let Some(positions) = &weights.positions {
            self.steps.add_rows(positions, start, 1, x);
        }
        if let Some(norm) = &weights.embedding_norm {
            self.steps.normalise_in_place(norm, x.cols, x);
        }
    }

    /// The stream += output(what a layer's mixer found for these tokens). Their vectors move to the front of the stream.
    fn add_mixed(&mut self, layer: &Layer, output: &Linear, tokens: Range<usize>) {
        let count = tokens.len();
        self.steps
            .move_to_front(self.stream(tokens.end).rows(tokens));
        let mixed = Mixed.view(count, output.matrix.cols);
        let mixed = self.steps.prepare(mixed, &[&output.matrix]);
        if self.config.parallel {
            // It waits until the feed-forward part has read the stream.
            self.steps.project(mixed, [(output, Parallel)]);
        } else {
            self.steps.project(mixed, [(output, Branch)]);
            let (post, sum) = (&layer.mixer_post_norm, &layer.mixer_sum_norm);
            self.add_branch(Branch, post.as_ref(), sum.as_ref(), count);
        }
    }

    /// The stream += the branch, by `post` normalised where there is one; then the sum by `sum`.
    fn add_branch(
        &mut self,
        branch: Place,
        post: Option<&Norm>,
        sum: Option<&Norm>,
        tokens: usize,
    ) {
        let x = self.stream(tokens);
        let added = branch.view(tokens, x.cols);
        if let Some(norm) = post {
            self.steps.normalise_in_place(norm, x.cols, added);
        }
        if self.config.residual_scale != 1.0 {
            self.steps.scale(added, self.config.residual_scale);
        }
        self.steps.add(x, branch);
        if let Some(norm) = sum {
            self.steps.normalise_in_place(norm, x.cols, x);
        }
    }
}
