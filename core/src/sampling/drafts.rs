//! Sampling with drafts: tokens that something cheaper than the model proposed, accepted or replaced so that what comes out is distributed as if
//! the model had drawn it (Leviathan et al. 2023, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318).

use super::sampler::{Left, Sampler, draw};
use super::{Allowed, Dry, Sampling, Xtc};
use crate::Result;
use crate::sampling::repetition::Text;

/// A token and its probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share {
    pub(crate) id: u32,
    pub(crate) p: f64,
}

/// Most tokens that a draft is drawn from. Drafts may come from any distribution: the rarest tokens are not worth the memory.
pub(crate) const WIDEST: usize = 64;

impl Sampling {
    /// How a draft model chooses what is proposed to a model that chooses like this: alike as far as that needs neither a state nor a coin of its own.
    pub(crate) fn for_drafts(&self) -> Sampling {
        Sampling {
            top_k: match self.top_k {
                0 => WIDEST,
                k => k.min(WIDEST),
            },
            xtc: Xtc::default(),
            dry: Dry::default(),
            // Not the numbers with which the model accepts.
            seed: !self.seed,
            ..self.clone()
        }
    }
}

impl Sampler {
    /// Whether every step has only one token to choose from.
    pub(crate) fn is_greedy(&self) -> bool {
        self.options.temperature == 0.0
    }

    /// The distribution from which the next token would be drawn: at most [`WIDEST`] shares in order of id, appended to `shares`. The options are
    /// those that [`Sampling::for_drafts`] gives.
    pub(crate) fn shares(
        &mut self,
        logits: &[f32],
        history: &[u32],
        shares: &mut Vec<Share>,
    ) -> Result<()> {
        match self.filter(logits, None, history, &|_, _| {})? {
            Left::One(id) => shares.push(Share { id, p: 1.0 }),
            Left::Several(top) => {
                let temperature = self.options.temperature;
                let weights = self.candidates.iter().map(|c| c.share(top, temperature));
                let total: f64 = weights.sum();
                let first = shares.len();
                shares.extend(self.candidates.iter().map(|c| Share {
                    id: c.id,
                    p: c.share(top, temperature) / total,
                }));
                shares[first..].sort_unstable_by_key(|share| share.id);
            }
        }
        Ok(())
    }

    /// Draws one of `shares`, of which there is at least one.
    pub(crate) fn draw_share(&mut self, shares: &[Share]) -> u32 {
        let shares = shares.iter().map(|share| (share.id, share.p));
        draw(&mut self.rng, shares.clone())
            .or_else(|| shares.map(|(id, _)| id).next())
            .unwrap_or_default()
    }

    /// As [`Sampler::sample`], where `drafted` was drawn from `shares`: takes it with probability min(1, p / q), where p and q are its
    /// probabilities here and in `shares`; else draws from max(0, p − q).
    pub(crate) fn sample_after_draft(
        &mut self,
        logits: &[f32],
        allowed: Option<Allowed<'_>>,
        history: &[u32],
        text: Text<'_>,
        drafted: u32,
        shares: &[Share],
    ) -> Result<u32> {
        let top = match self.filter(logits, allowed, history, text)? {
            Left::One(id) => return Ok(id),
            Left::Several(top) => top,
        };
        let temperature = self.options.temperature;
        let candidates = self.candidates.iter();
        let total: f64 = candidates.clone().map(|c| c.share(top, temperature)).sum();
        let q = |id: u32| {
            let found = shares.binary_search_by_key(&id, |share| share.id);
            found.map_or(0.0, |index| shares[index].p)
        };
        let p = candidates.map(|c| (c.id, c.share(top, temperature) / total));
        let of_drafted = p.clone().find(|(id, _)| *id == drafted);
        if self.rng.next_f64() * q(drafted) < of_drafted.map_or(0.0, |(_, p)| p) {
            return Ok(drafted);
        }
        let rest = p.map(|(id, p)| (id, (p - q(id)).max(0.0)));
        // Nothing is left only where rounding refused a draft that should have been taken.
        Ok(draw(&mut self.rng, rest).unwrap_or(drafted))
    }
}
