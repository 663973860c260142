//! Scales by least squares. Rounding to integers under a scale is no convex problem, so some scales near the largest sensible one are tried;
//! for the integers that each gives, the best scale (and minimum) has a closed form, and the least weighted error wins. This is what GGML's
//! `make_qx_quants` and `make_qkx3_quants` do.

use super::TO_WHOLE;

/// Magnitudes below it count as zero: a binary16 scale could not hold them.
const MIN: f32 = 1e-15;

/// The whole number nearest to `value` (ties to even) from `low` to `high`; NaN gives `low`.
#[inline(always)]
pub(super) fn nearest(value: f32, low: f32, high: f32) -> f32 {
    let value = if value > low { value } else { low };
    let value = if value < high { value } else { high };
    (value + TO_WHOLE) - TO_WHOLE
}

/// How much the squared error of each value weighs: `importance · √(2 · mean square + x²)` with an importance matrix, else
/// `plain(mean square, x)`; all the same where nothing weighs anything.
#[inline(always)]
pub(super) fn weights<const N: usize>(
    source: &[f32],
    importance: Option<&[f32]>,
    mean_square: f32,
    plain: impl Fn(f32, f32) -> f32,
) -> [f32; N] {
    let weights: [f32; N] = std::array::from_fn(|i| match importance {
        Some(importance) => importance[i] * (2.0 * mean_square + source[i] * source[i]).sqrt(),
        None => plain(mean_square, source[i]),
    });
    if weights.iter().any(|weight| *weight > 0.0) {
        weights
    } else {
        [1.0; N]
    }
}

/// The mean of the squares.
pub(super) fn mean_square(source: &[f32]) -> f32 {
    source.iter().map(|x| x * x).sum::<f32>() / source.len() as f32
}

/// The value of greatest magnitude, the first on a tie; NaN is passed over.
pub(super) fn extreme(source: &[f32]) -> f32 {
    source.iter().fold(
        0.0f32,
        |most, x| {
            if x.abs() > most.abs() { *x } else { most }
        },
    )
}

/// The scale for values that become `round(value / scale)`: the best of those that put the greatest magnitude at each of `targets`.
#[inline(always)]
pub(super) fn scale(
    source: &[f32],
    weights: &[f32],
    targets: impl Iterator<Item = f32>,
    round: impl Fn(f32) -> f32,
) -> f32 {
    let extreme = extreme(source);
    if extreme.abs() < MIN {
        return 0.0;
    }
    let (mut best, mut most) = (0.0, 0.0);
    for target in targets {
        let inverse = target / extreme;
        let (mut xq, mut qq) = (0.0, 0.0);
        for (x, weight) in source.iter().zip(weights) {
            let q = round(x * inverse);
            xq += weight * q * x;
            qq += weight * q * q;
        }
        // The error is Σ w·x² − xq² / qq.
        if qq > 0.0 && xq * xq > most * qq {
            best = xq / qq;
            most = best * xq;
        }
    }
    best
}

/// [`scale`] for whole numbers from `−levels` to `levels − 1`.
#[inline(always)]
pub(super) fn symmetric(source: &[f32], weights: &[f32], levels: f32) -> f32 {
    let targets = (-9..=9).map(|step| -levels - 0.1 * step as f32);
    scale(source, weights, targets, |x| {
        nearest(x, -levels, levels - 1.0)
    })
}

/// [`scale`] for values from 0 and whole numbers from 0 to `top`.
#[inline(always)]
pub(super) fn positive(source: &[f32], weights: &[f32], top: f32) -> f32 {
    let targets = (-9..=9).map(|step| top + 0.1 * step as f32);
    scale(source, weights, targets, |x| nearest(x, 0.0, top))
}

/// The scale and the minimum, at most `cap`, for values that become `(value − minimum) / scale` from 0 to `top`.
#[inline(always)]
pub(super) fn affine(source: &[f32], weights: &[f32], top: f32, cap: f32) -> (f32, f32) {
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    let (mut w, mut wx) = (0.0, 0.0);
    for (x, weight) in source.iter().zip(weights) {
        low = if *x < low { *x } else { low };
        high = if *x > high { *x } else { high };
        w += weight;
        wx += weight * x;
    }
    low = if low < cap { low } else { cap };
    let spread = high - low;
    if !(spread > MIN && spread < f32::INFINITY) {
        return (0.0, if low.abs() < f32::INFINITY { low } else { 0.0 });
    }
    let error = |inverse: f32, scale: f32, minimum: f32| -> f32 {
        let pairs = source.iter().zip(weights);
        pairs
            .map(|(x, weight)| {
                let difference = scale * nearest((x - low) * inverse, 0.0, top) + minimum - x;
                weight * difference * difference
            })
            .sum()
    };
    let mut best = (spread / top, low);
    let mut least = error(top / spread, best.0, best.1);
    for step in -9..=9 {
        let inverse = (top + 0.1 * step as f32) / spread;
        let (mut q, mut qq, mut qx) = (0.0, 0.0, 0.0);
        for (x, weight) in source.iter().zip(weights) {
            let whole = nearest((x - low) * inverse, 0.0, top);
            q += weight * whole;
            qq += weight * whole * whole;
            qx += weight * whole * x;
        }
        let determinant = w * qq - q * q;
        if determinant > 0.0 {
            let mut scale = (w * qx - wx * q) / determinant;
            let mut minimum = (qq * wx - q * qx) / determinant;
            if minimum > cap {
                (scale, minimum) = ((qx - cap * q) / qq, cap);
            }
            let this = error(inverse, scale, minimum);
            if this < least {
                (best, least) = ((scale, minimum), this);
            }
        }
    }
    best
}
