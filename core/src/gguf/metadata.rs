//! Typed access to a file's key-value pairs. Strings and arrays are views into the map.

use super::File;
use crate::{Error, Result};
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

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
    fn decode(kind: Kind, bytes: &'a [u8]) -> Option<Value<'a>> {
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

/// Takes a string (u64 length, then bytes) off the front.
pub(super) fn split_string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u64::from_le_bytes(*rest.first_chunk::<8>()?);
    let end = usize::try_from(length).ok()?.checked_add(8)?;
    rest.split_off(..end).map(|string| &string[8..])
}

/// What the reader found: names and where the values lie.
#[derive(Default)]
pub(super) struct Table {
    /// In the file's order.
    pub(super) entries: Vec<Pair>,
    pub(super) by_key: HashMap<Box<str>, usize>,
}

/// One checked key-value pair.
pub(super) struct Pair {
    pub(super) key: Box<str>,
    pub(super) kind: Kind,
    /// For arrays: the type and number of the elements.
    pub(super) elements: Option<(Kind, usize)>,
    /// Where the value's own bytes lie in the file: past a string's length, past an array's type and count.
    pub(super) range: Range<usize>,
}

/// The key-value pairs of a file.
#[derive(Clone, Copy)]
pub struct Metadata<'a> {
    file: &'a File,
}

impl<'a> Metadata<'a> {
    pub(super) fn new(file: &'a File) -> Self {
        Metadata { file }
    }

    /// All pairs, in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> + use<'a> {
        let file = self.file;
        file.metadata
            .entries
            .iter()
            .filter_map(move |pair| Some((&*pair.key, value(file, pair)?)))
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        let index = *self.file.metadata.by_key.get(key)?;
        value(self.file, &self.file.metadata.entries[index])
    }

    /// The string `key` holds.
    ///
    /// # Errors
    /// [`Error::MissingKey`], or [`Error::BadKey`] when it is no string.
    pub fn str(&self, key: &str) -> Result<&'a str> {
        self.need(key, self.opt_str(key)?)
    }

    /// The string `key` holds, if the file has the key.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is no string.
    pub fn opt_str(&self, key: &str) -> Result<Option<&'a str>> {
        self.opt(key, "a string", |value| {
            if let Value::String(text) = value {
                Some(text)
            } else {
                None
            }
        })
    }

    /// The whole number `key` holds, of any width, that fits a u32.
    ///
    /// # Errors
    /// [`Error::MissingKey`], or [`Error::BadKey`] when it is no such number.
    pub fn u32(&self, key: &str) -> Result<u32> {
        self.need(key, self.opt_u32(key)?)
    }

    /// The whole number `key` holds, of any width, that fits a u32, if the file has the key.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is no such number.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>> {
        self.opt(key, "a whole number from 0 to 4294967295", |value| {
            u32::try_from(value.as_integer()?).ok()
        })
    }

    /// The whole number `key` holds, of any width, that fits a u64.
    ///
    /// # Errors
    /// [`Error::MissingKey`], or [`Error::BadKey`] when it is no such number.
    pub fn u64(&self, key: &str) -> Result<u64> {
        self.need(key, self.opt_u64(key)?)
    }

    /// The whole number `key` holds, of any width, that fits a u64, if the file has the key.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is no such number.
    pub fn opt_u64(&self, key: &str) -> Result<Option<u64>> {
        self.opt(key, "a whole number from 0", |value| {
            u64::try_from(value.as_integer()?).ok()
        })
    }

    /// The finite number `key` holds, as f32.
    ///
    /// # Errors
    /// [`Error::MissingKey`], or [`Error::BadKey`] when it is no finite number.
    pub fn f32(&self, key: &str) -> Result<f32> {
        self.need(key, self.opt_f32(key)?)
    }

    /// The finite number `key` holds, as f32, if the file has the key.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is no finite number.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>> {
        self.opt(key, "a finite number", |value| {
            let number = match value {
                Value::F32(number) => number,
                Value::F64(number) => number as f32,
                other => other.as_integer()? as f32,
            };
            number.is_finite().then_some(number)
        })
    }

    /// The truth value `key` holds.
    ///
    /// # Errors
    /// [`Error::MissingKey`], or [`Error::BadKey`] when it is none.
    pub fn bool(&self, key: &str) -> Result<bool> {
        self.need(key, self.opt_bool(key)?)
    }

    /// The truth value `key` holds, if the file has the key.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is none.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>> {
        self.opt(key, "a bool", |value| {
            if let Value::Bool(truth) = value {
                Some(truth)
            } else {
                None
            }
        })
    }

    /// The strings `key` holds: their number, and a walk over them.
    ///
    /// # Errors
    /// [`Error::MissingKey`], or [`Error::BadKey`] when it is no array of strings.
    pub fn strings(&self, key: &str) -> Result<Strings<'a>> {
        self.need(key, self.opt_strings(key)?)
    }

    /// The strings `key` holds, if the file has the key.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is no array of strings.
    pub fn opt_strings(&self, key: &str) -> Result<Option<Strings<'a>>> {
        self.opt(key, "an array of strings", |value| match value {
            Value::Array(array) if array.kind == Kind::String => Some(Strings {
                rest: array.bytes,
                left: array.length,
            }),
            _ => None,
        })
    }

    /// The numbers `key` holds, as f32.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is no array of f32.
    pub fn opt_f32s(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.opt(key, "an array of f32", |value| match value {
            Value::Array(array) if array.kind == Kind::F32 => Some(
                array
                    .bytes
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|bytes| f32::from_le_bytes(*bytes))
                    .collect(),
            ),
            _ => None,
        })
    }

    /// The whole numbers `key` holds, of any width, that fit an i32.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is no array of such numbers.
    pub fn opt_i32s(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.opt(
            key,
            "an array of whole numbers that fit 32 bits",
            |value| match value {
                Value::Array(array) if array.kind == Kind::I32 => Some(
                    array
                        .bytes
                        .as_chunks::<4>()
                        .0
                        .iter()
                        .map(|bytes| i32::from_le_bytes(*bytes))
                        .collect(),
                ),
                Value::Array(array) => array
                    .iter()
                    .map(|value| i32::try_from(value.as_integer()?).ok())
                    .collect(),
                _ => None,
            },
        )
    }

    fn need<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| Error::MissingKey {
            file: self.file.name.clone(),
            key: key.to_owned(),
        })
    }

    fn opt<T>(
        &self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        convert(value).map(Some).ok_or_else(|| Error::BadKey {
            file: self.file.name.clone(),
            key: key.to_owned(),
            expected: expected.to_owned(),
            got: format!("{} {}", value.kind(), shorten(&value.to_string())),
        })
    }
}

/// The beginning of a text that may be long.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn value<'a>(file: &'a File, pair: &Pair) -> Option<Value<'a>> {
    let bytes = file.bytes().get(pair.range.clone())?;
    match pair.elements {
        Some((kind, length)) => Some(Value::Array(Array {
            kind,
            length,
            bytes,
        })),
        None => Value::decode(pair.kind, bytes),
    }
}

/// A walk over an array of strings in the map.
#[derive(Clone, Debug)]
pub struct Strings<'a> {
    rest: &'a [u8],
    left: usize,
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
