//! SwiGLU, sums and rounding.

use super::{exp, per_isa};

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
            for ((&dy, g), u) in dy.iter().zip(gate).zip(up) {
                let s = 1.0 / (1.0 + exp(-*g));
                let silu = *g * s;
                let d = s * (1.0 - s).mul_add(*g, 1.0);
                let (dg, du) = (dy * *u * d, dy * silu);
                *g = dg;
                *u = du;
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
