//! Batches cut so that what is in memory at a time, and what happens between two looks at the stop flag, is bounded.

use std::path::{Path, PathBuf};

use crate::data::Batch;

/// Most bytes of a model's logits in memory at a time, by all of its threads together; one position is always allowed.
pub const LOGITS_BYTES: usize = 256 << 20;
/// Most bytes of logits of one portion, where they are kept; more than [`LOGITS_BYTES`] lie on disk.
const PORTION_BYTES: usize = 4 << 30;
/// Tokens of a portion, unless that leaves cores without a sequence.
const PORTION_TOKENS: usize = 4096;
/// Tokens that a model reads at a time where it cannot be stopped in between.
const PIECE_TOKENS: usize = 1024;

/// Positions whose logits one of `threads` threads may have at a time.
pub(crate) fn most_positions(vocabulary: usize, threads: usize) -> usize {
    (LOGITS_BYTES / 4 / threads.max(1) / vocabulary.max(1)).max(1)
}

/// The batch in parts of whole sequences, those whose positions are all masked left out; `kept`: logits for this many tokens are.
pub(crate) fn portions(batch: &Batch, kept: Option<usize>) -> Vec<Batch> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let tokens = PORTION_TOKENS.max(cores * batch.length);
    let bytes = batch.targets.len() * kept.unwrap_or(0) * 4;
    let parts = batch
        .ids
        .len()
        .div_ceil(tokens)
        .max(bytes.div_ceil(PORTION_BYTES));
    let mut parts = batch.split(parts);
    parts.retain(|part| !part.targets.is_empty());
    parts
}

/// The batch in pieces for models that give all logits at once, each with the index of its first target. A sequence with too many of them comes
/// several times, up to the last target of each piece.
pub(crate) fn pieces(batch: &Batch, vocabulary: usize) -> Vec<(usize, Batch)> {
    let most = most_positions(vocabulary, 1);
    let mut out = Vec::new();
    let mut first = 0;
    for part in batch.split(batch.ids.len().div_ceil(PIECE_TOKENS)) {
        if part.targets.len() <= most {
            let targets = part.targets.len();
            if targets > 0 {
                out.push((first, part));
            }
            first += targets;
            continue;
        }
        for row in part.split(part.batch) {
            for targets in row.targets.chunks(most) {
                let length = targets.last().map_or(0, |t| t.0 + 1);
                let piece = Batch {
                    ids: row.ids[..length].to_vec(),
                    batch: 1,
                    length,
                    targets: targets.to_vec(),
                };
                out.push((first, piece));
                first += targets.len();
            }
        }
    }
    out
}

/// Where large files may lie for a while: the folder that `TMPDIR` names; without it rather one on disk than one that may be memory.
pub(crate) fn scratch_folder() -> PathBuf {
    let on_disk = Path::new("/var/tmp");
    if std::env::var_os("TMPDIR").is_none() && on_disk.is_dir() {
        on_disk.to_owned()
    } else {
        std::env::temp_dir()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `rows` sequences in which every position counts.
    fn batch(rows: usize, length: usize) -> Batch {
        Batch {
            ids: (0..rows * length).map(|i| i as u32).collect(),
            batch: rows,
            length,
            targets: (0..rows * length).map(|i| (i, i as u32 + 1)).collect(),
        }
    }

    #[test]
    fn pieces_cover_every_target_once_within_the_bound() {
        for (rows, length, vocabulary) in [(16, 60, 2048), (3, 700, 151_936), (5, 3000, 49_152)] {
            let whole = batch(rows, length);
            let mut next = 0;
            for (first, piece) in pieces(&whole, vocabulary) {
                assert_eq!(first, next);
                assert!(piece.targets.len() * vocabulary * 4 <= LOGITS_BYTES);
                for &(at, id) in &piece.targets {
                    assert_eq!((piece.ids[at] + 1, id), (id, whole.targets[next].1));
                    next += 1;
                }
            }
            assert_eq!(next, rows * length);
        }
        let small = batch(16, 60);
        assert_eq!(pieces(&small, 2048), [(0, small)]);
    }

    #[test]
    fn portions_are_bounded_and_small_batches_stay_whole() {
        assert_eq!(portions(&batch(16, 256), Some(2048)), [batch(16, 256)]);
        let parts = portions(&batch(16, 1024), Some(151_936));
        assert_eq!(parts.iter().map(|p| p.batch).sum::<usize>(), 16);
        for part in parts {
            assert!(part.targets.len() * 151_936 * 4 <= PORTION_BYTES);
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        assert!(portions(&batch(8 * cores, 1024), None).len() > 1);
    }
}
