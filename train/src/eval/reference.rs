//! A model's answers on held-out data, computed once.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};

use super::{LOGITS_BYTES, Scorer, Take, scratch_folder};
use crate::data::Batch;
use crate::stop;

/// Answers that are kept in memory, at most; in bytes.
const MEMORY: usize = LOGITS_BYTES;
/// Answers that are kept on disk, at most; in bytes. What goes beyond is computed each time.
const DISK: usize = 4 << 30;

/// What a full disk leaves to memory, at most; in bytes.
const FALLBACK: usize = 1 << 30;

/// A scorer whose logits are kept as exact f32: the first 256 MiB in memory, then up to 4 GiB in a file of `folder` that has no name and is gone
/// with the process. Those of more data are computed each time.
pub struct Reference<'a> {
    scorer: &'a dyn Scorer,
    folder: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_batch: HashMap<blake3::Hash, Arc<Answers>>,
    memory: usize,
    disk: usize,
    file: Option<Arc<Mutex<File>>>,
}

/// The logits `[targets, vocabulary]` of one batch.
pub(crate) enum Answers {
    Memory(Mutex<Vec<f32>>),
    /// In a file, from a byte on.
    File(Arc<Mutex<File>>, u64),
}

impl Answers {
    /// What `scorer` says of `batch`: in memory, or where that takes too much in a file of `folder`.
    pub(crate) fn of(
        scorer: &dyn Scorer,
        batch: &Batch,
        folder: &Path,
        stop: &AtomicBool,
    ) -> Result<Self> {
        let values = batch.targets.len() * scorer.vocabulary();
        let place = if values * 4 <= MEMORY {
            Self::in_memory(values)
        } else {
            Self::File(Arc::new(Mutex::new(temporary(folder)?)), 0)
        };
        place.filled(scorer, batch, stop)
    }

    fn in_memory(values: usize) -> Self {
        Self::Memory(Mutex::new(vec![0.0; values]))
    }

    fn filled(self, scorer: &dyn Scorer, batch: &Batch, stop: &AtomicBool) -> Result<Self> {
        let vocabulary = scorer.vocabulary();
        let got = Mutex::new(0);
        scorer.visit(batch, stop, &|first, logits| {
            *lock(&got) += logits.len();
            self.write(first * vocabulary, logits)
        })?;
        let (expected, got) = (batch.targets.len() * vocabulary, *lock(&got));
        ensure!(
            got == expected,
            "{}: expected {expected} logits, got {got}",
            scorer.name()
        );
        Ok(self)
    }

    fn write(&self, first: usize, values: &[f32]) -> Result<()> {
        match self {
            Self::Memory(all) => lock(all)
                .get_mut(first..first + values.len())
                .context("more logits than target positions")?
                .copy_from_slice(values),
            Self::File(file, start) => {
                let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                let mut file = lock(file);
                file.seek(SeekFrom::Start(start + 4 * first as u64))?;
                file.write_all(&bytes).context("keeping logits on disk")?;
            }
        }
        Ok(())
    }

    /// `count` values from number `first` on.
    pub(crate) fn read(&self, first: usize, count: usize) -> Result<Vec<f32>> {
        match self {
            Self::Memory(all) => Ok(lock(all)
                .get(first..first + count)
                .context("more logits than target positions")?
                .to_vec()),
            Self::File(file, start) => {
                let mut bytes = vec![0; 4 * count];
                {
                    let mut file = lock(file);
                    file.seek(SeekFrom::Start(start + 4 * first as u64))?;
                    file.read_exact(&mut bytes).context("reading kept logits")?;
                }
                let values = bytes.as_chunks::<4>().0.iter();
                Ok(values.map(|b| f32::from_le_bytes(*b)).collect())
            }
        }
    }
}

impl<'a> Reference<'a> {
    /// Keeps what `scorer` says; what does not fit memory in `folder`, or else in `TMPDIR` or `/var/tmp`.
    pub fn new(scorer: &'a dyn Scorer, folder: Option<&Path>) -> Self {
        Reference {
            scorer,
            folder: folder.map_or_else(scratch_folder, Path::to_owned),
            kept: Mutex::default(),
        }
    }

    /// The logits of `batch`, from what is kept or computed now.
    pub(crate) fn answers(&self, batch: &Batch, stop: &AtomicBool) -> Result<Arc<Answers>> {
        let name = name(batch);
        if let Some(answers) = lock(&self.kept).by_batch.get(&name) {
            return Ok(answers.clone());
        }
        let values = batch.targets.len() * self.scorer.vocabulary();
        let Some(place) = lock(&self.kept).place(values, &self.folder) else {
            return Ok(Arc::new(Answers::of(
                self.scorer,
                batch,
                &self.folder,
                stop,
            )?));
        };
        let on_disk = matches!(place, Answers::File(..));
        let answers = match place.filled(self.scorer, batch, stop) {
            Err(error) if on_disk && values * 4 <= FALLBACK && !stop::stopped(&error) => {
                // A full disk costs time and nothing else.
                lock(&self.kept).disk = DISK;
                let answers = Answers::in_memory(values).filled(self.scorer, batch, stop)?;
                return Ok(Arc::new(answers));
            }
            other => Arc::new(other?),
        };
        lock(&self.kept).by_batch.insert(name, answers.clone());
        Ok(answers)
    }
}

impl Kept {
    /// Room for so many values, if there is any left.
    fn place(&mut self, values: usize, folder: &Path) -> Option<Answers> {
        let bytes = values * 4;
        if self.memory + bytes <= MEMORY {
            self.memory += bytes;
            return Some(Answers::in_memory(values));
        }
        if self.disk + bytes > DISK {
            return None;
        }
        if self.file.is_none() {
            self.file = temporary(folder).ok().map(|f| Arc::new(Mutex::new(f)));
        }
        let file = self.file.clone()?;
        let start = self.disk as u64;
        self.disk += bytes;
        Some(Answers::File(file, start))
    }
}

impl Scorer for Reference<'_> {
    fn name(&self) -> String {
        self.scorer.name()
    }

    fn vocabulary(&self) -> usize {
        self.scorer.vocabulary()
    }

    fn visit(&self, batch: &Batch, stop: &AtomicBool, take: Take<'_>) -> Result<()> {
        let answers = self.answers(batch, stop)?;
        let (vocabulary, targets) = (self.vocabulary(), batch.targets.len());
        let most = super::most_positions(vocabulary, 1);
        for first in (0..targets).step_by(most) {
            stop::check(stop)?;
            let count = most.min(targets - first);
            take(
                first,
                &answers.read(first * vocabulary, count * vocabulary)?,
            )?;
        }
        Ok(())
    }
}

fn temporary(folder: &Path) -> Result<File> {
    tempfile::tempfile_in(folder)
        .with_context(|| format!("a temporary file for logits in {}", folder.display()))
}

/// What makes a batch different from others.
fn name(batch: &Batch) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(batch.length as u64).to_le_bytes());
    for id in &batch.ids {
        hasher.update(&id.to_le_bytes());
    }
    for (at, _) in &batch.targets {
        hasher.update(&(*at as u64).to_le_bytes());
    }
    hasher.finalize()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Counts how often it is asked; the logits of a position are its id, `wide` times.
    struct Counting(AtomicUsize, usize);

    impl Scorer for Counting {
        fn name(&self) -> String {
            "counting".into()
        }

        fn vocabulary(&self) -> usize {
            self.1
        }

        fn visit(&self, batch: &Batch, _: &AtomicBool, take: Take<'_>) -> Result<()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let rows = batch.targets.iter().enumerate();
            rows.rev()
                .try_for_each(|(i, t)| take(i, &vec![t.1 as f32; self.1]))
        }
    }

    fn batch(first: u32, rows: u32) -> Batch {
        Batch {
            ids: (first..first + rows).collect(),
            batch: 1,
            length: rows as usize,
            targets: (0..rows).map(|i| (i as usize, first + i)).collect(),
        }
    }

    #[test]
    fn answers_are_kept_in_memory_and_on_disk() {
        let scorer = Counting(AtomicUsize::new(0), 1 << 20);
        let folder = tempfile::tempdir().unwrap();
        let reference = Reference::new(&scorer, Some(folder.path()));
        let never = AtomicBool::new(false);
        // 160 MiB each: the first in memory, the second on disk.
        let batches = [batch(0, 40), batch(100, 40)];
        for _ in 0..2 {
            for batch in &batches {
                let answers = reference.answers(batch, &never).unwrap();
                for (i, (_, id)) in batch.targets.iter().enumerate() {
                    let at = i * scorer.1 + 7;
                    assert_eq!(answers.read(at, 2).unwrap(), [*id as f32; 2]);
                }
            }
        }
        assert_eq!(scorer.0.load(Ordering::Relaxed), 2);
        let kept = lock(&reference.kept);
        assert_eq!((kept.memory, kept.disk), (160 << 20, 160 << 20));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
