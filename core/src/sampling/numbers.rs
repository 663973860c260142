//! The arithmetic of sampling: the generator, and eˣ and ln x from plain f64 additions and multiplications, so that every platform gives the same bits.

use std::f64::consts::{LN_2, LOG2_E, SQRT_2};

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

/// The first of the largest logits, passing over what is not a number.
pub(crate) fn likeliest(logits: &[f32]) -> Option<u32> {
    let mut best = (0, f32::NEG_INFINITY);
    for (number, chunk) in logits.chunks(CHUNK).enumerate() {
        let most = greatest(chunk);
        if most > best.1 {
            best = (number * CHUNK, most);
        }
    }
    let (start, most) = best;
    let id = if most > f32::NEG_INFINITY {
        start + logits[start..].iter().position(|&logit| logit == most)?
    } else {
        logits.iter().position(|logit| !logit.is_nan())?
    };
    Some(id as u32)
}

/// Logits that are looked at together; most chunks of a vocabulary are passed over as a whole.
pub(super) const CHUNK: usize = 256;

/// The greatest of a chunk, passing over what is not a number; −∞ of none. Sixteen run beside each other, which compilers make vectors of.
pub(crate) fn greatest(chunk: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (whole, rest) = chunk.as_chunks::<16>();
    for values in whole {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane = greater(*lane, *value);
        }
    }
    let rest = rest.iter().copied().fold(f32::NEG_INFINITY, greater);
    lanes.into_iter().fold(rest, greater)
}

/// A token's probability relative to the likeliest: exp(logit − top).
pub(super) fn weight(logit: f32, top: f32) -> f64 {
    exp(f64::from(logit - top))
}

/// eˣ for x ≤ 0, to about 1e-13 relative: eˣ = 2ᵏ·eʳ with k = round(x / ln 2), |r| ≤ ln 2 / 2, and Taylor's series for eʳ.
pub(super) fn exp(x: f64) -> f64 {
    if x < -700.0 {
        return 0.0;
    }
    let k = (x * LOG2_E).round();
    let r = x - k * LN_2;
    let mut sum = 1.0;
    for n in (1..=12).rev() {
        sum = 1.0 + sum * r / f64::from(n);
    }
    // k ≥ -1010, so the exponent field stays that of a normal number.
    sum * f64::from_bits(((1023 + k as i64) as u64) << 52)
}

/// ln x for normal x > 0, to about 1e-15 absolute: x = 2ᵉ·m with m in [√½, √2), and ln m = 2·artanh((m − 1) / (m + 1)) by its series.
pub(super) fn ln(x: f64) -> f64 {
    let mut exponent = (x.to_bits() >> 52) as i64 - 1023;
    let mut m = f64::from_bits((x.to_bits() & ((1 << 52) - 1)) | (1023 << 52));
    if m >= SQRT_2 {
        m /= 2.0;
        exponent += 1;
    }
    let s = (m - 1.0) / (m + 1.0);
    let mut sum = 0.0;
    for n in (0..=10).rev() {
        sum = sum * (s * s) + 1.0 / f64::from(2 * n + 1);
    }
    exponent as f64 * LN_2 + 2.0 * s * sum
}

/// baseⁿ by repeated squaring; infinite where it is too large.
pub(super) fn power(base: f64, mut n: usize) -> f64 {
    let (mut result, mut square) = (1.0, base);
    while n > 0 {
        if n & 1 == 1 {
            result *= square;
        }
        square *= square;
        n >>= 1;
    }
    result
}
