//! Speculative decoding: something cheap proposes the next tokens, and the model evaluates them together, which costs it little more than one.
//!
//! Tokens that the model would have chosen itself are then already evaluated; from the first other one on, drafts are dropped. What comes out is
//! what the model alone makes: a token for token copy where the draft is certain (greedy sampling, or a look-up), and else the same
//! distribution, by the rule of Leviathan et al. 2023 (arXiv:2211.17192) and Chen et al. 2023 (arXiv:2302.01318).

mod drafter;
mod lookup;
mod pace;

use super::Session;
use crate::model::Model;
use crate::sampling::{Sampling, Share, WIDEST};
use crate::{Error, Result};
use drafter::Drafter;
pub(crate) use drafter::draft_options;
use pace::Pace;

/// Where a session's drafts come from. See [`Session::set_speculation`].
#[derive(Clone, Debug, Default)]
pub enum Speculation {
    /// Nowhere: a token at a time.
    #[default]
    Off,
    /// A small model with the same vocabulary, such as a student of the session's model.
    Draft {
        /// The small model.
        model: Model,
        /// Most tokens of a draft, from 1 to [`Speculation::MAX`].
        most: usize,
    },
    /// The text itself: what followed when its last tokens came up before. For answers that repeat what they are about: summaries, code, extraction.
    Lookup {
        /// How many of the last tokens must have come up together, at least 1.
        ngram: usize,
        /// Most tokens of a draft, from 1 to [`Speculation::MAX`].
        most: usize,
    },
}

impl Speculation {
    /// The longest draft.
    pub const MAX: usize = crate::state::MAX_DRAFT;
    const USUAL: usize = 8;

    /// Drafts of at most 8 tokens by `model`.
    #[must_use]
    pub fn draft(model: Model) -> Speculation {
        Speculation::Draft {
            model,
            most: Self::USUAL,
        }
    }

    /// Drafts of at most 8 tokens from where the last `ngram` tokens came up before.
    #[must_use]
    pub fn lookup(ngram: usize) -> Speculation {
        Speculation::Lookup {
            ngram,
            most: Self::USUAL,
        }
    }

    /// Most tokens of a draft; 0 where there are none.
    #[must_use]
    pub fn most(&self) -> usize {
        match self {
            Speculation::Off => 0,
            Speculation::Draft { most, .. } | Speculation::Lookup { most, .. } => *most,
        }
    }

    /// Refuses what means nothing for `model`.
    fn check(&self, model: &Model) -> Result<()> {
        let refuse = |option, expected: String, got: usize| {
            Err(Error::InvalidOption {
                option,
                expected,
                got: got.to_string(),
            })
        };
        if !matches!(self, Speculation::Off) && !(1..=Self::MAX).contains(&self.most()) {
            let expected = format!("drafts of 1 to {} tokens", Self::MAX);
            return refuse("speculation", expected, self.most());
        }
        match self {
            Speculation::Lookup { ngram: 0, .. } => {
                refuse("speculation", "an ngram of at least 1".into(), 0)
            }
            Speculation::Draft { model: draft, .. } => {
                match draft.tokenizer().difference(model.tokenizer()) {
                    None => Ok(()),
                    Some(difference) => Err(Error::DraftVocabulary {
                        draft: draft.gguf().name().to_owned(),
                        model: model.gguf().name().to_owned(),
                        difference,
                    }),
                }
            }
            _ => Ok(()),
        }
    }
}

/// One session's drafts.
pub(crate) struct Speculator {
    speculation: Speculation,
    source: Source,
    pace: Pace,
    /// The draft: tokens that follow the session's sequence, and how confident it is of each.
    drafted: Vec<(u32, f64)>, // ≤ [most]
    /// What each of them was drawn from; nothing where it is certain.
    shares: Vec<Share>, // ≤ [most, WIDEST]
    /// Where each one's shares end.
    ends: Vec<usize>, // ≤ [most]
    /// How many of them are evaluated.
    evaluated: usize,
    /// How many of them the session's model accepted.
    accepted: usize,
}

enum Source {
    Model(Box<Drafter>),
    Lookup { ngram: usize },
}

impl Speculator {
    /// What makes drafts for `session`; nothing for [`Speculation::Off`].
    pub(crate) fn new(session: &Session, speculation: &Speculation) -> Result<Option<Speculator>> {
        let model = session.model();
        speculation.check(model)?;
        let (source, cost) = match speculation {
            Speculation::Off => return Ok(None),
            Speculation::Lookup { ngram, .. } => (Source::Lookup { ngram: *ngram }, 0.0),
            Speculation::Draft { model: draft, .. } => {
                // What a step costs is what it reads.
                let bytes = |model: &Model| model.info().file_bytes as f64;
                let cost = bytes(draft) / bytes(model);
                (Source::Model(Box::new(Drafter::new(session, draft)?)), cost)
            }
        };
        let most = speculation.most();
        Ok(Some(Speculator {
            speculation: speculation.clone(),
            source,
            pace: Pace::new(cost),
            drafted: Vec::with_capacity(most),
            shares: Vec::with_capacity(most * WIDEST),
            ends: Vec::with_capacity(most),
            evaluated: 0,
            accepted: 0,
        }))
    }

    pub(crate) fn speculation(&self) -> &Speculation {
        &self.speculation
    }

    /// Starts a request, whose sampling has been checked.
    pub(crate) fn start(&mut self, sampling: &Sampling) -> Result<()> {
        self.clear();
        if let Source::Model(drafter) = &mut self.source {
            drafter.start(sampling)?;
            if !drafter.is_certain() {
                // Where it decides what is drawn, what was learnt before must not.
                self.pace.forget();
            }
        }
        Ok(())
    }

    /// Forgets the draft.
    pub(crate) fn clear(&mut self) {
        self.drafted.clear();
        self.shares.clear();
        self.ends.clear();
        (self.evaluated, self.accepted) = (0, 0);
    }

    /// The token proposed next, and what it was drawn from.
    pub(crate) fn next(&self) -> Option<(u32, &[Share])> {
        let at = self.accepted;
        let &(id, _) = self.drafted.get(at)?;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some((id, &self.shares[start..self.ends[at]]))
    }

    /// The session goes on with `id`: whether that was the token proposed next, and so has been evaluated. If not, the draft is over.
    pub(crate) fn accept(&mut self, id: u32) -> bool {
        let Some(&(drafted, confidence)) = self.drafted.get(self.accepted) else {
            self.clear();
            return false;
        };
        self.pace.learn(confidence, drafted == id);
        let accepted = drafted == id && self.accepted < self.evaluated;
        if accepted {
            self.accepted += 1;
        } else {
            self.clear();
        }
        accepted
    }

    /// Drafts at most `room` tokens to follow `ids`.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub(crate) fn draft(&mut self, ids: &[u32], room: usize) -> Result<()> {
        self.clear();
        let room = room.min(self.speculation.most());
        self.pace.begin(room);
        match &mut self.source {
            Source::Lookup { ngram } => {
                let Some(found) = lookup::find(ids, *ngram) else {
                    return Ok(());
                };
                for (length, &id) in (found.length..).zip(&ids[found.next..]).take(room) {
                    let confidence = lookup::hope(length);
                    if !self.pace.takes(confidence) {
                        break;
                    }
                    self.drafted.push((id, confidence));
                    self.ends.push(0);
                }
            }
            Source::Model(drafter) => {
                let mut last = None;
                while self.drafted.len() < room && self.pace.goes_on() {
                    let first = self.shares.len();
                    let Some(proposal) = drafter.propose(ids, last, &mut self.shares)? else {
                        break;
                    };
                    if !self.pace.takes(proposal.confidence) {
                        self.shares.truncate(first);
                        return Ok(());
                    }
                    let id = drafter.draw(&proposal, &self.shares[first..]);
                    self.drafted.push((id, proposal.confidence));
                    self.ends.push(self.shares.len());
                    if drafter.is_end(id) {
                        break;
                    }
                    last = Some(id);
                }
            }
        }
        if self.drafted.is_empty() {
            self.pace.rest();
        }
        Ok(())
    }

    /// Appends those tokens of the draft to `ids` that are to be evaluated, and says how many these are: an end is drafted, but nothing follows it.
    pub(crate) fn append(&mut self, ids: &mut Vec<u32>) -> usize {
        let ends = |source: &Source, id| match source {
            Source::Model(drafter) => drafter.is_end(id),
            Source::Lookup { .. } => false,
        };
        let last = self.drafted.last();
        let is_end = last.is_some_and(|&(id, _)| ends(&self.source, id));
        self.evaluated = self.drafted.len() - usize::from(is_end);
        ids.extend(self.drafted[..self.evaluated].iter().map(|(id, _)| id));
        self.evaluated
    }
}
