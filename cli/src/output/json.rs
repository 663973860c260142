//! JSON files.

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use dram_core::files::{Access, NewFile};

/// Writes `value` to `path` (`-`: standard output); files are written beside and renamed.
pub(crate) fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    if path == Path::new("-") {
        return Ok(io::stdout().write_all(text.as_bytes())?);
    }
    NewFile::create(path, Access::Shared)
        .and_then(|mut new| {
            new.file().write_all(text.as_bytes())?;
            new.commit()
        })
        .with_context(|| format!("cannot write {}", path.display()))
}
