//! The KV cache: what attention has seen so far, in f16 or Q8_0.

mod checkpoints;
mod layout;
mod store;

pub(crate) use checkpoints::Mark;
pub use store::CacheFormat;

use crate::kernels::attention_q8_0::{unweave, weave};
use crate::kernels::{KEYS, Kernels, Scores, WeightedSum};
use crate::model::{Config, Scope};
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

/// Keys and values of one sequence, for every layer that has its own; `layer` is its number among these. What lies at and after the session's position is left
/// over and never read.
///
/// A layer that sees everything keeps everything. One that sees a window keeps the window and [`SLACK`] positions, in a ring: it can go back a little by
/// itself, and farther to a checkpoint.
pub(crate) struct KvCache {
    stores: Vec<Store>,       // [layers with a cache]
    layers: Vec<LayerLayout>, // [layers with a cache]
    format: CacheFormat,
    context: usize,
    /// The widest window of the layers that keep only a window; 0 where there are none.
    window: usize,
    /// The first position that all rings still have.
    first: usize,
    checkpoints: [Checkpoint; 2],
}

/// Bytes of a cache for `context` positions; saturates instead of overflowing, so that a refusal can name a number.
pub(super) fn bytes(config: &Config, context: usize, format: CacheFormat) -> u64 {
    let layouts = LayerLayout::all(config, context.min(usize::MAX - KEYS));
    let window = window(config, &layouts);
    let bytes = layouts.iter().map(|layout| {
        let rows = layout
            .rows()
            .saturating_add(2 * checkpoint_rows(layout, window));
        (rows as u64).saturating_mul(layout.position_bytes(format) as u64)
    });
    bytes.fold(0, u64::saturating_add)
}

/// Bytes of keys and values that a token after `seen` others reads, in all layers.
pub(super) fn bytes_read(config: &Config, seen: usize, format: CacheFormat) -> u64 {
    let bytes = config.scopes().map(|Scope { heads, window, .. }| {
        let position = format.row(heads.key_length) + format.row(heads.value_length);
        let positions = window.map_or(seen, |window| seen.min(window));
        (positions as u64).saturating_mul((heads.kv * position) as u64)
    });
    bytes.fold(0, u64::saturating_add)
}

/// Each layer's rows, empty.
fn stores(layouts: &[LayerLayout], format: CacheFormat) -> Vec<Store> {
    let store = |layout: &LayerLayout| Store::new(format, layout.rows(), &layout.heads);
    layouts.iter().map(store).collect()
}

impl KvCache {
    /// A cache for `context` positions. The pages are the system's zero pages until they are written, so a long context costs memory only as it fills.
    pub(super) fn new(config: &Config, context: usize, format: CacheFormat) -> Self {
        let layers = LayerLayout::all(config, context);
        KvCache {
            stores: stores(&layers, format),
            window: window(config, &layers),
            layers,
            format,
            context,
            first: 0,
            checkpoints: Default::default(),
        }
    }

    /// Positions it has room for.
    pub(crate) fn context(&self) -> usize {
        self.context
    }

    pub(crate) fn format(&self) -> CacheFormat {
        self.format
    }

    /// Bytes of one head's key and value at one position of a layer.
    pub(crate) fn position_bytes(&self, layer: usize) -> usize {
        self.layers[layer].position_bytes(self.format)
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
        let layout = self.layers[layer];
        let heads = layout.heads.kv;
        let rows = keys
            .chunks_exact(layout.heads.key_length)
            .zip(values.chunks_exact(layout.heads.value_length));
        if layout.is_ring {
            let end = start + rows.len() / heads;
            self.first = self.first.max(end.saturating_sub(layout.positions));
        }
        for (number, (key, value)) in rows.enumerate() {
            let position = start + number / heads;
            let at = layout.row(number % heads, position);
            let block = at - position % KEYS;
            match &mut self.stores[layer] {
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
        match &self.stores[layer] {
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
        match &self.stores[layer] {
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
        let mut stores = stores(&self.layers, self.format);
        for ((layout, from), store) in self.layers.iter().zip(&self.stores).zip(&mut stores) {
            for head in 0..layout.heads.kv {
                for (row, count) in layout.runs(head, self.kept(layout, position)) {
                    store.copy(row, from, row..row + count);
                }
            }
        }
        KvCache {
            stores,
            layers: self.layers.clone(),
            first: self.first.max(position.saturating_sub(self.window)),
            checkpoints: self.checkpoints.clone(),
            ..*self
        }
    }

    /// Bytes of what [`KvCache::save`] hands out.
    pub(super) fn saved_bytes(&self, position: usize) -> usize {
        let bytes = self.layers.iter().map(|layout| {
            let positions = self.kept(layout, position).len();
            positions * layout.heads.kv * layout.position_bytes(self.format)
        });
        bytes.sum()
    }

    /// Each layer's heads' positions, of the first `position`: the layer, the position and its row.
    fn places(&self, position: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        let layers = self.layers.iter().enumerate();
        layers.flat_map(move |(layer, layout)| {
            let kept = self.kept(layout, position);
            (0..layout.heads.kv).flat_map(move |head| {
                kept.clone()
                    .map(move |position| (layer, position, layout.row(head, position)))
            })
        })
    }

    /// Room for the bytes of one position of any layer.
    fn position_room(&self) -> Vec<u8> {
        let bytes = (0..self.layers.len()).map(|layer| self.position_bytes(layer));
        vec![0; bytes.max().unwrap_or(0)]
    }

    /// Hands out the first `position` positions, or of those the window, layer by layer and head by head: each position's key, then its value, as
    /// `position_bytes` little-endian bytes in the order of a head's values (f16 numbers or Q8_0 blocks).
    pub(super) fn save(
        &self,
        position: usize,
        write: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut bytes = self.position_room();
        for (layer, position, at) in self.places(position) {
            let block = at - position % KEYS;
            let bytes = &mut bytes[..self.position_bytes(layer)];
            let key = self.format.row(self.layers[layer].heads.key_length);
            let (key, value) = bytes.split_at_mut(key);
            match &self.stores[layer] {
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
            write(bytes)?;
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
        let mut bytes = self.position_room();
        let places: Vec<_> = self.places(position).collect();
        for (layer, position, at) in places {
            let bytes = &mut bytes[..self.position_bytes(layer)];
            read(bytes)?;
            let block = at - position % KEYS;
            let key = self.format.row(self.layers[layer].heads.key_length);
            let (key, value) = bytes.split_at(key);
            match &mut self.stores[layer] {
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
