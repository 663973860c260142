//! The KV cache: what attention has seen so far, in f16 or Q8_0.

mod checkpoints;
mod layout;
mod store;

pub(crate) use checkpoints::Mark;
pub use store::CacheFormat;

use crate::kernels::attention_q8_0::{unweave, weave};
use crate::kernels::{KEYS, Kernels, Scores, WeightedSum};
use crate::model::Config;
use crate::quant::q8_0::{self, BLOCK, BYTES};
use half::f16;
use half::slice::HalfBitsSliceExt;
use std::io;
use std::ops::Range;

use checkpoints::{Checkpoint, checkpoint_rows};
use layout::{LayerLayout, window};
use store::Store;

/// Positions of a segment, in which attention takes them: whole blocks of keys, and few enough that a head's keys and values stay in a core's own cache.
pub(crate) const SEGMENT: usize = 16 * KEYS;

/// Positions that a windowed layer keeps beside its window: as many as are evaluated together, which are written before they are read, and what a sequence
/// may go back by.
pub(crate) const SLACK: usize = 256;

/// Keys and values of one sequence, for every layer with attention; `layer` is its number among these. What lies at and after the session's position is left
/// over and never read.
///
/// A layer that sees everything keeps everything. One that sees a window keeps the window and [`SLACK`] positions, in a ring: it can go back a little by
/// itself, and farther to a checkpoint.
pub(crate) struct KvCache {
    store: Store,
    layers: Vec<LayerLayout>, // [layers with attention]
    kv_heads: usize,
    context: usize,
    key_length: usize,
    value_length: usize,
    /// The widest window of the layers that keep only a window; 0 where there are none.
    window: usize,
    /// The first position that all rings still have.
    first: usize,
    checkpoints: [Checkpoint; 2],
}

/// Bytes of a cache for `context` positions; saturates instead of overflowing, so that a refusal can name a number.
pub(super) fn bytes(config: &Config, context: usize, format: CacheFormat) -> u64 {
    let (layouts, rows) = LayerLayout::all(config, context.min(usize::MAX - KEYS));
    let row = format.row(config.key_length) + format.row(config.value_length);
    let rows = rows.saturating_add(2 * checkpoint_rows(config, &layouts));
    (rows as u64).saturating_mul(row as u64)
}

/// Bytes of keys and values that a token after `seen` others reads, in all layers.
pub(crate) fn bytes_read(config: &Config, seen: usize, format: CacheFormat) -> u64 {
    let position =
        config.kv_heads * (format.row(config.key_length) + format.row(config.value_length));
    let positions = config
        .scopes()
        .map(|scope| scope.window.map_or(seen, |window| seen.min(window)) as u64);
    positions.sum::<u64>().saturating_mul(position as u64)
}

impl KvCache {
    /// A cache for `context` positions. The pages are the system's zero pages until they are written, so a long context costs memory only as it fills.
    pub(super) fn new(config: &Config, context: usize, format: CacheFormat) -> Self {
        let (key_length, value_length) = (config.key_length, config.value_length);
        let (layers, rows) = LayerLayout::all(config, context);
        KvCache {
            store: Store::new(format, rows, key_length, value_length),
            window: window(config, &layers),
            layers,
            kv_heads: config.kv_heads,
            context,
            key_length,
            value_length,
            first: 0,
            checkpoints: Default::default(),
        }
    }

    /// Positions it has room for.
    pub(crate) fn context(&self) -> usize {
        self.context
    }

    pub(crate) fn format(&self) -> CacheFormat {
        match self.store {
            Store::F16(_) => CacheFormat::F16,
            Store::Q8_0(_) => CacheFormat::Q8_0,
        }
    }

    /// Bytes of one head's key and value at one position.
    pub(crate) fn position_bytes(&self) -> usize {
        self.format().row(self.key_length) + self.format().row(self.value_length)
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
        let (heads, layout) = (self.kv_heads, self.layers[layer]);
        let rows = keys
            .chunks_exact(self.key_length)
            .zip(values.chunks_exact(self.value_length));
        if layout.is_ring {
            let end = start + rows.len() / heads;
            self.first = self.first.max(end.saturating_sub(layout.positions));
        }
        for (number, (key, value)) in rows.enumerate() {
            let position = start + number / heads;
            let at = layout.row(number % heads, position);
            let block = at - position % KEYS;
            match &mut self.store {
                Store::F16(rows) => {
                    let block = &mut rows.keys[block * rows.key..][..KEYS * rows.key];
                    let mut lane = block[position % KEYS..].iter_mut().step_by(KEYS);
                    let mut narrow = [f16::ZERO; 64];
                    for key in key.chunks(narrow.len()) {
                        let narrow = &mut narrow[..key.len()];
                        kernels.narrow(key, narrow);
                        for (value, to) in narrow.iter().zip(lane.by_ref()) {
                            *to = value.to_bits();
                        }
                    }
                    let to = &mut rows.values[at * rows.value..][..rows.value];
                    kernels.narrow(value, to.reinterpret_cast_mut());
                }
                Store::Q8_0(rows) => {
                    let woven = &mut rows.keys[block * rows.key..][..KEYS * rows.key];
                    for (number, key) in key.chunks_exact(BLOCK).enumerate() {
                        let mut block = [0; BYTES];
                        kernels.quantize(&q8_0::FORMAT, key, &mut block);
                        weave(woven, position % KEYS, number, &block);
                    }
                    let to = &mut rows.values[at * rows.value..][..rows.value];
                    kernels.quantize(&q8_0::FORMAT, value, to);
                }
            }
        }
    }

    /// [`Scores`] of one head's keys at `positions`, which lie in one segment, begin with a block of [`KEYS`] and are rounded up to whole ones; `scores.keys`
    /// is filled in here.
    pub(crate) fn scores(
        &self,
        kernels: &Kernels,
        layer: usize,
        head: usize,
        positions: Range<usize>,
        scores: Scores<'_, ()>,
    ) {
        let first = self.layers[layer].row(head, positions.start);
        let count = positions.len().next_multiple_of(KEYS);
        match &self.store {
            Store::F16(rows) => {
                let keys = &rows.keys[first * rows.key..][..count * rows.key];
                kernels.scores(scores.over(keys.reinterpret_cast::<f16>()));
            }
            Store::Q8_0(rows) => {
                let keys = &rows.keys[first * rows.key..][..count * rows.key];
                kernels.scores_q8_0(scores.over(keys));
            }
        }
    }

    /// [`WeightedSum`] of one head's values at the `weighted_sum.positions` from `start` on, which lie in one segment; `weighted_sum.values` is filled in here.
    pub(crate) fn weighted_sum(
        &self,
        kernels: &Kernels,
        layer: usize,
        head: usize,
        start: usize,
        weighted_sum: WeightedSum<'_, ()>,
    ) {
        let first = self.layers[layer].row(head, start);
        let count = weighted_sum.positions;
        match &self.store {
            Store::F16(rows) => {
                let values = &rows.values[first * rows.value..][..count * rows.value];
                kernels.weighted_sum(weighted_sum.over(values.reinterpret_cast::<f16>()));
            }
            Store::Q8_0(rows) => {
                let values = &rows.values[first * rows.value..][..count * rows.value];
                kernels.weighted_sum_q8_0(weighted_sum.over(values));
            }
        }
    }

    /// The positions that a layer has of the first `position`.
    fn kept(&self, layout: &LayerLayout, position: usize) -> Range<usize> {
        let first = if layout.is_ring {
            position.saturating_sub(self.window)
        } else {
            0
        };
        first..position
    }

    /// A cache with the same room and what this one has of the first `position` positions. Others are not copied.
    pub(super) fn fork(&self, position: usize) -> KvCache {
        let rows = self
            .layers
            .last()
            .map_or(0, |layout| layout.first + self.kv_heads * layout.positions);
        let mut store = Store::new(self.format(), rows, self.key_length, self.value_length);
        for layout in &self.layers {
            for head in 0..self.kv_heads {
                for (row, count) in layout.runs(head, self.kept(layout, position)) {
                    store.copy(row, &self.store, row..row + count);
                }
            }
        }
        KvCache {
            store,
            layers: self.layers.clone(),
            first: self.first.max(position.saturating_sub(self.window)),
            checkpoints: self.checkpoints.clone(),
            ..*self
        }
    }

    /// Bytes of what [`KvCache::save`] hands out.
    pub(super) fn saved_bytes(&self, position: usize) -> usize {
        let positions = self
            .layers
            .iter()
            .map(|layout| self.kept(layout, position).len());
        positions.sum::<usize>() * self.kv_heads * self.position_bytes()
    }

    /// Each layer's heads' positions, of the first `position`, with their rows.
    fn places(&self, position: usize) -> impl Iterator<Item = (usize, usize)> {
        self.layers.iter().flat_map(move |layout| {
            let kept = self.kept(layout, position);
            (0..self.kv_heads).flat_map(move |head| {
                kept.clone()
                    .map(move |position| (position, layout.row(head, position)))
            })
        })
    }

    /// Hands out the first `position` positions, or of those the window, layer by layer and head by head: each position's key, then its value, as
    /// `position_bytes` little-endian bytes in the order of a head's values (f16 numbers or Q8_0 blocks).
    pub(super) fn save(
        &self,
        position: usize,
        write: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut bytes = vec![0; self.position_bytes()];
        for (position, at) in self.places(position) {
            let block = at - position % KEYS;
            let (key, value) = bytes.split_at_mut(self.format().row(self.key_length));
            match &self.store {
                Store::F16(rows) => {
                    let lane = rows.keys[block * rows.key..][position % KEYS..]
                        .iter()
                        .step_by(KEYS);
                    for (to, from) in key.as_chunks_mut().0.iter_mut().zip(lane) {
                        *to = from.to_le_bytes();
                    }
                    let row = &rows.values[at * rows.value..];
                    for (to, from) in value.as_chunks_mut().0.iter_mut().zip(row) {
                        *to = from.to_le_bytes();
                    }
                }
                Store::Q8_0(rows) => {
                    let woven = &rows.keys[block * rows.key..];
                    for (number, to) in key.as_chunks_mut().0.iter_mut().enumerate() {
                        *to = unweave(woven, position % KEYS, number);
                    }
                    value.copy_from_slice(&rows.values[at * rows.value..][..rows.value]);
                }
            }
            write(&bytes)?;
        }
        Ok(())
    }

    /// Reads back what [`KvCache::save`] handed out.
    pub(super) fn restore(
        &mut self,
        position: usize,
        read: &mut dyn FnMut(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.first = position.saturating_sub(self.window);
        self.checkpoints = Default::default();
        let mut bytes = vec![0; self.position_bytes()];
        let places: Vec<_> = self.places(position).collect();
        for (position, at) in places {
            read(&mut bytes)?;
            let block = at - position % KEYS;
            let (key, value) = bytes.split_at(self.format().row(self.key_length));
            match &mut self.store {
                Store::F16(rows) => {
                    let lane = rows.keys[block * rows.key..][position % KEYS..]
                        .iter_mut()
                        .step_by(KEYS);
                    for (from, to) in key.as_chunks().0.iter().zip(lane) {
                        *to = u16::from_le_bytes(*from);
                    }
                    let row = &mut rows.values[at * rows.value..];
                    for (from, to) in value.as_chunks().0.iter().zip(row) {
                        *to = u16::from_le_bytes(*from);
                    }
                }
                Store::Q8_0(rows) => {
                    let woven = &mut rows.keys[block * rows.key..];
                    for (number, from) in key.as_chunks().0.iter().enumerate() {
                        weave(woven, position % KEYS, number, from);
                    }
                    rows.values[at * rows.value..][..rows.value].copy_from_slice(value);
                }
            }
        }
        Ok(())
    }
}
