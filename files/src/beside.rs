//! Files that are whole or absent.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use dram_core::files::{Access, NewFile};

/// Writes `path` by way of a file beside it that is synced and then renamed ([`NewFile`]), so that a reader, or a crash, never sees half of it.
///
/// # Errors
/// When `write` fails or the disk does; what was at `path` before is then untouched.
pub fn write_beside(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let attempt = || -> Result<()> {
        let new = NewFile::create(path, Access::Shared)?;
        write(new.beside())?;
        // By its name: what `write` calls may have made another file of it.
        File::open(new.beside())?.sync_all()?;
        Ok(new.commit()?)
    };
    attempt().with_context(|| format!("cannot write {}", path.display()))
}
