//! Writes GGUF files (v3, alignment 32) with any metadata and tensors in any format the runtime knows. Syncing and renaming are
//! [`write_beside`](crate::write_beside)'s.

use std::fs::File as Output;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use dram_core::gguf::{File, Value};
pub use dram_core::model::folder::Entry;
use dram_core::quant::Format;

/// Bytes to which every tensor is aligned; the default, so that no key need say it.
const ALIGNMENT: usize = 32;

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
        let rows = self.shape[1..]
            .iter()
            .try_fold(1u64, |n, d| n.checked_mul(*d))
            .context("too many rows")?;
        (cols / self.format.block)
            .checked_mul(self.format.block_bytes)
            .and_then(|row| row.checked_mul(usize::try_from(rows).ok()?))
            .with_context(|| format!("tensor {}: its size overflows", self.name))
    }
}

/// The metadata of a file to be written.
#[derive(Default)]
pub struct Head {
    count: u64,
    bytes: Vec<u8>,
}

impl Head {
    /// Adds an entry.
    pub fn put(&mut self, key: &str, value: Value<'_>) {
        self.count += 1;
        put_string(&mut self.bytes, key);
        self.bytes.extend((value.kind() as u32).to_le_bytes());
        put_value(&mut self.bytes, value);
    }

    /// A file with these entries and no tensors, in memory.
    ///
    /// # Errors
    /// What the runtime's reader refuses.
    pub fn file(&self, name: &str) -> Result<File> {
        Ok(File::from_bytes(name, self.front(0))?)
    }

    /// A file with these entries in memory, whose tensors have names and a single value: for those who read what metadata and names say.
    ///
    /// # Errors
    /// What the runtime's reader refuses.
    pub fn outline(&self, name: &str, tensors: &[String]) -> Result<File> {
        let mut bytes = self.front(tensors.len() as u64);
        for (index, tensor) in tensors.iter().enumerate() {
            put_string(&mut bytes, tensor);
            bytes.extend(1u32.to_le_bytes());
            bytes.extend(1u64.to_le_bytes());
            bytes.extend(0u32.to_le_bytes()); // f32
            bytes.extend((index as u64 * ALIGNMENT as u64).to_le_bytes());
        }
        let end = bytes.len().next_multiple_of(ALIGNMENT) + tensors.len() * ALIGNMENT;
        bytes.resize(end, 0);
        Ok(File::from_bytes(name, bytes)?)
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
}

/// Where a tensor's bytes go.
pub struct Payload<'a> {
    out: &'a mut BufWriter<Output>,
    left: usize,
}

impl Payload<'_> {
    /// The next bytes.
    ///
    /// # Errors
    /// When there are more than the tensor has, or the disk refuses.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
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
pub fn write_file(
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
pub fn write_copy(
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
        head.put(key, value);
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

fn put_value(out: &mut Vec<u8>, value: Value<'_>) {
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
        Value::Array(array) => {
            out.extend((array.kind() as u32).to_le_bytes());
            out.extend((array.len() as u64).to_le_bytes());
            out.extend(array.bytes());
        }
        Value::U64(v) => out.extend(v.to_le_bytes()),
        Value::I64(v) => out.extend(v.to_le_bytes()),
        Value::F64(v) => out.extend(v.to_le_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dram_core::gguf::OwnedValue;
    use dram_core::quant::format_by_name;
    use gguf_rs::writer::{GGUFWriter, MetadataValue as Theirs, TensorInfo};

    /// gguf-rs, another's code, writes the same bytes.
    #[test]
    fn gguf_rs_writes_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
        let mut writer = GGUFWriter::new(&theirs, 3).unwrap();
        let mut head = Head::default();
        // gguf-rs sorts keys.
        head.put("a.flag", Value::Bool(true));
        writer.add_metadata_bool("a.flag", true);
        head.put("b.float", Value::F32(0.25));
        writer.add_metadata_f32("b.float", 0.25);
        head.put("c.integer", Value::I32(-7));
        writer.add_metadata_i32("c.integer", -7);
        head.put("d.number", Value::U32(7));
        writer.add_metadata_u32("d.number", 7);
        head.put("e.text", Value::String("größe"));
        writer.add_metadata("e.text", "größe");
        let lists = [
            (
                "f.texts",
                OwnedValue::from(vec!["a".to_owned(), String::new()]),
                vec![Theirs::String("a".into()), Theirs::String(String::new())],
            ),
            (
                "g.integers",
                vec![-1, 2].into(),
                vec![Theirs::Int32(-1), Theirs::Int32(2)],
            ),
            ("h.floats", vec![0.5f32].into(), vec![Theirs::Float32(0.5)]),
            (
                "i.flags",
                vec![true, false].into(),
                vec![Theirs::Bool(true), Theirs::Bool(false)],
            ),
            (
                "j.bytes",
                vec![1u8, 255].into(),
                vec![Theirs::Uint8(1), Theirs::Uint8(255)],
            ),
        ];
        for (key, value, same) in lists {
            head.put(key, value.get());
            writer.add_metadata_array(key, same);
        }
        let plan = |name: &str, shape: &[u64], format: &str| Plan {
            name: name.into(),
            shape: shape.into(),
            format: format_by_name(format).unwrap(),
        };
        let plans = [
            plan("norm.weight", &[3], "f32"),
            plan("up.weight", &[32, 2], "q4_0"),
            plan("down.weight", &[256, 1], "q6_k"),
        ];
        for plan in &plans {
            writer.add_tensor(TensorInfo {
                name: plan.name.clone(),
                shape: plan.shape.clone(),
                dtype: plan.format.ggml_id,
            });
        }
        let bytes = |index: usize| vec![index as u8 + 1; plans[index].bytes().unwrap()];
        writer.write().unwrap();
        for index in 0..plans.len() {
            writer.write_tensor_data(index, &bytes(index)).unwrap();
        }
        writer.finalize().unwrap();
        write_file(&ours, &head, &plans, &mut |index, out| {
            out.put(&bytes(index))
        })
        .unwrap();
        assert!(std::fs::read(ours).unwrap() == std::fs::read(theirs).unwrap());
    }

    #[test]
    fn a_payload_has_its_tensors_size() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan {
            name: "x.weight".into(),
            shape: vec![4],
            format: format_by_name("f32").unwrap(),
        };
        for (bytes, expected) in [(15, "got 15"), (17, "1 bytes too many")] {
            let written = write_file(
                &folder.path().join("x"),
                &Head::default(),
                std::slice::from_ref(&plan),
                &mut |_, out| out.put(&vec![0; bytes]),
            );
            let error = format!("{:#}", written.unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
