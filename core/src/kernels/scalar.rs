//! The specification, in plain Rust. Runs everywhere, and every other instruction set is compared with it bit for bit.
//!
//! The functions are inlined into other instruction sets' files and compiled there again with their instructions; what the compiler
//! cannot vectorise by itself is written by hand there.

use super::product::Tile;
use super::{Kernels, Pairs, attention, attention_q8_0};
use crate::quant::float16::f32_to_f16;
use crate::quant::{Dot, activation, sum16};
use half::f16;

pub(super) static KERNELS: Kernels = Kernels {
    name: "scalar",
    codecs: &[],
    products: &[],
    quantize_activations: activation::quantize_blocks,
    round_activations: activation::round_blocks,
    scores: attention::scores,
    mix: attention::mix,
    scores_q8_0: attention_q8_0::scores,
    mix_q8_0: attention_q8_0::mix,
    narrow,
    rms_norm,
    softmax,
    silu_mul,
    add,
    rope,
};

/// Any format's product, by its scalar dot.
pub(super) fn product(tile: &Tile<'_>) {
    for token in 0..tile.tokens {
        let blocks = tile.cols / activation::BLOCK;
        for row in 0..tile.rows {
            let bytes = &tile.bytes[row * tile.row_bytes..][..tile.row_bytes];
            let sum = match tile.format.dot {
                Dot::Float(dot) => dot(bytes, &tile.float[token * tile.cols..][..tile.cols]),
                Dot::Int8(dot) => dot(
                    bytes,
                    activation::Quantized {
                        values: &tile.int8.values[token * tile.cols..][..tile.cols],
                        scales: &tile.int8.scales[token * blocks..][..blocks],
                        sums: &tile.int8.sums[token * blocks..][..blocks],
                    },
                ),
            };
            // SAFETY: `row < rows` and `token < tokens`, which the output holds.
            unsafe { *tile.out.add(token * tile.stride + row) = sum };
        }
    }
}

#[inline(always)]
pub(super) fn narrow(source: &[f32], out: &mut [f16]) {
    for (value, out) in source.iter().zip(out) {
        *out = f16::from_bits(f32_to_f16(*value));
    }
}

/// Folds values into sixteen lanes (value `i` into lane `i mod 16`), which is the order that vector registers keep.
#[inline(always)]
fn fold16(values: &[f32], start: f32, step: impl Fn(f32, f32) -> f32) -> [f32; 16] {
    let mut lanes = [start; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = step(*lane, *value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane = step(*lane, *value);
    }
    lanes
}

#[inline(always)]
pub(super) fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let squares = sum16(&fold16(x, 0.0, |sum, x| x.mul_add(x, sum)));
    let scale = 1.0 / (squares / x.len() as f32 + epsilon).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

/// eˣ to about one unit in the last place; x is held between −87.3 and 88.3, where f32's ordinary numbers end.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2; eʳ = 1 + r + r²·p(r), p of degree 4 fitted to the interval (minimax, relative error 3·10⁻⁹).
#[inline(always)]
fn exp(x: f32) -> f32 {
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.3 { 88.3 } else { x };
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    // ln 2 as a short number, whose product with n is exact, and the rest.
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = r.mul_add(1.381_461_3e-3, 8.368_71e-3);
    let p = r.mul_add(p, 4.166_839e-2);
    let p = r.mul_add(p, 1.666_652_1e-1);
    let p = r.mul_add(p, 0.499_999_94);
    let p = (r * r).mul_add(p, r) + 1.0;
    // Adding 2²³ + 127 puts n + 127 into the low bits; NaN stays NaN through the product.
    let exponent = (n + (8_388_608.0 + 127.0)).to_bits() << 23;
    p * f32::from_bits(exponent)
}

#[inline(always)]
pub(super) fn softmax(values: &mut [f32]) {
    let most = fold16(values, f32::NEG_INFINITY, |most, value| {
        if value > most { value } else { most }
    });
    let most = most.iter().fold(
        f32::NEG_INFINITY,
        |most, value| if *value > most { *value } else { most },
    );
    for value in values.iter_mut() {
        *value = exp(*value - most);
    }
    let scale = 1.0 / sum16(&fold16(values, 0.0, |sum, value| sum + value));
    for value in values.iter_mut() {
        *value *= scale;
    }
}

#[inline(always)]
pub(super) fn silu_mul(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

#[inline(always)]
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

#[inline(always)]
pub(super) fn rope(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32], pairs: Pairs) {
    for head in x.chunks_exact_mut(head_dim) {
        match pairs {
            Pairs::Interleaved => {
                for ((pair, cos), sin) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
                    *pair = rotate(*pair, *cos, *sin);
                }
            }
            Pairs::Halves => {
                let (first, second) = head[..cos.len() * 2].split_at_mut(cos.len());
                for (((first, second), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin)
                {
                    [*first, *second] = rotate([*first, *second], *cos, *sin);
                }
            }
        }
    }
}

#[inline(always)]
fn rotate([a, b]: [f32; 2], cos: f32, sin: f32) -> [f32; 2] {
    [a * cos - b * sin, a * sin + b * cos]
}
