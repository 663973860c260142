//! Values of metadata that is to be written.

use super::value::{Array, Kind, Value};

/// A metadata value that borrows from no file.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedValue(Stored);

#[derive(Clone, Debug, PartialEq)]
enum Stored {
    /// Of a fixed size.
    Single(Value<'static>),
    String(String),
    Array {
        kind: Kind,
        length: usize,
        /// The elements as GGUF stores them.
        bytes: Vec<u8>,
    },
}

impl OwnedValue {
    /// The value.
    #[must_use]
    pub fn get(&self) -> Value<'_> {
        match &self.0 {
            Stored::Single(value) => *value,
            Stored::String(text) => Value::String(text),
            Stored::Array {
                kind,
                length,
                bytes,
            } => Value::Array(Array {
                kind: *kind,
                length: *length,
                bytes,
            }),
        }
    }

    fn array<T, I: IntoIterator<Item = u8>>(
        kind: Kind,
        list: &[T],
        encode: impl Fn(&T) -> I,
    ) -> OwnedValue {
        OwnedValue(Stored::Array {
            kind,
            length: list.len(),
            bytes: list.iter().flat_map(encode).collect(),
        })
    }
}

impl From<Value<'_>> for OwnedValue {
    fn from(value: Value<'_>) -> OwnedValue {
        let single = match value {
            Value::String(text) => return text.into(),
            Value::Array(array) => {
                return OwnedValue(Stored::Array {
                    kind: array.kind,
                    length: array.length,
                    bytes: array.bytes.to_vec(),
                });
            }
            Value::U8(value) => Value::U8(value),
            Value::I8(value) => Value::I8(value),
            Value::U16(value) => Value::U16(value),
            Value::I16(value) => Value::I16(value),
            Value::U32(value) => Value::U32(value),
            Value::I32(value) => Value::I32(value),
            Value::F32(value) => Value::F32(value),
            Value::Bool(value) => Value::Bool(value),
            Value::U64(value) => Value::U64(value),
            Value::I64(value) => Value::I64(value),
            Value::F64(value) => Value::F64(value),
        };
        OwnedValue(Stored::Single(single))
    }
}

impl From<String> for OwnedValue {
    fn from(text: String) -> OwnedValue {
        OwnedValue(Stored::String(text))
    }
}

impl From<&str> for OwnedValue {
    fn from(text: &str) -> OwnedValue {
        text.to_owned().into()
    }
}

impl From<u32> for OwnedValue {
    fn from(number: u32) -> OwnedValue {
        Value::U32(number).into()
    }
}

impl From<i32> for OwnedValue {
    fn from(number: i32) -> OwnedValue {
        Value::I32(number).into()
    }
}

impl From<f32> for OwnedValue {
    fn from(number: f32) -> OwnedValue {
        Value::F32(number).into()
    }
}

impl From<bool> for OwnedValue {
    fn from(truth: bool) -> OwnedValue {
        Value::Bool(truth).into()
    }
}

impl From<Vec<String>> for OwnedValue {
    fn from(texts: Vec<String>) -> OwnedValue {
        let mut bytes = Vec::with_capacity(texts.iter().map(|text| text.len() + 8).sum());
        for text in &texts {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        OwnedValue(Stored::Array {
            kind: Kind::String,
            length: texts.len(),
            bytes,
        })
    }
}

impl From<Vec<i32>> for OwnedValue {
    fn from(numbers: Vec<i32>) -> OwnedValue {
        OwnedValue::array(Kind::I32, &numbers, |number| number.to_le_bytes())
    }
}

impl From<Vec<f32>> for OwnedValue {
    fn from(numbers: Vec<f32>) -> OwnedValue {
        OwnedValue::array(Kind::F32, &numbers, |number| number.to_le_bytes())
    }
}

impl From<Vec<bool>> for OwnedValue {
    fn from(truths: Vec<bool>) -> OwnedValue {
        OwnedValue::array(Kind::Bool, &truths, |truth| [u8::from(*truth)])
    }
}

impl From<Vec<u8>> for OwnedValue {
    fn from(bytes: Vec<u8>) -> OwnedValue {
        OwnedValue(Stored::Array {
            kind: Kind::U8,
            length: bytes.len(),
            bytes,
        })
    }
}
