//! Sums of squared inputs of a model's matrices: what an importance matrix is made of.

use super::weights::Matrix;
use crate::gguf;
use crate::kernels::Activations;
use std::collections::HashMap;

/// What one matrix was multiplied with.
#[derive(Clone, Debug, PartialEq)]
pub struct InputSquares {
    /// The tensor's name in the model's file.
    pub tensor: String,
    /// How many vectors: tokens.
    pub count: u64,
    /// `[cols]`: the sum of each column's squares over them.
    pub sums: Vec<f64>,
}

/// Sums by where a matrix begins in the model's file.
#[derive(Default)]
pub(crate) struct Squares {
    by_matrix: HashMap<usize, (u64, Vec<f64>)>,
}

impl Squares {
    /// Counts the inputs `[tokens, cols]` of one product, as they are before any rounding.
    pub(super) fn add(&mut self, matrix: &Matrix, x: Activations<'_>) {
        let (count, sums) = self
            .by_matrix
            .entry(matrix.range.start)
            .or_insert_with(|| (0, vec![0.0; matrix.cols]));
        *count += x.tokens as u64;
        for x in x.float.chunks_exact(matrix.cols) {
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum += f64::from(*x) * f64::from(*x);
            }
        }
    }

    /// By tensor, in the file's order. Matrices that lie in one tensor have one input: the first of them speaks for it.
    pub(crate) fn by_tensor(&self, file: &gguf::File) -> Vec<InputSquares> {
        let found = file.tensors().filter_map(|tensor| {
            let (count, sums) = self.by_matrix.get(&tensor.range().start)?;
            Some(InputSquares {
                tensor: tensor.name().to_owned(),
                count: *count,
                sums: sums.clone(),
            })
        });
        found.collect()
    }
}
