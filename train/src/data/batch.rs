//! Examples, batches, and the batcher that keeps padding small.

use std::sync::{Arc, Mutex};

use dram_files::Rng;

/// One training example: token ids, and which of them the model is asked to predict.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Example {
    pub ids: Vec<u32>,
    /// `counts[i]`: token `i` is a target. Same length as `ids`; the first token never counts, nothing predicts it.
    pub counts: Vec<bool>,
}

impl Example {
    /// An example of a prompt that does not count followed by a completion that does.
    pub fn prompt_completion(prompt: &[u32], completion: &[u32]) -> Self {
        let mut example = Example::default();
        example.push(prompt, false);
        example.push(completion, true);
        example
    }

    /// Appends `ids`, all of which count or do not.
    pub fn push(&mut self, ids: &[u32], counts: bool) {
        self.ids.extend_from_slice(ids);
        self.counts.resize(self.ids.len(), counts);
    }

    /// Cuts to at most `length` tokens from the front.
    pub fn truncate(&mut self, length: usize) {
        self.ids.truncate(length);
        self.counts.truncate(length);
    }

    /// How many tokens are predicted.
    pub fn targets(&self) -> usize {
        self.counts.iter().skip(1).filter(|&&c| c).count()
    }
}

/// What one step sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// [batch, length], right-padded with id 0. Attention is causal and padding is never a target, so it needs no mask.
    pub ids: Vec<u32>,
    pub batch: usize,
    pub length: usize,
    /// (flat position in `ids`, the id that follows there), ascending: the positions that count.
    pub targets: Vec<(usize, u32)>,
}

impl Batch {
    /// Pads `examples` to the longest. The last token of an example is only ever a target, so it is not fed.
    pub fn new(examples: &[Example]) -> Self {
        let length = examples
            .iter()
            .map(|e| e.ids.len().saturating_sub(1))
            .max()
            .unwrap_or(0)
            .max(1);
        let mut ids = vec![0; examples.len() * length]; // [batch, length]
        let mut targets = Vec::new();
        for (row, example) in examples.iter().enumerate() {
            debug_assert_eq!(example.ids.len(), example.counts.len());
            let start = row * length;
            let fed = example.ids.len().saturating_sub(1);
            ids[start..start + fed].copy_from_slice(&example.ids[..fed]);
            for at in 0..fed {
                if example.counts[at + 1] {
                    targets.push((start + at, example.ids[at + 1]));
                }
            }
        }
        Batch {
            ids,
            batch: examples.len(),
            length,
            targets,
        }
    }

    /// Splits the rows into `parts` batches of nearly equal row counts, in order; empty parts are left out.
    pub fn split(&self, parts: usize) -> Vec<Batch> {
        let parts = parts.clamp(1, self.batch.max(1));
        let mut out = Vec::with_capacity(parts);
        let mut row = 0;
        for part in 0..parts {
            let end = self.batch * (part + 1) / parts;
            let (from, to) = (row * self.length, end * self.length);
            let first = self.targets.partition_point(|t| t.0 < from);
            let last = self.targets.partition_point(|t| t.0 < to);
            out.push(Batch {
                ids: self.ids[from..to].to_vec(),
                batch: end - row,
                length: self.length,
                targets: self.targets[first..last]
                    .iter()
                    .map(|&(at, id)| (at - from, id))
                    .collect(),
            });
            row = end;
        }
        out
    }
}

/// A training stream: batch number `step` is a pure function of the stream's own settings and `step`.
pub trait Batches: Send + Sync {
    fn batch(&self, step: u64) -> Batch;
}

/// A collection or an endless generator of examples.
pub trait Examples: Send + Sync {
    /// How many there are; `None` when the stream never ends.
    fn len(&self) -> Option<u64>;
    /// Example `index`, the same every time. `index < len()` where there is a length.
    fn get(&self, index: u64) -> Example;
    fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

impl Examples for Vec<Example> {
    fn len(&self) -> Option<u64> {
        Some(self.as_slice().len() as u64)
    }

    fn get(&self, index: u64) -> Example {
        self[index as usize].clone()
    }
}

/// Batches of examples of similar length: `window` batches' worth of examples are sorted by length, cut into batches, and
/// served in a shuffled order. Finite collections are permuted anew every epoch.
pub struct Grouped {
    examples: Arc<dyn Examples>,
    batch: usize,
    window: usize,
    seed: u64,
    /// The window served last, so that consecutive steps build it once.
    cache: Mutex<Option<(u64, Vec<Batch>)>>,
    /// The permutation of the epoch used last.
    epoch: Mutex<Option<(u64, Arc<Vec<u32>>)>>,
}

impl Grouped {
    /// `batch` examples a step, grouped within windows of `window` steps (16 keeps padding low; 1 turns grouping off).
    ///
    /// # Errors
    /// When there is no example, more than 2^32 of them, or `batch` or `window` is 0.
    pub fn new(
        examples: Arc<dyn Examples>,
        batch: usize,
        window: usize,
        seed: u64,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(
            batch > 0 && window > 0,
            "batch size and window must be at least 1, got {batch} and {window}"
        );
        if let Some(n) = examples.len() {
            anyhow::ensure!(n > 0, "the training data has no example");
            anyhow::ensure!(
                n <= u64::from(u32::MAX),
                "{n} examples are more than a batcher can permute (2^32)"
            );
        }
        Ok(Grouped {
            examples,
            batch,
            window,
            seed,
            cache: Mutex::new(None),
            epoch: Mutex::new(None),
        })
    }

    /// The example at place `n` of the endless, permuted stream.
    fn at(&self, n: u64) -> Example {
        let Some(len) = self.examples.len() else {
            return self.examples.get(n);
        };
        let (epoch, offset) = (n / len, n % len);
        let mut slot = self.epoch.lock().unwrap_or_else(|e| e.into_inner());
        let order = match slot.as_ref() {
            Some((e, order)) if *e == epoch => order.clone(),
            _ => {
                let mut order: Vec<u32> = (0..len as u32).collect();
                Rng::new(&[self.seed, 0x6570_6f63, epoch]).shuffle(&mut order);
                let order = Arc::new(order);
                *slot = Some((epoch, order.clone()));
                order
            }
        };
        self.examples.get(u64::from(order[offset as usize]))
    }

    fn window(&self, number: u64) -> Vec<Batch> {
        let count = self.batch * self.window;
        let mut examples: Vec<Example> = (0..count as u64)
            .map(|i| self.at(number * count as u64 + i))
            .collect();
        examples.sort_by_key(|e| e.ids.len()); // stable: ties keep the stream's order
        let mut batches: Vec<Batch> = examples.chunks(self.batch).map(Batch::new).collect();
        Rng::new(&[self.seed, 0x7769_6e64, number]).shuffle(&mut batches);
        batches
    }
}

impl Batches for Grouped {
    fn batch(&self, step: u64) -> Batch {
        let (number, at) = (
            step / self.window as u64,
            (step % self.window as u64) as usize,
        );
        let mut slot = self.cache.lock().unwrap_or_else(|e| e.into_inner());
        match slot.as_ref() {
            Some((cached, batches)) if *cached == number => batches[at].clone(),
            _ => {
                let batches = self.window(number);
                let batch = batches[at].clone();
                *slot = Some((number, batches));
                batch
            }
        }
    }
}

/// Every example once, grouped by length; the order of the batches is by length.
pub fn evaluation_batches(examples: &[Example], batch: usize) -> Vec<Batch> {
    let mut order: Vec<&Example> = examples.iter().collect();
    order.sort_by_key(|e| e.ids.len());
    order
        .chunks(batch.max(1))
        .map(|c| Batch::new(&c.iter().map(|&e| e.clone()).collect::<Vec<_>>()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(n: u32) -> Example {
        let length = 2 + (n * 7) % 23;
        Example::prompt_completion(&[n; 1], &(0..length).collect::<Vec<_>>())
    }

    #[test]
    fn targets_follow_their_positions() {
        let a = Example::prompt_completion(&[5, 6], &[7, 8]);
        let b = Example::prompt_completion(&[9], &[3]);
        let batch = Batch::new(&[a, b]);
        assert_eq!((batch.batch, batch.length), (2, 3));
        assert_eq!(batch.ids, [5, 6, 7, 9, 0, 0]);
        assert_eq!(batch.targets, [(1, 7), (2, 8), (3, 3)]);
        let parts = batch.split(2);
        assert_eq!(parts[1].targets, [(0, 3)]);
        assert_eq!(parts[1].ids, [9, 0, 0]);
        assert_eq!(batch.split(1), std::slice::from_ref(&batch));
    }

    #[test]
    fn any_step_can_be_asked_first_and_an_epoch_is_a_permutation() {
        let data: Vec<Example> = (0..40).map(example).collect();
        let make = || Grouped::new(Arc::new(data.clone()), 4, 5, 7).unwrap();
        let straight = make();
        let batches: Vec<Batch> = (0..30).map(|s| straight.batch(s)).collect();
        for step in [29, 3, 11, 0] {
            assert_eq!(make().batch(step), batches[step as usize]);
        }
        // 40 examples = 10 steps of 4 = two whole windows
        for epoch in 0..3 {
            let mut seen: Vec<u32> = batches[epoch * 10..][..10]
                .iter()
                .flat_map(|b| {
                    (0..b.batch)
                        .map(|r| b.ids[r * b.length])
                        .collect::<Vec<_>>()
                })
                .collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..40).collect::<Vec<_>>());
        }
        assert_ne!(batches[..10], batches[10..20]);
    }

    #[test]
    fn grouping_keeps_padding_small() {
        let data: Vec<Example> = (0..640).map(example).collect();
        let waste = |window| {
            let b = Grouped::new(Arc::new(data.clone()), 8, window, 1).unwrap();
            let (mut fed, mut padded) = (0, 0);
            for step in 0..80 {
                let batch = b.batch(step);
                padded += batch.ids.len();
                fed += batch.targets.len();
            }
            1.0 - fed as f64 / padded as f64
        };
        assert!(
            waste(16) < 0.1 && waste(16) < waste(1) / 2.0,
            "{} {}",
            waste(16),
            waste(1)
        );
    }
}
