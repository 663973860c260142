//! What makes repetition less likely: the penalties on tokens that came up, and DRY, which looks for repeated sequences.

use super::numbers::power;
use super::sampler::Candidate;
use super::{Dry, Penalties};

/// Writes a token's text to the end of a buffer.
pub(crate) type Text<'a> = &'a dyn Fn(u32, &mut Vec<u8>);

/// Finds repetitions. Its buffers are made once, for a context.
pub(super) struct Repetition {
    /// Tokens of the window, or `token << 32 | length` of the repetitions that they would go on with.
    list: Vec<u64>, // ≤ [context]
    /// How many tokens before each place, counted from the end, are also the last ones.
    matches: Vec<u32>, // ≤ [context]
    /// The last bytes of the text, in which a breaker may have begun.
    tail: Vec<u8>,
    /// Tokens since a breaker ended.
    since_breaker: usize,
}

/// Bytes that [`Repetition::new`] allocates.
pub(super) fn bytes(context: usize) -> u64 {
    (context as u64).saturating_mul((size_of::<u64>() + size_of::<u32>()) as u64)
}

impl Repetition {
    pub(super) fn new(context: usize) -> Self {
        Repetition {
            list: Vec::with_capacity(context),
            matches: Vec::with_capacity(context),
            tail: Vec::new(),
            since_breaker: 0,
        }
    }

    pub(super) fn start(&mut self) {
        self.tail.clear();
        self.since_breaker = 0;
    }

    /// A token joins the sequence: looks whether a breaker ends in it.
    pub(super) fn accept(&mut self, dry: &Dry, id: u32, text: Text<'_>) {
        let before = self.tail.len();
        text(id, &mut self.tail);
        let ends = dry.breakers.iter().any(|breaker| {
            let from = (before + 1).saturating_sub(breaker.len());
            contains(&self.tail[from..], breaker)
        });
        self.since_breaker = if ends { 0 } else { self.since_breaker + 1 };
        let longest = dry.breakers.iter().map(String::len).max().unwrap_or(0);
        let over = self.tail.len().saturating_sub(longest.saturating_sub(1));
        self.tail.drain(..over);
    }

    /// For each token of the window that came up `n` times: logits above 0 are divided by `repetition`, others multiplied; then
    /// `n · frequency + presence` is taken off. `candidates`: one for each token, in order.
    pub(super) fn penalise(
        &mut self,
        p: &Penalties,
        history: &[u32],
        candidates: &mut [Candidate],
    ) {
        let window = &history[history.len().saturating_sub(p.window)..];
        self.list.clear();
        self.list.extend(window.iter().map(|&id| u64::from(id)));
        self.list.sort_unstable();
        for same in self.list.chunk_by(|a, b| a == b) {
            let Some(candidate) = candidates.get_mut(same[0] as usize) else {
                continue;
            };
            if candidate.logit > 0.0 {
                candidate.logit /= p.repetition;
            } else {
                candidate.logit *= p.repetition;
            }
            candidate.logit -= same.len() as f32 * p.frequency + p.presence;
        }
    }

    /// Takes `multiplier · base^(n − allowed_length)` off every token that would make a repetition of the last `n` tokens longer.
    pub(super) fn dry(
        &mut self,
        dry: &Dry,
        history: &[u32],
        candidates: &mut [Candidate],
        text: Text<'_>,
    ) {
        let window = &history[history.len().saturating_sub(dry.window)..];
        let limit = self.since_breaker.min(window.len());
        if limit < dry.allowed_length {
            return;
        }
        self.measure(window);
        self.list.clear();
        for (k, &length) in self.matches.iter().enumerate().skip(1) {
            let length = (length as usize).min(limit);
            if length >= dry.allowed_length {
                let next = window[window.len() - k];
                self.list.push(u64::from(next) << 32 | length as u64);
            }
        }
        self.list.sort_unstable();
        for same in self.list.chunk_by(|a, b| a >> 32 == b >> 32) {
            // The last of a token's repetitions is the longest.
            let (id, length) = ((same[0] >> 32) as u32, same[same.len() - 1] as u32 as usize);
            let Some(candidate) = candidates.get_mut(id as usize) else {
                continue;
            };
            // What ends a sequence cannot make it longer.
            let before = self.tail.len();
            text(id, &mut self.tail);
            let breaks = dry
                .breakers
                .iter()
                .any(|breaker| contains(&self.tail[before..], breaker));
            self.tail.truncate(before);
            if !breaks {
                let penalty = f64::from(dry.multiplier)
                    * power(f64::from(dry.base), length - dry.allowed_length);
                candidate.logit -= penalty.min(f64::from(f32::MAX)) as f32;
            }
        }
    }

    /// `matches[k]`: the length of the longest common end of `window` and `window` without its last `k` tokens. Gusfield's Z algorithm
    /// (Algorithms on Strings, Trees, and Sequences, 1997) from the end: linear in the window.
    fn measure(&mut self, window: &[u32]) {
        let n = window.len();
        let back = |i: usize| window[n - 1 - i];
        self.matches.clear();
        self.matches.push(n as u32);
        let (mut from, mut to) = (0, 0); // the stretch [from, to) that is known to repeat the beginning
        for k in 1..n {
            let known = if k < to {
                (self.matches[k - from] as usize).min(to - k)
            } else {
                0
            };
            let mut length = known;
            while k + length < n && back(length) == back(k + length) {
                length += 1;
            }
            if k + length > to {
                (from, to) = (k, k + length);
            }
            self.matches.push(length as u32);
        }
    }
}

fn contains(bytes: &[u8], part: &str) -> bool {
    bytes
        .windows(part.len())
        .any(|window| window == part.as_bytes())
}
