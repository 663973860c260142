//! What `dram imatrix` collected, for quantising.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Result, ensure};
use dram_core::gguf::File;

/// An importance matrix: for each tensor, how much the squared error of each column weighs.
pub struct Importance(pub(super) HashMap<String, Vec<f32>>);

impl Importance {
    /// Reads what `dram imatrix` and llama.cpp's `llama-imatrix` write as GGUF: for a tensor NAME, `NAME.in_sum2` (sums of squared activations, `[cols]`, for
    /// each expert of a tensor of experts) and `NAME.counts`. An expert that no token took weighs all columns the same.
    ///
    /// # Errors
    /// When the file is no such matrix.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let mut all = HashMap::new();
        for sums in file.tensors() {
            let Some(name) = sums.name().strip_suffix(".in_sum2") else {
                continue;
            };
            let counts = file.tensor(&format!("{name}.counts"))?.dequantize();
            ensure!(
                counts.len() == sums.rows(),
                "{}: {}: sums of {} matrices, and counts of {}",
                path.display(),
                sums.name(),
                sums.rows(),
                counts.len()
            );
            let mut weights = sums.dequantize();
            for (weights, count) in weights.chunks_exact_mut(sums.cols()).zip(&counts) {
                if *count == 0.0 {
                    weights.fill(1.0);
                }
                weights.iter_mut().for_each(|w| *w /= count.max(1.0));
            }
            ensure!(
                weights.iter().all(|w| w.is_finite() && *w >= 0.0),
                "{}: {}: expected finite sums of squares",
                path.display(),
                sums.name()
            );
            all.insert(name.to_string(), weights);
        }
        ensure!(
            !all.is_empty(),
            "{}: no tensor ends in .in_sum2; expected an importance matrix in GGUF, as llama-imatrix writes it",
            path.display()
        );
        Ok(Importance(all))
    }
}
