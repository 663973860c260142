//! Files that are whole or absent.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Writes `path` by way of a file beside it that is synced and then renamed, so that a reader, or a crash, never sees half of it.
///
/// # Errors
/// When `write` fails or the disk does; what was at `path` before is then untouched.
pub fn write_beside(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = PathBuf::from(beside);
    let attempt = (|| -> Result<()> {
        write(&beside)?;
        File::open(&beside)?.sync_all()?;
        fs::rename(&beside, path)?;
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            // Not every file system lets a folder be synced; the rename stands anyway.
            let _ = File::open(folder).and_then(|f| f.sync_all());
        }
        Ok(())
    })();
    if attempt.is_err() {
        let _ = fs::remove_file(&beside);
    }
    attempt.with_context(|| format!("cannot write {}", path.display()))
}
