//! The bytes of a GGUF file (v3, alignment 32), through gguf-rs's writer.
//!
//! What it leaves to its caller is done here: a payload must be exactly as long as its tensor (a shorter one would be accepted and padded
//! with zeros), and a list must not be empty (it would be written as one of u8). BF16 is refused: gguf-rs 0.1.8 counts 256 elements to
//! its block and would reserve 1/256 of the space. Syncing and renaming are [`crate::checkpoint::write_beside`]'s.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use dram_core::quant::Format;
use gguf_rs::writer::{GGUFWriter, MetadataValue, TensorInfo};

/// One metadata entry: key and typed value.
pub type Entry = (String, MetadataValue);

/// One tensor to be written.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) name: String,
    /// In GGUF order: the contiguous dimension first, so `[cols, rows]` or `[n]`.
    pub(crate) shape: Vec<u64>,
    pub(crate) format: &'static Format,
}

impl Plan {
    /// Bytes of the payload.
    ///
    /// # Errors
    /// When the contiguous dimension is not a whole number of blocks, or the product overflows.
    pub(crate) fn bytes(&self) -> Result<usize> {
        let cols = usize::try_from(*self.shape.first().unwrap_or(&0))?;
        ensure!(
            cols > 0 && cols.is_multiple_of(self.format.block),
            "tensor {}: rows of {cols} values do not divide into {} blocks of {}; choose f16 for it or a multiple of {} as its width",
            self.name,
            self.format.name,
            self.format.block,
            self.format.block
        );
        let rows = self.shape[1..]
            .iter()
            .try_fold(1u64, |n, d| n.checked_mul(*d))
            .context("too many rows")?;
        (cols / self.format.block)
            .checked_mul(self.format.block_bytes)
            .and_then(|row| row.checked_mul(usize::try_from(rows).ok()?))
            .with_context(|| format!("tensor {}: its size overflows", self.name))
    }

    /// # Errors
    /// When `payload` is not as long as the tensor.
    pub(super) fn check(&self, payload: &[u8]) -> Result<()> {
        let (expected, got) = (self.bytes()?, payload.len());
        ensure!(
            got == expected,
            "tensor {}: expected {expected} bytes, got {got}",
            self.name
        );
        Ok(())
    }
}

/// Writes a file from metadata and tensors; `payload(i)` makes the bytes of tensor `i`, one tensor in memory at a time.
///
/// # Errors
/// When a payload does not have its tensor's size, or the disk refuses.
pub(super) fn write_into(
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
            bail!(
                "tensor {}: bf16 cannot be written, choose f16 or f32",
                tensor.name
            );
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
        tensor.check(&bytes)?;
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
