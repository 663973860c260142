//! What is done to vectors: norms, activations, rotation, and the steps of attention and of linear attention between products.

use super::{Kernels, RopeLayout};
use half::f16;

/// What one token brings to one head of linear attention.
#[derive(Clone, Copy, Debug)]
pub struct StateToken<'a> {
    /// `[key_length]`
    pub query: &'a [f32],
    /// `[key_length]`
    pub key: &'a [f32],
    /// `[value_length]`
    pub value: &'a [f32],
    /// Multiplies what the state has.
    pub decay: f32,
    /// How much is written.
    pub beta: f32,
}

/// Longest value head of linear attention.
pub const MAX_STATE_COLS: usize = 256;

impl StateToken<'_> {
    fn check(&self, state: &[f32], out: &[f32]) {
        let (rows, cols) = (self.key.len(), self.value.len());
        assert!(
            self.query.len() == rows && state.len() == rows * cols && out.len() == cols,
            "a state of keys and values"
        );
        assert!((1..=MAX_STATE_COLS).contains(&cols), "a value's length");
    }
}

/// All methods panic when lengths do not agree with what is written beside the arguments.
impl Kernels {
    /// f32 to f16, nearest, ties to even. Both `[values]`.
    pub fn narrow(&self, source: &[f32], out: &mut [f16]) {
        assert_eq!(source.len(), out.len(), "as many values out as in");
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.narrow)(source, out) }
    }

    /// RMSNorm: `out = x / √(mean(x²) + epsilon) · weight`. All `[cols]`. Zhang and Sennrich, 2019 (arXiv 1910.07467).
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        assert!(
            x.len() == weight.len() && x.len() == out.len(),
            "x, weight and out of one length"
        );
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.rms_norm)(x, weight, epsilon, out) }
    }

    /// [`Kernels::rms_norm`] in place. `x`, `weight`: `[cols]`.
    pub fn rms_norm_in_place(&self, x: &mut [f32], weight: &[f32], epsilon: f32) {
        assert_eq!(x.len(), weight.len(), "x and weight of one length");
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.rms_norm_in_place)(x, weight, epsilon) }
    }

    /// Layer norm in place: `x = (x - mean) / √(variance + epsilon) · weight + bias`. All `[cols]`; `bias` may be empty. Ba et al., 2016
    /// (arXiv 1607.06450).
    pub fn layer_norm(&self, x: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
        assert!(
            x.len() == weight.len() && (bias.is_empty() || bias.len() == x.len()),
            "x, weight and bias of one length"
        );
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.layer_norm)(x, weight, bias, epsilon) }
    }

    /// Softmax but for its division, in place: `value = exp(value - most)`. `values`: `[values]`, of which there may be none. Returns the greatest
    /// value and the sum of the exponentials.
    pub fn softmax_exp(&self, values: &mut [f32]) -> [f32; 2] {
        let mut found = [0.0; 2];
        // SAFETY: the processor has this table's instructions.
        unsafe { (self.softmax_exp)(values, &mut found) }
        found
    }

    /// Joins what attention found in some positions to `out` `[head_dim]` and `state`, what it found in those before: a greatest score and a sum of
    /// weights, at first −∞ and 0. `part`: `[head_dim + 2]`, values under their weights, then such a pair. Milakov and Gimelshein, 2018
    /// (arXiv 1805.02867).
    pub fn softmax_merge(&self, out: &mut [f32], state: &mut [f32; 2], part: &[f32]) {
        assert_eq!(out.len() + 2, part.len(), "values, a score and a sum");
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.softmax_merge)(out, state, part) }
    }

    /// SiLU in place: `x = x · sigmoid(x)`. `[values]`. Hendrycks and Gimpel, 2016 (arXiv 1606.08415).
    pub fn silu(&self, x: &mut [f32]) {
        // SAFETY: the processor has this table's instructions.
        unsafe { (self.silu)(x) }
    }

    /// `x *= sigmoid(gate)`. Both `[values]`.
    pub fn sigmoid_mul(&self, x: &mut [f32], gate: &[f32]) {
        assert_eq!(x.len(), gate.len(), "x and gate of one length");
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.sigmoid_mul)(x, gate) }
    }

    /// One token of a gated delta net in one head: `S = decay · S`, `S += k · (beta · (v − Sᵀk))ᵀ`, `out = Sᵀq`. `state`: S `[key_length, value_length]`;
    /// `out`: `[value_length]`. Yang et al., 2024 (arXiv 2412.06464).
    pub fn delta_rule(&self, state: &mut [f32], token: StateToken<'_>, out: &mut [f32]) {
        token.check(state, out);
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.delta_rule)(state, token, out) }
    }

    /// One token of Mamba-2's state space in one head: `S = decay · S + k · (beta · v)ᵀ`, `out = Sᵀq`. `state`: S `[key_length, value_length]`; `out`:
    /// `[value_length]`. Dao and Gu, 2024 (arXiv 2405.21060), whose B, x and C are k, v and q.
    pub fn state_space(&self, state: &mut [f32], token: StateToken<'_>, out: &mut [f32]) {
        token.check(state, out);
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.state_space)(state, token, out) }
    }

    /// SwiGLU's product in place: `gate = gate · sigmoid(gate) · up`. Both `[values]`. Shazeer, 2020 (arXiv 2002.05202).
    pub fn silu_mul(&self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "gate and up of one length");
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.silu_mul)(gate, up) }
    }

    /// GeGLU's product in place: `gate = gelu(gate) · up`, with `gelu(x) = x · (1 + tanh(√(2/π) · (x + 0.044715 · x³))) / 2`. Both `[values]`.
    /// Shazeer, 2020 (arXiv 2002.05202); Hendrycks and Gimpel, 2016 (arXiv 1606.08415).
    pub fn gelu_mul(&self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "gate and up of one length");
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.gelu_mul)(gate, up) }
    }

    /// GELU in place: `x = x · Φ(x)`, Φ being the normal distribution's function. `[values]`. Hendrycks and Gimpel, 2016 (arXiv 1606.08415).
    pub fn gelu(&self, x: &mut [f32]) {
        // SAFETY: the processor has this table's instructions.
        unsafe { (self.gelu)(x) }
    }

    /// `x = cap · tanh(x / cap)`. `[values]`. Gemma Team, 2024 (arXiv 2408.00118).
    pub fn soft_cap(&self, x: &mut [f32], cap: f32) {
        // SAFETY: the processor has this table's instructions.
        unsafe { (self.soft_cap)(x, cap) }
    }

    /// `x *= factor`. `[values]`.
    pub fn scale(&self, x: &mut [f32], factor: f32) {
        // SAFETY: the processor has this table's instructions.
        unsafe { (self.scale)(x, factor) }
    }

    /// `x += y`. Both `[values]`.
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "x and y of one length");
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.add)(x, y) }
    }

    /// Rotates the heads of one token in place. Su et al., 2021 (arXiv 2104.09864).
    ///
    /// `x`: `[heads, head_dim]`; `cos`, `sin`: `[rotated / 2]`, the angle of each pair at this position. The first `rotated` values of a
    /// head are rotated, the others stay.
    pub fn rope(
        &self,
        x: &mut [f32],
        head_dim: usize,
        cos: &[f32],
        sin: &[f32],
        layout: RopeLayout,
    ) {
        assert!(
            head_dim > 0 && x.len().is_multiple_of(head_dim),
            "whole heads"
        );
        assert!(
            cos.len() == sin.len() && cos.len() * 2 <= head_dim,
            "one angle per pair, within a head"
        );
        // SAFETY: the processor has this table's instructions, and the lengths agree.
        unsafe { (self.rope)(x, head_dim, cos, sin, layout) }
    }
}
