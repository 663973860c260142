//! Typed access to a file's key-value pairs. Strings and arrays are views into the map.

use super::File;
use super::value::{Array, Kind, Strings, Value, shorten};
use crate::{Error, Result};
use std::collections::HashMap;
use std::ops::Range;

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
        self.opt(key, "a string", |value| value.as_str())
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
            value.as_u32()
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
        self.opt(key, "a finite number", |value| value.as_f32())
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
        self.opt(key, "a bool", |value| value.as_bool())
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
        self.opt(key, "an array of strings", |value| value.as_strings())
    }

    /// The numbers `key` holds, as f32.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is no array of f32.
    pub fn opt_f32s(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.opt(key, "an array of f32", |value| value.as_f32s())
    }

    /// The whole numbers `key` holds, of any width, that fit an i32.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is no array of such numbers.
    pub fn opt_i32s(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.opt(key, "an array of whole numbers that fit 32 bits", |value| {
            value.as_i32s()
        })
    }

    /// The bytes `key` holds, in the map.
    ///
    /// # Errors
    /// [`Error::BadKey`] when it is no array of u8 or i8.
    pub fn opt_bytes(&self, key: &str) -> Result<Option<&'a [u8]>> {
        self.opt(key, "an array of bytes", |value| value.as_bytes())
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
