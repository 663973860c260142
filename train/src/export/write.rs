//! Writing a GGUF file so that a reader sees either the old file or the whole new one.
//!
//! The bytes go through gguf-rs's writer (GGUF v3, alignment 32). What it leaves to its caller is done here: the payload must be exactly
//! as long as the tensor (a shorter one would be accepted and padded with zeros), the file is synced to the disk, and it is written beside
//! its final name and renamed. BF16 is refused: gguf-rs 0.1.8 counts 256 elements to its block and would reserve 1/256 of the space.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};
use dram_core::quant::Format;
use gguf_rs::writer::{GGUFWriter, MetadataValue, TensorInfo};

/// One metadata entry: key and typed value.
pub type Entry = (String, MetadataValue);

/// One tensor to be written.
#[derive(Clone)]
pub struct Plan {
    pub name: String,
    /// In GGUF order: the contiguous dimension first, so `[cols, rows]` or `[n]`.
    pub shape: Vec<u64>,
    pub format: &'static Format,
}

impl Plan {
    /// Bytes of the payload.
    ///
    /// # Errors
    /// When the contiguous dimension is not a whole number of blocks, or the product overflows.
    pub fn bytes(&self) -> Result<usize> {
        let cols = usize::try_from(*self.shape.first().unwrap_or(&0))?;
        ensure!(
            cols > 0 && cols.is_multiple_of(self.format.block),
            "tensor {}: rows of {cols} values do not divide into {} blocks of {}; choose f16 for it or a multiple of {} as its width",
            self.name,
            self.format.name,
            self.format.block,
            self.format.block
        );
        let rows = self.shape[1..].iter().try_fold(1u64, |n, d| n.checked_mul(*d)).context("too many rows")?;
        (cols / self.format.block)
            .checked_mul(self.format.block_bytes)
            .and_then(|row| row.checked_mul(usize::try_from(rows).ok()?))
            .with_context(|| format!("tensor {}: its size overflows", self.name))
    }
}

/// Writes `path` from metadata and tensors; `payload(i)` makes the bytes of tensor `i`, one tensor in memory at a time.
///
/// # Errors
/// On any failure (a full disk too) the file that was at `path` before is untouched and nothing is left beside it.
pub fn write_gguf(
    path: &Path,
    metadata: &[Entry],
    tensors: &[Plan],
    payload: &mut dyn FnMut(usize) -> Result<Vec<u8>>,
) -> Result<()> {
    let beside = Beside::new(path)?;
    write_into(&beside.path, metadata, tensors, payload)
        .with_context(|| format!("writing {}", path.display()))?;
    beside.commit(path)
}

fn write_into(
    path: &Path,
    metadata: &[Entry],
    tensors: &[Plan],
    payload: &mut dyn FnMut(usize) -> Result<Vec<u8>>,
) -> Result<()> {
    let mut writer = GGUFWriter::new(path, 3)?;
    for (key, value) in metadata {
        add(&mut writer, key, value)?;
    }
    for tensor in tensors {
        if tensor.format.name == "bf16" {
            bail!("tensor {}: bf16 cannot be written, choose f16 or f32", tensor.name);
        }
        writer.add_tensor(TensorInfo {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            dtype: tensor.format.ggml_id,
        });
    }
    writer.write()?;
    for (index, tensor) in tensors.iter().enumerate() {
        let bytes = payload(index).with_context(|| format!("tensor {}", tensor.name))?;
        let expected = tensor.bytes()?;
        ensure!(bytes.len() == expected, "tensor {}: expected {expected} bytes, got {}", tensor.name, bytes.len());
        writer.write_tensor_data(index, &bytes)?;
    }
    writer.finalize()
}

/// gguf-rs keeps its map private and has one door per type.
fn add(writer: &mut GGUFWriter, key: &str, value: &MetadataValue) -> Result<()> {
    match value {
        MetadataValue::String(v) => writer.add_metadata(key, v),
        MetadataValue::Uint32(v) => writer.add_metadata_u32(key, *v),
        MetadataValue::Int32(v) => writer.add_metadata_i32(key, *v),
        MetadataValue::Uint64(v) => writer.add_metadata_u64(key, *v),
        MetadataValue::Float32(v) => writer.add_metadata_f32(key, *v),
        MetadataValue::Bool(v) => writer.add_metadata_bool(key, *v),
        // An empty array would be written as one of u8, which readers reject for a list of strings: a missing key says the same.
        MetadataValue::Array(v) if v.is_empty() => {}
        MetadataValue::Array(v) => writer.add_metadata_array(key, v.clone()),
        other => bail!("metadata {key}: {other:?} cannot be written"),
    }
    Ok(())
}

/// A file that is being written beside its final name, removed unless it is committed.
pub struct Beside {
    pub path: PathBuf,
    committed: bool,
}

impl Beside {
    /// Chooses a free name in the directory of `path`, which is made if it is missing.
    ///
    /// # Errors
    /// When `path` has no file name or its directory cannot be made.
    pub fn new(path: &Path) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
        if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{}.part", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        Ok(Self { path: path.with_file_name(hidden), committed: false })
    }

    /// Syncs the file and gives it its final name.
    ///
    /// # Errors
    /// When the disk does; the old file is then still in place.
    pub fn commit(mut self, path: &Path) -> Result<()> {
        // gguf-rs keeps the handle to itself, so the sync goes through a second one.
        let file = OpenOptions::new().write(true).open(&self.path)?;
        file.sync_all().with_context(|| format!("syncing {}", self.path.display()))?;
        drop(file);
        fs::rename(&self.path, path).with_context(|| format!("renaming to {}", path.display()))?;
        self.committed = true;
        #[cfg(unix)]
        {
            let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(dir)?.sync_all().with_context(|| format!("syncing {}", dir.display()))?;
        }
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_file(&self.path);
        }
    }
}
