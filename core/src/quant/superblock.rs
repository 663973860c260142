//! What the formats with blocks of 256 values and scales of scales share: the rounding, and the packing of Q4_K's and Q5_K's scales.

use super::float16::{f16_to_f32, f32_to_f16};
use super::inverse;
use super::search::{affine, mean_square, nearest, positive, scale, symmetric, weights};

/// Values per block.
pub(super) const VALUES: usize = 256;

/// A block rounded to whole numbers from 0, with whole scales and minimums: value = scale · scales · code − minimum · minimums.
pub(super) struct Affine {
    pub(super) codes: [u8; VALUES],
    pub(super) scale: f32,
    pub(super) minimum: f32,
    /// One for each sub-block.
    pub(super) scales: [u8; 16],
    pub(super) minimums: [u8; 16],
}

/// What is read back of a value that was written as binary16.
fn rounded(value: f32) -> f32 {
    f16_to_f32(f32_to_f16(value))
}

/// Rounds a block with sub-blocks of `SUB` values: codes up to `top`, scales and minimums up to `levels`. `plain` weighs values by the
/// mean square and the value where no importance is given.
#[inline(always)]
pub(super) fn round_affine<const SUB: usize>(
    source: &[f32; VALUES],
    importance: Option<&[f32; VALUES]>,
    [top, levels]: [f32; 2],
    plain: impl Fn(f32, f32) -> f32,
) -> Affine {
    let count = VALUES / SUB;
    let mean = mean_square(source);
    let (mut scales, mut minimums, mut sums) = ([0.0; 16], [0.0; 16], [0.0; 16]);
    for sub in 0..count {
        let at = sub * SUB..(sub + 1) * SUB;
        let source = &source[at.clone()];
        let weights: [f32; SUB] = weights(source, importance.map(|all| &all[at]), mean, &plain);
        let (scale, minimum) = affine(source, &weights, top, 0.0);
        (scales[sub], minimums[sub]) = (scale, -minimum);
        sums[sub] = weights.iter().sum();
    }
    let scale = rounded(positive(&scales[..count], &sums[..count], levels));
    let minimum = rounded(positive(&minimums[..count], &sums[..count], levels));
    let (by_scale, by_minimum) = (inverse(scale), inverse(minimum));
    let mut block = Affine {
        codes: [0; VALUES],
        scale,
        minimum,
        scales: scales.map(|scale| nearest(scale * by_scale, 0.0, levels) as u8),
        minimums: minimums.map(|minimum| nearest(minimum * by_minimum, 0.0, levels) as u8),
    };
    for (at, (code, x)) in block.codes.iter_mut().zip(source).enumerate() {
        let sub = at / SUB;
        let least = minimum * block.minimums[sub] as f32;
        let inverse = inverse(scale * block.scales[sub] as f32);
        *code = nearest((x + least) * inverse, 0.0, top) as u8;
    }
    block
}

/// A block rounded under signed scales: value = scale · scales · code.
pub(super) struct Scaled {
    /// As `round` gave them.
    pub(super) codes: [i8; VALUES],
    pub(super) scale: f32,
    /// One for each sub-block.
    pub(super) scales: [i8; 16],
}

/// Rounds a block with sub-blocks of `SUB` values, scales from `−levels` to `levels − 1`; a value under its scale becomes `round(value)`.
/// The greatest magnitude of a sub-block is tried at each of `targets`. `plain` as in [`round_affine`].
#[inline(always)]
pub(super) fn round_scaled<const SUB: usize>(
    source: &[f32; VALUES],
    importance: Option<&[f32; VALUES]>,
    levels: f32,
    targets: impl Iterator<Item = f32> + Clone,
    round: impl Fn(f32) -> f32,
    plain: impl Fn(f32, f32) -> f32,
) -> Scaled {
    let count = VALUES / SUB;
    let mean = mean_square(source);
    let (mut scales, mut sums) = ([0.0; 16], [0.0; 16]);
    for sub in 0..count {
        let at = sub * SUB..(sub + 1) * SUB;
        let source = &source[at.clone()];
        let weights: [f32; SUB] = weights(source, importance.map(|all| &all[at]), mean, &plain);
        scales[sub] = self::scale(source, &weights, targets.clone(), &round);
        sums[sub] = weights.iter().sum();
    }
    let scale = rounded(symmetric(&scales[..count], &sums[..count], levels));
    let by_scale = inverse(scale);
    let mut block = Scaled {
        codes: [0; VALUES],
        scale,
        scales: scales.map(|scale| nearest(scale * by_scale, -levels, levels - 1.0) as i8),
    };
    for (at, (code, x)) in block.codes.iter_mut().zip(source).enumerate() {
        *code = round(x * inverse(scale * block.scales[at / SUB] as f32)) as i8;
    }
    block
}

/// Scale and minimum of sub-block `index`, six bits each, in the twelve bytes that Q4_K and Q5_K have for them.
///
/// Sub-blocks 0 to 3: scales in the low bits of bytes 0 to 3, minimums in those of bytes 4 to 7. Sub-blocks 4 to 7: their low four bits in
/// the nibbles of bytes 8 to 11, their high two bits above those of sub-blocks 0 to 3.
#[inline(always)]
pub(super) fn scale_and_minimum(bytes: &[u8], index: usize) -> (u8, u8) {
    if index < 4 {
        (bytes[index] & 63, bytes[index + 4] & 63)
    } else {
        (
            (bytes[index + 4] & 15) | (bytes[index - 4] >> 6 << 4),
            (bytes[index + 4] >> 4) | (bytes[index] >> 6 << 4),
        )
    }
}

/// Writes what [`scale_and_minimum`] reads.
pub(super) fn put_scales_and_minimums(bytes: &mut [u8], scales: &[u8], minimums: &[u8]) {
    for i in 0..4 {
        bytes[i] = scales[i] | (scales[i + 4] >> 4 << 6);
        bytes[i + 4] = minimums[i] | (minimums[i + 4] >> 4 << 6);
        bytes[i + 8] = (scales[i + 4] & 15) | (minimums[i + 4] << 4);
    }
}

/// 32 values of two bits: those of part `index` in 64 bytes, as Q2_K, Q3_K and TQ2_0 hold them.
#[inline(always)]
pub(super) fn two_bits(bytes: &[u8], index: usize) -> [u8; 32] {
    let mut codes = [0; 32];
    for (code, byte) in codes.iter_mut().zip(&bytes[index / 4 * 32..][..32]) {
        *code = (byte >> (index % 4 * 2)) & 3;
    }
    codes
}

/// Writes what [`two_bits`] reads.
pub(super) fn put_two_bits(bytes: &mut [u8], codes: &[u8; VALUES]) {
    for (at, byte) in bytes[..VALUES / 4].iter_mut().enumerate() {
        let code = |k: usize| (codes[at / 32 * 128 + k * 32 + at % 32] & 3) << (k * 2);
        *byte = code(0) | code(1) | code(2) | code(3);
    }
}
