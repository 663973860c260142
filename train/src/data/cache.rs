//! Token ids of long texts, kept between runs. An entry's name says what text and which tokenizer it is of, so it is never out of date.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context, Result};
use dram_files::write_beside;

use crate::checkpoint::fingerprint;

/// Texts of fewer bytes are encoded faster than looked up.
pub(super) const MIN: usize = 1 << 20;
/// Bytes that the folder may hold; the oldest entries go first.
const MAX: u64 = 4 << 30;
/// Changes when the same tokenizer gives other ids.
const VERSION: &[u8; 8] = b"dramids1";

pub(crate) struct Cache(PathBuf);

impl Cache {
    /// `tokens` in `$DRAM_CACHE`, or in `dram` in the user's folder for caches; `None` where `$DRAM_CACHE` is empty or there is no such folder.
    pub(super) fn usual() -> Option<Cache> {
        if let Some(folder) = std::env::var_os("DRAM_CACHE") {
            return (!folder.is_empty()).then(|| Cache(PathBuf::from(folder).join("tokens")));
        }
        let named = |name: &str| {
            let folder = std::env::var_os(name).map(PathBuf::from);
            folder.filter(|folder| folder.is_absolute())
        };
        let folder = named("XDG_CACHE_HOME")
            .or_else(|| named("LOCALAPPDATA"))
            .or_else(|| Some(named("HOME")?.join(".cache")))?;
        Some(Cache(folder.join("dram/tokens")))
    }

    #[cfg(test)]
    pub(super) fn at(folder: PathBuf) -> Cache {
        Cache(folder)
    }

    fn path(&self, key: &str) -> PathBuf {
        self.0.join(format!(
            "{}.ids",
            fingerprint(&format!("{}{key}", env!("CARGO_PKG_VERSION")))
        ))
    }

    /// The ids stored under `key`, if they are there, whole, and all below `tokens`.
    pub(super) fn load(&self, key: &str, tokens: usize) -> Option<Vec<u32>> {
        let file = File::open(self.path(key)).ok()?;
        let size = file.metadata().ok()?.len();
        let mut input = BufReader::with_capacity(1 << 20, file);
        let mut word = |bytes: &mut [u8]| input.read_exact(bytes).ok();
        let (mut version, mut length, mut sum) = ([0; 8], [0; 8], [0; 8]);
        word(&mut version)?;
        word(&mut length)?;
        word(&mut sum)?;
        let (length, sum) = (u64::from_le_bytes(length), u64::from_le_bytes(sum));
        let name = key.len() as u64;
        if version != *VERSION || size != length.checked_mul(4)?.checked_add(24 + name)? {
            return None;
        }
        let mut stored = vec![0; key.len()];
        word(&mut stored)?;
        if stored != key.as_bytes() {
            return None;
        }
        let mut ids = Vec::with_capacity(usize::try_from(length).ok()?);
        for _ in 0..length {
            let mut id = [0; 4];
            word(&mut id)?;
            ids.push(u32::from_le_bytes(id));
        }
        let good = checksum(&ids) == sum && ids.iter().all(|&id| (id as usize) < tokens);
        good.then_some(ids)
    }

    /// Keeps `ids` under `key`: whole or not at all.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn store(&self, key: &str, ids: &[u32]) -> Result<()> {
        fs::create_dir_all(&self.0).with_context(|| format!("making {}", self.0.display()))?;
        write_beside(&self.path(key), |beside| {
            let mut out = BufWriter::with_capacity(1 << 20, File::create(beside)?);
            out.write_all(VERSION)?;
            out.write_all(&(ids.len() as u64).to_le_bytes())?;
            out.write_all(&checksum(ids).to_le_bytes())?;
            out.write_all(key.as_bytes())?;
            for id in ids {
                out.write_all(&id.to_le_bytes())?;
            }
            Ok(out.flush()?)
        })?;
        self.prune()
    }

    /// Removes the oldest entries while there are more than [`MAX`] bytes.
    fn prune(&self) -> Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "ids") {
                let about = fs::metadata(&path)?;
                entries.push((about.modified()?, about.len(), path));
            }
        }
        entries.sort();
        let mut total: u64 = entries.iter().map(|(_, size, _)| size).sum();
        // The newest stays, however large.
        for (_, size, path) in entries.iter().rev().skip(1).rev() {
            if total <= MAX {
                break;
            }
            fs::remove_file(path)?;
            total -= size;
        }
        Ok(())
    }
}

/// FNV-1a over the ids, 64 bits: against damage.
fn checksum(ids: &[u32]) -> u64 {
    ids.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &id| {
        (sum ^ u64::from(id)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
