//! Plain text: reading, splitting, random crops for training, consecutive blocks for evaluation, packing.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::{Batch, Batches, Example, Rng};

/// The files' texts, one after another.
///
/// # Errors
/// Names the file that cannot be read or is not UTF-8, and where.
pub fn read_text<P: AsRef<Path>>(paths: &[P]) -> Result<String> {
    let mut out = String::new();
    for path in paths {
        let path = path.as_ref();
        let bytes = std::fs::read(path)
            .with_context(|| format!("{}: cannot read the text", path.display()))?;
        let text = std::str::from_utf8(&bytes).map_err(|e| {
            let line = 1 + bytes[..e.valid_up_to()]
                .iter()
                .filter(|&&b| b == b'\n')
                .count();
            anyhow::anyhow!(
                "{}:{line}: not UTF-8 (byte {})",
                path.display(),
                e.valid_up_to()
            )
        })?;
        out.push_str(text);
    }
    Ok(out)
}

/// (training part, validation part): the validation part is the last `fraction` of the characters, as nanoGPT splits (0.1).
///
/// # Errors
/// When `fraction` is not within 0..1.
pub fn split_text(text: &str, fraction: f64) -> Result<(&str, &str)> {
    ensure!(
        (0.0..1.0).contains(&fraction),
        "the validation fraction must be at least 0 and below 1, got {fraction}"
    );
    let characters = text.chars().count();
    // 1 - 0.1 is 0.9 exactly as nanoGPT writes it; the product is cut, not rounded
    let keep = (characters as f64 * (1.0 - fraction)) as usize;
    let at = text
        .char_indices()
        .nth(keep)
        .map_or(text.len(), |(at, _)| at);
    Ok(text.split_at(at))
}

/// Random crops of a long text: batch `step` holds `batch` crops of `length` inputs, each predicting the token after it.
pub struct Crops {
    ids: Arc<Vec<u32>>,
    batch: usize,
    length: usize,
    seed: u64,
}

impl Crops {
    /// # Errors
    /// When the text is not longer than one crop, or a size is 0.
    pub fn new(ids: Arc<Vec<u32>>, batch: usize, length: usize, seed: u64) -> Result<Self> {
        ensure!(
            batch > 0 && length > 0,
            "batch size and context length must be at least 1, got {batch} and {length}"
        );
        ensure!(
            ids.len() > length,
            "the training text has {} tokens, a crop takes {}: give more text or a shorter context",
            ids.len(),
            length + 1
        );
        Ok(Crops {
            ids,
            batch,
            length,
            seed,
        })
    }
}

impl Batches for Crops {
    fn batch(&self, step: u64) -> Batch {
        let mut rng = Rng::new(&[self.seed, 0x6372_6f70, step]);
        let starts = (0..self.batch).map(|_| rng.below(self.ids.len() - self.length));
        dense(&self.ids, starts, self.length)
    }
}

/// The text in consecutive blocks of `length` inputs, `batch` of them at a time; the last block is shorter where the text does
/// not divide. Every token but the first is a target exactly once.
pub fn sequential_blocks(ids: &[u32], length: usize, batch: usize) -> Vec<Batch> {
    let (length, batch) = (length.max(1), batch.max(1));
    let inputs = ids.len().saturating_sub(1);
    let whole: Vec<usize> = (0..inputs / length).map(|i| i * length).collect();
    let mut out: Vec<Batch> = whole
        .chunks(batch)
        .map(|starts| dense(ids, starts.iter().copied(), length))
        .collect();
    let rest = inputs % length;
    if rest > 0 {
        out.push(dense(ids, std::iter::once(inputs - rest), rest));
    }
    out
}

/// Rows of `length` inputs from each start; every position is a target. Needs `start + length < ids.len()`.
fn dense(ids: &[u32], starts: impl Iterator<Item = usize>, length: usize) -> Batch {
    let mut batch = Batch {
        ids: Vec::new(),
        batch: 0,
        length,
        targets: Vec::new(),
    };
    for start in starts {
        let row = batch.ids.len();
        batch.ids.extend_from_slice(&ids[start..start + length]);
        batch.targets.extend(
            ids[start + 1..=start + length]
                .iter()
                .enumerate()
                .map(|(i, &id)| (row + i, id)),
        );
        batch.batch += 1;
    }
    batch
}

/// Joins examples and cuts the result into examples of `length` inputs (`length` + 1 tokens, the last shared with the next
/// block's first, so that no target is lost). What counted before counts after. The last block may be shorter.
pub fn pack(examples: impl IntoIterator<Item = Example>, length: usize) -> Vec<Example> {
    let length = length.max(1);
    let mut out = Vec::new();
    let mut open = Example::default();
    for example in examples {
        let (mut ids, mut counts) = (example.ids.as_slice(), example.counts.as_slice());
        while !ids.is_empty() {
            let take = (length + 1 - open.ids.len()).min(ids.len());
            open.ids.extend_from_slice(&ids[..take]);
            open.counts.extend_from_slice(&counts[..take]);
            (ids, counts) = (&ids[take..], &counts[take..]);
            if open.ids.len() == length + 1 {
                let next = Example {
                    ids: vec![open.ids[length]],
                    counts: vec![false],
                };
                out.push(std::mem::replace(&mut open, next));
            }
        }
    }
    if open.ids.len() > 1 {
        out.push(open);
    }
    out.retain(|e| e.targets() > 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_is_nanogpts() {
        let text: String = (0..1003)
            .map(|i| char::from(b'a' + (i % 26) as u8))
            .collect();
        let (train, validation) = split_text(&text, 0.1).unwrap();
        assert_eq!((train.len(), validation.len()), (902, 101));
        assert_eq!(split_text("äöü", 0.5).unwrap(), ("ä", "öü"));
        assert!(split_text("abc", 1.0).is_err());
    }

    #[test]
    fn blocks_cover_every_target_once() {
        let ids: Vec<u32> = (0..100).collect();
        let blocks = sequential_blocks(&ids, 16, 4);
        let targets: Vec<u32> = blocks
            .iter()
            .flat_map(|b| b.targets.iter().map(|t| t.1))
            .collect();
        assert_eq!(targets, (1..100).collect::<Vec<_>>());
        assert!(blocks.iter().all(|b| b.ids.len() == b.batch * b.length));
        assert!(sequential_blocks(&ids[..1], 16, 4).is_empty());
    }

    #[test]
    fn crops_depend_on_seed_and_step_only() {
        let ids = Arc::new((0..500).collect::<Vec<u32>>());
        let crops = Crops::new(ids.clone(), 3, 32, 5).unwrap();
        assert_eq!(
            crops.batch(9),
            Crops::new(ids.clone(), 3, 32, 5).unwrap().batch(9)
        );
        assert_ne!(crops.batch(9), crops.batch(10));
        for (at, next) in crops.batch(9).targets {
            assert_eq!(crops.batch(9).ids[at] + 1, next);
        }
        assert!(Crops::new(ids, 3, 500, 5).is_err());
    }

    #[test]
    fn packing_loses_no_target() {
        let examples: Vec<Example> = (0..20u32)
            .map(|i| Example::prompt_completion(&[i], &[100 + i; 6]))
            .collect();
        let packed = pack(examples.clone(), 10);
        let before: usize = examples.iter().map(Example::targets).sum();
        let after: usize = packed.iter().map(Example::targets).sum();
        assert_eq!(before, after);
        assert!(packed.iter().all(|e| e.ids.len() <= 11));
    }

    #[test]
    fn bad_bytes_are_located() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, b"one\ntwo\xff\n").unwrap();
        let error = read_text(&[&path]).unwrap_err().to_string();
        assert!(error.contains("a.txt:2"), "{error}");
    }
}
