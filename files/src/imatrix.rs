//! `dram imatrix`: how much each column of a model's matrices matters on a text, for [`Importance`](crate::quantize::Importance) to read.

use std::path::Path;

use anyhow::{Result, ensure};
use dram_core::gguf::{OwnedValue, Value};
use dram_core::{ImportanceSums, Model, SessionOptions};

use crate::write::{Head, Plan, write_file};
use crate::write_beside;

/// An importance matrix to be collected: the sums of squares of what meets each column of each matrix, over a text in chunks that begin anew.
pub struct Collect<'a> {
    pub model: &'a Model,
    /// The text's tokens.
    pub ids: &'a [u32],
    /// Tokens of a chunk. What is left at the end of the text is passed over.
    pub chunk: usize,
    /// Chunks at most; `None`: all.
    pub chunks: Option<usize>,
    /// Whether the output matrix is counted, and not only the layers'.
    pub output: bool,
    pub threads: Option<usize>,
}

/// What was collected.
pub struct Collected {
    /// In the order of the model's file.
    pub tensors: Vec<ImportanceSums>,
    pub chunk: usize,
    pub chunks: usize,
}

impl Collect<'_> {
    /// Evaluates the text; `each` hears of every chunk: how many are done, and of how many. As llama.cpp does, a chunk's first token is replaced by BOS
    /// where the model wants one.
    ///
    /// # Errors
    /// When the text has no whole chunk, a chunk does not fit the model's context, or a sum is not finite.
    pub fn run(&self, each: &mut dyn FnMut(usize, usize)) -> Result<Collected> {
        let (tokens, chunk) = (self.ids.len(), self.chunk);
        ensure!(chunk > 0, "expected chunks of at least one token");
        let chunks = (tokens / chunk).min(self.chunks.unwrap_or(usize::MAX));
        ensure!(
            chunks > 0,
            "expected a text of at least one chunk of {chunk} tokens, got {tokens}: take a longer text or shorter chunks"
        );
        let mut session = self.model.session(SessionOptions {
            context: Some(chunk),
            threads: self.threads,
            ..SessionOptions::default()
        })?;
        let tokenizer = self.model.tokenizer();
        let begin = tokenizer.bos().filter(|_| tokenizer.add_bos());
        session.collect_importance();
        let mut ids = Vec::with_capacity(chunk);
        for (number, part) in self.ids.chunks_exact(chunk).take(chunks).enumerate() {
            ids.clear();
            ids.extend_from_slice(part);
            if let Some(begin) = begin {
                ids[0] = begin;
            }
            session.evaluate(&ids, &mut |_, _| {})?;
            each(number + 1, chunks);
        }
        let mut tensors = session.take_importance();
        tensors.retain(|t| self.output || t.tensor.starts_with("blk."));
        for tensor in &tensors {
            ensure!(
                tensor.sums.iter().all(|sum| sum.is_finite()),
                "{}: an input that is not finite: the model's weights are broken",
                tensor.tensor
            );
        }
        Ok(Collected {
            tensors,
            chunk,
            chunks,
        })
    }
}

impl Collected {
    /// Writes the matrix as llama.cpp's `llama-imatrix` does: for a tensor NAME, `NAME.in_sum2` `[cols]` and `NAME.counts` `[1]`, or for experts
    /// `[experts, cols]` and `[experts, 1]`; `dataset` is what the text is called.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, path: &Path, dataset: &str) -> Result<()> {
        let number = |n: usize| Ok::<_, anyhow::Error>(Value::U32(u32::try_from(n)?));
        let mut head = Head::default();
        head.put("general.type", Value::String("imatrix"));
        head.put("imatrix.chunk_count", number(self.chunks)?);
        head.put("imatrix.chunk_size", number(self.chunk)?);
        head.put(
            "imatrix.datasets",
            OwnedValue::from(vec![dataset.to_owned()]).get(),
        );
        let format = crate::quantize::format("f32")?;
        let plan = |tensor: &ImportanceSums, part: &str, values: usize| {
            let matrices = tensor.counts.len();
            let cols = (values / matrices) as u64;
            Plan {
                name: format!("{}.{part}", tensor.tensor),
                shape: match matrices {
                    1 => vec![cols],
                    matrices => vec![cols, matrices as u64],
                },
                format,
            }
        };
        let parts = |t: &ImportanceSums| {
            let ImportanceSums { sums, counts, .. } = t;
            [
                plan(t, "in_sum2", sums.len()),
                plan(t, "counts", counts.len()),
            ]
        };
        let plans: Vec<Plan> = self.tensors.iter().flat_map(parts).collect();
        write_beside(path, |beside| {
            write_file(beside, &head, &plans, &mut |index, out| {
                let tensor = &self.tensors[index / 2];
                let values: Vec<f32> = if index % 2 == 0 {
                    tensor.sums.iter().map(|sum| *sum as f32).collect()
                } else {
                    tensor.counts.iter().map(|count| *count as f32).collect()
                };
                let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                out.put(&bytes)
            })
        })
    }
}
