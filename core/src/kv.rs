//! The cache of keys and values: what attention has seen so far, in f16 or Q8_0.

use crate::kernels::attention_q8_0::{unweave, weave};
use crate::kernels::{KEYS, Kernels, Mix, Scores};
use crate::model::Config;
use crate::quant::q8_0::{self, BLOCK, BYTES};
use crate::{Error, Result};
use half::f16;
use half::slice::HalfBitsSliceExt;
use std::io;
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
    fn row(self, length: usize) -> usize {
        match self {
            CacheFormat::F16 => length * size_of::<f16>(),
            CacheFormat::Q8_0 => length.div_ceil(BLOCK) * BYTES,
        }
    }

    /// Refuses heads that are no whole number of blocks.
    pub(crate) fn check(self, config: &Config) -> Result<()> {
        let lengths = [config.key_length, config.value_length];
        match lengths.iter().find(|length| !length.is_multiple_of(BLOCK)) {
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

/// Keys and values of one sequence, for every layer. What lies at and after the session's position is left over and never read.
pub(crate) struct KvCache {
    store: Store,
    heads: usize, // of all layers
    kv_heads: usize,
    context: usize,
    key_length: usize,
    value_length: usize,
}

enum Store {
    F16 {
        keys: Vec<u16>,   // binary16: [heads, blocks of KEYS positions, key_length, KEYS]
        values: Vec<u16>, // binary16: [heads, context, value_length]
    },
    Q8_0 {
        keys: Vec<u8>, // [heads, blocks of KEYS positions, key_length / 32, KEYS woven blocks]
        values: Vec<u8>, // [heads, context, value_length / 32 blocks]
    },
}

/// Bytes of a cache for `context` positions; saturates instead of overflowing, so that a refusal can name a number.
pub(crate) fn bytes(config: &Config, context: usize, format: CacheFormat) -> u64 {
    let heads = config.layers as u64 * config.kv_heads as u64;
    let keys = (context as u64).saturating_add(KEYS as u64 - 1) / KEYS as u64 * KEYS as u64;
    let keys = keys.saturating_mul(format.row(config.key_length) as u64);
    let values = (context as u64).saturating_mul(format.row(config.value_length) as u64);
    heads.saturating_mul(keys.saturating_add(values))
}

/// Bytes of keys and values that a token after `seen` others reads, in all layers.
pub(crate) fn bytes_read(config: &Config, seen: usize, format: CacheFormat) -> u64 {
    let position =
        config.kv_heads * (format.row(config.key_length) + format.row(config.value_length));
    let layers = config.scopes.iter();
    let positions = layers.map(|scope| scope.window.map_or(seen, |window| seen.min(window)) as u64);
    positions.sum::<u64>().saturating_mul(position as u64)
}

/// As many rows of `row` values, of which the first `count` are copied.
fn copy_rows<T: Copy + Default>(from: &[T], row: usize, count: usize) -> Vec<T> {
    let mut to = vec![T::default(); from.len()];
    for (to, from) in to.chunks_exact_mut(row).zip(from.chunks_exact(row)) {
        to[..count].copy_from_slice(&from[..count]);
    }
    to
}

impl KvCache {
    /// A cache for `context` positions. The pages are the system's zero pages until they are written, so a long context costs memory only as it fills.
    pub(crate) fn new(config: &Config, context: usize, format: CacheFormat) -> Self {
        let heads = config.layers * config.kv_heads;
        let (keys, values) = (heads * context.next_multiple_of(KEYS), heads * context);
        let (key_length, value_length) = (config.key_length, config.value_length);
        let store = match format {
            CacheFormat::F16 => Store::F16 {
                keys: vec![0; keys * key_length],
                values: vec![0; values * value_length],
            },
            CacheFormat::Q8_0 => Store::Q8_0 {
                keys: vec![0; keys * format.row(key_length)],
                values: vec![0; values * format.row(value_length)],
            },
        };
        KvCache {
            store,
            heads,
            kv_heads: config.kv_heads,
            context,
            key_length,
            value_length,
        }
    }

    /// Positions it has room for.
    pub(crate) fn context(&self) -> usize {
        self.context
    }

    pub(crate) fn format(&self) -> CacheFormat {
        match self.store {
            Store::F16 { .. } => CacheFormat::F16,
            Store::Q8_0 { .. } => CacheFormat::Q8_0,
        }
    }

    /// Bytes of one head's key and value at one position.
    pub(crate) fn position_bytes(&self) -> usize {
        self.format().row(self.key_length) + self.format().row(self.value_length)
    }

    /// Positions in the rows of keys.
    fn rounded(&self) -> usize {
        self.context.next_multiple_of(KEYS)
    }

    /// Stores `keys` `[tokens, kv_heads, key_length]` and `values` `[tokens, kv_heads, value_length]` at `start` and after, rounded to the format.
    pub(crate) fn write(
        &mut self,
        kernels: &Kernels,
        layer: usize,
        start: usize,
        keys: &[f32],
        values: &[f32],
    ) {
        let (heads, rounded, context) = (self.kv_heads, self.rounded(), self.context);
        let (key_length, value_length) = (self.key_length, self.value_length);
        // Where row `row` of the tokens goes: its position, and its head among all layers'.
        let place = |row: usize| (start + row / heads, layer * heads + row % heads);
        let rows = keys
            .chunks_exact(key_length)
            .zip(values.chunks_exact(value_length));
        for (row, (key, value)) in rows.enumerate() {
            let (position, head) = place(row);
            let (block, at) = (
                head * rounded + position / KEYS * KEYS,
                head * context + position,
            );
            match &mut self.store {
                Store::F16 { keys, values } => {
                    let block = &mut keys[block * key_length..][..KEYS * key_length];
                    let mut lane = block[position % KEYS..].iter_mut().step_by(KEYS);
                    let mut narrow = [f16::ZERO; 64];
                    for key in key.chunks(narrow.len()) {
                        let narrow = &mut narrow[..key.len()];
                        kernels.narrow(key, narrow);
                        for (value, to) in narrow.iter().zip(lane.by_ref()) {
                            *to = value.to_bits();
                        }
                    }
                    let to = &mut values[at * value_length..][..value_length];
                    kernels.narrow(value, to.reinterpret_cast_mut());
                }
                Store::Q8_0 { keys, values } => {
                    let row = CacheFormat::Q8_0.row(key_length);
                    let woven = &mut keys[block * row..][..KEYS * row];
                    for (number, key) in key.chunks_exact(BLOCK).enumerate() {
                        let mut block = [0; BYTES];
                        kernels.quantize(&q8_0::FORMAT, key, &mut block);
                        weave(woven, position % KEYS, number, &block);
                    }
                    let row = CacheFormat::Q8_0.row(value_length);
                    kernels.quantize(&q8_0::FORMAT, value, &mut values[at * row..][..row]);
                }
            }
        }
    }

    /// [`Scores`] of one head's keys at `positions`, which begin with a block of [`KEYS`] and are rounded up to whole ones; `scores.keys` is
    /// filled in here.
    pub(crate) fn scores(
        &self,
        kernels: &Kernels,
        layer: usize,
        head: usize,
        positions: Range<usize>,
        scores: Scores<'_, ()>,
    ) {
        let first = (layer * self.kv_heads + head) * self.rounded() + positions.start;
        let count = positions.len().next_multiple_of(KEYS);
        match &self.store {
            Store::F16 { keys, .. } => {
                let keys = &keys[first * self.key_length..][..count * self.key_length];
                kernels.scores(scores.over(keys.reinterpret_cast::<f16>()));
            }
            Store::Q8_0 { keys, .. } => {
                let row = CacheFormat::Q8_0.row(self.key_length);
                kernels.scores_q8_0(scores.over(&keys[first * row..][..count * row]));
            }
        }
    }

    /// [`Mix`] of one head's values at the `mix.positions` from `start` on; `mix.values` is filled in here.
    pub(crate) fn mix(
        &self,
        kernels: &Kernels,
        layer: usize,
        head: usize,
        start: usize,
        mix: Mix<'_, ()>,
    ) {
        let first = (layer * self.kv_heads + head) * self.context + start;
        let count = mix.positions;
        match &self.store {
            Store::F16 { values, .. } => {
                let values = &values[first * self.value_length..][..count * self.value_length];
                kernels.mix(mix.over(values.reinterpret_cast::<f16>()));
            }
            Store::Q8_0 { values, .. } => {
                let row = CacheFormat::Q8_0.row(self.value_length);
                kernels.mix_q8_0(mix.over(&values[first * row..][..count * row]));
            }
        }
    }

    /// A cache with the same room and the same first `positions` positions. Others are not copied.
    pub(crate) fn fork(&self, positions: usize) -> KvCache {
        let (rounded, context) = (self.rounded(), self.context);
        let blocks = positions.next_multiple_of(KEYS);
        let store = match &self.store {
            Store::F16 { keys, values } => {
                let (key, value) = (self.key_length, self.value_length);
                Store::F16 {
                    keys: copy_rows(keys, rounded * key, blocks * key),
                    values: copy_rows(values, context * value, positions * value),
                }
            }
            Store::Q8_0 { keys, values } => {
                let format = CacheFormat::Q8_0;
                let (key, value) = (format.row(self.key_length), format.row(self.value_length));
                Store::Q8_0 {
                    keys: copy_rows(keys, rounded * key, blocks * key),
                    values: copy_rows(values, context * value, positions * value),
                }
            }
        };
        KvCache { store, ..*self }
    }

    /// Hands out the first `positions` positions, head by head: each position's key, then its value, as `position_bytes` little-endian bytes in the
    /// order of a head's values (f16 numbers or Q8_0 blocks).
    pub(crate) fn save(
        &self,
        positions: usize,
        write: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut row = vec![0; self.position_bytes()];
        for (head, position) in places(self.heads, positions) {
            let (block, at) = self.place(head, position);
            let (key, value) = row.split_at_mut(self.format().row(self.key_length));
            match &self.store {
                Store::F16 { keys, values } => {
                    let lane = keys[block * self.key_length..][position % KEYS..]
                        .iter()
                        .step_by(KEYS);
                    let value_row = &values[at * self.value_length..];
                    for (to, from) in key.as_chunks_mut().0.iter_mut().zip(lane) {
                        *to = from.to_le_bytes();
                    }
                    for (to, from) in value.as_chunks_mut().0.iter_mut().zip(value_row) {
                        *to = from.to_le_bytes();
                    }
                }
                Store::Q8_0 { keys, values } => {
                    let woven = &keys[block * key.len()..];
                    for (number, to) in key.as_chunks_mut().0.iter_mut().enumerate() {
                        *to = unweave(woven, position % KEYS, number);
                    }
                    let length = value.len();
                    value.copy_from_slice(&values[at * length..][..length]);
                }
            }
            write(&row)?;
        }
        Ok(())
    }

    /// Reads back what [`KvCache::save`] handed out.
    pub(crate) fn restore(
        &mut self,
        positions: usize,
        read: &mut dyn FnMut(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut row = vec![0; self.position_bytes()];
        for (head, position) in places(self.heads, positions) {
            read(&mut row)?;
            let (block, at) = self.place(head, position);
            let (key, value) = row.split_at(self.format().row(self.key_length));
            match &mut self.store {
                Store::F16 { keys, values } => {
                    let lane = keys[block * self.key_length..][position % KEYS..]
                        .iter_mut()
                        .step_by(KEYS);
                    let value_row = &mut values[at * self.value_length..];
                    for (from, to) in key.as_chunks().0.iter().zip(lane) {
                        *to = u16::from_le_bytes(*from);
                    }
                    for (from, to) in value.as_chunks().0.iter().zip(value_row) {
                        *to = u16::from_le_bytes(*from);
                    }
                }
                Store::Q8_0 { keys, values } => {
                    let woven = &mut keys[block * key.len()..];
                    for (number, from) in key.as_chunks().0.iter().enumerate() {
                        weave(woven, position % KEYS, number, from);
                    }
                    values[at * value.len()..][..value.len()].copy_from_slice(value);
                }
            }
        }
        Ok(())
    }

    /// The row of keys with which a position's block begins, and its row of values.
    fn place(&self, head: usize, position: usize) -> (usize, usize) {
        let block = head * self.rounded() + position / KEYS * KEYS;
        (block, head * self.context + position)
    }
}

fn places(heads: usize, positions: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..heads).flat_map(move |head| (0..positions).map(move |position| (head, position)))
}
