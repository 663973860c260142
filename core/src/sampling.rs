//! From logits to the next token.
//!
//! The order of the steps is the default order of llama.cpp: **top-k, top-p, min-p, temperature**, then one draw. Top-p and min-p therefore look at the
//! probabilities the model gave, before the temperature bends them. A temperature of 0 takes the likeliest token and draws nothing.
//!
//! Same seed, same logits, same tokens on every platform: the generator is [`Rng`] (SplitMix64), the exponential is written out here in plain f64
//! arithmetic instead of being asked from the platform's libm, and equal logits are ordered by token id.

use crate::error::{Error, Result};
use std::cmp::Ordering;

/// How the next token is chosen. The default is greedy; raising only `temperature` gives the customary mixture of the other fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits before the draw. 0 is greedy: the likeliest token, always. Finite and ≥ 0.
    pub temperature: f32,
    /// Keep the `top_k` likeliest tokens. 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set of likeliest tokens whose probabilities add up to `top_p` (Holtzman et al. 2020, arXiv:1904.09751). In (0, 1]; 1 keeps all.
    pub top_p: f32,
    /// Keep the tokens at least `min_p` times as likely as the likeliest (Nguyen et al. 2024, arXiv:2407.01082). In [0, 1); 0 keeps all.
    pub min_p: f32,
    /// Where the generator starts. The same seed on the same logits gives the same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            temperature: 0.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            seed: 0,
        }
    }
}

impl Sampling {
    /// The likeliest token at every step.
    pub fn greedy() -> Self {
        Self::default()
    }

    /// Refuses numbers that mean nothing, with the range that does.
    pub fn validate(&self) -> Result<()> {
        let check = |ok: bool, option: &'static str, got: f32, expected: &'static str| {
            if ok {
                Ok(())
            } else {
                Err(Error::InvalidOption {
                    option,
                    expected: expected.to_owned(),
                    got: got.to_string(),
                })
            }
        };
        check(
            self.temperature.is_finite() && self.temperature >= 0.0,
            "temperature",
            self.temperature,
            "a finite number ≥ 0 (0 is greedy)",
        )?;
        check(
            self.top_p > 0.0 && self.top_p <= 1.0,
            "top_p",
            self.top_p,
            "a number in (0, 1] (1 switches it off)",
        )?;
        check(
            self.min_p >= 0.0 && self.min_p < 1.0,
            "min_p",
            self.min_p,
            "a number in [0, 1) (0 switches it off)",
        )
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014): a 64-bit counter through a mixing function.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Every seed is a good seed.
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1), in steps of 2⁻⁵³.
    pub fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

/// One token that may still be chosen.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    logit: f32,
    id: u32,
}

fn likeliest_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// Bytes of anonymous memory a [`Sampler`] over `vocabulary` tokens holds.
pub(crate) fn bytes(vocabulary: usize) -> u64 {
    (vocabulary * size_of::<Candidate>()) as u64
}

/// Draws tokens. Its buffer is made once, for the vocabulary; a draw allocates nothing.
pub(crate) struct Sampler {
    options: Sampling,
    rng: Rng,
    candidates: Vec<Candidate>, // ≤ [vocabulary]
}

impl Sampler {
    pub(crate) fn new(vocabulary: usize) -> Self {
        Sampler {
            options: Sampling::default(),
            rng: Rng::new(0),
            candidates: Vec::with_capacity(vocabulary),
        }
    }

    /// Starts a request: checks the options and seeds the generator.
    pub(crate) fn start(&mut self, options: &Sampling) -> Result<()> {
        options.validate()?;
        self.options = options.clone();
        self.rng = Rng::new(options.seed);
        Ok(())
    }

    /// The next token for `logits` `[vocabulary]`. Logits that are not numbers are never chosen; if none is a number, the model is broken and it is an error.
    pub(crate) fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let best = likeliest(logits).ok_or(Error::NoLogits)?;
        if self.options.temperature == 0.0 {
            return Ok(best);
        }
        let top = logits[best as usize];
        if !top.is_finite() {
            return Ok(best);
        }
        self.candidates.clear();
        for (id, &logit) in logits.iter().enumerate() {
            if logit > f32::NEG_INFINITY {
                self.candidates.push(Candidate {
                    logit,
                    id: id as u32,
                });
            }
        }
        self.top_k();
        self.top_p(top);
        self.min_p(top);
        Ok(self.draw(top))
    }

    fn top_k(&mut self) {
        let k = self.options.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates
                .select_nth_unstable_by(k - 1, likeliest_first);
            self.candidates.truncate(k);
        }
    }

    /// Sorts only as long a head of the list as the nucleus needs: a large vocabulary is rarely sorted as a whole.
    fn top_p(&mut self, top: f32) {
        let p = f64::from(self.options.top_p);
        if p >= 1.0 {
            // Still in a defined order, so that a draw does not depend on how the selection above shuffled its survivors.
            if self.options.top_k > 0 {
                self.candidates.sort_unstable_by(likeliest_first);
            }
            return;
        }
        let total: f64 = {
            // Summed in order of id: the selection may have shuffled the list, and floating sums depend on order.
            if self.options.top_k > 0 {
                self.candidates.sort_unstable_by(likeliest_first);
            }
            self.candidates.iter().map(|c| weight(c.logit, top)).sum()
        };
        let (mut sorted, mut head, mut sum) = (0, 64, 0.0);
        while sorted < self.candidates.len() {
            let rest = &mut self.candidates[sorted..];
            let take = head.min(rest.len());
            if take < rest.len() {
                rest.select_nth_unstable_by(take - 1, likeliest_first);
            }
            rest[..take].sort_unstable_by(likeliest_first);
            for i in sorted..sorted + take {
                sum += weight(self.candidates[i].logit, top);
                if sum >= p * total {
                    self.candidates.truncate(i + 1);
                    return;
                }
            }
            sorted += take;
            head *= 4;
        }
    }

    fn min_p(&mut self, top: f32) {
        let floor = f64::from(self.options.min_p);
        if floor > 0.0 {
            self.candidates.retain(|c| weight(c.logit, top) >= floor);
        }
    }

    fn draw(&mut self, top: f32) -> u32 {
        let temperature = f64::from(self.options.temperature);
        let at = |c: &Candidate| exp(f64::from(c.logit - top) / temperature);
        let total: f64 = self.candidates.iter().map(at).sum();
        let mut left = self.rng.next_f64() * total;
        for candidate in &self.candidates {
            left -= at(candidate);
            if left < 0.0 {
                return candidate.id;
            }
        }
        // Rounding left a crumb: the last candidate that weighs anything takes it.
        let heaviest = self.candidates.iter().rev().find(|c| at(c) > 0.0);
        heaviest.unwrap_or(&self.candidates[0]).id
    }
}

/// The first of the largest logits, passing over what is not a number.
pub(crate) fn likeliest(logits: &[f32]) -> Option<u32> {
    let mut best: Option<(u32, f32)> = None;
    for (id, &logit) in logits.iter().enumerate() {
        if !logit.is_nan() && best.is_none_or(|(_, b)| logit > b) {
            best = Some((id as u32, logit));
        }
    }
    best.map(|(id, _)| id)
}

/// A candidate's probability relative to the likeliest: exp(logit − top).
fn weight(logit: f32, top: f32) -> f64 {
    exp(f64::from(logit - top))
}

/// eˣ for x ≤ 0, to about 1e-13 relative, from additions and multiplications alone so that every platform gives the same bits:
/// eˣ = 2ᵏ·eʳ with k = round(x / ln 2), |r| ≤ ln 2 / 2, and Taylor's series for eʳ.
fn exp(x: f64) -> f64 {
    if x < -700.0 {
        return 0.0;
    }
    let k = (x * std::f64::consts::LOG2_E).round();
    let r = x - k * std::f64::consts::LN_2;
    let mut sum = 1.0;
    for n in (1..=12).rev() {
        sum = 1.0 + sum * r / f64::from(n);
    }
    // k ≥ -1010, so the exponent field stays that of a normal number.
    sum * f64::from_bits(((1023 + k as i64) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(options: Sampling, vocabulary: usize) -> Sampler {
        let mut sampler = Sampler::new(vocabulary);
        sampler.start(&options).unwrap();
        sampler
    }

    fn open() -> Sampling {
        Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 7,
        }
    }

    /// Which ids ever come out of many draws.
    fn support(options: Sampling, logits: &[f32]) -> Vec<u32> {
        let mut sampler = sampler(options, logits.len());
        let mut ids: Vec<u32> = (0..4000).map(|_| sampler.sample(logits).unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    #[test]
    fn the_generator_is_splitmix64() {
        // The published first outputs for seed 1234567.
        let mut rng = Rng::new(1_234_567);
        assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
        assert!((0..1000).all(|_| (0.0..1.0).contains(&rng.next_f64())));
    }

    #[test]
    fn own_exponential_agrees_with_libm() {
        for i in 0..2000 {
            let x = -f64::from(i) * 0.31;
            let (ours, libm) = (exp(x), x.exp());
            assert!(
                (ours - libm).abs() <= 1e-12 * libm,
                "x = {x}: {ours} {libm}"
            );
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f64::NEG_INFINITY), 0.0);
    }

    #[test]
    fn greedy_takes_the_first_of_equals_and_passes_over_nan() {
        let mut greedy = sampler(Sampling::greedy(), 4);
        assert_eq!(greedy.sample(&[f32::NAN, 2.0, 3.0, 3.0]).unwrap(), 2);
        assert!(greedy.sample(&[f32::NAN; 4]).is_err());
    }

    #[test]
    fn each_filter_keeps_what_its_definition_says() {
        // Probabilities 0.5, 0.25, 0.125, 0.0625, 0.0625, shuffled over the ids.
        let logits: Vec<f32> = [0.125f32, 0.5, 0.0625, 0.25, 0.0625]
            .iter()
            .map(|p| p.ln())
            .collect();
        assert_eq!(support(open(), &logits), [0, 1, 2, 3, 4]);
        assert_eq!(support(Sampling { top_k: 2, ..open() }, &logits), [1, 3]);
        assert_eq!(
            support(
                Sampling {
                    top_p: 0.7,
                    ..open()
                },
                &logits
            ),
            [1, 3]
        );
        assert_eq!(
            support(
                Sampling {
                    top_p: 0.8,
                    ..open()
                },
                &logits
            ),
            [0, 1, 3]
        );
        assert_eq!(
            support(
                Sampling {
                    min_p: 0.4,
                    ..open()
                },
                &logits
            ),
            [1, 3]
        );
        // Top-p sees the probabilities renormalised over top-k's survivors: 0.5/0.75 = 0.67.
        let both = Sampling {
            top_k: 2,
            top_p: 0.6,
            ..open()
        };
        assert_eq!(support(both, &logits), [1]);
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let logits = [0.0, (2.0f32).ln(), f32::NEG_INFINITY];
        let mut sampler = sampler(open(), 3);
        let ones = (0..30_000)
            .filter(|_| sampler.sample(&logits).unwrap() == 1)
            .count();
        // 2/3 of 30 000 draws, five standard deviations to each side.
        assert!((19_590..20_410).contains(&ones), "{ones}");
    }

    #[test]
    fn a_seed_fixes_the_draws() {
        let logits: Vec<f32> = (0..500).map(|i| ((i * 37 % 101) as f32) * 0.03).collect();
        let draw = |seed| -> Vec<u32> {
            let options = Sampling {
                seed,
                temperature: 1.3,
                ..Sampling::default()
            };
            let mut sampler = sampler(options, logits.len());
            (0..64).map(|_| sampler.sample(&logits).unwrap()).collect()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn senseless_options_are_errors() {
        for bad in [
            Sampling {
                temperature: -0.1,
                ..open()
            },
            Sampling {
                temperature: f32::NAN,
                ..open()
            },
            Sampling {
                temperature: f32::INFINITY,
                ..open()
            },
            Sampling {
                top_p: 0.0,
                ..open()
            },
            Sampling {
                top_p: 1.5,
                ..open()
            },
            Sampling {
                top_p: f32::NAN,
                ..open()
            },
            Sampling {
                min_p: -0.1,
                ..open()
            },
            Sampling {
                min_p: 1.0,
                ..open()
            },
            Sampling {
                min_p: f32::NAN,
                ..open()
            },
        ] {
            let error = bad.validate().unwrap_err().to_string();
            assert!(
                error.contains("in (0, 1]") || error.contains("≥ 0") || error.contains("[0, 1)"),
                "{error}"
            );
        }
    }
}
