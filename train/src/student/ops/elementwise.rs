//! SwiGLU, GeGLU, soft caps, sums and gathered rows.

use super::{LANES, exp, per_isa};

per_isa! {
    /// `y = silu(gate) · up` (Shazeer, 2020).
    ///
    /// `gate_up`: [n, 2·f], gate first; `y`: [n, f].
    pub fn swiglu(y: &mut [f32], gate_up: &[f32], f: usize) {
        for (y, gu) in y.chunks_exact_mut(f).zip(gate_up.chunks_exact(2 * f)) {
            let (gate, up) = gu.split_at(f);
            for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
                *y = g / (1.0 + exp(-g)) * u;
            }
        }
    }
}

per_isa! {
    /// Replaces `gate_up` by its gradient, given `dy` [n, f].
    pub fn swiglu_backward(gate_up: &mut [f32], dy: &[f32], f: usize) {
        for (dy, gu) in dy.chunks_exact(f).zip(gate_up.chunks_exact_mut(2 * f)) {
            let (gate, up) = gu.split_at_mut(f);
            // Whole registers first, by value: two outputs in place are more than the compiler vectorises by itself.
            let (dy_main, dy_tail) = dy.as_chunks::<LANES>();
            let (gate_main, gate_tail) = gate.as_chunks_mut::<LANES>();
            let (up_main, up_tail) = up.as_chunks_mut::<LANES>();
            for ((dy, gate), up) in dy_main.iter().zip(gate_main).zip(up_main) {
                let (mut dg, mut du) = ([0f32; LANES], [0f32; LANES]);
                for l in 0..LANES {
                    (dg[l], du[l]) = swiglu_gradient(dy[l], gate[l], up[l]);
                }
                (*gate, *up) = (dg, du);
            }
            for ((dy, gate), up) in dy_tail.iter().zip(gate_tail).zip(up_tail) {
                (*gate, *up) = swiglu_gradient(*dy, *gate, *up);
            }
        }
    }
}

/// (∂gate, ∂up) of one value.
#[inline(always)]
fn swiglu_gradient(dy: f32, gate: f32, up: f32) -> (f32, f32) {
    let s = 1.0 / (1.0 + exp(-gate));
    (dy * up * s * (1.0 - s).mul_add(gate, 1.0), dy * gate * s)
}

/// √(2/π)
const ROOT: f32 = 0.797_884_6;

/// `1 / (1 + e^(−2u))` at the argument u of the tanh in GELU's form with it: gelu(x) = x · that.
#[inline(always)]
fn gelu_share(x: f32) -> f32 {
    let u = ROOT * x * (x * x).mul_add(0.044_715, 1.0);
    1.0 / (1.0 + exp(-2.0 * u))
}

per_isa! {
    /// `y = gelu(gate) · up` (Shazeer, 2020), in GELU's form with tanh.
    ///
    /// `gate_up`: [n, 2·f], gate first; `y`: [n, f].
    pub fn geglu(y: &mut [f32], gate_up: &[f32], f: usize) {
        for (y, gu) in y.chunks_exact_mut(f).zip(gate_up.chunks_exact(2 * f)) {
            let (gate, up) = gu.split_at(f);
            for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
                *y = g * gelu_share(g) * u;
            }
        }
    }
}

per_isa! {
    /// Replaces `gate_up` by its gradient, given `dy` [n, f].
    pub fn geglu_backward(gate_up: &mut [f32], dy: &[f32], f: usize) {
        for (dy, gu) in dy.chunks_exact(f).zip(gate_up.chunks_exact_mut(2 * f)) {
            let (gate, up) = gu.split_at_mut(f);
            for ((dy, gate), up) in dy.iter().zip(gate).zip(up) {
                let (g, u) = (*gate, *up);
                let s = gelu_share(g);
                // u' = √(2/π) · (1 + 3 · 0.044715 · g²), and (1 / (1 + e^(−2u)))' = 2 · s · (1 − s) · u'.
                let slope = ROOT * (g * g).mul_add(3.0 * 0.044_715, 1.0);
                *gate = dy * u * s * (2.0 * g * (1.0 - s)).mul_add(slope, 1.0);
                *up = dy * g * s;
            }
        }
    }
}

/// cap · tanh(x / cap), by tanh(y) = 1 − 2 / (e²ʸ + 1).
#[inline(always)]
pub(crate) fn soft_cap(x: f32, cap: f32) -> f32 {
    cap * (1.0 - 2.0 / (exp(2.0 * (x / cap)) + 1.0))
}

/// The slope of [`soft_cap`] where its value is `capped`.
#[inline(always)]
pub(crate) fn soft_cap_slope(capped: f32, cap: f32) -> f32 {
    let tanh = capped / cap;
    1.0 - tanh * tanh
}

per_isa! {
    /// In place: [`soft_cap`].
    pub fn soft_cap_all(x: &mut [f32], cap: f32) {
        for x in x.iter_mut() {
            *x = soft_cap(*x, cap);
        }
    }
}

per_isa! {
    /// `dx = dy · slope`, the gradient of [`soft_cap_all`], whose values are `capped`.
    pub fn soft_cap_all_backward(dx: &mut [f32], capped: &[f32], cap: f32) {
        for (dx, c) in dx.iter_mut().zip(capped) {
            *dx *= soft_cap_slope(*c, cap);
        }
    }
}

per_isa! {
    /// `x *= factor`.
    pub fn scale(x: &mut [f32], factor: f32) {
        for x in x.iter_mut() {
            *x *= factor;
        }
    }
}

per_isa! {
    /// `y += factor · x`.
    pub fn add_scaled(y: &mut [f32], x: &[f32], factor: f32) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += factor * x;
        }
    }
}

per_isa! {
    /// Adds `row` to every row of `y`.
    pub fn add_to_rows(y: &mut [f32], row: &[f32]) {
        for y in y.chunks_exact_mut(row.len()) {
            for (y, x) in y.iter_mut().zip(row) {
                *y += x;
            }
        }
    }
}

per_isa! {
    /// Adds every row of `x` to `sum`.
    pub fn add_rows_to(sum: &mut [f32], x: &[f32]) {
        for x in x.chunks_exact(sum.len()) {
            for (sum, x) in sum.iter_mut().zip(x) {
                *sum += x;
            }
        }
    }
}

per_isa! {
    /// `y += x`.
    pub fn add(y: &mut [f32], x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
}

/// `y[i] = x[rows[i]]` for rows of `width` values.
pub fn gather(y: &mut [f32], x: &[f32], rows: &[u32], width: usize) {
    for (y, &row) in y.chunks_exact_mut(width).zip(rows) {
        y.copy_from_slice(&x[row as usize * width..][..width]);
    }
}

/// `y[rows[i]] += x[i]`.
pub fn scatter_add(y: &mut [f32], x: &[f32], rows: &[u32], width: usize) {
    for (x, &row) in x.chunks_exact(width).zip(rows) {
        add_row(&mut y[row as usize * width..][..width], x);
    }
}

#[inline]
fn add_row(y: &mut [f32], x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// The first `width` values of rows that are `stride` long, to rows of `width`.
pub fn take_columns(y: &mut [f32], x: &[f32], width: usize, stride: usize) {
    for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(stride)) {
        y.copy_from_slice(&x[..width]);
    }
}

/// Rows of `width` back to the front of rows that are `stride` long.
pub fn put_columns(y: &mut [f32], x: &[f32], width: usize, stride: usize) {
    for (y, x) in y.chunks_exact_mut(stride).zip(x.chunks_exact(width)) {
        y[..width].copy_from_slice(x);
    }
}
