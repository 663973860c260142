//! Softmax over a vocabulary, for losses.

use super::{LANES, exp, fold, max, per_isa};

per_isa! {
    /// log Σ exp(x / temperature) of each row; `x`: [n, v], `out`: [n].
    pub fn log_sum_exp(out: &mut [f32], x: &[f32], v: usize, temperature: f32) {
        let scale = 1.0 / temperature;
        for (out, row) in out.iter_mut().zip(x.chunks_exact(v)) {
            let m = max(row) * scale;
            let mut acc = [0f32; LANES];
            let (main, tail) = row.as_chunks::<LANES>();
            for x in main {
                for l in 0..LANES {
                    acc[l] += exp(x[l].mul_add(scale, -m));
                }
            }
            let mut s = fold(acc);
            for x in tail {
                s += exp(x.mul_add(scale, -m));
            }
            *out = m + s.ln();
        }
    }
}

per_isa! {
    /// `d += weight · softmax(x)`, given the rows' [`log_sum_exp`] at temperature 1.
    pub fn add_softmax(d: &mut [f32], x: &[f32], lse: &[f32], v: usize, weight: f32) {
        for ((d, x), &lse) in d.chunks_exact_mut(v).zip(x.chunks_exact(v)).zip(lse) {
            for (d, x) in d.iter_mut().zip(x) {
                *d = exp(x - lse).mul_add(weight, *d);
            }
        }
    }
}

per_isa! {
    /// KL(teacher ‖ student) of each row at a temperature, and `d += weight · ∂/∂student` of it.
    ///
    /// `student`, `teacher`, `d`: [n, v]; `student_lse`, `teacher_lse`: the rows' [`log_sum_exp`] at that temperature. Returns the sum over
    /// rows of Σ p_t (log p_t − log p_s), without `weight`. The gradient is (p_s − p_t) / temperature (Hinton et al., 2015).
    pub fn add_kl(
        d: &mut [f32],
        student: &[f32],
        teacher: &[f32],
        student_lse: &[f32],
        teacher_lse: &[f32],
        v: usize,
        temperature: f32,
        weight: f32,
    ) -> f64 {
        let scale = 1.0 / temperature;
        let weight = weight * scale;
        let mut total = 0f64;
        let rows = d.chunks_exact_mut(v).zip(student.chunks_exact(v)).zip(teacher.chunks_exact(v)).zip(student_lse).zip(teacher_lse);
        for ((((d, s), t), &ls), &lt) in rows {
            let mut acc = [0f32; LANES];
            let (d_main, d_tail) = d.as_chunks_mut::<LANES>();
            let (s_main, s_tail) = s.as_chunks::<LANES>();
            let (t_main, t_tail) = t.as_chunks::<LANES>();
            for ((d, s), t) in d_main.iter_mut().zip(s_main).zip(t_main) {
                for l in 0..LANES {
                    let (a, b) = (s[l].mul_add(scale, -ls), t[l].mul_add(scale, -lt));
                    let p = exp(b);
                    acc[l] = p.mul_add(b - a, acc[l]);
                    d[l] = (exp(a) - p).mul_add(weight, d[l]);
                }
            }
            let mut sum = fold(acc);
            for ((d, s), t) in d_tail.iter_mut().zip(s_tail).zip(t_tail) {
                let (a, b) = (s.mul_add(scale, -ls), t.mul_add(scale, -lt));
                let p = exp(b);
                sum += p * (b - a);
                *d = (exp(a) - p).mul_add(weight, *d);
            }
            total += f64::from(sum);
        }
        total
    }
}
