//! Writes a GGUF file with any metadata and tensors in any format the runtime knows.
//!
//! gguf-rs 0.1.8 reserves the wrong space for IQ4_NL, MXFP4 and BF16, has no door for every metadata type, and zeroes the whole file first: fine
//! for students ([`super::write`]), not for copies and conversions of other people's files.

use std::fs::File as Output;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use dram_core::gguf::{File, Kind, Value};

use super::write::Plan;
use crate::data::tokenizer::MetadataValue as Own;

/// Bytes to which every tensor is aligned; the default, so that no key need say it.
const ALIGNMENT: usize = 32;

/// The metadata of a file to be written.
#[derive(Default)]
pub(crate) struct Head {
    count: u64,
    bytes: Vec<u8>,
}

impl Head {
    /// Adds an entry of another file.
    ///
    /// # Errors
    /// For an array of arrays.
    pub(crate) fn copy(&mut self, key: &str, value: Value<'_>) -> Result<()> {
        self.begin(key, value.kind());
        put_value(&mut self.bytes, value).with_context(|| format!("metadata {key}"))
    }

    /// Adds an entry.
    pub(crate) fn put(&mut self, key: &str, value: &Own) {
        let array = |head: &mut Self, kind: Kind, length: usize| {
            head.begin(key, Kind::Array);
            head.bytes.extend((kind as u32).to_le_bytes());
            head.bytes.extend((length as u64).to_le_bytes());
        };
        let single = match value {
            Own::Text(v) => Value::String(v),
            Own::Number(v) => Value::U32(*v),
            Own::Integer(v) => Value::I32(*v),
            Own::Float(v) => Value::F32(*v),
            Own::Flag(v) => Value::Bool(*v),
            Own::Texts(list) => {
                array(self, Kind::String, list.len());
                list.iter().for_each(|v| put_string(&mut self.bytes, v));
                return;
            }
            Own::Integers(list) => {
                array(self, Kind::I32, list.len());
                self.bytes.extend(list.iter().flat_map(|v| v.to_le_bytes()));
                return;
            }
            Own::Floats(list) => {
                array(self, Kind::F32, list.len());
                self.bytes.extend(list.iter().flat_map(|v| v.to_le_bytes()));
                return;
            }
            Own::Flags(list) => {
                array(self, Kind::Bool, list.len());
                self.bytes.extend(list.iter().map(|v| u8::from(*v)));
                return;
            }
            Own::Bytes(list) => {
                array(self, Kind::U8, list.len());
                self.bytes.extend(list);
                return;
            }
        };
        self.begin(key, single.kind());
        put_single(&mut self.bytes, single);
    }

    /// A file with these entries and no tensors, in memory.
    ///
    /// # Errors
    /// What the runtime's reader refuses.
    pub(crate) fn file(&self, name: &str) -> Result<File> {
        Ok(File::from_bytes(name, self.front(0))?)
    }

    /// Everything before the tensors' descriptions.
    fn front(&self, tensors: u64) -> Vec<u8> {
        let mut front = Vec::with_capacity(self.bytes.len() + 24 + 128 * tensors as usize);
        front.extend(b"GGUF");
        front.extend(3u32.to_le_bytes());
        front.extend(tensors.to_le_bytes());
        front.extend(self.count.to_le_bytes());
        front.extend(&self.bytes);
        front
    }

    fn begin(&mut self, key: &str, kind: Kind) {
        self.count += 1;
        put_string(&mut self.bytes, key);
        self.bytes.extend((kind as u32).to_le_bytes());
    }
}

/// Where a tensor's bytes go.
pub(crate) struct Payload<'a> {
    out: &'a mut BufWriter<Output>,
    left: usize,
}

impl Payload<'_> {
    /// The next bytes.
    ///
    /// # Errors
    /// When there are more than the tensor has, or the disk refuses.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        ensure!(
            bytes.len() <= self.left,
            "{} bytes too many",
            bytes.len() - self.left
        );
        self.left -= bytes.len();
        Ok(self.out.write_all(bytes)?)
    }
}

/// Writes `head` and `tensors`; `payload(i, out)` puts the bytes of tensor `i`, in as many parts as it likes.
///
/// # Errors
/// When a payload does not have its tensor's size, or the disk refuses.
pub(crate) fn write_file(
    path: &Path,
    head: &Head,
    tensors: &[Plan],
    payload: &mut dyn FnMut(usize, &mut Payload<'_>) -> Result<()>,
) -> Result<()> {
    let mut front = head.front(tensors.len() as u64);
    let mut offset = 0usize;
    for tensor in tensors {
        put_string(&mut front, &tensor.name);
        front.extend(u32::try_from(tensor.shape.len())?.to_le_bytes());
        tensor
            .shape
            .iter()
            .for_each(|n| front.extend(n.to_le_bytes()));
        front.extend(tensor.format.ggml_id.to_le_bytes());
        front.extend((offset as u64).to_le_bytes());
        offset = tensor
            .bytes()?
            .checked_next_multiple_of(ALIGNMENT)
            .and_then(|bytes| offset.checked_add(bytes))
            .context("the file's size overflows")?;
    }
    front.resize(front.len().next_multiple_of(ALIGNMENT), 0);
    // What is written at once may lie in one page of the system's cache, and is read and mapped the faster.
    let mut out = BufWriter::with_capacity(4 << 20, Output::create(path)?);
    out.write_all(&front)?;
    for (index, tensor) in tensors.iter().enumerate() {
        let size = tensor.bytes()?;
        let mut place = Payload {
            out: &mut out,
            left: size,
        };
        payload(index, &mut place).with_context(|| format!("tensor {}", tensor.name))?;
        ensure!(
            place.left == 0,
            "tensor {}: expected {size} bytes, got {}",
            tensor.name,
            size - place.left
        );
        out.write_all(&[0; ALIGNMENT][..size.next_multiple_of(ALIGNMENT) - size])?;
    }
    Ok(out.flush()?)
}

/// Writes every key of `source` but `general.alignment`, with the values of `changed` where it names one, then `tensors`; `payload(i)`
/// makes the bytes of tensor `i`, one tensor in memory at a time.
///
/// # Errors
/// As [`write_file`].
pub(super) fn write_copy(
    path: &Path,
    source: &File,
    changed: &[(&str, Value<'_>)],
    tensors: &[Plan],
    payload: &mut dyn FnMut(usize) -> Result<Vec<u8>>,
) -> Result<()> {
    let kept = source.metadata().iter().filter(|(key, _)| {
        // The copy is one file.
        let of_file = *key == "general.alignment" || key.starts_with("split.");
        !of_file && !changed.iter().any(|(other, _)| other == key)
    });
    let mut head = Head::default();
    for (key, value) in kept.chain(changed.iter().copied()) {
        head.copy(key, value)?;
    }
    write_file(path, &head, tensors, &mut |index, out| {
        out.put(&payload(index)?)
    })?;
    Ok(source.check_unchanged()?)
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: Value<'_>) -> Result<()> {
    let Value::Array(array) = value else {
        put_single(out, value);
        return Ok(());
    };
    out.extend((array.kind() as u32).to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    for element in array.iter() {
        if matches!(element, Value::Array(_)) {
            bail!("an array of arrays cannot be written");
        }
        put_single(out, element);
    }
    Ok(())
}

/// Arrays are [`put_value`]'s.
fn put_single(out: &mut Vec<u8>, value: Value<'_>) {
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
        Value::Array(_) => {}
    }
}
