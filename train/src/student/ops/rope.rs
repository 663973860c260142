//! Rotary position embedding (Su et al., 2021) in the Hugging Face order: dimension `i` turns with `i + rotated / 2`, where the first `rotated`
//! dimensions of a head are.

use super::per_isa;

/// cos and sin of every angle.
#[derive(Debug, Clone)]
pub struct Table {
    head_dim: usize,
    half: usize,
    /// [context, half, 2]: all cosines of a position, then all sines.
    values: Vec<f32>,
}

impl Table {
    /// Angles `position · frequency[i]` in f64, rounded once.
    pub fn new(frequencies: &[f64], head_dim: usize, context: usize) -> Self {
        let mut values = Vec::with_capacity(context * frequencies.len() * 2);
        for position in 0..context {
            values.extend(
                frequencies
                    .iter()
                    .map(|f| (position as f64 * f).cos() as f32),
            );
            values.extend(
                frequencies
                    .iter()
                    .map(|f| (position as f64 * f).sin() as f32),
            );
        }
        Table {
            head_dim,
            half: frequencies.len(),
            values,
        }
    }

    /// Turns every head of every row by the row's position; backwards (the gradient, as rotations are orthogonal) when `inverse`.
    ///
    /// `x`: [n, stride], the first `heads · head_dim` of each row are turned; `positions`: [n].
    pub fn rotate(
        &self,
        x: &mut [f32],
        stride: usize,
        heads: usize,
        positions: &[u32],
        inverse: bool,
    ) {
        rotate(
            x,
            stride,
            heads,
            self.head_dim,
            self.half,
            positions,
            &self.values,
            if inverse { -1.0 } else { 1.0 },
        );
    }
}

per_isa! {
    fn rotate(x: &mut [f32], stride: usize, heads: usize, head_dim: usize, half: usize, positions: &[u32], table: &[f32], direction: f32) {
        for (row, &position) in x.chunks_exact_mut(stride).zip(positions) {
            let (cos, sin) = table[position as usize * 2 * half..][..2 * half].split_at(half);
            for head in row[..heads * head_dim].chunks_exact_mut(head_dim) {
                let (a, b) = head[..2 * half].split_at_mut(half);
                for (((a, b), c), s) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                    let s = s * direction;
                    let (x, y) = (*a, *b);
                    *a = x * c - y * s;
                    *b = y * c + x * s;
                }
            }
        }
    }
}
