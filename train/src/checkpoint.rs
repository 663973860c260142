//! Checkpoints, and files that are whole or absent.
//!
//! A checkpoint is a safetensors file: the flat buffers as f32, and in its metadata the step, the number of optimiser updates, the recipe's
//! fingerprint and a checksum. Data order and random numbers are functions of seed and step, so nothing else is state.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// What a checkpoint says beside its buffers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Steps finished.
    pub step: u64,
    /// Updates that the optimiser's moments have seen.
    pub updates: u64,
    pub fingerprint: String,
}

/// Writes buffers and state.
///
/// # Errors
/// When the disk does not take them; what was at `path` before is then untouched.
pub fn save(path: &Path, state: &State, buffers: &[(&str, &[f32])]) -> Result<()> {
    let bytes: Vec<(&str, Vec<u8>)> = buffers
        .iter()
        .map(|(name, b)| (*name, b.iter().flat_map(|x| x.to_le_bytes()).collect()))
        .collect();
    let mut sum = Checksum::default();
    bytes.iter().for_each(|(_, b)| sum.add(b));
    let metadata = HashMap::from([
        ("format".to_string(), "dram checkpoint 1".to_string()),
        ("step".to_string(), state.step.to_string()),
        ("updates".to_string(), state.updates.to_string()),
        ("fingerprint".to_string(), state.fingerprint.clone()),
        ("checksum".to_string(), format!("{:016x}", sum.0)),
    ]);
    let views = bytes
        .iter()
        .map(|(name, b)| Ok((*name, TensorView::new(Dtype::F32, vec![b.len() / 4], b)?)))
        .collect::<Result<Vec<_>>>()?;
    write_beside(path, |path| {
        Ok(safetensors::serialize_to_file(views, Some(metadata), path)?)
    })
}

/// Reads a checkpoint back into buffers of the same lengths.
///
/// # Errors
/// When the file is damaged, has other buffers, or another fingerprint. The buffers then hold nothing of use.
pub fn load(path: &Path, fingerprint: &str, buffers: &mut [(&str, &mut [f32])]) -> Result<State> {
    let attempt = (|| {
        let bytes = fs::read(path)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).context("no checkpoint")?;
        let metadata = header
            .metadata()
            .as_ref()
            .context("no checkpoint: no metadata")?;
        let get = |key: &str| {
            metadata
                .get(key)
                .with_context(|| format!("no checkpoint: {key} is missing"))
        };
        ensure!(
            get("format")? == "dram checkpoint 1",
            "format {:?}; expected \"dram checkpoint 1\"",
            get("format")?
        );
        if get("fingerprint")? != fingerprint {
            bail!(
                "it was made by another recipe (fingerprint {}, this recipe has {fingerprint}); restore the recipe, choose another output \
                 folder, or delete the checkpoint to start anew",
                get("fingerprint")?
            );
        }
        let tensors = SafeTensors::deserialize(&bytes).context("damaged")?;
        let mut sum = Checksum::default();
        for (name, buffer) in buffers.iter_mut() {
            let tensor = tensors
                .tensor(name)
                .with_context(|| format!("buffer {name}"))?;
            ensure!(
                tensor.dtype() == Dtype::F32 && tensor.data().len() == buffer.len() * 4,
                "buffer {name}: expected {} f32 values, got {} bytes",
                buffer.len(),
                tensor.data().len()
            );
            sum.add(tensor.data());
            for (x, b) in buffer.iter_mut().zip(tensor.data().as_chunks::<4>().0) {
                *x = f32::from_le_bytes(*b);
            }
        }
        ensure!(
            format!("{:016x}", sum.0) == *get("checksum")?,
            "its checksum does not match its contents; delete it to start anew"
        );
        Ok(State {
            step: get("step")?.parse()?,
            updates: get("updates")?.parse()?,
            fingerprint: fingerprint.into(),
        })
    })();
    attempt.with_context(|| format!("checkpoint {}", path.display()))
}

/// FNV-1a over 64-bit words: against damage, not against malice.
struct Checksum(u64);

impl Default for Checksum {
    fn default() -> Self {
        Checksum(0xcbf2_9ce4_8422_2325)
    }
}

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.0 = (self.0 ^ u64::from_le_bytes(*word))
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(23);
        }
        for byte in rest {
            self.0 = (self.0 ^ u64::from(*byte))
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(23);
        }
    }
}

/// A short name of a text: 16 hexadecimal digits.
pub fn fingerprint(text: &str) -> String {
    format!("{:016x}", checksum(text.as_bytes()))
}

/// A number that differs where bytes do, but for chance.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    let mut sum = Checksum::default();
    sum.add(bytes);
    sum.0
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let state = State {
            step: 7,
            updates: 7,
            fingerprint: "a".into(),
        };
        save(&path, &state, &[("x", &[1.0, 2.0]), ("y", &[])]).unwrap();
        let read = |fingerprint: &str, n: usize| {
            let mut x = vec![0.0; n];
            load(&path, fingerprint, &mut [("x", &mut x), ("y", &mut [])]).map(|s| (s, x))
        };
        assert_eq!(read("a", 2).unwrap(), (state, vec![1.0, 2.0]));
        assert!(format!("{:#}", read("b", 2).unwrap_err()).contains("another recipe"));
        assert!(format!("{:#}", read("a", 3).unwrap_err()).contains("3 f32 values"));
        let whole = fs::read(&path).unwrap();
        let mut bad = whole.clone();
        *bad.last_mut().unwrap() ^= 1;
        fs::write(&path, bad).unwrap();
        assert!(format!("{:#}", read("a", 2).unwrap_err()).contains("checksum"));
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(read("a", 2).is_err());
    }
}
