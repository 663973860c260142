//! Sums of squared inputs of a model's matrices: what an importance matrix is made of.

use crate::gguf;
use crate::kernels::Activations;
use crate::model::weights::Matrix;
use std::collections::HashMap;

/// What one tensor was multiplied with: a matrix, or a stack of experts.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportanceSums {
    /// The tensor's name in the model's file.
    pub tensor: String,
    /// How many vectors, `[matrices]`: tokens, or those that took the expert.
    pub counts: Vec<u64>,
    /// `[matrices, cols]`: the sum of each column's squares over them.
    pub sums: Vec<f64>,
}

/// Sums by where a matrix begins in the model's file.
#[derive(Default)]
pub(super) struct Importance {
    by_matrix: HashMap<usize, (u64, Vec<f64>)>,
}

impl Importance {
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

    /// By tensor, in the file's order. Matrices that have one input and lie in one tensor are one: the first of them speaks for it.
    pub(super) fn by_tensor(&self, file: &gguf::File) -> Vec<ImportanceSums> {
        let found = file.tensors().filter_map(|tensor| {
            let count = tensor.shape().get(2).copied().unwrap_or(1);
            let length = tensor.range().len() / count;
            let (mut counts, mut sums) = (vec![0; count], vec![0.0; count * tensor.cols()]);
            let matrices = counts.iter_mut().zip(sums.chunks_exact_mut(tensor.cols()));
            let mut is_met = false;
            for (number, (count, sums)) in matrices.enumerate() {
                let at = tensor.range().start + number * length;
                if let Some((seen, squares)) = self.by_matrix.get(&at) {
                    *count = *seen;
                    sums.copy_from_slice(squares);
                    is_met = true;
                }
            }
            is_met.then(|| ImportanceSums {
                tensor: tensor.name().to_owned(),
                counts,
                sums,
            })
        });
        found.collect()
    }
}
