//! Hugging Face folders: `config.json` and its like, and the safetensors files that hold the weights.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value as Json;

/// A file of JSON.
///
/// # Errors
/// When it cannot be read or is no JSON.
pub fn read_json(path: &Path) -> Result<Json> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}

/// `model.safetensors`, or the shards that `model.safetensors.index.json` names.
///
/// # Errors
/// When neither is there, or the index names a file outside the folder.
pub fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let single = folder.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = folder.join("model.safetensors.index.json");
    ensure!(
        index.is_file(),
        "{}: expected model.safetensors or model.safetensors.index.json",
        folder.display()
    );
    let json = read_json(&index)?;
    let map = json["weight_map"]
        .as_object()
        .with_context(|| format!("{}: no \"weight_map\"", index.display()))?;
    let mut names: Vec<&str> = map.values().filter_map(Json::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let inside = |name: &&str| {
        let plain = Path::new(name).file_name() == Some(name.as_ref());
        ensure!(
            plain,
            "{}: file name {name:?} leaves the folder",
            index.display()
        );
        Ok(folder.join(name))
    };
    names.iter().map(inside).collect()
}
