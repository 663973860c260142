//! Log-probabilities of tokens under the model: the softmax of its logits, before anything of [`super::Sampling`] touches them.

use super::numbers::{exp, likeliest, ln};

/// A token and the natural logarithm of the probability that the model gave it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// ln p, at most 0; −∞ where the logit is −∞ or not a number.
    pub logprob: f32,
}

/// Log-probabilities of each token of a completion, in one flat list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logprobs {
    per_token: usize,
    chosen: Vec<f32>,       // [tokens]
    top: Vec<TokenLogprob>, // [tokens, per_token]
}

/// Most alternatives that a request may ask for.
pub(crate) const MAX_TOP: usize = 100;

impl Logprobs {
    /// Room for `tokens` tokens with `per_token` alternatives each.
    pub(crate) fn with_capacity(tokens: usize, per_token: usize) -> Self {
        Logprobs {
            per_token,
            chosen: Vec::with_capacity(tokens),
            top: Vec::with_capacity(tokens.saturating_mul(per_token)),
        }
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chosen.len()
    }

    /// Whether there is no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chosen.is_empty()
    }

    /// ln p of the token that was chosen at `index`.
    ///
    /// # Panics
    /// When `index` is not below [`Logprobs::len`].
    #[must_use]
    pub fn chosen(&self, index: usize) -> f32 {
        self.chosen[index]
    }

    /// The likeliest tokens at `index`, likeliest first, equally likely ones by id: as many as were asked for.
    ///
    /// # Panics
    /// When `index` is not below [`Logprobs::len`].
    #[must_use]
    pub fn top(&self, index: usize) -> &[TokenLogprob] {
        assert!(index < self.len(), "token {index} of {}", self.len());
        &self.top[index * self.per_token..][..self.per_token]
    }

    /// Adds the token `chosen` after `logits` `[vocabulary]`, of which there are at least `per_token`.
    pub(crate) fn push(&mut self, logits: &[f32], chosen: u32) {
        let most = likeliest(logits).map_or(f32::NEG_INFINITY, |id| logits[id as usize]);
        // An infinite logit leaves nothing for the others; without any, nothing is likely.
        let finite = most.is_finite();
        let log_sum = if finite {
            let weights = logits.iter().filter(|logit| !logit.is_nan());
            ln(weights.map(|&logit| exp(f64::from(logit - most))).sum())
        } else {
            0.0
        };
        let logprob = |logit: f32| {
            if logit == most && !finite {
                return most.min(0.0);
            }
            if logit.is_nan() || !finite {
                return f32::NEG_INFINITY;
            }
            ((f64::from(logit) - f64::from(most) - log_sum) as f32).min(0.0)
        };
        self.chosen.push(logprob(logits[chosen as usize]));

        // The best so far, in order; most logits lose against the last of them.
        let first = self.top.len();
        for (id, &logit) in logits.iter().enumerate() {
            let logit = if logit.is_nan() {
                f32::NEG_INFINITY
            } else {
                logit
            };
            let best = &self.top[first..];
            let full = best.len() == self.per_token;
            if full && best.last().is_none_or(|last| logit <= last.logprob) {
                continue;
            }
            let at = best.partition_point(|other| other.logprob >= logit);
            if full {
                self.top.pop();
            }
            let id = id as u32;
            self.top
                .insert(first + at, TokenLogprob { id, logprob: logit });
        }
        for token in &mut self.top[first..] {
            token.logprob = logprob(token.logprob);
        }
    }
}
