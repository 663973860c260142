//! The weights of a Hugging Face folder: views of the mapped safetensors files.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use dram_core::quant::{Format, format_by_name};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::modules::Modules;
use super::tensors::Rows;
use crate::folder::weight_files;

/// Every tensor of a folder, by its name without the beginnings that only some folders have.
pub(super) struct Source {
    files: Vec<(PathBuf, Mmap)>,
    /// Sorted, so that the same folder always gives the same file.
    tensors: BTreeMap<String, Stored>,
}

/// Where a tensor lies and how.
pub(super) struct Stored {
    file: usize,
    start: usize,
    end: usize,
    pub(super) shape: Vec<usize>,
    pub(super) format: &'static Format,
}

impl Source {
    /// Maps the files and checks their headers.
    ///
    /// # Errors
    /// When a file is missing, truncated or malformed, the index names a tensor that no file has, a name stands twice, or values are of another
    /// type than f32, f16 or bf16.
    pub(super) fn open(folder: &Path, unused: &[&str], modules: &Modules) -> Result<Source> {
        let mut source = Source {
            files: Vec::new(),
            tensors: BTreeMap::new(),
        };
        for path in weight_files(folder)? {
            source.add(path, "", unused)?;
        }
        for dense in &modules.dense {
            let path = folder.join(&dense.path).join("model.safetensors");
            source.add(path, &format!("{}/", dense.path), &[])?;
        }
        let index = folder.join("model.safetensors.index.json");
        if index.is_file() && !folder.join("model.safetensors").is_file() {
            let json = crate::folder::read_json(&index)?;
            let names = json["weight_map"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| plain(name));
            for name in names.filter(|name| !is_unused(name, unused)) {
                ensure!(
                    source.tensors.contains_key(name),
                    "{}: tensor {name} lies in no file",
                    index.display()
                );
            }
        }
        Ok(source)
    }

    /// Maps a file whose tensors' names get `before` in front.
    fn add(&mut self, path: PathBuf, before: &str, unused: &[&str]) -> Result<()> {
        let at = || path.display().to_string();
        let file = File::open(&path).with_context(at)?;
        // SAFETY: the map is read-only and private, and every tensor's place is checked against its length below. A file that is changed
        // while it is converted is outside what a process can prevent.
        let map = unsafe { Mmap::map(&file) }.with_context(at)?;
        self.list(&path, &map, before, unused)?;
        self.files.push((path, map));
        Ok(())
    }

    fn list(&mut self, path: &Path, map: &[u8], before: &str, unused: &[&str]) -> Result<()> {
        let at = || path.display().to_string();
        let tensors = SafeTensors::deserialize(map).with_context(at)?;
        for (full, view) in tensors.iter() {
            let name = plain(full);
            if is_unused(name, unused) {
                continue;
            }
            let format = match view.dtype() {
                Dtype::F32 => "f32",
                Dtype::F16 => "f16",
                Dtype::BF16 => "bf16",
                other => bail!(
                    "{}: tensor {full} is {other:?}; expected F32, F16 or BF16",
                    at()
                ),
            };
            let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
            let stored = Stored {
                file: self.files.len(),
                start,
                end: start + view.data().len(),
                shape: view.shape().to_vec(),
                format: format_by_name(format).with_context(|| format!("no format {format}"))?,
            };
            ensure!(
                self.tensors
                    .insert(format!("{before}{name}"), stored)
                    .is_none(),
                "{}: tensor {name} stands twice",
                at()
            );
        }
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Stored)> {
        self.tensors
            .iter()
            .map(|(name, stored)| (name.as_str(), stored))
    }

    /// The values as stored, row after row.
    pub(super) fn bytes(&self, stored: &Stored) -> &[u8] {
        &self.files[stored.file].1[stored.start..stored.end]
    }

    /// The values of these rows of `cols` values.
    pub(super) fn values(&self, parts: &[Rows<'_>], cols: usize) -> Vec<f32> {
        let mut values = Vec::new();
        for Rows { stored, rows } in parts {
            let row = stored.format.bytes(cols).unwrap_or_default();
            let mut some = vec![0.0; rows.len() * cols];
            let bytes = &self.bytes(stored)[rows.start * row..rows.end * row];
            stored.format.dequantize(bytes, &mut some);
            values.extend(some);
        }
        values
    }

    /// What to call the place where tensors are missed.
    pub(super) fn place(&self) -> String {
        match &self.files[..] {
            [(path, _)] => path.display().to_string(),
            files => format!("{} safetensors files", files.len()),
        }
    }
}

/// The name as the inner model has it.
fn plain(name: &str) -> &str {
    let mut name = name;
    for beginning in ["language_model.", "model.", "language_model.", "bert."] {
        name = name.strip_prefix(beginning).unwrap_or(name);
    }
    name
}

/// Tables that anyone can compute, and what the family leaves out.
fn is_unused(name: &str, unused: &[&str]) -> bool {
    const TABLES: [&str; 3] = [
        ".rotary_emb.inv_freq",
        ".attention.masked_bias",
        ".attention.bias",
    ];
    TABLES.iter().any(|end| name.ends_with(end))
        || unused.iter().any(|start| name.starts_with(start))
}
