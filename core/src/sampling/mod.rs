//! From logits to the next token.
//!
//! The steps and their order are llama.cpp's default: **logit bias, penalties, DRY, top-k, typical, top-p, min-p, XTC, temperature**, then one
//! draw. Each filter looks at the probabilities of what the one before it left, as the model gave them: the temperature bends them last. A
//! temperature of 0 takes the likeliest token that is left and draws nothing.
//!
//! Penalties and DRY look at the tokens that are in the session's cache, those of the prompt among them.
//!
//! Same seed, same logits, same tokens on every platform: the generator is [`Rng`] (SplitMix64), exponential and logarithm are written out in plain
//! f64 arithmetic instead of being asked from the platform's libm, and equal logits are ordered by token id.

mod allowed;
mod defaults;
mod drafts;
mod logprobs;
mod numbers;
mod repetition;
mod sampler;

pub(crate) use allowed::Allowed;
pub use defaults::SamplingSource;
pub(crate) use drafts::{Share, WIDEST};
pub(crate) use logprobs::MAX_TOP;
pub use logprobs::{Logprobs, TokenLogprob};
pub use numbers::Rng;
pub(crate) use numbers::{greatest, likeliest};
pub(crate) use sampler::{Sampler, bytes};

use crate::error::{Error, Result};

/// How the next token is chosen. The default is greedy; raising only `temperature` gives the customary mixture of top-k, top-p and min-p. Everything
/// else is off by default.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits before the draw. 0 is greedy: the likeliest token, always. Finite and ≥ 0.
    pub temperature: f32,
    /// Keep the `top_k` likeliest tokens. 0 keeps all.
    pub top_k: usize,
    /// Keep the tokens whose surprisal, −ln p, is nearest to its mean, the entropy, until their probabilities add up to `typical_p` (Meister et al.
    /// 2022, arXiv:2202.00666). In (0, 1]; 1 keeps all.
    pub typical_p: f32,
    /// Keep the smallest set of likeliest tokens whose probabilities add up to `top_p` (Holtzman et al. 2020, arXiv:1904.09751). In (0, 1]; 1 keeps all.
    pub top_p: f32,
    /// Keep the tokens at least `min_p` times as likely as the likeliest (Nguyen et al. 2024, arXiv:2407.01082). In [0, 1); 0 keeps all.
    pub min_p: f32,
    /// Sometimes drop the likeliest tokens.
    pub xtc: Xtc,
    /// Make going on with a repetition unlikely.
    pub dry: Dry,
    /// Make tokens that came up less likely.
    pub penalties: Penalties,
    /// Added to these tokens' logits before anything else; −∞ bans a token.
    pub logit_bias: Vec<(u32, f32)>,
    /// Where the generator starts. The same seed on the same logits gives the same tokens.
    pub seed: u64,
}

/// Exclude top choices: with `probability`, of the tokens whose probability reaches `threshold` only the least likely stays. Does nothing where fewer than
/// two reach it. (<https://github.com/oobabooga/text-generation-webui/pull/6335>)
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Xtc {
    /// How often it acts. In [0, 1]; 0 switches it off.
    pub probability: f32,
    /// In [0, 1]; above 0.5 it never acts.
    pub threshold: f32,
}

/// Don't repeat yourself: where the last `n ≥ allowed_length` tokens came up before, the token that followed them then loses
/// `multiplier · base^(n − allowed_length)` of its logit. (<https://github.com/oobabooga/text-generation-webui/pull/5677>)
#[derive(Clone, Debug, PartialEq)]
pub struct Dry {
    /// Finite and ≥ 0; 0 switches it off.
    pub multiplier: f32,
    /// Finite and ≥ 1.
    pub base: f32,
    /// The longest repetition that may go on freely. At least 1.
    pub allowed_length: usize,
    /// How many of the last tokens to look at; [`usize::MAX`] looks at all.
    pub window: usize,
    /// Texts that no repetition reaches across, and that may always come.
    pub breakers: Vec<String>,
}

/// Penalties on tokens among the last `window`. Of a token that came up `n` times there, a logit above 0 is divided by `repetition` and another
/// multiplied (Keskar et al. 2019, arXiv:1909.05858); then `n · frequency + presence` is taken off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalties {
    /// Finite and above 0; 1 switches it off.
    pub repetition: f32,
    /// Finite; 0 switches it off.
    pub presence: f32,
    /// Finite; 0 switches it off.
    pub frequency: f32,
    /// How many of the last tokens to look at; [`usize::MAX`] looks at all.
    pub window: usize,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            temperature: 0.0,
            top_k: 40,
            typical_p: 1.0,
            top_p: 0.95,
            min_p: 0.05,
            xtc: Xtc::default(),
            dry: Dry::default(),
            penalties: Penalties::default(),
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl Default for Xtc {
    fn default() -> Self {
        Xtc {
            probability: 0.0,
            threshold: 0.1,
        }
    }
}

impl Default for Dry {
    fn default() -> Self {
        Dry {
            multiplier: 0.0,
            base: 1.75,
            allowed_length: 2,
            window: usize::MAX,
            breakers: ["\n", ":", "\"", "*"].map(String::from).to_vec(),
        }
    }
}

impl Default for Penalties {
    fn default() -> Self {
        Penalties {
            repetition: 1.0,
            presence: 0.0,
            frequency: 0.0,
            window: 64,
        }
    }
}

impl Penalties {
    fn is_neutral(&self) -> bool {
        self.window == 0 || (self.repetition, self.presence, self.frequency) == (1.0, 0.0, 0.0)
    }
}

impl Sampling {
    /// The likeliest token at every step.
    pub fn greedy() -> Self {
        Self::default()
    }

    /// Refuses numbers that mean nothing, with the range that does.
    pub fn validate(&self) -> Result<()> {
        let refuse = |option: &'static str, expected: &str, got: String| {
            Err(Error::InvalidOption {
                option,
                expected: expected.to_owned(),
                got,
            })
        };
        let (xtc, dry, penalties) = (&self.xtc, &self.dry, &self.penalties);
        type Number = (&'static str, f32, fn(f32) -> bool, &'static str);
        let numbers: [Number; 11] = [
            (
                "temperature",
                self.temperature,
                |x| x >= 0.0 && x.is_finite(),
                "a finite number ≥ 0 (0 is greedy)",
            ),
            (
                "typical_p",
                self.typical_p,
                |x| x > 0.0 && x <= 1.0,
                "a number in (0, 1] (1 switches it off)",
            ),
            (
                "top_p",
                self.top_p,
                |x| x > 0.0 && x <= 1.0,
                "a number in (0, 1] (1 switches it off)",
            ),
            (
                "min_p",
                self.min_p,
                |x| (0.0..1.0).contains(&x),
                "a number in [0, 1) (0 switches it off)",
            ),
            (
                "xtc.probability",
                xtc.probability,
                |x| (0.0..=1.0).contains(&x),
                "a number in [0, 1] (0 switches it off)",
            ),
            (
                "xtc.threshold",
                xtc.threshold,
                |x| (0.0..=1.0).contains(&x),
                "a number in [0, 1]",
            ),
            (
                "dry.multiplier",
                dry.multiplier,
                |x| x >= 0.0 && x.is_finite(),
                "a finite number ≥ 0 (0 switches it off)",
            ),
            (
                "dry.base",
                dry.base,
                |x| x >= 1.0 && x.is_finite(),
                "a finite number ≥ 1",
            ),
            (
                "penalties.repetition",
                penalties.repetition,
                |x| x > 0.0 && x.is_finite(),
                "a finite number > 0 (1 switches it off)",
            ),
            (
                "penalties.presence",
                penalties.presence,
                f32::is_finite,
                "a finite number (0 switches it off)",
            ),
            (
                "penalties.frequency",
                penalties.frequency,
                f32::is_finite,
                "a finite number (0 switches it off)",
            ),
        ];
        for (option, got, valid, expected) in numbers {
            if !valid(got) {
                return refuse(option, expected, got.to_string());
            }
        }
        if dry.allowed_length == 0 {
            return refuse("dry.allowed_length", "at least 1", "0".into());
        }
        if dry.breakers.iter().any(String::is_empty) {
            return refuse(
                "dry.breakers",
                "strings that are not empty",
                "an empty one".into(),
            );
        }
        let bad = |&&(_, bias): &&(u32, f32)| bias.is_nan() || bias == f32::INFINITY;
        if let Some((id, bias)) = self.logit_bias.iter().find(bad) {
            let expected = "a finite number, or −∞ to ban the token";
            return refuse("logit_bias", expected, format!("{bias} for token {id}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
