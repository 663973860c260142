//! How tokens are chosen, and how likely they were. The numbers and their order of use are core's.

use crate::types::count;
use std::collections::HashMap;

/// How the next token is chosen. As it stands: the likeliest always. With a temperature: the customary mixture of top-k, top-p and min-p. Everything else is
/// off by default. The steps come in llama.cpp's order: bias, penalties, DRY, top-k, typical, top-p, min-p, XTC, temperature, one draw.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct SamplingOptions {
    /// 0 takes the likeliest token always; 1 samples from the model's own distribution.
    #[uniffi(default = 0.0)]
    pub temperature: f32,
    /// Only the k likeliest tokens; 0: all.
    #[uniffi(default = 40)]
    pub top_k: u32,
    /// Only the tokens of the most typical surprisal that hold this much probability together, in (0, 1]; 1: all.
    #[uniffi(default = 1.0)]
    pub typical_p: f32,
    /// Only the likeliest tokens that hold this much probability together, in (0, 1]; 1: all.
    #[uniffi(default = 0.95)]
    pub top_p: f32,
    /// Only tokens at least this likely relative to the likeliest, in [0, 1); 0: all.
    #[uniffi(default = 0.05)]
    pub min_p: f32,
    /// Sometimes leave out the likeliest tokens.
    #[uniffi(default)]
    pub xtc: XtcOptions,
    /// Make going on with a repetition unlikely.
    #[uniffi(default)]
    pub dry: DryOptions,
    /// Make tokens that came up less likely.
    #[uniffi(default)]
    pub penalties: PenaltyOptions,
    /// By token id: added to the logit before anything else; −∞ bans the token.
    #[uniffi(default)]
    pub logit_bias: HashMap<u32, f32>,
    /// The same seed gives the same answer.
    #[uniffi(default = 0)]
    pub seed: u64,
}

/// Exclude top choices: with `probability`, of the tokens that are at least as likely as `threshold` only the least likely stays.
#[derive(Debug, Clone, Copy, PartialEq, uniffi::Record)]
pub struct XtcOptions {
    /// How often it acts, in [0, 1]; 0: never.
    #[uniffi(default = 0.0)]
    pub probability: f32,
    /// A probability in [0, 1]; above 0.5 it never acts.
    #[uniffi(default = 0.1)]
    pub threshold: f32,
}

/// Don't repeat yourself: where the last `n ≥ allowed_length` tokens came up before, the token that followed them then loses
/// `multiplier · base^(n − allowed_length)` of its logit.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct DryOptions {
    /// At least 0; 0: off.
    #[uniffi(default = 0.0)]
    pub multiplier: f32,
    /// At least 1.
    #[uniffi(default = 1.75)]
    pub base: f32,
    /// The longest repetition, in tokens, that may go on freely; at least 1.
    #[uniffi(default = 2)]
    pub allowed_length: u32,
    /// How many of the last tokens to look at; None: all.
    #[uniffi(default = None)]
    pub window: Option<u32>,
    /// Texts that no repetition reaches across, and that may always come. None: a line's end, a colon, a quotation mark, an asterisk.
    #[uniffi(default = None)]
    pub breakers: Option<Vec<String>>,
}

/// Penalties on tokens that came up `n` times among the last `window`: a logit above 0 is divided by `repetition` and another multiplied; then
/// `n · frequency + presence` is taken off.
#[derive(Debug, Clone, Copy, PartialEq, uniffi::Record)]
pub struct PenaltyOptions {
    /// Above 0; 1: off.
    #[uniffi(default = 1.0)]
    pub repetition: f32,
    /// 0: off.
    #[uniffi(default = 0.0)]
    pub presence: f32,
    /// 0: off.
    #[uniffi(default = 0.0)]
    pub frequency: f32,
    /// How many of the last tokens to look at, those of the prompt among them.
    #[uniffi(default = 64)]
    pub window: u32,
}

/// A token and how likely the model found it.
#[derive(Debug, Clone, Copy, PartialEq, uniffi::Record)]
pub struct TokenLogprob {
    /// The token's id.
    pub id: u32,
    /// The natural logarithm of its probability, at most 0.
    pub logprob: f32,
}

/// How likely the model found a token that was made, before sampling options and constraints had their say.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct TokenLogprobs {
    /// The token's id.
    pub id: u32,
    /// The natural logarithm of its probability, at most 0.
    pub logprob: f32,
    /// The likeliest tokens in its place, likeliest first: as many as the request asks for.
    pub top: Vec<TokenLogprob>,
}

impl TokenLogprobs {
    pub(crate) fn new(id: u32, logprob: f32, top: &[dram_core::TokenLogprob]) -> Self {
        let each = |&dram_core::TokenLogprob { id, logprob }: &_| TokenLogprob { id, logprob };
        TokenLogprobs {
            id,
            logprob,
            top: top.iter().map(each).collect(),
        }
    }
}

/// Those of all tokens of a completion; empty where the request did not ask.
pub(crate) fn logprobs(completion: &dram_core::Completion) -> Vec<TokenLogprobs> {
    let Some(all) = &completion.logprobs else {
        return Vec::new();
    };
    let ids = completion.tokens.iter().enumerate();
    ids.map(|(i, &id)| TokenLogprobs::new(id, all.chosen(i), all.top(i)))
        .collect()
}

impl From<SamplingOptions> for dram_core::Sampling {
    fn from(s: SamplingOptions) -> Self {
        use dram_core::sampling::{Dry, Penalties, Xtc};
        dram_core::Sampling {
            temperature: s.temperature,
            top_k: s.top_k as usize,
            typical_p: s.typical_p,
            top_p: s.top_p,
            min_p: s.min_p,
            xtc: Xtc {
                probability: s.xtc.probability,
                threshold: s.xtc.threshold,
            },
            dry: Dry {
                multiplier: s.dry.multiplier,
                base: s.dry.base,
                allowed_length: s.dry.allowed_length as usize,
                window: s.dry.window.map_or(usize::MAX, |n| n as usize),
                breakers: s.dry.breakers.unwrap_or_else(|| Dry::default().breakers),
            },
            penalties: Penalties {
                repetition: s.penalties.repetition,
                presence: s.penalties.presence,
                frequency: s.penalties.frequency,
                window: s.penalties.window as usize,
            },
            logit_bias: s.logit_bias.into_iter().collect(),
            seed: s.seed,
        }
    }
}

impl From<dram_core::Sampling> for SamplingOptions {
    fn from(s: dram_core::Sampling) -> Self {
        let own = dram_core::sampling::Dry::default().breakers;
        SamplingOptions {
            temperature: s.temperature,
            top_k: count(s.top_k),
            typical_p: s.typical_p,
            top_p: s.top_p,
            min_p: s.min_p,
            xtc: XtcOptions {
                probability: s.xtc.probability,
                threshold: s.xtc.threshold,
            },
            dry: DryOptions {
                multiplier: s.dry.multiplier,
                base: s.dry.base,
                allowed_length: count(s.dry.allowed_length),
                window: Some(s.dry.window).filter(|&n| n != usize::MAX).map(count),
                breakers: Some(s.dry.breakers).filter(|breakers| *breakers != own),
            },
            penalties: PenaltyOptions {
                repetition: s.penalties.repetition,
                presence: s.penalties.presence,
                frequency: s.penalties.frequency,
                window: count(s.penalties.window),
            },
            logit_bias: s.logit_bias.into_iter().collect(),
            seed: s.seed,
        }
    }
}

/// Core's own, which the literals in `uniffi(default)` repeat for Kotlin and Swift.
impl Default for SamplingOptions {
    fn default() -> Self {
        dram_core::Sampling::default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_cores() {
        assert_eq!(
            dram_core::Sampling::from(SamplingOptions::default()),
            dram_core::Sampling::default()
        );
        assert_eq!(dram_core::Request::default().max_tokens, 256);
    }

    /// Kotlin and Swift know the literals alone.
    #[test]
    fn the_literals_are_the_defaults() {
        let source = include_str!("sampling.rs");
        let s = SamplingOptions::default();
        let numbers = [
            ("temperature: f32", s.temperature),
            ("top_k: u32", s.top_k as f32),
            ("typical_p: f32", s.typical_p),
            ("top_p: f32", s.top_p),
            ("min_p: f32", s.min_p),
            ("probability: f32", s.xtc.probability),
            ("threshold: f32", s.xtc.threshold),
            ("multiplier: f32", s.dry.multiplier),
            ("base: f32", s.dry.base),
            ("allowed_length: u32", s.dry.allowed_length as f32),
            ("repetition: f32", s.penalties.repetition),
            ("presence: f32", s.penalties.presence),
            ("frequency: f32", s.penalties.frequency),
            ("window: u32", s.penalties.window as f32),
            ("seed: u64", s.seed as f32),
        ];
        for (field, default) in numbers {
            let declared = format!("\n    pub {field},");
            let before = source.split_once(&declared).unwrap().0;
            let attribute = before.lines().last().unwrap();
            let literal = attribute
                .trim()
                .trim_start_matches("#[uniffi(default = ")
                .trim_end_matches(")]");
            assert_eq!(literal.parse(), Ok(default), "{field}: {attribute}");
        }
    }
}
