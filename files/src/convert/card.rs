//! `general.license`, `general.tags` and their like: from the front matter of a folder's `README.md`, as llama.cpp's converter reads it.
//!
//! Of YAML only what such cards are written in: keys with a text or a list of texts. What is deeper is passed over.

use std::path::Path;

use super::naming;
use dram_core::model::folder::Entries;

/// Longer than any front matter.
const LONGEST: usize = 1 << 20;

/// A key and its texts.
type Entry = (String, Vec<String>);

/// Sets what the card says. `parameters`: values in all tensors.
pub(super) fn set(folder: &Path, parameters: usize, keys: &mut Entries) {
    let Ok(text) = std::fs::read_to_string(folder.join("README.md")) else {
        return;
    };
    let entries = front_matter(&text);
    let values = |key: &str| -> Vec<String> {
        let found = entries.iter().filter(|(other, _)| other == key);
        found
            .flat_map(|(_, values)| values.iter().cloned())
            .collect()
    };
    for (key, name) in [
        ("license", "license"),
        ("license_name", "license.name"),
        ("license_link", "license.link"),
    ] {
        let text = values(key).join(",");
        if !text.is_empty() {
            keys.set(&format!("general.{name}"), text);
        }
    }
    for (from, name) in [
        (["tags", "pipeline_tag"], "tags"),
        (["languages", "language"], "languages"),
    ] {
        let texts: Vec<String> = from.into_iter().flat_map(values).collect();
        if !texts.is_empty() {
            keys.set(&format!("general.{name}"), texts);
        }
    }
    for (key, name) in [("base_model", "base_model"), ("datasets", "dataset")] {
        let ids = values(key);
        if !ids.is_empty() {
            sources(name, &ids, parameters, keys);
        }
    }
}

/// Where a model comes from: the names of repositories, or their addresses.
fn sources(kind: &str, ids: &[String], parameters: usize, keys: &mut Entries) {
    let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    keys.set(&format!("general.{kind}.count"), count);
    for (i, id) in ids.iter().enumerate() {
        let mut set = |key: &str, text: &str| {
            if !text.is_empty() {
                let key = format!("general.{kind}.{i}.{key}");
                keys.set(&key, text.to_owned());
            }
        };
        let is_address = id.contains("://");
        let name = match id.strip_prefix("https://huggingface.co/") {
            Some(name) if name.matches('/').count() == 1 => Some(name),
            _ => Some(&**id).filter(|_| !is_address),
        };
        if let Some(name) = name {
            let parts = naming::parse(name, parameters);
            set("name", &parts.name);
            set("organization", &parts.organization);
            set("version", &parts.version);
        }
        if is_address {
            set("repo_url", id);
        } else if id.contains('/') {
            set("repo_url", &format!("https://huggingface.co/{id}"));
        }
    }
}

/// What stands between the first line and the next of three hyphens.
fn front_matter(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut lines = text.get(..LONGEST).unwrap_or(text).lines();
    if lines.next() != Some("---") {
        return entries;
    }
    // Whether lists may go on: not after a key that is passed over.
    let mut open = false;
    for line in lines.take_while(|line| *line != "---") {
        let inner = line.trim();
        if let Some(item) = inner.strip_prefix("- ") {
            if let (true, Some((_, values))) = (open, entries.last_mut()) {
                values.extend(scalar(item));
            }
        } else if line.starts_with([' ', '\t', '#']) || inner.is_empty() {
            open &= inner.is_empty() || inner.starts_with('#');
        } else if let Some((key, value)) = line.split_once(':') {
            let value = value.trim();
            let list = value.strip_prefix('[').and_then(|v| v.strip_suffix(']'));
            let values = match list {
                Some(items) => items.split(',').filter_map(scalar).collect(),
                None => scalar(value).into_iter().collect(),
            };
            entries.push((key.trim().to_owned(), values));
            open = value.is_empty();
        }
    }
    entries
}

/// A text without its quotes; none where there is nothing, or something that holds more.
fn scalar(text: &str) -> Option<String> {
    let text = text.trim();
    for quote in ['"', '\''] {
        if let Some(rest) = text.strip_prefix(quote) {
            return rest.split_once(quote).map(|(inner, _)| inner.to_owned());
        }
    }
    let text = text.split(" #").next().unwrap_or_default().trim_end();
    let holds_more =
        text.contains(": ") || text.ends_with(':') || text.starts_with(['{', '>', '|']);
    (!text.is_empty() && !holds_more).then(|| text.to_owned())
}
