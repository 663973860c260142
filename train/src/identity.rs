//! What decides the weights of a run, part by part, by contents: so that a run goes on under any name and path, and says what has changed where
//! something has.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use dram_files::folder::{read_json, weight_files};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::stop;

/// Parts and what they are: a setting's value, or the hash of contents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(BTreeMap<String, String>);

impl Identity {
    /// One part.
    #[must_use]
    pub fn of(part: &str, value: &str) -> Self {
        Identity(BTreeMap::from([(part.into(), value.into())]))
    }

    pub(crate) fn get(&self, part: &str) -> Option<&str> {
        self.0.get(part).map(String::as_str)
    }

    pub(crate) fn set(&mut self, part: &str, value: impl Into<String>) {
        self.0.insert(part.into(), value.into());
    }

    /// Sets a part for every value inside `json`, by its path: `train.seed`.
    pub(crate) fn set_all(&mut self, path: &str, json: &Json) {
        match json {
            Json::Null => {}
            Json::Object(fields) => fields
                .iter()
                .for_each(|(name, value)| self.set_all(&format!("{path}.{name}"), value)),
            Json::String(text) => self.set(path, text),
            other => self.set(path, other.to_string()),
        }
    }

    /// One line for each part that is not the same in both: `part: expected A, got B`.
    pub(crate) fn differences(&self, got: &Identity) -> Vec<String> {
        let mut parts: Vec<&String> = self.0.keys().chain(got.0.keys()).collect();
        parts.sort_unstable();
        parts.dedup();
        let value = |of: &Identity, part: &String| of.0.get(part).cloned();
        let absent = || "nothing".to_owned();
        parts
            .into_iter()
            .map(|part| (part, value(self, part), value(got, part)))
            .filter(|(_, expected, got)| expected != got)
            .map(|(part, expected, got)| {
                format!(
                    "{part}: expected {}, got {}",
                    expected.unwrap_or_else(absent),
                    got.unwrap_or_else(absent)
                )
            })
            .collect()
    }
}

/// Hashes what a text says.
pub(crate) fn hash_of(bytes: &[u8]) -> String {
    short(&blake3::hash(bytes))
}

/// Hashes values bit for bit.
pub(crate) fn hash_of_values(values: &[f32]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in values.chunks(1 << 14) {
        let bytes: Vec<u8> = part.iter().flat_map(|x| x.to_le_bytes()).collect();
        hasher.update(&bytes);
    }
    short(&hasher.finalize())
}

/// 128 bits in hexadecimal digits.
fn short(hash: &blake3::Hash) -> String {
    hash.to_hex()[..32].to_owned()
}

/// Hashes what decides the answers of a model: a GGUF file whole; of a Hugging Face folder `config.json` without what is only for people, and the
/// weights. Reads every byte, some gigabytes a second.
///
/// # Errors
/// When a file cannot be read, or `stop` is set.
pub(crate) fn hash_of_model(path: &Path, stop: &AtomicBool) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    if path.is_dir() {
        let config = read_json(&path.join("config.json"))?;
        let fields: BTreeMap<String, Json> = serde_json::from_value(config)?;
        let cosmetic = ["_name_or_path", "transformers_version", "architectures"];
        for (name, value) in fields
            .iter()
            .filter(|(n, _)| !cosmetic.contains(&n.as_str()))
        {
            hasher.update(format!("{name}={value}\n").as_bytes());
        }
        for file in weight_files(path)? {
            add_file(&mut hasher, &file, stop)?;
        }
    } else {
        add_file(&mut hasher, path, stop)?;
    }
    Ok(short(&hasher.finalize()))
}

fn add_file(hasher: &mut blake3::Hasher, path: &Path, stop: &AtomicBool) -> Result<()> {
    let at = || format!("reading {}", path.display());
    let mut file = File::open(path).with_context(at)?;
    let mut portion = vec![0; 1 << 20];
    loop {
        stop::check(stop)?;
        let read = file.read(&mut portion).with_context(at)?;
        if read == 0 {
            return Ok(());
        }
        hasher.update(&portion[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_are_named() {
        let mut a = Identity::of("teacher", "1");
        a.set_all(
            "train",
            &json!({ "seed": 1, "inner": { "x": "y", "none": null } }),
        );
        let mut b = a.clone();
        assert!(a.differences(&b).is_empty());
        b.set("teacher", "2");
        b.set("new", "3");
        b.0.remove("train.inner.x");
        assert_eq!(
            a.differences(&b),
            [
                "new: expected nothing, got 3",
                "teacher: expected 1, got 2",
                "train.inner.x: expected y, got nothing"
            ]
        );
    }

    #[test]
    fn a_folder_is_known_by_its_contents() {
        let hash = |config: &str, weights: &[u8]| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("config.json"), config).unwrap();
            std::fs::write(folder.path().join("model.safetensors"), weights).unwrap();
            hash_of_model(folder.path(), &AtomicBool::new(false)).unwrap()
        };
        let first = hash(r#"{"a": 1, "b": 2}"#, b"weights");
        assert_eq!(
            hash(r#"{"_name_or_path": "x", "b": 2, "a": 1}"#, b"weights"),
            first
        );
        assert_ne!(hash(r#"{"a": 1, "b": 3}"#, b"weights"), first);
        assert_ne!(hash(r#"{"a": 1, "b": 2}"#, b"weightz"), first);
    }

    #[test]
    fn hashing_stops() {
        let error = hash_of_model(Path::new("Cargo.toml"), &AtomicBool::new(true)).unwrap_err();
        assert!(stop::stopped(&error));
    }
}
