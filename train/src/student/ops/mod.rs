//! The fused pieces of the decoder, each with its backward pass, in plain Rust.
//!
//! candle's elementwise operations are single passes over fresh memory and its fused norms have no gradient. For models of a few million
//! parameters those passes cost more than the matrix products, so the decoder runs on these instead. The plain candle form of each stands
//! in its tests, which compare values and gradients.
//!
//! Every function is single-threaded: training is parallel over shards of the batch.

pub mod attention;
pub mod bf16;
pub mod elementwise;
pub mod gemm;
pub mod norm;
pub mod rope;
pub mod softmax;

/// Compiles a function once per instruction set and picks at run time. The body is ordinary code that the compiler vectorises.
macro_rules! per_isa {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512cd,avx2,fma,f16c,bmi1,bmi2")]
                #[allow(clippy::too_many_arguments)]
                fn avx512($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                match $crate::student::ops::isa() {
                    // SAFETY: `isa` reports a level only when every feature in the list above was detected.
                    $crate::student::ops::Isa::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::student::ops::Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::student::ops::Isa::Baseline => {}
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use per_isa;

/// What [`per_isa!`] chose among.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// x86-64 with AVX-512 F, VL, BW, DQ, CD.
    Avx512,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// What the compiler was told to build for (NEON on aarch64).
    Baseline,
}

/// The instruction set in use, detected once.
pub fn isa() -> Isa {
    #[cfg(target_arch = "x86_64")]
    {
        static ISA: std::sync::OnceLock<Isa> = std::sync::OnceLock::new();
        *ISA.get_or_init(|| {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512cd");
            match (avx2, avx512) {
                (true, true) => Isa::Avx512,
                (true, false) => Isa::Avx2,
                _ => Isa::Baseline,
            }
        })
    }
    #[cfg(not(target_arch = "x86_64"))]
    Isa::Baseline
}

/// Lanes of the accumulators in reductions: two AVX-512 registers, four AVX2, eight NEON.
const LANES: usize = 32;

/// Sum of `f(i)` terms kept in fixed lanes, so that the order of the additions is the same on every instruction set.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut acc = [0f32; LANES];
    let (a_main, a_tail) = a.as_chunks::<LANES>();
    let (b_main, b_tail) = b.as_chunks::<LANES>();
    for (x, y) in a_main.iter().zip(b_main) {
        for l in 0..LANES {
            acc[l] = x[l].mul_add(y[l], acc[l]);
        }
    }
    let mut sum = fold(acc);
    for (x, y) in a_tail.iter().zip(b_tail) {
        sum += x * y;
    }
    sum
}

/// Sum of a slice.
#[inline(always)]
pub(crate) fn sum(a: &[f32]) -> f32 {
    let mut acc = [0f32; LANES];
    let (main, tail) = a.as_chunks::<LANES>();
    for x in main {
        for l in 0..LANES {
            acc[l] += x[l];
        }
    }
    fold(acc) + tail.iter().sum::<f32>()
}

/// Largest value of a slice; -inf when it is empty.
#[inline(always)]
pub(crate) fn max(a: &[f32]) -> f32 {
    let mut acc = [f32::NEG_INFINITY; LANES];
    let (main, tail) = a.as_chunks::<LANES>();
    for x in main {
        for l in 0..LANES {
            acc[l] = if x[l] > acc[l] { x[l] } else { acc[l] };
        }
    }
    acc.iter()
        .chain(tail)
        .fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m })
}

#[inline(always)]
fn fold(mut acc: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            acc[l] += acc[l + half];
        }
        half /= 2;
    }
    acc[0]
}

/// e^x within 2 units in the last place on [-87, 88], clamped outside (0 below -87.3).
///
/// Range reduction x = n·ln 2 + r with ln 2 in two parts (Cody and Waite), then the degree-6 Taylor polynomial with the last coefficients
/// tuned for |r| ≤ ln 2 / 2. Branch-free, so that loops over it vectorise.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it leaves the nearest integer in the low mantissa bits
    let x = if x > 88.0 { 88.0 } else { x };
    let t = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = t - ROUND;
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = 1.388_888_9e-3f32
        .mul_add(r, 8.333_334e-3)
        .mul_add(r, 4.166_666_6e-2)
        .mul_add(r, 1.666_666_7e-1)
        .mul_add(r, 0.5)
        .mul_add(r, 1.0)
        .mul_add(r, 1.0);
    let scale = f32::from_bits((t.to_bits() << 23).wrapping_add(127 << 23));
    let y = p * scale;
    if x < -87.3 { 0.0 } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate() {
        println!("training kernels: {:?}", isa());
        let mut worst = 0f64;
        for i in 0..200_000 {
            let x = -87.0 + 175.0 * (i as f32 / 200_000.0);
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - want).abs() / want);
        }
        assert!(worst < 3e-7, "{worst:e}");
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn reductions_agree_with_plain_sums() {
        for n in [0, 1, 31, 32, 33, 100, 257] {
            let a: Vec<f32> = (0..n).map(|i| ((i * 37 % 19) as f32) - 9.0).collect();
            assert_eq!(dot(&a, &a), a.iter().map(|x| x * x).sum::<f32>());
            assert_eq!(sum(&a), a.iter().sum::<f32>());
            assert_eq!(max(&a), a.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
