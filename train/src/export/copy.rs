//! Writes a GGUF file whose metadata come from another, with tensors in any format the runtime knows.
//!
//! gguf-rs 0.1.8 reserves the wrong space for IQ4_NL, MXFP4 and BF16, has no door for every metadata type, and zeroes the whole file first: fine
//! for students ([`super::write`]), not for copies of other people's files.

use std::fs::File as Output;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context, Result, bail};
use dram_core::gguf::{File, Value};

use super::write::Plan;

/// Bytes to which every tensor is aligned; the default, so that no key need say it.
const ALIGNMENT: usize = 32;

/// Writes every key of `source` but `general.alignment`, with the values of `changed` where it names one, then `tensors`; `payload(i)`
/// makes the bytes of tensor `i`, one tensor in memory at a time.
///
/// # Errors
/// When a payload does not have its tensor's size, or the disk refuses.
pub(super) fn write_copy(
    path: &Path,
    source: &File,
    changed: &[(&str, Value<'_>)],
    tensors: &[Plan],
    payload: &mut dyn FnMut(usize) -> Result<Vec<u8>>,
) -> Result<()> {
    let kept = source.metadata().iter().filter(|(key, _)| {
        *key != "general.alignment" && !changed.iter().any(|(other, _)| other == key)
    });
    let entries: Vec<(&str, Value<'_>)> = kept.chain(changed.iter().copied()).collect();
    let mut head = Vec::new();
    head.extend(b"GGUF");
    head.extend(3u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((entries.len() as u64).to_le_bytes());
    for (key, value) in entries {
        put_string(&mut head, key);
        head.extend((value.kind() as u32).to_le_bytes());
        put_value(&mut head, value).with_context(|| format!("metadata {key}"))?;
    }
    let mut offset = 0usize;
    for tensor in tensors {
        put_string(&mut head, &tensor.name);
        head.extend(u32::try_from(tensor.shape.len())?.to_le_bytes());
        tensor
            .shape
            .iter()
            .for_each(|n| head.extend(n.to_le_bytes()));
        head.extend(tensor.format.ggml_id.to_le_bytes());
        head.extend((offset as u64).to_le_bytes());
        offset = tensor
            .bytes()?
            .checked_next_multiple_of(ALIGNMENT)
            .and_then(|bytes| offset.checked_add(bytes))
            .context("the file's size overflows")?;
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    let mut out = BufWriter::new(Output::create(path)?);
    out.write_all(&head)?;
    for (index, tensor) in tensors.iter().enumerate() {
        let mut bytes = payload(index).with_context(|| format!("tensor {}", tensor.name))?;
        tensor.check(&bytes)?;
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        out.write_all(&bytes)?;
    }
    Ok(out.flush()?)
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: Value<'_>) -> Result<()> {
    match value {
        Value::U8(v) => out.push(v),
        Value::I8(v) => out.extend(v.to_le_bytes()),
        Value::U16(v) => out.extend(v.to_le_bytes()),
        Value::I16(v) => out.extend(v.to_le_bytes()),
        Value::U32(v) => out.extend(v.to_le_bytes()),
        Value::I32(v) => out.extend(v.to_le_bytes()),
        Value::F32(v) => out.extend(v.to_le_bytes()),
        Value::Bool(v) => out.push(v.into()),
        Value::String(v) => put_string(out, v),
        Value::U64(v) => out.extend(v.to_le_bytes()),
        Value::I64(v) => out.extend(v.to_le_bytes()),
        Value::F64(v) => out.extend(v.to_le_bytes()),
        Value::Array(array) => {
            out.extend((array.kind() as u32).to_le_bytes());
            out.extend((array.len() as u64).to_le_bytes());
            for element in array.iter() {
                if matches!(element, Value::Array(_)) {
                    bail!("an array of arrays cannot be written");
                }
                put_value(out, element)?;
            }
        }
    }
    Ok(())
}
