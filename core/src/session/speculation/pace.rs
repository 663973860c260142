//! How far to draft: as long as the next token is expected to win more than it costs.
//!
//! A draft of n tokens, accepted with probabilities p₁, p₂, …, gives 1 + p₁ + p₁p₂ + … tokens on average, and costs as much as 1 + (d + v)·n of the
//! model's own steps, where a drafted token costs d to make and v to verify. (Leviathan et al. 2023, arXiv:2211.17192, section 3.5, with probabilities
//! that differ.) Drafting stops where another token would lower the tokens per cost. Nothing is timed: the same seed gives the same drafts.

/// What another token costs in an evaluation of several, beside the first, which reads the weights for all of them.
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
            reach: 1.0,
            tokens: 1.0,
            cost: 1.0,
        }
    }

    /// Forgets what it learnt.
    pub(super) fn forget(&mut self) {
        self.sums = GUESS;
    }

    /// Begins a draft.
    pub(super) fn begin(&mut self) {
        (self.reach, self.tokens, self.cost) = (1.0, 1.0, 1.0);
    }

    /// Whether to draft another token, before anything is known of it.
    pub(super) fn goes_on(&self) -> bool {
        let usual = self.sums.accepted / self.sums.drafted;
        self.is_worth(self.reach * usual, self.draft + VERIFY)
    }

    /// Whether to verify the token just drafted, whose draft is this confident, from 0 to 1. The confidence must not depend on which token was drawn:
    /// to drop only unlikely draws would change the distribution.
    pub(super) fn takes(&mut self, confidence: f64) -> bool {
        let honest = self.sums.accepted / self.sums.hoped;
        let likely = (confidence * honest).min(1.0);
        let takes = self.is_worth(self.reach * likely, VERIFY);
        if takes {
            self.reach *= likely;
            self.tokens += self.reach;
            self.cost += self.draft + VERIFY;
        } else {
            self.sums.add(confidence, likely);
        }
        takes
    }

    fn is_worth(&self, tokens: f64, cost: f64) -> bool {
        tokens * self.cost > cost * self.tokens
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
