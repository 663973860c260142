//! GGUF's value types, decoded from the map as they are asked for.

use std::fmt;

/// The type of a value, by GGUF's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names are GGUF's own")]
pub enum Kind {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl Kind {
    const ALL: [Kind; 13] = [
        Kind::U8,
        Kind::I8,
        Kind::U16,
        Kind::I16,
        Kind::U32,
        Kind::I32,
        Kind::F32,
        Kind::Bool,
        Kind::String,
        Kind::Array,
        Kind::U64,
        Kind::I64,
        Kind::F64,
    ];

    pub(super) fn from_id(id: u32) -> Option<Kind> {
        Kind::ALL.get(usize::try_from(id).ok()?).copied()
    }

    /// Bytes of one value; `None` for strings and arrays.
    pub(super) fn size(self) -> Option<usize> {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => Some(1),
            Kind::U16 | Kind::I16 => Some(2),
            Kind::U32 | Kind::I32 | Kind::F32 => Some(4),
            Kind::U64 | Kind::I64 | Kind::F64 => Some(8),
            Kind::String | Kind::Array => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::U8 => "u8",
            Kind::I8 => "i8",
            Kind::U16 => "u16",
            Kind::I16 => "i16",
            Kind::U32 => "u32",
            Kind::I32 => "i32",
            Kind::F32 => "f32",
            Kind::Bool => "bool",
            Kind::String => "string",
            Kind::Array => "array",
            Kind::U64 => "u64",
            Kind::I64 => "i64",
            Kind::F64 => "f64",
        })
    }
}

/// One metadata value.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are GGUF's own")]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(&'a str),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    /// Decodes a value of a fixed size, or a string's own bytes.
    pub(super) fn decode(kind: Kind, bytes: &'a [u8]) -> Option<Value<'a>> {
        Some(match kind {
            Kind::U8 => Value::U8(u8::from_le_bytes(bytes.try_into().ok()?)),
            Kind::I8 => Value::I8(i8::from_le_bytes(bytes.try_into().ok()?)),
            Kind::U16 => Value::U16(u16::from_le_bytes(bytes.try_into().ok()?)),
            Kind::I16 => Value::I16(i16::from_le_bytes(bytes.try_into().ok()?)),
            Kind::U32 => Value::U32(u32::from_le_bytes(bytes.try_into().ok()?)),
            Kind::I32 => Value::I32(i32::from_le_bytes(bytes.try_into().ok()?)),
            Kind::F32 => Value::F32(f32::from_le_bytes(bytes.try_into().ok()?)),
            Kind::Bool => Value::Bool(bytes == [1]),
            Kind::String => Value::String(std::str::from_utf8(bytes).ok()?),
            Kind::Array => return None,
            Kind::U64 => Value::U64(u64::from_le_bytes(bytes.try_into().ok()?)),
            Kind::I64 => Value::I64(i64::from_le_bytes(bytes.try_into().ok()?)),
            Kind::F64 => Value::F64(f64::from_le_bytes(bytes.try_into().ok()?)),
        })
    }

    /// The type, as errors show it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Value::U8(_) => Kind::U8,
            Value::I8(_) => Kind::I8,
            Value::U16(_) => Kind::U16,
            Value::I16(_) => Kind::I16,
            Value::U32(_) => Kind::U32,
            Value::I32(_) => Kind::I32,
            Value::F32(_) => Kind::F32,
            Value::Bool(_) => Kind::Bool,
            Value::String(_) => Kind::String,
            Value::Array(_) => Kind::Array,
            Value::U64(_) => Kind::U64,
            Value::I64(_) => Kind::I64,
            Value::F64(_) => Kind::F64,
        }
    }

    /// Any whole number, whatever its width.
    #[must_use]
    pub fn as_integer(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(value) => value.into(),
            Value::I8(value) => value.into(),
            Value::U16(value) => value.into(),
            Value::I16(value) => value.into(),
            Value::U32(value) => value.into(),
            Value::I32(value) => value.into(),
            Value::U64(value) => value.into(),
            Value::I64(value) => value.into(),
            _ => return None,
        })
    }

    /// Any whole number that fits a u32.
    #[must_use]
    pub fn as_u32(&self) -> Option<u32> {
        u32::try_from(self.as_integer()?).ok()
    }

    /// Any finite number.
    #[must_use]
    pub fn as_f32(&self) -> Option<f32> {
        let number = match *self {
            Value::F32(number) => number,
            Value::F64(number) => number as f32,
            other => other.as_integer()? as f32,
        };
        number.is_finite().then_some(number)
    }

    /// A truth value.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Value::Bool(truth) => Some(truth),
            _ => None,
        }
    }

    /// A string.
    #[must_use]
    pub fn as_str(&self) -> Option<&'a str> {
        match *self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// An array of strings.
    #[must_use]
    pub fn as_strings(&self) -> Option<Strings<'a>> {
        match self {
            Value::Array(array) if array.kind == Kind::String => Some(Strings {
                rest: array.bytes,
                left: array.length,
            }),
            _ => None,
        }
    }

    /// An array of f32.
    #[must_use]
    pub fn as_f32s(&self) -> Option<Vec<f32>> {
        match self {
            Value::Array(array) if array.kind == Kind::F32 => {
                let numbers = array.bytes.as_chunks::<4>().0.iter();
                Some(numbers.map(|bytes| f32::from_le_bytes(*bytes)).collect())
            }
            _ => None,
        }
    }

    /// An array of whole numbers, of any width, that fit an i32.
    #[must_use]
    pub fn as_i32s(&self) -> Option<Vec<i32>> {
        match self {
            Value::Array(array) if array.kind == Kind::I32 => {
                let numbers = array.bytes.as_chunks::<4>().0.iter();
                Some(numbers.map(|bytes| i32::from_le_bytes(*bytes)).collect())
            }
            Value::Array(array) => array
                .iter()
                .map(|value| i32::try_from(value.as_integer()?).ok())
                .collect(),
            _ => None,
        }
    }

    /// An array of bytes, signed or not.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match self {
            Value::Array(array) if matches!(array.kind, Kind::U8 | Kind::I8) => Some(array.bytes),
            _ => None,
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::U8(value) => value.fmt(f),
            Value::I8(value) => value.fmt(f),
            Value::U16(value) => value.fmt(f),
            Value::I16(value) => value.fmt(f),
            Value::U32(value) => value.fmt(f),
            Value::I32(value) => value.fmt(f),
            Value::F32(value) => value.fmt(f),
            Value::Bool(value) => value.fmt(f),
            Value::String(value) => write!(f, "{value:?}"),
            Value::Array(array) => write!(f, "[{}; {}]", array.kind, array.length),
            Value::U64(value) => value.fmt(f),
            Value::I64(value) => value.fmt(f),
            Value::F64(value) => value.fmt(f),
        }
    }
}

/// An array value: a view that decodes as it is walked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    pub(super) kind: Kind,
    pub(super) length: usize,
    /// The elements as stored; a string is a u64 length and its bytes.
    pub(super) bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The type of its elements.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Its elements as GGUF stores them; a string is a u64 length and its bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its elements. Strings were checked to be UTF-8 when the file was opened.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (kind, mut rest) = (self.kind, self.bytes);
        std::iter::from_fn(move || {
            let element = match kind.size() {
                Some(size) => rest.split_off(..size)?,
                None => split_string(&mut rest)?,
            };
            Value::decode(kind, element)
        })
    }
}

/// A walk over an array of strings in the map.
#[derive(Clone, Debug)]
pub struct Strings<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Strings<'a> {
    /// The same strings, as bytes that are not checked again.
    pub(crate) fn bytes(mut self) -> impl Iterator<Item = &'a [u8]> {
        std::iter::from_fn(move || split_string(&mut self.rest))
    }
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = split_string(&mut self.rest)?;
        self.left -= 1;
        // Checked when the file was opened; checking again costs less than trusting a map that somebody may have written to.
        Some(std::str::from_utf8(text).unwrap_or("\u{fffd}"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Strings<'_> {}

/// Takes a string (u64 length, then bytes) off the front.
pub(super) fn split_string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u64::from_le_bytes(*rest.first_chunk::<8>()?);
    let end = usize::try_from(length).ok()?.checked_add(8)?;
    rest.split_off(..end).map(|string| &string[8..])
}

/// The beginning of a text that may be long.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
