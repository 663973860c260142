//! The draft model's side: a session that follows another's sequence and says how it would go on.

use super::super::{Session, SessionOptions};
use crate::Result;
use crate::model::Model;
use crate::sampling::{Sampling, Share, greatest};

/// A draft model's session. It computes on the threads of the session that it drafts for, and is cancelled with it.
pub(super) struct Drafter {
    session: Session,
}

/// What the draft model thinks comes next.
pub(super) struct Proposal {
    /// How likely it is that the session's model agrees, as far as the draft model can tell.
    pub(super) confidence: f64,
    /// The token, where there is no other to draw.
    certain: Option<u32>,
}

/// Options of `model`'s session where it drafts for one of `context` positions.
pub(crate) fn draft_options(
    model: &Model,
    context: usize,
    threads: Option<usize>,
) -> SessionOptions {
    SessionOptions {
        context: Some(context.min(model.config().context_length)),
        threads,
        ..SessionOptions::default()
    }
}

impl Drafter {
    pub(super) fn new(session: &Session, model: &Model) -> Result<Drafter> {
        model.check_generates()?;
        let options = draft_options(model, session.context(), Some(session.threads()));
        let mut drafts = Session::on(model.clone(), options, Some(session.cpu.pool.clone()))?;
        drafts.cancellation = session.cancellation.clone();
        Ok(Drafter { session: drafts })
    }

    pub(super) fn start(&mut self, sampling: &Sampling) -> Result<()> {
        let vocabulary = self.session.model.config().vocabulary;
        let sampling = sampling.for_drafts();
        self.session.sampler.start(&sampling, vocabulary)
    }

    /// Whether its proposals have one token to draw.
    pub(super) fn is_certain(&self) -> bool {
        self.session.sampler.is_greedy()
    }

    pub(super) fn is_end(&self, id: u32) -> bool {
        self.session.model.tokenizer().is_end(id)
    }

    /// What comes after `ids`, or after them and the draft so far, of which `last` is the last token. The shares to draw from are appended to `shares`,
    /// unless there is only one. Nothing where its context is full, or its weights are broken.
    pub(super) fn propose(
        &mut self,
        ids: &[u32],
        last: Option<u32>,
        shares: &mut Vec<Share>,
    ) -> Result<Option<Proposal>> {
        let session = &mut self.session;
        let same = match last {
            Some(_) => session.ids.len(),
            // The last one is evaluated in any case, for its logits.
            None => agreement(&session.ids, ids).min(ids.len() - 1),
        };
        let more = last.as_slice();
        let new = if more.is_empty() { &ids[same..] } else { more };
        if same + new.len() > session.context() {
            return Ok(None);
        }
        session.truncate(same);
        session.advance(new)?;

        let Session {
            cpu, sampler, ids, ..
        } = session;
        let logits = cpu.logits(0);
        let (confidence, certain) = if sampler.is_greedy() {
            let Ok(id) = sampler.sample(logits, None, ids, &|_, _| {}) else {
                return Ok(None);
            };
            (lead(logits, id), Some(id))
        } else {
            let first = shares.len();
            if sampler.shares(logits, ids, shares).is_err() {
                return Ok(None);
            }
            // Of the distribution, not of what will be drawn from it.
            let p = shares[first..].iter().map(|share| share.p);
            (p.fold(0.0, f64::max), None)
        };
        Ok(confidence.is_finite().then_some(Proposal {
            confidence,
            certain,
        }))
    }

    /// Draws the token that is proposed.
    pub(super) fn draw(&mut self, proposal: &Proposal, shares: &[Share]) -> u32 {
        match proposal.certain {
            Some(id) => id,
            None => self.session.sampler.draw_share(shares),
        }
    }
}

/// The probability of token `id` if there were only it and the likeliest other one: what tells whether another model's likeliest is the same.
fn lead(logits: &[f32], id: u32) -> f64 {
    let (before, after) = logits.split_at(id as usize);
    let other = greatest(before).max(greatest(&after[1..]));
    1.0 / (1.0 + f64::from(other - logits[id as usize]).exp())
}

/// How many tokens two sequences begin with in common.
fn agreement(a: &[u32], b: &[u32]) -> usize {
    const STEP: usize = 64;
    let steps = a.chunks_exact(STEP).zip(b.chunks_exact(STEP));
    let whole = steps.take_while(|(a, b)| a == b).count() * STEP;
    let rest = a[whole..].iter().zip(&b[whole..]);
    whole + rest.take_while(|(a, b)| a == b).count()
}
