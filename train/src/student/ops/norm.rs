//! Root-mean-square norm (Zhang and Sennrich, 2019) and layer norm (Ba et al., 2016).

use super::{dot, per_isa, sum};

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

per_isa! {
    /// `y = (x − mean) / √(variance + eps) · w + b` of every `d` values together. `wb` holds weights, which begin again where `x` is longer, and
    /// `biases` of them behind: as many as weights, or none.
    ///
    /// `x`, `y`: [n · d]; `inverse`: [n] receives 1 / √(variance + eps), which the backward pass wants.
    pub fn layer_norm(y: &mut [f32], inverse: &mut [f32], x: &[f32], wb: &[f32], biases: usize, d: usize, eps: f32) {
        let (w, b) = wb.split_at(wb.len() - biases);
        let rows = y.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(inverse);
        for (((y, x), inv), w) in rows.zip(w.chunks_exact(d).cycle()) {
            let mean = sum(x) / d as f32;
            for (y, x) in y.iter_mut().zip(x) {
                *y = x - mean;
            }
            let s = 1.0 / (dot(y, y) / d as f32 + eps).sqrt();
            *inv = s;
            for (y, w) in y.iter_mut().zip(w) {
                *y *= s * w;
            }
            for (y, b) in y.iter_mut().zip(b) {
                *y += b;
            }
        }
    }
}

per_isa! {
    /// `dx += ∂/∂x`, `dwb += ∂/∂wb` of [`layer_norm`].
    ///
    /// With g = dy·w, s = inverse and h = (x − mean)·s: dx = s·(g − mean(g) − h·mean(g·h)), dw = Σ dy·h, db = Σ dy.
    pub fn layer_norm_backward(dx: &mut [f32], dwb: &mut [f32], dy: &[f32], x: &[f32], inverse: &[f32], wb: &[f32], biases: usize, d: usize) {
        let weights = wb.len() - biases;
        let (dw, db) = dwb.split_at_mut(weights);
        let rows = dx.chunks_exact_mut(d).zip(dy.chunks_exact(d)).zip(x.chunks_exact(d)).zip(inverse);
        for (row, (((dx, dy), x), &s)) in rows.enumerate() {
            let first = row * d % weights;
            let (w, dw) = (&wb[first..first + d], &mut dw[first..first + d]);
            let mean = sum(x) / d as f32;
            let (mut g_sum, mut gh_sum) = (0f32, 0f32);
            for ((dy, x), w) in dy.iter().zip(x).zip(w) {
                let g = dy * w;
                g_sum += g;
                gh_sum += g * (x - mean) * s;
            }
            let (g_mean, gh_mean) = (g_sum / d as f32, gh_sum / d as f32);
            for ((((dx, dw), dy), x), w) in dx.iter_mut().zip(dw).zip(dy).zip(x).zip(w) {
                let h = (x - mean) * s;
                *dx += s * (dy * w - g_mean - h * gh_mean);
                *dw += dy * h;
            }
            for (db, dy) in db.iter_mut().zip(dy) {
                *db += dy;
            }
        }
    }
}
