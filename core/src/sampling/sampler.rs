//! The chain of steps that [`super::Sampling`] describes.

use super::numbers::{CHUNK, Rng, exp, greatest, likeliest, ln, weight};
use super::repetition::{self, Repetition, Text};
use super::{Allowed, Sampling};
use crate::error::{Error, Result};
use std::cmp::Ordering;

/// One token that may still be chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) logit: f32,
    pub(super) id: u32,
}

impl Candidate {
    /// Its probability relative to `top`'s.
    pub(super) fn share(&self, top: Candidate, temperature: f32) -> f64 {
        exp(f64::from(self.logit - top.logit) / f64::from(temperature))
    }
}

/// What the chain of steps leaves.
pub(super) enum Left {
    /// This token, whatever is drawn.
    One(u32),
    /// The sampler's candidates, of which this is the likeliest.
    Several(Candidate),
}

/// One of the tokens, each as likely as its share of the sum; none where all shares are 0.
pub(super) fn draw(rng: &mut Rng, shares: impl Iterator<Item = (u32, f64)> + Clone) -> Option<u32> {
    let total: f64 = shares.clone().map(|(_, share)| share).sum();
    let mut left = rng.next_f64() * total;
    let mut last = None;
    for (id, share) in shares {
        left -= share;
        if left < 0.0 {
            return Some(id);
        }
        if share > 0.0 {
            last = Some(id);
        }
    }
    // Rounding left a crumb: the last token that weighs anything takes it.
    last
}

fn likeliest_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// Bytes of anonymous memory that [`Sampler::new`] allocates.
pub(crate) fn bytes(vocabulary: usize, context: usize) -> u64 {
    ((vocabulary * size_of::<Candidate>()) as u64).saturating_add(repetition::bytes(context))
}

/// Draws tokens. Its buffers are made once, for the vocabulary and the context; a draw allocates nothing.
pub(crate) struct Sampler {
    pub(super) options: Sampling,
    pub(super) rng: Rng,
    pub(super) candidates: Vec<Candidate>, // ≤ [vocabulary]; in order of id, until a step puts them into another
    repetition: Repetition,
}

impl Sampler {
    pub(crate) fn new(vocabulary: usize, context: usize) -> Self {
        Sampler {
            options: Sampling::default(),
            rng: Rng::new(0),
            candidates: Vec::with_capacity(vocabulary),
            repetition: Repetition::new(context),
        }
    }

    /// Starts a request: checks the options and seeds the generator. `vocabulary` is the number of tokens.
    pub(crate) fn start(&mut self, options: &Sampling, vocabulary: usize) -> Result<()> {
        options.validate()?;
        if let Some((id, _)) = options
            .logit_bias
            .iter()
            .find(|bias| bias.0 as usize >= vocabulary)
        {
            return Err(Error::InvalidOption {
                option: "logit_bias",
                expected: format!("tokens below {vocabulary}"),
                got: id.to_string(),
            });
        }
        self.options = options.clone();
        self.rng = Rng::new(options.seed);
        self.repetition.start();
        Ok(())
    }

    /// A token joins the sequence: one of the prompt, or the one just drawn. `text` gives its text.
    pub(crate) fn accept(&mut self, id: u32, text: Text<'_>) {
        if self.options.dry.multiplier > 0.0 {
            self.repetition.accept(&self.options.dry, id, text);
        }
    }

    /// The next token for `logits` `[vocabulary]` after the tokens `history`: one of `allowed`, if that is given. Logits that are not numbers are never
    /// chosen; if none is a number, the model is broken and it is an error.
    pub(crate) fn sample(
        &mut self,
        logits: &[f32],
        allowed: Option<Allowed<'_>>,
        history: &[u32],
        text: Text<'_>,
    ) -> Result<u32> {
        Ok(match self.filter(logits, allowed, history, text)? {
            Left::One(id) => id,
            Left::Several(top) => self.draw(top),
        })
    }

    /// What the chain leaves to draw from.
    pub(super) fn filter(
        &mut self,
        logits: &[f32],
        allowed: Option<Allowed<'_>>,
        history: &[u32],
        text: Text<'_>,
    ) -> Result<Left> {
        let best = match allowed {
            None => likeliest(logits),
            Some(allowed) => allowed.likeliest(logits),
        };
        let best = best.ok_or(Error::NoLogits)?;
        let o = &self.options;
        let adjusts =
            !o.logit_bias.is_empty() || !o.penalties.is_neutral() || o.dry.multiplier > 0.0;
        // Only these may drop the likeliest token.
        let drops = o.typical_p < 1.0 || o.xtc.probability > 0.0;
        let greedy = o.temperature == 0.0;
        if greedy && !adjusts && !drops {
            return Ok(Left::One(best));
        }
        self.candidates.clear();
        let candidates = (0..)
            .zip(logits)
            .map(|(id, &logit)| Candidate { logit, id });
        let possible = |c: &Candidate| c.logit > f32::NEG_INFINITY;
        if adjusts {
            self.candidates.extend(candidates);
            self.adjust(history, text);
            self.candidates
                .retain(|c| possible(c) && allowed.is_none_or(|allowed| allowed.contains(c.id)));
        } else if let Some(allowed) = allowed {
            let candidates = allowed.ids(logits.len()).map(|id| Candidate {
                logit: logits[id as usize],
                id,
            });
            self.candidates.extend(candidates.filter(possible));
        } else if (1..logits.len()).contains(&o.top_k) {
            self.gather_top(logits);
        } else {
            self.candidates.extend(candidates.filter(possible));
        }
        let Some(top) = self.likeliest() else {
            return if self.options.logit_bias.is_empty() {
                Ok(Left::One(best))
            } else {
                Err(Error::InvalidOption {
                    option: "logit_bias",
                    expected:
                        "at least one token, of those that a constraint allows, that is not banned"
                            .into(),
                    got: "none".into(),
                })
            };
        };
        if !top.logit.is_finite() || (greedy && !drops) {
            return Ok(Left::One(top.id));
        }
        self.top_k();
        let top = self.typical(top);
        self.top_p(top);
        self.min_p(top);
        let top = self.xtc(top);
        Ok(if greedy {
            Left::One(top.id)
        } else {
            Left::Several(top)
        })
    }

    fn likeliest(&self) -> Option<Candidate> {
        self.candidates
            .iter()
            .min_by(|a, b| likeliest_first(a, b))
            .copied()
    }

    /// Logit bias, penalties and DRY, while candidate `i` is token `i`.
    fn adjust(&mut self, history: &[u32], text: Text<'_>) {
        let (o, candidates) = (&self.options, &mut self.candidates[..]);
        for &(id, bias) in &o.logit_bias {
            candidates[id as usize].logit += bias;
        }
        if !o.penalties.is_neutral() {
            self.repetition.penalise(&o.penalties, history, candidates);
        }
        if o.dry.multiplier > 0.0 {
            self.repetition.dry(&o.dry, history, candidates, text);
        }
    }

    /// The candidates that [`Sampler::top_k`] can keep, and few others: those that are not behind `top_k` earlier ones.
    fn gather_top(&mut self, logits: &[f32]) {
        let k = self.options.top_k;
        let most = (2 * k).max(CHUNK).min(self.candidates.capacity());
        let mut floor = f32::NEG_INFINITY; // the k-th greatest so far
        for (start, chunk) in (0..).step_by(CHUNK).zip(logits.chunks(CHUNK)) {
            if greatest(chunk) <= floor {
                continue;
            }
            for (id, &logit) in (start..).zip(chunk) {
                if logit > floor {
                    if self.candidates.len() == most {
                        self.candidates
                            .select_nth_unstable_by(k - 1, likeliest_first);
                        self.candidates.truncate(k);
                        floor = self.candidates[k - 1].logit;
                    }
                    self.candidates.push(Candidate { logit, id });
                }
            }
        }
    }

    fn top_k(&mut self) {
        let k = self.options.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates
                .select_nth_unstable_by(k - 1, likeliest_first);
            self.candidates.truncate(k);
            // Into a defined order: floating sums depend on it, and the selection shuffled its survivors.
            self.candidates.sort_unstable_by(likeliest_first);
        }
    }

    /// Returns the likeliest candidate that is left.
    fn typical(&mut self, top: Candidate) -> Candidate {
        let p = f64::from(self.options.typical_p);
        if p >= 1.0 {
            return top;
        }
        let total = self.total(top);
        let log_total = ln(total);
        let surprisal = |c: &Candidate| log_total - f64::from(c.logit - top.logit);
        let shares = self
            .candidates
            .iter()
            .map(|c| (weight(c.logit, top.logit), c));
        let entropy: f64 = shares
            .map(|(weight, c)| {
                if weight > 0.0 {
                    weight / total * surprisal(c)
                } else {
                    0.0
                }
            })
            .sum();
        let distance = |c: &Candidate| (surprisal(c) - entropy).abs();
        let order = |a: &Candidate, b: &Candidate| {
            distance(a).total_cmp(&distance(b)).then(a.id.cmp(&b.id))
        };
        keep_mass(&mut self.candidates, order, top.logit, p * total);
        self.likeliest().unwrap_or(top)
    }

    fn top_p(&mut self, top: Candidate) {
        let p = f64::from(self.options.top_p);
        if p < 1.0 {
            let total = self.total(top);
            keep_mass(&mut self.candidates, likeliest_first, top.logit, p * total);
        }
    }

    fn min_p(&mut self, top: Candidate) {
        let floor = f64::from(self.options.min_p);
        if floor > 0.0 {
            self.candidates
                .retain(|c| weight(c.logit, top.logit) >= floor);
        }
    }

    /// Returns the likeliest candidate that is left.
    fn xtc(&mut self, top: Candidate) -> Candidate {
        let (probability, threshold) = (
            f64::from(self.options.xtc.probability),
            f64::from(self.options.xtc.threshold),
        );
        if probability == 0.0
            || threshold > 0.5
            || self.candidates.len() < 2
            || self.rng.next_f64() >= probability
        {
            return top;
        }
        let floor = threshold * self.total(top);
        let reaches = |c: &&Candidate| weight(c.logit, top.logit) >= floor;
        let last = self
            .candidates
            .iter()
            .filter(reaches)
            .max_by(|a, b| likeliest_first(a, b));
        let Some(&last) = last else {
            return top;
        };
        self.candidates.retain(|c| c.id == last.id || !reaches(&c));
        self.likeliest().unwrap_or(top)
    }

    /// The sum of all candidates' weights relative to `top`.
    fn total(&self, top: Candidate) -> f64 {
        self.candidates
            .iter()
            .map(|c| weight(c.logit, top.logit))
            .sum()
    }

    pub(super) fn draw(&mut self, top: Candidate) -> u32 {
        let temperature = self.options.temperature;
        let shares = self.candidates.iter();
        let shares = shares.map(|c| (c.id, c.share(top, temperature)));
        draw(&mut self.rng, shares).unwrap_or(top.id)
    }
}

/// Keeps the first candidates in `order` whose weights reach `mass`. Sorts only as long a head of the list as that needs: a large vocabulary is rarely
/// sorted as a whole.
fn keep_mass(
    candidates: &mut Vec<Candidate>,
    order: impl Fn(&Candidate, &Candidate) -> Ordering,
    top: f32,
    mass: f64,
) {
    let (mut sorted, mut head, mut sum) = (0, 64, 0.0);
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        let take = head.min(rest.len());
        if take < rest.len() {
            rest.select_nth_unstable_by(take - 1, &order);
        }
        rest[..take].sort_unstable_by(&order);
        for i in sorted..sorted + take {
            sum += weight(candidates[i].logit, top);
            if sum >= mass {
                candidates.truncate(i + 1);
                return;
            }
        }
        sorted += take;
        head *= 4;
    }
}
