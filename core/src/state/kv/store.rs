//! How keys and values lie in memory.

use crate::model::{Config, Heads};
use crate::quant::q8_0::{BLOCK, BYTES};
use crate::{Error, Result};
use half::f16;
use std::ops::Range;

/// How a session's cache holds keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheFormat {
    /// binary16, rounded to nearest even.
    #[default]
    F16,
    /// Blocks of 32 bytes with one scale, about half of F16's memory. Key and value heads must be multiples of 32 long.
    Q8_0,
}

impl CacheFormat {
    /// Its name, as GGML has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            CacheFormat::F16 => "f16",
            CacheFormat::Q8_0 => "q8_0",
        }
    }

    /// Bytes of one head's `length` values at one position.
    pub(super) fn row(self, length: usize) -> usize {
        match self {
            CacheFormat::F16 => length * size_of::<f16>(),
            CacheFormat::Q8_0 => length.div_ceil(BLOCK) * BYTES,
        }
    }

    /// Refuses heads that are no whole number of blocks.
    pub(crate) fn check(self, config: &Config) -> Result<()> {
        let heads = config.caches().map(|scope| &scope.heads);
        let mut lengths = heads.flat_map(|heads| [heads.key_length, heads.value_length]);
        match lengths.find(|length| !length.is_multiple_of(BLOCK)) {
            Some(length) if self == CacheFormat::Q8_0 => Err(Error::InvalidOption {
                option: "cache_format",
                expected: format!(
                    "f16: this model's heads of {length} values are no whole number of blocks of {BLOCK}"
                ),
                got: self.name().to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

#[derive(Clone)]
pub(super) enum Store {
    F16(Rows<u16>), // binary16
    Q8_0(Rows<u8>),
}

/// One layer's rows of keys and values. Keys lie in blocks of 16 positions, woven: value by value, or block of 32 by block; values row after row.
#[derive(Clone)]
pub(super) struct Rows<T> {
    pub(super) keys: Vec<T>,
    pub(super) values: Vec<T>,
    /// Elements of a row.
    pub(super) key: usize,
    pub(super) value: usize,
}

impl<T: Copy + Default> Rows<T> {
    fn new(rows: usize, key: usize, value: usize) -> Rows<T> {
        Rows {
            keys: vec![T::default(); rows * key],
            values: vec![T::default(); rows * value],
            key,
            value,
        }
    }

    /// Whole blocks of rows.
    fn copy(&mut self, to: usize, from: &Rows<T>, rows: Range<usize>) {
        let copy = |to: &mut [T], from: &[T]| to.copy_from_slice(from);
        let (key, value, count) = (self.key, self.value, rows.len());
        copy(
            &mut self.keys[to * key..][..count * key],
            &from.keys[rows.start * key..rows.end * key],
        );
        copy(
            &mut self.values[to * value..][..count * value],
            &from.values[rows.start * value..rows.end * value],
        );
    }
}

impl Store {
    pub(super) fn new(format: CacheFormat, rows: usize, heads: &Heads) -> Store {
        let lengths = [heads.key_length, heads.value_length];
        let [key, value] = lengths.map(|length| format.row(length));
        match format {
            CacheFormat::F16 => Store::F16(Rows::new(rows, lengths[0], lengths[1])),
            CacheFormat::Q8_0 => Store::Q8_0(Rows::new(rows, key, value)),
        }
    }

    pub(super) fn copy(&mut self, to: usize, from: &Store, rows: Range<usize>) {
        match (self, from) {
            (Store::F16(own), Store::F16(from)) => own.copy(to, from, rows),
            (Store::Q8_0(own), Store::Q8_0(from)) => own.copy(to, from, rows),
            _ => unreachable!("one cache has one format"),
        }
    }
}
