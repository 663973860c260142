//! A GGUF writer that does as it is told: every field can be made wrong. Layout as in the GGUF specification.

use dram_core::gguf::File;

/// A metadata value.
#[derive(Debug, Clone)]
pub enum Value {
    U32(u32),
    I32(i32),
    U64(u64),
    F32(f32),
    Bool(bool),
    Str(String),
    Strs(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    /// A type number and the bytes that follow it, as they are.
    Raw(u32, Vec<u8>),
}

/// A tensor as the header describes it, and its bytes.
#[derive(Debug, Clone)]
pub struct Tensor {
    pub name: String,
    /// Fastest first: a matrix is [columns, rows].
    pub dims: Vec<u64>,
    pub ggml_type: u32,
    /// Where the header says it lies in the data section; None: after the one before, aligned.
    pub offset: Option<u64>,
    pub bytes: Vec<u8>,
}

/// A file to write.
#[derive(Debug, Clone)]
pub struct Gguf {
    pub magic: [u8; 4],
    pub version: u32,
    /// What the header claims; None: the truth.
    pub tensor_count: Option<u64>,
    pub metadata_count: Option<u64>,
    /// Keys are bytes, since a broken file's need not be text.
    pub metadata: Vec<(Vec<u8>, Value)>,
    pub tensors: Vec<Tensor>,
    /// To which offsets are rounded up; the writer does not add the key `general.alignment`.
    pub alignment: u64,
}

/// Where the sections of written bytes end.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    pub header: usize,
    pub metadata: usize,
    pub tensor_infos: usize,
    pub data_start: usize,
}

impl Default for Gguf {
    fn default() -> Gguf {
        let (metadata, tensors) = (Vec::new(), Vec::new());
        Gguf {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            metadata_count: None,
            metadata,
            tensors,
            alignment: 32,
        }
    }
}

impl Gguf {
    /// A copy of an open file.
    pub fn copy(file: &File) -> Gguf {
        let metadata = file.metadata().iter().map(|(key, value)| {
            let mut bytes = Vec::new();
            plain(value, &mut bytes);
            (key.into(), Value::Raw(value.kind() as u32, bytes))
        });
        let tensors = file.tensors().map(|tensor| Tensor {
            name: tensor.name().into(),
            dims: tensor.shape().iter().map(|&n| n as u64).collect(),
            ggml_type: tensor.format().ggml_id,
            offset: None,
            bytes: tensor.bytes().into(),
        });
        Gguf {
            metadata: metadata.collect(),
            tensors: tensors.collect(),
            ..Gguf::default()
        }
    }

    /// Sets a key, in its place when it is there already.
    pub fn set(&mut self, key: &str, value: Value) {
        match self.metadata.iter_mut().find(|(k, _)| k == key.as_bytes()) {
            Some((_, old)) => *old = value,
            None => self.metadata.push((key.into(), value)),
        }
    }

    /// Removes a key. Panics when it is not there: a test that corrupts nothing proves nothing.
    pub fn remove(&mut self, key: &str) {
        let at = self.metadata.iter().position(|(k, _)| k == key.as_bytes());
        self.metadata
            .remove(at.unwrap_or_else(|| panic!("no key {key}")));
    }

    /// The value of a key, to change.
    pub fn value(&mut self, key: &str) -> &mut Value {
        let found = self.metadata.iter_mut().find(|(k, _)| k == key.as_bytes());
        &mut found.unwrap_or_else(|| panic!("no key {key}")).1
    }

    /// A tensor, to change.
    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        let found = self.tensors.iter_mut().find(|t| t.name == name);
        found.unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        self.write().0
    }

    /// The file, and where its sections end.
    pub fn write(&self) -> (Vec<u8>, Ends) {
        let mut out = Vec::new();
        out.extend(self.magic);
        out.extend(self.version.to_le_bytes());
        out.extend(
            self.tensor_count
                .unwrap_or(self.tensors.len() as u64)
                .to_le_bytes(),
        );
        out.extend(
            self.metadata_count
                .unwrap_or(self.metadata.len() as u64)
                .to_le_bytes(),
        );
        let header = out.len();
        for (key, value) in &self.metadata {
            text(&mut out, key);
            value.write(&mut out);
        }
        let metadata = out.len();
        let mut next = 0u64;
        let mut places = Vec::new();
        for tensor in &self.tensors {
            let offset = tensor.offset.unwrap_or(next);
            text(&mut out, tensor.name.as_bytes());
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(tensor.ggml_type.to_le_bytes());
            out.extend(offset.to_le_bytes());
            places.push(next as usize);
            next = (next + tensor.bytes.len() as u64).next_multiple_of(self.alignment);
        }
        let tensor_infos = out.len();
        let data_start = tensor_infos.next_multiple_of(self.alignment as usize);
        for (tensor, place) in self.tensors.iter().zip(places) {
            out.resize(data_start + place, 0);
            out.extend(&tensor.bytes);
        }
        (
            out,
            Ends {
                header,
                metadata,
                tensor_infos,
                data_start,
            },
        )
    }
}

impl Value {
    fn write(&self, out: &mut Vec<u8>) {
        let mut plain = |number: u32, bytes: &[u8]| {
            out.extend(number.to_le_bytes());
            out.extend(bytes);
        };
        match self {
            Value::U32(v) => plain(4, &v.to_le_bytes()),
            Value::I32(v) => plain(5, &v.to_le_bytes()),
            Value::F32(v) => plain(6, &v.to_le_bytes()),
            Value::Bool(v) => plain(7, &[u8::from(*v)]),
            Value::U64(v) => plain(10, &v.to_le_bytes()),
            Value::Raw(number, bytes) => plain(*number, bytes),
            Value::Str(v) => {
                plain(8, &[]);
                text(out, v.as_bytes());
            }
            Value::Strs(v) => {
                array(out, 8, v.len());
                v.iter().for_each(|s| text(out, s.as_bytes()));
            }
            Value::I32s(v) => {
                array(out, 5, v.len());
                v.iter().for_each(|x| out.extend(x.to_le_bytes()));
            }
            Value::F32s(v) => {
                array(out, 6, v.len());
                v.iter().for_each(|x| out.extend(x.to_le_bytes()));
            }
        }
    }
}

/// A value's bytes without its type.
fn plain(value: dram_core::gguf::Value<'_>, out: &mut Vec<u8>) {
    use dram_core::gguf::Value as V;
    match value {
        V::U8(v) => out.push(v),
        V::I8(v) => out.extend(v.to_le_bytes()),
        V::U16(v) => out.extend(v.to_le_bytes()),
        V::I16(v) => out.extend(v.to_le_bytes()),
        V::U32(v) => out.extend(v.to_le_bytes()),
        V::I32(v) => out.extend(v.to_le_bytes()),
        V::F32(v) => out.extend(v.to_le_bytes()),
        V::Bool(v) => out.push(v.into()),
        V::U64(v) => out.extend(v.to_le_bytes()),
        V::I64(v) => out.extend(v.to_le_bytes()),
        V::F64(v) => out.extend(v.to_le_bytes()),
        V::String(v) => text(out, v.as_bytes()),
        V::Array(v) => {
            out.extend((v.kind() as u32).to_le_bytes());
            out.extend((v.len() as u64).to_le_bytes());
            v.iter().for_each(|v| plain(v, out));
        }
    }
}

fn array(out: &mut Vec<u8>, element: u32, count: usize) {
    out.extend(9u32.to_le_bytes());
    out.extend(element.to_le_bytes());
    out.extend((count as u64).to_le_bytes());
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}
