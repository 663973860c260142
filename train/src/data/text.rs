//! Plain text: reading, splitting, random crops for training, consecutive blocks and llama.cpp's chunks for evaluation, packing.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use dram_files::Rng;

use super::{Batch, Batches, Example};

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
    bos: Option<u32>,
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
            bos: None,
        })
    }

    /// Every crop begins with this token, as every prompt of such a model does, and nothing predicts it.
    #[must_use]
    pub fn beginning_with(self, bos: Option<u32>) -> Self {
        Crops { bos, ..self }
    }
}

impl Batches for Crops {
    fn batch(&self, step: u64) -> Batch {
        let mut rng = Rng::new(&[self.seed, 0x6372_6f70, step]);
        let starts = (0..self.batch).map(|_| rng.below(self.ids.len() - self.length));
        dense(&self.ids, starts, self.length, self.bos)
    }
}

/// The text in consecutive blocks of `length` inputs, `batch` of them at a time; the last block is shorter where the text does
/// not divide. Every token but the first is a target exactly once. With `bos` every block begins with it, and it is no target.
pub fn sequential_blocks(ids: &[u32], length: usize, batch: usize, bos: Option<u32>) -> Vec<Batch> {
    let (length, batch) = (length.max(1), batch.max(1));
    let mut starts = Vec::new();
    let mut at = 0;
    // A block that begins with a BOS of the text predicts what follows it; another is given one, and predicts its own first token too.
    let first = |at: usize| usize::from(bos.is_none_or(|bos| ids.get(at) == Some(&bos)));
    while at + first(at) + length <= ids.len() {
        starts.push(at);
        at += first(at) + length;
        if bos.is_none() {
            at -= 1;
        }
    }
    let mut out: Vec<Batch> = starts
        .chunks(batch)
        .map(|starts| dense(ids, starts.iter().copied(), length, bos))
        .collect();
    let rest = ids.len().saturating_sub(at + first(at));
    if rest > 0 {
        out.push(dense(ids, std::iter::once(at), rest, bos));
    }
    out
}

/// The text as llama.cpp's `llama-perplexity` scores it: in chunks of `length` tokens, the first of each replaced by `bos` where there is one; what
/// lies before the middle of a chunk is context only. What fills no chunk is left out. At most `most` chunks (0: all), `batch` at a time.
pub fn perplexity_chunks(
    ids: &[u32],
    length: usize,
    most: usize,
    batch: usize,
    bos: Option<u32>,
) -> Vec<Batch> {
    let most = if most == 0 { usize::MAX } else { most };
    let chunks: Vec<Vec<u32>> = ids
        .chunks_exact(length.max(2))
        .take(most)
        .map(|chunk| {
            let mut chunk = chunk.to_vec();
            chunk[0] = bos.unwrap_or(chunk[0]);
            chunk
        })
        .collect();
    let example = |ids: &Vec<u32>| Example {
        // The first target is the token after the one in the middle.
        counts: (0..ids.len()).map(|at| at > ids.len() / 2).collect(),
        ids: ids.clone(),
    };
    chunks
        .chunks(batch.max(1))
        .map(|chunks| Batch::new(&chunks.iter().map(example).collect::<Vec<_>>()))
        .collect()
}

/// Rows of `length` inputs from each start; every position is a target, unless `bos` follows. With `bos` a row that does not begin with it gets it in
/// front. Needs `start + length < ids.len()`, or one token less for a row that gets `bos`.
fn dense(
    ids: &[u32],
    starts: impl Iterator<Item = usize>,
    length: usize,
    bos: Option<u32>,
) -> Batch {
    let mut batch = Batch {
        ids: Vec::new(),
        batch: 0,
        length,
        targets: Vec::new(),
    };
    for mut start in starts {
        let row = batch.ids.len();
        let added = bos.filter(|&bos| ids[start] != bos);
        batch.ids.extend(added);
        batch
            .ids
            .extend_from_slice(&ids[start..start + length - usize::from(added.is_some())]);
        if added.is_none() {
            start += 1;
        }
        let targets = ids[start..start + length].iter().enumerate();
        batch.targets.extend(
            targets
                .filter(|(_, id)| Some(**id) != bos)
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
        let blocks = sequential_blocks(&ids, 16, 4, None);
        let targets: Vec<u32> = blocks
            .iter()
            .flat_map(|b| b.targets.iter().map(|t| t.1))
            .collect();
        assert_eq!(targets, (1..100).collect::<Vec<_>>());
        assert!(blocks.iter().all(|b| b.ids.len() == b.batch * b.length));
        assert!(sequential_blocks(&ids[..1], 16, 4, None).is_empty());
    }

    /// With BOS every row begins with it, every other token is a target once, and BOS never is.
    #[test]
    fn blocks_begin_with_bos() {
        const BOS: u32 = 7;
        let mut ids: Vec<u32> = (100..200).collect();
        for at in [0, 32, 50] {
            ids.insert(at, BOS);
        }
        let wanted: Vec<u32> = (100..200).collect();
        for length in [1, 2, 16, 17, 200] {
            let blocks = sequential_blocks(&ids, length, 4, Some(BOS));
            let targets: Vec<u32> = blocks
                .iter()
                .flat_map(|b| b.targets.iter().map(|t| t.1))
                .collect();
            assert_eq!(targets, wanted, "{length}");
            for block in &blocks {
                assert_eq!(block.ids.len(), block.batch * block.length);
                assert!(block.ids.chunks(block.length).all(|row| row[0] == BOS));
                for &(at, id) in &block.targets {
                    // What is predicted follows the input, or BOS stands in for what came before.
                    assert!(block.ids[at] + 1 == id || block.ids[at] == BOS);
                }
            }
        }
        let crops = Crops::new(Arc::new(ids), 8, 16, 3).unwrap();
        let batch = crops.beginning_with(Some(BOS)).batch(1);
        assert!(
            batch
                .ids
                .chunks(16)
                .all(|row| row.len() == 16 && row[0] == BOS)
        );
        assert!(batch.targets.iter().all(|t| t.1 != BOS));
    }

    /// As `llama-perplexity -c 8` counts: of each 8 tokens the 5th to 7th predict what follows them.
    #[test]
    fn chunks_are_llama_cpps() {
        let ids: Vec<u32> = (0..30).collect();
        let chunks = perplexity_chunks(&ids, 8, 0, 2, Some(99));
        assert_eq!(chunks.iter().map(|b| b.batch).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(chunks[0].length, 7);
        assert_eq!(chunks[0].ids[..8], [99, 1, 2, 3, 4, 5, 6, 99]);
        let targets: Vec<u32> = chunks[0].targets.iter().map(|t| t.1).collect();
        assert_eq!(targets, [5, 6, 7, 13, 14, 15]);
        assert_eq!(chunks[0].targets[0].0, 4);
        assert_eq!(perplexity_chunks(&ids, 8, 1, 4, None)[0].ids[0], 0);
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
