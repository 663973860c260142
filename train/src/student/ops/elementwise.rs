//! SwiGLU, sums and rounding.

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
