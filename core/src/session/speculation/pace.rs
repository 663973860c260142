//! How far to draft: as long as the next token is expected to win more than it costs.
//!
//! A draft of n tokens, accepted with probabilities p₁, p₂, …, gives 1 + p₁ + p₁p₂ + … tokens on average, and costs as much as 1 + f + (d + v)·n of the
//! model's own steps, where a drafted token costs d to make and v to verify, and f is what several tokens cost more than one. (Leviathan et al. 2023,
//! arXiv:2211.17192, section 3.5, with probabilities that differ.) Drafting begins where it is expected to pay, and stops where another token would
//! lower the tokens per cost. Nothing is timed: the same seed gives the same drafts.

/// What an evaluation of several tokens costs more than one of one token, in such evaluations, and each token after the first. Measured: 0 to 0.7 and
/// 0.05 to 0.3, the less of the one the more of the other.
const SEVERAL: f64 = 0.2;
const VERIFY: f64 = 0.2;
/// How much of the sums is kept with every token.
const KEEP: f64 = 0.95;
/// How much of the way back to the first guess the sums go in a step without a draft, so that drafts are tried again.
const RECOVER: f64 = 1.0 / 128.0;

/// Sums over the tokens drafted of late, older ones weighing less.
#[derive(Clone, Copy, Debug)]
struct Sums {
    drafted: f64,
    /// What the draft's own confidence promised.
    hoped: f64,
    accepted: f64,
}

/// The first guess, which weighs as much as a few tokens.
const GUESS: Sums = Sums {
    drafted: 5.0,
    hoped: 4.0,
    accepted: 4.0,
};

#[derive(Debug)]
pub(super) struct Pace {
    /// Cost of drafting a token, in the model's own steps.
    draft: f64,
    sums: Sums,
    /// How many tokens a draft may have.
    room: usize,
    /// Of this draft: how likely all of it is accepted, and the tokens and the cost that are expected of it.
    reach: f64,
    tokens: f64,
    cost: f64,
}

impl Pace {
    pub(super) fn new(draft: f64) -> Pace {
        Pace {
            draft,
            sums: GUESS,
            room: 0,
            reach: 1.0,
            tokens: 1.0,
            cost: 1.0 + SEVERAL,
        }
    }

    /// Forgets what it learnt.
    pub(super) fn forget(&mut self) {
        self.sums = GUESS;
    }

    /// Begins a draft of at most `room` tokens.
    pub(super) fn begin(&mut self, room: usize) {
        self.room = room;
        (self.reach, self.tokens, self.cost) = (1.0, 1.0, 1.0 + SEVERAL);
    }

    /// Whether to draft another token, before anything is known of it.
    pub(super) fn goes_on(&self) -> bool {
        self.is_worth(self.usual(), self.draft + VERIFY)
    }

    /// Whether to verify the token just drafted, whose draft is this confident, from 0 to 1. The confidence must not depend on which token was drawn:
    /// to drop only unlikely draws would change the distribution.
    pub(super) fn takes(&mut self, confidence: f64) -> bool {
        let honest = self.sums.accepted / self.sums.hoped;
        let likely = (confidence * honest).min(1.0);
        let takes = self.is_worth(likely, VERIFY);
        if takes {
            self.reach *= likely;
            self.tokens += self.reach;
            self.cost += self.draft + VERIFY;
        } else {
            self.sums.add(confidence, likely);
        }
        takes
    }

    /// Share of the tokens drafted of late that were accepted.
    fn usual(&self) -> f64 {
        (self.sums.accepted / self.sums.drafted).min(1.0)
    }

    /// Whether a token that is accepted with probability `likely`, after those before it, is worth this cost.
    fn is_worth(&self, likely: f64, cost: f64) -> bool {
        if self.tokens > 1.0 {
            return self.reach * likely * self.cost > cost * self.tokens;
        }
        // The first has to pay for the draft as a whole: if it is accepted, as many follow as usual.
        let usual = self.usual();
        let run: f64 = (0..self.room as i32).map(|n| usual.powi(n)).sum();
        likely * run > SEVERAL + cost + (self.draft + VERIFY) * (run - 1.0)
    }

    /// A token's turn came.
    pub(super) fn learn(&mut self, confidence: f64, accepted: bool) {
        self.sums.add(confidence, f64::from(u8::from(accepted)));
    }

    /// A step without a draft.
    pub(super) fn rest(&mut self) {
        let back = |sum: f64, guess: f64| sum + (guess - sum) * RECOVER;
        self.sums = Sums {
            drafted: back(self.sums.drafted, GUESS.drafted),
            hoped: back(self.sums.hoped, GUESS.hoped),
            accepted: back(self.sums.accepted, GUESS.accepted),
        };
    }
}

impl Sums {
    fn add(&mut self, hoped: f64, accepted: f64) {
        self.drafted = self.drafted * KEEP + 1.0;
        self.hoped = self.hoped * KEEP + hoped;
        self.accepted = self.accepted * KEEP + accepted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens drafted and accepted in 1000 steps, and what that won, in steps, by a draft that is `confident` and right with probability `right`.
    fn steps(cost: f64, confident: f64, right: f64) -> (f64, f64, f64) {
        let mut pace = Pace::new(cost);
        let mut rng = crate::sampling::Rng::new(1);
        let (mut drafted, mut accepted, mut begun) = (0.0, 0.0, 0.0);
        for _ in 0..1000 {
            pace.begin(8);
            let mut length = 0;
            while length < 8 && pace.goes_on() && pace.takes(confident) {
                length += 1;
            }
            if length == 0 {
                pace.rest();
            }
            drafted += f64::from(length);
            begun += f64::from(u8::from(length > 0));
            for _ in 0..length {
                let is_right = rng.next_f64() < right;
                pace.learn(confident, is_right);
                accepted += f64::from(u8::from(is_right));
                if !is_right {
                    break;
                }
            }
        }
        let won = accepted - (cost + VERIFY) * drafted - SEVERAL * begun;
        (drafted, accepted, won)
    }

    #[test]
    fn drafts_are_as_long_as_they_pay() {
        // Good and cheap ones are long, whatever the draft says of itself.
        for confident in [0.5, 0.9, 1.0] {
            let (drafted, accepted, _) = steps(0.05, confident, 0.95);
            assert!(
                drafted > 6000.0 && accepted > 0.75 * drafted,
                "{drafted} {accepted}"
            );
        }
        // Bad and dear ones are rare, whatever the draft says of itself.
        for (cost, right) in [(0.05, 0.02), (0.05, 0.2), (0.9, 0.9), (2.0, 1.0)] {
            let (drafted, ..) = steps(cost, 0.99, right);
            assert!(drafted < 150.0, "{cost} {right}: {drafted}");
        }
        // In between they cost at most a twentieth more than no drafts, and often win.
        let won = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8].map(|right| steps(0.1, 0.8, right).2);
        assert!(
            won.iter().all(|&won| won > -50.0) && won[5] > 800.0,
            "{won:?}"
        );
    }
}
