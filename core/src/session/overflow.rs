//! What becomes of a sequence that outgrows its context.

use super::Session;
use crate::model::Model;
use crate::prompt::{Stop, Turns};
use crate::request::{ContextPolicy, Prompt, Request};
use crate::{Error, Result};

/// A request's prompt and what can be forgotten of it.
pub(super) enum Overflow<'a> {
    /// Nothing.
    Stop,
    /// Tokens after the first ones.
    Tokens { keep_first: usize },
    /// A chat's oldest turns; then the answer's own beginning, which stands behind the prompt's tokens.
    Turns {
        turns: Box<Turns<'a>>,
        prompt: usize,
    },
}

/// A prompt that fits.
pub(super) struct Prepared<'a> {
    pub(super) prompt: Vec<u32>,
    /// Its tokens before any were dropped.
    pub(super) whole: usize,
    pub(super) overflow: Overflow<'a>,
}

/// What a context shift did.
pub(super) enum Shift {
    /// The sequence's first tokens stay in the cache, and the others wait to be evaluated.
    Shifted { dropped: usize },
    /// Nothing can be dropped: the context is full.
    Full,
}

impl<'a> Prepared<'a> {
    pub(super) fn new(
        model: &'a Model,
        request: &'a Request,
        context: usize,
        stop: Stop<'_>,
    ) -> Result<Prepared<'a>> {
        let keep_first = match (request.context_policy, &request.prompt) {
            (ContextPolicy::Slide { .. }, Prompt::Chat(messages)) => {
                let mut turns = Turns::new(model, request, messages)?;
                let prompt = turns.fit(0, request.max_tokens, context, stop)?;
                let prompt = prompt.map_err(|tokens| Error::TurnTooLong { tokens, context })?;
                return Ok(Prepared {
                    whole: turns.whole(),
                    overflow: Overflow::Turns {
                        turns: Box::new(turns),
                        prompt: prompt.len(),
                    },
                    prompt,
                });
            }
            (ContextPolicy::Slide { keep_first }, _) => Some(keep_first),
            (ContextPolicy::Error, _) => None,
        };
        let mut prompt = model.prompt_tokens_until(request, stop)?;
        let whole = prompt.len();
        let overflow = match keep_first {
            None if whole > context => {
                let tokens = whole;
                return Err(Error::ContextFull { tokens, context });
            }
            None => Overflow::Stop,
            Some(keep_first) => {
                let dropped = dropped(keep_first, whole, context);
                prompt.drain(keep_first.min(whole)..(keep_first + dropped).min(whole));
                Overflow::Tokens { keep_first }
            }
        };
        Ok(Prepared {
            prompt,
            whole,
            overflow,
        })
    }
}

/// How many of `tokens` tokens to drop, beginning after the first `keep_first`, so that they fit `context`.
fn dropped(keep_first: usize, tokens: usize, context: usize) -> usize {
    let step = ((context - keep_first) / 2).max(1);
    tokens.saturating_sub(context).next_multiple_of(step)
}

impl Overflow<'_> {
    /// Messages of a chat that were left out.
    pub(super) fn dropped_turns(&self) -> usize {
        match self {
            Overflow::Turns { turns, .. } => turns.dropped(),
            Overflow::Stop | Overflow::Tokens { .. } => 0,
        }
    }

    /// Makes room for the last `waiting` of the answer's tokens `made`, and for as many `more` as can be.
    pub(super) fn shift(
        &mut self,
        session: &mut Session,
        made: &[u32],
        waiting: usize,
        more: usize,
    ) -> Result<Shift> {
        let context = session.context();
        let new = &made[made.len() - waiting..];
        let keep_first = match self {
            Overflow::Stop => return Ok(Shift::Full),
            Overflow::Tokens { keep_first } => *keep_first,
            Overflow::Turns { turns, prompt } => {
                let before = turns.dropped();
                let cancellation = &session.cancellation;
                let stop = || cancellation.requested();
                let fitting = turns.fit(made.len(), more, context, &stop)?;
                if let Some(ids) = fitting.ok().filter(|_| turns.dropped() > before) {
                    *prompt = ids.len();
                    let old = session.ids.len() + waiting;
                    let same = session
                        .ids
                        .iter()
                        .zip(&ids)
                        .take_while(|(a, b)| a == b)
                        .count();
                    session.truncate(same);
                    session.ids.extend_from_slice(&ids[same..]);
                    session.ids.extend_from_slice(made);
                    let dropped = old.saturating_sub(session.ids.len());
                    return Ok(Shift::Shifted { dropped });
                }
                if context - *prompt < (context / 8).max(2) {
                    return Ok(Shift::Full);
                }
                *prompt
            }
        };
        let dropped = dropped(keep_first, session.position + waiting, context);
        session.rewind(keep_first);
        session.ids.drain(keep_first..keep_first + dropped);
        session.ids.extend_from_slice(new);
        Ok(Shift::Shifted { dropped })
    }
}
