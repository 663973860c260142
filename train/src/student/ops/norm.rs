//! Root-mean-square norm (Zhang and Sennrich, 2019).

use super::{dot, per_isa};

per_isa! {
    /// `y = x / rms(x) · w` per row, with rms(x)² = mean(x²) + eps.
    ///
    /// `x`, `y`: [n, d]; `w`: [d]; `inverse`: [n] receives 1 / rms, which the backward pass wants.
    pub fn rms_norm(y: &mut [f32], inverse: &mut [f32], x: &[f32], w: &[f32], eps: f32) {
        let d = w.len();
        for ((y, x), inv) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(inverse) {
            let s = 1.0 / (dot(x, x) / d as f32 + eps).sqrt();
            *inv = s;
            for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                *y = x * s * w;
            }
        }
    }
}

per_isa! {
    /// `dx += ∂/∂x`, `dw += ∂/∂w` of [`rms_norm`].
    ///
    /// With g = dy·w and s = 1/rms: dx = s·g − x·s³·(g·x)/d, dw = Σ dy·x·s.
    pub fn rms_norm_backward(dx: &mut [f32], dw: &mut [f32], dy: &[f32], x: &[f32], inverse: &[f32], w: &[f32]) {
        let d = w.len();
        let rows = dx.chunks_exact_mut(d).zip(dy.chunks_exact(d)).zip(x.chunks_exact(d)).zip(inverse);
        for (((dx, dy), x), &s) in rows {
            let mut acc = [0f32; super::LANES];
            let (dy_main, dy_tail) = dy.as_chunks::<{ super::LANES }>();
            let (x_main, x_tail) = x.as_chunks::<{ super::LANES }>();
            let (w_main, w_tail) = w.as_chunks::<{ super::LANES }>();
            for ((dy, x), w) in dy_main.iter().zip(x_main).zip(w_main) {
                for l in 0..super::LANES {
                    acc[l] = (dy[l] * w[l]).mul_add(x[l], acc[l]);
                }
            }
            let mut gx = super::fold(acc);
            for ((dy, x), w) in dy_tail.iter().zip(x_tail).zip(w_tail) {
                gx += dy * w * x;
            }
            let c = -gx * s * s * s / d as f32;
            for ((((dx, dw), dy), x), w) in dx.iter_mut().zip(dw.iter_mut()).zip(dy).zip(x).zip(w) {
                *dx += (dy * w).mul_add(s, x * c);
                *dw += dy * x * s;
            }
        }
    }
}
