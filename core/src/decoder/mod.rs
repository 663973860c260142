//! The forward pass: tokens in, logits or the encoder's vectors out.
//!
//! Each token's vector `x` runs through the layers; in each, a mixer (attention, a short convolution) and the feed-forward part read a normalised copy
//! and add what they found.
//! (Vaswani et al. 2017, arXiv:1706.03762; Touvron et al. 2023, arXiv:2302.13971.) What else a family does, norms in other places, scales, caps,
//! windows, is in the config and in which tensors a layer has; what is off costs nothing.

mod adapters;
mod attention;
mod experts;
mod importance;
mod mlp;
mod operations;
mod parallel;
mod scratch;
mod segments;
mod short_conv;
mod work;

pub(crate) use adapters::Adapters;
pub(crate) use importance::Importance;
pub use importance::ImportanceSums;
use operations::Operations;
pub(crate) use scratch::{Scratch, bytes};

use crate::cancel::Cancellation;
use crate::model::weights::{FeedForwardWeights, Layer, Linear, MixerWeights, Norm};
use crate::model::{Config, Model};
use crate::state::State;
use crate::threads::Pool;
use crate::{Error, Result};
use std::ops::Range;

/// Which positions' logits are wanted after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Nothing,
    Last,
    All,
}

/// A model with the memory and threads of one session.
pub(crate) struct Decoder<'a> {
    model: &'a Model,
    config: &'a Config,
    operations: Operations<'a>,
    state: &'a mut State,
    scratch: &'a mut Scratch,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(
        model: &'a Model,
        pool: &'a Pool,
        state: &'a mut State,
        scratch: &'a mut Scratch,
    ) -> Self {
        Decoder {
            model,
            config: model.config(),
            operations: Operations::new(model.gguf(), model.config(), pool),
            state,
            scratch,
        }
    }

    /// Evaluates `ids` (at most the scratch's tokens) at positions `start` and after. Afterwards the state has them, and the wanted positions' vectors are
    /// the first rows of `x`.
    ///
    /// # Errors
    /// [`Error::Cancelled`], at the latest one layer after it was asked for; [`Error::FileChanged`] likewise. The state before `start` is untouched.
    pub(crate) fn run(
        &mut self,
        ids: &[u32],
        start: usize,
        want: Want,
        cancellation: &Cancellation,
    ) -> Result<()> {
        // What lies beyond is a draft that was not accepted, which every state can drop.
        assert_eq!(self.state.truncate(start), start);
        self.embed(ids, start);
        self.angles(start..start + ids.len());
        let layers = &self.model.weights().layers;
        for (number, layer) in layers.iter().enumerate() {
            if cancellation.requested() {
                return Err(Error::Cancelled);
            }
            self.check_read()?;
            // Once the last layer's state is stored, only the wanted positions go on.
            let unwanted = match want {
                Want::All => 0,
                _ if number + 1 < layers.len() => 0,
                Want::Last => ids.len() - 1,
                Want::Nothing => ids.len(),
            };
            let wanted = unwanted..ids.len();
            match &layer.mixer {
                MixerWeights::Attention(attention) => {
                    self.write_kv(layer, attention, start, ids.len());
                    if !wanted.is_empty() {
                        self.attend(layer, attention, start, wanted.clone());
                    }
                }
                MixerWeights::ShortConv(conv) => {
                    self.write_conv(layer, conv, start, ids.len());
                    if !wanted.is_empty() {
                        self.convolve(layer, conv, wanted.clone());
                    }
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
        }
        self.check_read()?;
        self.state.conv.commit(ids.len());
        Ok(())
    }

    /// Whether all weights that were read are those of the files.
    fn check_read(&self) -> Result<()> {
        self.model.gguf().check_read()?;
        let mut adapters = self.scratch.hooks.adapters.list().iter();
        adapters.try_for_each(|(adapter, _)| adapter.gguf().check_read())
    }

    /// Logits `[rows, vocabulary]` of the vectors in these rows of `x`; at most the scratch's `logit_rows`.
    ///
    /// # Errors
    /// [`Error::FileChanged`].
    pub(crate) fn logits(&mut self, rows: Range<usize>) -> Result<&[f32]> {
        let (o, weights, s) = (self.operations, self.model.weights(), &mut *self.scratch);
        let (tokens, d) = (rows.len(), self.config.embedding_length);
        let x = &s.x[rows.start * d..rows.end * d];
        let x = o.normalise(
            weights.output_norm.as_ref(),
            x,
            &mut s.branch,
            &mut s.int8,
            &mut s.vector,
            &[&weights.output],
        );
        o.product(x, &weights.output, &mut s.logits, &mut s.hooks);
        let logits = &mut s.logits[..tokens * self.config.vocabulary];
        if self.config.logit_scale != 1.0 {
            o.kernels.scale(logits, self.config.logit_scale);
        }
        if let Some(cap) = self.config.logit_cap {
            o.kernels.soft_cap(logits, cap);
        }
        self.check_read()?;
        Ok(&self.scratch.logits[..tokens * self.config.vocabulary])
    }

    /// x = the tokens' rows of the embedding, with what a family adds to them; the first token is at position `start`.
    fn embed(&mut self, ids: &[u32], start: usize) {
        let (o, c, weights) = (self.operations, self.config, self.model.weights());
        let Scratch {
            x, vector, hooks, ..
        } = &mut *self.scratch;
        let d = c.embedding_length;
        let x = &mut x[..ids.len() * d];
        for (&id, x) in ids.iter().zip(x.chunks_exact_mut(d)) {
            o.unpack_row(&weights.embedding, id as usize, x);
        }
        hooks.adapters.embed(&o, ids, x);
        if c.embedding_scale != 1.0 {
            o.kernels.scale(x, c.embedding_scale);
        }
        if let Some(types) = &weights.token_types {
            o.unpack_row(types, 0, &mut vector[..d]);
            x.chunks_exact_mut(d)
                .for_each(|x| o.kernels.add(x, &vector[..d]));
        }
        if let Some(positions) = &weights.positions {
            for (position, x) in (start..).zip(x.chunks_exact_mut(d)) {
                o.unpack_row(positions, position, &mut vector[..d]);
                o.kernels.add(x, &vector[..d]);
            }
        }
        if let Some(norm) = &weights.embedding_norm {
            o.normalise_in_place(norm, d, x, vector);
        }
    }

    /// How far each pair of a head turns at each of these positions, for each rotary embedding.
    fn angles(&mut self, positions: Range<usize>) {
        let (c, s, context) = (self.config, &mut *self.scratch, self.state.context());
        let all = s.tokens * (c.rope.dimensions / 2); // angles of one embedding
        for (number, (turns, rope)) in self.model.weights().turns.iter().zip(c.ropes()).enumerate()
        {
            let frequencies = turns.of(rope, context); // [pairs]
            let turns = positions.clone().flat_map(|position| {
                frequencies
                    .iter()
                    .map(move |frequency| position as f32 * frequency)
            });
            let cosine = s.cosine[number * all..].iter_mut();
            for ((cosine, sine), turn) in cosine.zip(&mut s.sine[number * all..]).zip(turns) {
                // In f64, so that platforms' libraries agree on the f32.
                let (sin, cos) = f64::from(turn).sin_cos();
                *cosine = cos as f32 * rope.attention_factor;
                *sine = sin as f32 * rope.attention_factor;
            }
        }
    }

    /// x += output(what a layer's mixer found for these tokens, in `mixed`). Their vectors move to the front of x.
    fn add_mixed(&mut self, layer: &Layer, output: &Linear, tokens: Range<usize>) {
        let (o, c, s) = (self.operations, self.config, &mut *self.scratch);
        let d = c.embedding_length;
        s.x.copy_within(tokens.start * d..tokens.end * d, 0);
        let mixed = o.round(
            &s.mixed[..tokens.len() * output.matrix.cols],
            &mut s.int8,
            &[&output.matrix],
        );
        // Where branches are parallel it waits until both have read x.
        let out = if c.parallel {
            &mut s.spare
        } else {
            &mut s.branch
        };
        o.project(mixed, [(output, out)], &mut s.vector, &mut s.hooks);
        if !c.parallel {
            self.join(
                layer.mixer_post_norm.as_ref(),
                layer.mixer_sum_norm.as_ref(),
                tokens.len(),
            );
        }
    }

    /// x += the branch, by `post` normalised where there is one; then the sum by `sum`.
    fn join(&mut self, post: Option<&Norm>, sum: Option<&Norm>, tokens: usize) {
        let (o, c, s) = (self.operations, self.config, &mut *self.scratch);
        let d = c.embedding_length;
        let (x, branch) = (&mut s.x[..tokens * d], &mut s.branch[..tokens * d]);
        if let Some(norm) = post {
            o.normalise_in_place(norm, d, branch, &mut s.vector);
        }
        if c.residual_scale != 1.0 {
            o.kernels.scale(branch, c.residual_scale);
        }
        o.kernels.add(x, branch);
        if let Some(norm) = sum {
            o.normalise_in_place(norm, d, x, &mut s.vector);
        }
    }
}
