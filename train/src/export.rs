//! From a student to the GGUF file that an app opens, and the gate that compares the two.
//!
//! The blocks of the file are made by the runtime's own quantisers from the weights that were trained, which are the blocks that
//! quantisation-aware training computed with. [`Export::verified`] opens the file with the runtime before it gets its name and refuses it
//! unless the logits agree with the training model's.

mod checkpoint;
mod gguf;
mod parity;

pub use checkpoint::Checkpoint;
pub use gguf::{import, scheme_of};
pub use parity::{
    Limits, NEAR_TIE, Noise, Parity, ROOM, compare, compare_with, verify, verify_with,
};

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use dram_core::gguf::{OwnedValue, Value};
use dram_files::tokenizer::Vocabulary;
use dram_files::write::{Entry, Head, write_file};
use dram_files::write_beside;

use crate::data::Batch;
use crate::stop::Watch;
use crate::student::{Config, Layout, Scheme};
use crate::teacher::Trained;

/// A model to be written.
pub struct Export<'a> {
    /// `general.name`.
    pub name: &'a str,
    pub config: &'a Config,
    /// Unrounded, laid out by [`Layout::new`]: `[parameters]`.
    pub weights: &'a [f32],
    /// The block format of each kind of matrix.
    pub scheme: &'a Scheme,
    pub vocabulary: &'a Vocabulary,
    /// More metadata; by custom under `dram.`.
    pub metadata: Vec<Entry>,
}

/// What an export is held against.
pub struct Gate<'a> {
    /// The training model with its rounding on.
    pub reference: &'a Trained<'a>,
    /// Held-out data.
    pub batches: &'a [Batch],
    pub limits: Limits,
    /// Runtime sessions in parallel.
    pub workers: usize,
}

/// Keys of the figures that the gate found, written as f32 (and one u32) with these names.
const PARITY_KEYS: [&str; 4] = [
    "dram.parity.positions",
    "dram.parity.top1",
    "dram.parity.mean_difference",
    "dram.parity.max_difference",
];

impl Export<'_> {
    /// Writes the file without comparing it with anything.
    ///
    /// # Errors
    /// When a width does not divide into blocks, a weight is not finite, or the disk refuses; an older file at `path` is then untouched.
    pub fn unverified(&self, path: &Path) -> Result<()> {
        make_folder(path)?;
        write_beside(path, |beside| self.write(beside, false))
    }

    /// Writes the file, compares the runtime's logits on it with the training model's, and gives it its name only if they agree
    /// (invariant 1). The figures are kept in the file under `dram.parity.`.
    ///
    /// # Errors
    /// As [`Export::unverified`]; when the comparison fails, with its figures. The file then lies beside `path` as `*.rejected`.
    pub fn verified(&self, path: &Path, gate: &Gate<'_>) -> Result<Parity> {
        self.verified_with(path, gate, &mut Watch::default())
    }

    /// [`Export::verified`] with a watch that hears how far the comparison is.
    ///
    /// # Errors
    /// As there, and [`crate::stop::Stopped`]; there is no file then.
    pub fn verified_with(
        &self,
        path: &Path,
        gate: &Gate<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<Parity> {
        make_folder(path)?;
        let mut parity = Parity::default();
        write_beside(path, |beside| {
            self.write(beside, true)?;
            parity = verify_with(beside, gate.reference, gate.batches, gate.workers, watch)?;
            if let Err(reason) = parity.check(&gate.limits) {
                let rejected = rejected_name(path);
                fs::rename(beside, &rejected)
                    .with_context(|| format!("keeping {}", rejected.display()))?;
                bail!(
                    "refused: {reason}. The file is kept as {}",
                    rejected.display()
                );
            }
            note(beside, &parity).context("noting the parity figures")
        })?;
        Ok(parity)
    }

    fn write(&self, path: &Path, parity: bool) -> Result<()> {
        self.config.check_file()?;
        let layout = Layout::new(self.config);
        ensure!(
            self.vocabulary.tokens.len() == self.config.vocabulary,
            "the model has {} rows of embeddings, its tokenizer {} tokens",
            self.config.vocabulary,
            self.vocabulary.tokens.len()
        );
        let tensors = gguf::Tensors::new(self.config, &layout, self.weights, self.scheme)?;
        let mut metadata = gguf::metadata(self.config, self.scheme, self.name)?;
        self.vocabulary.check_ids()?;
        metadata.extend(self.vocabulary.metadata()?);
        metadata.push(("dram.version".into(), env!("CARGO_PKG_VERSION").into()));
        metadata.extend(self.metadata.iter().cloned());
        if parity {
            metadata.push((PARITY_KEYS[0].into(), 0u32.into()));
            metadata.extend(
                PARITY_KEYS[1..]
                    .iter()
                    .map(|k| ((*k).into(), f32::NAN.into())),
            );
        }
        // In the order of keys, the last of two with one key.
        let entries: BTreeMap<String, OwnedValue> = metadata.into_iter().collect();
        let mut head = Head::default();
        for (key, value) in &entries {
            match value.get() {
                // A missing key says the same.
                Value::Array(list) if list.is_empty() => {}
                value => head.put(key, value),
            }
        }
        write_file(path, &head, &tensors.plans, &mut |index, out| {
            out.put(&tensors.payload(index)?)
        })
    }
}

/// The longest row of any batch, which a runtime session must have room for.
fn longest(batches: &[Batch]) -> usize {
    batches.iter().map(|b| b.length).max().unwrap_or(1).max(1)
}

fn make_folder(path: &Path) -> Result<()> {
    match path.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(folder) => {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))
        }
        None => Ok(()),
    }
}

/// `student.gguf` → `student.gguf.rejected`
fn rejected_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".rejected");
    name.into()
}

/// Puts the figures where [`Export::write`] left room: a key's value follows its name and four bytes of type.
fn note(path: &Path, parity: &Parity) -> Result<()> {
    const HEADER: u64 = 1 << 26;
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut head = Vec::new();
    (&mut file).take(HEADER).read_to_end(&mut head)?;
    let values = [
        u32::try_from(parity.positions)
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
        (parity.top1 as f32).to_le_bytes(),
        (parity.mean_difference as f32).to_le_bytes(),
        parity.max_difference.to_le_bytes(),
    ];
    for (key, value) in PARITY_KEYS.iter().zip(values) {
        let mut name = (key.len() as u64).to_le_bytes().to_vec();
        name.extend_from_slice(key.as_bytes());
        let at = head
            .windows(name.len())
            .position(|w| w == name)
            .with_context(|| format!("the file has no key {key}"))?;
        file.seek(SeekFrom::Start((at + name.len() + 4) as u64))?;
        file.write_all(&value)?;
    }
    Ok(())
}

#[cfg(test)]
mod folder_tests;
#[cfg(test)]
mod tests;
