//! Checkpoints.
//!
//! A checkpoint is a safetensors file: the flat buffers as f32, and in its metadata the step, the number of optimiser updates, the schedule,
//! what decides the run's weights and a checksum. Data order and random numbers are functions of seed and step, so nothing else is state.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use dram_core::hash::{FNV_BASIS, FNV_PRIME};
use dram_files::write_beside;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::identity::Identity;

/// What a checkpoint says beside its buffers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Steps finished.
    pub step: u64,
    /// Updates that the optimiser's moments have seen.
    pub updates: u64,
    /// What decides the weights of the run.
    pub identity: Identity,
    pub schedule: Schedule,
}

/// What follows from the number of steps that a run is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    pub steps: u64,
    /// Updates over which the learning rate rises.
    pub warmup: u64,
    /// First step that rounds as the runtime does, from 0; `None`: none does.
    pub quantise_from: Option<u64>,
}

/// What the metadata say under `format`.
const FORMAT: &str = "dram checkpoint 2";

/// Writes buffers and state.
///
/// # Errors
/// When the disk does not take them; what was at `path` before is then untouched.
pub fn save(path: &Path, state: &State, buffers: &[(&str, &[f32])]) -> Result<()> {
    let bytes: Vec<(&str, Vec<u8>)> = buffers
        .iter()
        .map(|(name, b)| (*name, b.iter().flat_map(|x| x.to_le_bytes()).collect()))
        .collect();
    let mut metadata = HashMap::from([
        ("format".to_string(), FORMAT.to_string()),
        ("step".to_string(), state.step.to_string()),
        ("updates".to_string(), state.updates.to_string()),
        (
            "identity".to_string(),
            serde_json::to_string(&state.identity)?,
        ),
        (
            "schedule".to_string(),
            serde_json::to_string(&state.schedule)?,
        ),
    ]);
    let mut sum = Checksum::of(&metadata);
    bytes.iter().for_each(|(_, b)| sum.add(b));
    metadata.insert("checksum".to_string(), format!("{:016x}", sum.0));
    let views = bytes
        .iter()
        .map(|(name, b)| Ok((*name, TensorView::new(Dtype::F32, vec![b.len() / 4], b)?)))
        .collect::<Result<Vec<_>>>()?;
    write_beside(path, |path| {
        Ok(safetensors::serialize_to_file(views, Some(metadata), path)?)
    })
}

/// Reads a checkpoint of the run that `identity` describes back into buffers of the same lengths.
///
/// # Errors
/// When the file is damaged, has other buffers, or another identity: then with the parts that differ. The buffers then hold nothing of use.
pub fn load(path: &Path, identity: &Identity, buffers: &mut [(&str, &mut [f32])]) -> Result<State> {
    let attempt = (|| {
        let bytes = fs::read(path)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).context("not a checkpoint")?;
        let metadata = header
            .metadata()
            .as_ref()
            .context("not a checkpoint: no metadata")?;
        let get = |key: &str| {
            metadata
                .get(key)
                .with_context(|| format!("not a checkpoint: {key} is missing"))
        };
        ensure!(
            get("format")? == FORMAT,
            "expected the format {FORMAT:?}, got {:?}; finish the run with the version of dram that began it, choose another output folder, or \
             delete the checkpoint to start anew",
            get("format")?
        );
        let state = State {
            step: get("step")?.parse()?,
            updates: get("updates")?.parse()?,
            identity: serde_json::from_str(get("identity")?).context("identity")?,
            schedule: serde_json::from_str(get("schedule")?).context("schedule")?,
        };
        let differences = state.identity.differences(identity);
        ensure!(
            differences.is_empty(),
            "it belongs to another run:\n  {}\nrestore these to resume, choose another output folder, or delete the checkpoint to start anew",
            differences.join("\n  ")
        );
        let tensors = SafeTensors::deserialize(&bytes).context("damaged")?;
        let mut sum = Checksum::of(metadata);
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
        Ok(state)
    })();
    attempt.with_context(|| format!("checkpoint {}", path.display()))
}

/// What the checkpoint at `path` was made with; `None` where there is none that says so.
pub(crate) fn identity_of(path: &Path) -> Option<Identity> {
    // A header has its length in eight bytes before it; the library takes none that is longer than 100 MB.
    let mut file = File::open(path).ok()?;
    let mut bytes = vec![0; 8];
    file.read_exact(&mut bytes).ok()?;
    let length = u64::from_le_bytes(*bytes.first_chunk()?);
    file.take(length.min(100_000_000))
        .read_to_end(&mut bytes)
        .ok()?;
    let (_, header) = SafeTensors::read_metadata(&bytes).ok()?;
    serde_json::from_str(header.metadata().as_ref()?.get("identity")?).ok()
}

/// FNV-1a over 64-bit words, with a rotation after each: against damage, not against malice.
struct Checksum(u64);

impl Default for Checksum {
    fn default() -> Self {
        Checksum(FNV_BASIS)
    }
}

impl Checksum {
    /// Begins with everything that the metadata say.
    fn of(metadata: &HashMap<String, String>) -> Self {
        let mut sum = Checksum::default();
        for key in ["format", "step", "updates", "identity", "schedule"] {
            sum.add(metadata.get(key).map_or("", String::as_str).as_bytes());
        }
        sum
    }

    fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.0 = (self.0 ^ u64::from_le_bytes(*word))
                .wrapping_mul(FNV_PRIME)
                .rotate_left(23);
        }
        for byte in rest {
            self.0 = (self.0 ^ u64::from(*byte))
                .wrapping_mul(FNV_PRIME)
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
            identity: Identity::of("recipe", "a"),
            schedule: Schedule {
                steps: 9,
                warmup: 1,
                quantise_from: None,
            },
        };
        save(&path, &state, &[("x", &[1.0, 2.0]), ("y", &[])]).unwrap();
        let read = |recipe: &str, n: usize| {
            let mut x = vec![0.0; n];
            let identity = Identity::of("recipe", recipe);
            load(&path, &identity, &mut [("x", &mut x), ("y", &mut [])]).map(|s| (s, x))
        };
        assert_eq!(read("a", 2).unwrap(), (state, vec![1.0, 2.0]));
        let other = format!("{:#}", read("b", 2).unwrap_err());
        assert!(other.contains("recipe: expected a, got b"), "{other}");
        assert!(format!("{:#}", read("a", 3).unwrap_err()).contains("3 f32 values"));
        let whole = fs::read(&path).unwrap();
        let mut bad = whole.clone();
        *bad.last_mut().unwrap() ^= 1;
        fs::write(&path, bad).unwrap();
        assert!(format!("{:#}", read("a", 2).unwrap_err()).contains("checksum"));
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(read("a", 2).is_err());
        let old = String::from_utf8_lossy(&whole).find(FORMAT).unwrap() + FORMAT.len() - 1;
        let mut bad = whole;
        bad[old] = b'1';
        fs::write(&path, bad).unwrap();
        let error = format!("{:#}", read("a", 2).unwrap_err());
        assert!(
            error.contains("checkpoint 1") && error.contains("delete"),
            "{error}"
        );
    }
}
