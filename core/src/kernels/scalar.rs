//! The specification, in plain Rust. Runs everywhere, and every other instruction set is compared with it bit for bit.
//!
//! The functions are inlined into other instruction sets' files and compiled there again with their instructions; what the compiler
//! cannot vectorise by itself is written by hand there.

use super::product::Tile;
use super::{Kernels, RopeLayout, StateToken, attention, attention_q8_0};
use crate::quant::float16::f32_to_f16;
use crate::quant::{Dot, activation, blocks, sum16};
use half::f16;

pub(super) static KERNELS: Kernels = Kernels {
    name: "scalar",
    codecs: &[],
    products: &[],
    one_token: &[],
    unpackers: &[],
    parts: [|tile, _| product(tile); 6],
    quantize_activations: activation::quantize_blocks,
    round_activations: activation::round_blocks,
    scores: attention::scores,
    weighted_sum: attention::weighted_sum,
    scores_q8_0: attention_q8_0::scores,
    weighted_sum_q8_0: attention_q8_0::weighted_sum,
    narrow,
    rms_norm,
    rms_norm_in_place,
    layer_norm,
    softmax_exp,
    softmax_merge,
    silu,
    silu_mul,
    sigmoid_mul,
    delta_rule,
    state_space,
    gelu_mul,
    gelu,
    soft_cap,
    add,
    scale,
    rope,
    read: super::limits::plain_read,
    multiply_adds: super::limits::plain_multiply_adds,
};

/// Any format's product, by its scalar dot.
pub(super) fn product(tile: &Tile<'_>) {
    for token in 0..tile.tokens {
        let blocks = tile.cols / activation::BLOCK;
        for row in 0..tile.rows {
            let bytes = &tile.bytes[row * tile.row_bytes..][..tile.row_bytes];
            let int8 = || activation::Quantized {
                values: &tile.int8.values[token * tile.cols..][..tile.cols],
                scales: &tile.int8.scales[token * blocks..][..blocks],
                sums: &tile.int8.sums[token * blocks..][..blocks],
            };
            let sum = match tile.format.dot {
                Dot::Float(dot) => dot(bytes, &tile.float[token * tile.cols..][..tile.cols]),
                Dot::Parts(parts) => blocks::dot(parts, tile.format, bytes, int8()),
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

/// 1 / √(mean(x²) + epsilon)
#[inline(always)]
fn inverse_rms(x: &[f32], epsilon: f32) -> f32 {
    let squares = sum16(&fold16(x, 0.0, |sum, x| x.mul_add(x, sum)));
    1.0 / (squares / x.len() as f32 + epsilon).sqrt()
}

#[inline(always)]
pub(super) fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let scale = inverse_rms(x, epsilon);
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

#[inline(always)]
pub(super) fn rms_norm_in_place(x: &mut [f32], weight: &[f32], epsilon: f32) {
    let scale = inverse_rms(x, epsilon);
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = *x * scale * weight;
    }
}

#[inline(always)]
pub(super) fn layer_norm(x: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    let mean = sum16(&fold16(x, 0.0, |sum, x| sum + x)) / x.len() as f32;
    for x in x.iter_mut() {
        *x -= mean;
    }
    rms_norm_in_place(x, weight, epsilon);
    // Without a bias there is nothing to add.
    add(x, bias);
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
pub(super) fn softmax_exp(values: &mut [f32], found: &mut [f32; 2]) {
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
    *found = [most, sum16(&fold16(values, 0.0, |sum, value| sum + value))];
}

#[inline(always)]
pub(super) fn softmax_merge(out: &mut [f32], [most, sum]: &mut [f32; 2], part: &[f32]) {
    let (values, part) = part.split_at(out.len());
    if part[1] == 0.0 {
        return;
    }
    if *sum == 0.0 {
        out.copy_from_slice(values);
        [*most, *sum] = [part[0], part[1]];
        return;
    }
    let greatest = if part[0] > *most { part[0] } else { *most };
    let (before, now) = (exp(*most - greatest), exp(part[0] - greatest));
    for (out, value) in out.iter_mut().zip(values) {
        *out = value.mul_add(now, *out * before);
    }
    *sum = part[1].mul_add(now, *sum * before);
    *most = greatest;
}

#[inline(always)]
pub(super) fn silu(x: &mut [f32]) {
    for x in x {
        *x /= 1.0 + exp(-*x);
    }
}

#[inline(always)]
pub(super) fn sigmoid_mul(x: &mut [f32], gate: &[f32]) {
    for (x, gate) in x.iter_mut().zip(gate) {
        *x /= 1.0 + exp(-gate);
    }
}

/// Columns of a state whose sums stay in registers.
const STATE_COLS: usize = 32;

#[inline(always)]
pub(super) fn delta_rule(state: &mut [f32], token: StateToken<'_>, out: &mut [f32]) {
    let whole = out.len() / STATE_COLS * STATE_COLS;
    for first in (0..whole).step_by(STATE_COLS) {
        delta_rule_of::<STATE_COLS>(state, &token, out, first);
    }
    for first in whole..out.len() {
        delta_rule_of::<1>(state, &token, out, first);
    }
}

/// The columns `first..first + N`.
#[inline(always)]
fn delta_rule_of<const N: usize>(
    state: &mut [f32],
    token: &StateToken<'_>,
    out: &mut [f32],
    first: usize,
) {
    let cols = out.len();
    let mut under_key = [0.0; N];
    for (row, key) in state.chunks_exact(cols).zip(token.key) {
        let row = &row[first..first + N];
        for col in 0..N {
            under_key[col] = row[col].mul_add(*key, under_key[col]);
        }
    }
    let value = &token.value[first..first + N];
    let mut change = [0.0; N];
    for col in 0..N {
        change[col] = token.beta * (value[col] - token.decay * under_key[col]);
    }
    write_and_read(state, token, &change, out, first);
}

#[inline(always)]
pub(super) fn state_space(state: &mut [f32], token: StateToken<'_>, out: &mut [f32]) {
    let whole = out.len() / STATE_COLS * STATE_COLS;
    for first in (0..whole).step_by(STATE_COLS) {
        state_space_of::<STATE_COLS>(state, &token, out, first);
    }
    for first in whole..out.len() {
        state_space_of::<1>(state, &token, out, first);
    }
}

/// The columns `first..first + N`.
#[inline(always)]
fn state_space_of<const N: usize>(
    state: &mut [f32],
    token: &StateToken<'_>,
    out: &mut [f32],
    first: usize,
) {
    let value = &token.value[first..first + N];
    let mut change = [0.0; N];
    for col in 0..N {
        change[col] = token.beta * value[col];
    }
    write_and_read(state, token, &change, out, first);
}

/// `S = decay · S + k · changeᵀ`, `out = Sᵀq`, in the columns `first..first + N`.
#[inline(always)]
fn write_and_read<const N: usize>(
    state: &mut [f32],
    token: &StateToken<'_>,
    change: &[f32; N],
    out: &mut [f32],
    first: usize,
) {
    let cols = out.len();
    let mut read = [0.0; N];
    let rows = state.chunks_exact_mut(cols).zip(token.key);
    for ((row, key), query) in rows.zip(token.query) {
        let row = &mut row[first..first + N];
        for col in 0..N {
            row[col] = change[col].mul_add(*key, row[col] * token.decay);
            read[col] = row[col].mul_add(*query, read[col]);
        }
    }
    out[first..first + N].copy_from_slice(&read);
}

#[inline(always)]
pub(super) fn silu_mul(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

/// x · sigmoid(2y) is x · (1 + tanh(y)) / 2.
#[inline(always)]
pub(super) fn gelu_mul(gate: &mut [f32], up: &[f32]) {
    const ROOT: f32 = 0.797_884_6; // √(2/π)
    for (gate, up) in gate.iter_mut().zip(up) {
        let x = *gate;
        let y = ROOT * x * (x * x).mul_add(0.044_715, 1.0);
        *gate = x / (1.0 + exp(-2.0 * y)) * up;
    }
}

/// The complementary error function of z ≥ 0, with a relative error below 1.2·10⁻⁷: a Chebyshev fit (Press et al., Numerical Recipes, section 6.2).
#[inline(always)]
fn erfc(z: f32) -> f32 {
    const FIT: [f32; 9] = [
        0.170_872_77,
        -0.822_152_23,
        1.488_515_9,
        -1.135_204,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_7,
    ];
    let t = 1.0 / 0.5f32.mul_add(z, 1.0);
    let mut p = FIT[0];
    for fit in &FIT[1..] {
        p = p.mul_add(t, *fit);
    }
    t * exp((-z).mul_add(z, p.mul_add(t, -1.265_512_2)))
}

/// x · Φ(x), Φ being the normal distribution's function.
#[inline(always)]
pub(super) fn gelu(x: &mut [f32]) {
    for x in x.iter_mut() {
        let tail = 0.5 * erfc(x.abs() * std::f32::consts::FRAC_1_SQRT_2);
        *x *= if *x > 0.0 { 1.0 - tail } else { tail };
    }
}

/// cap · tanh(x / cap), by tanh(y) = 1 − 2 / (e²ʸ + 1).
#[inline(always)]
pub(super) fn soft_cap(x: &mut [f32], cap: f32) {
    for x in x.iter_mut() {
        *x = cap * (1.0 - 2.0 / (exp(2.0 * (*x / cap)) + 1.0));
    }
}

#[inline(always)]
pub(super) fn scale(x: &mut [f32], factor: f32) {
    for x in x.iter_mut() {
        *x *= factor;
    }
}

#[inline(always)]
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

#[inline(always)]
pub(super) fn rope(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32], layout: RopeLayout) {
    for head in x.chunks_exact_mut(head_dim) {
        match layout {
            RopeLayout::Interleaved => {
                for ((pair, cos), sin) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
                    *pair = rotate(*pair, *cos, *sin);
                }
            }
            RopeLayout::Halves => {
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
