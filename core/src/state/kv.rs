//! The KV cache: what attention has seen so far, in f16 or Q8_0.

use crate::kernels::attention_q8_0::{unweave, weave};
use crate::kernels::{KEYS, Kernels, Scores, WeightedSum};
use crate::model::Config;
use crate::quant::q8_0::{self, BLOCK, BYTES};
use crate::{Error, Result};
use half::f16;
use half::slice::HalfBitsSliceExt;
use std::io;
use std::ops::Range;

/// Positions of a segment, in which attention takes them: whole blocks of keys, and few enough that a head's keys and values stay in a core's own cache.
pub(crate) const SEGMENT: usize = 16 * KEYS;

/// Positions that a windowed layer keeps beside its window: as many as are evaluated together, which are written before they are read, and what a sequence
/// may go back by.
pub(crate) const SLACK: usize = 256;

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

/// Keys and values of one sequence, for every layer with attention; `layer` is its number among these. What lies at and after the session's position is left
/// over and never read.
///
/// A layer that sees everything keeps everything. One that sees a window keeps the window and [`SLACK`] positions, in a ring: it can go back a little by
/// itself, and farther to a checkpoint.
pub(crate) struct KvCache {
    store: Store,
    layers: Vec<Room>, // [layers with attention]
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

/// Where a layer's rows lie. Each head has as many as the layer keeps positions: position p is row p % positions.
#[derive(Clone, Copy)]
struct Room {
    first: usize,
    positions: usize,
    is_ring: bool,
}

/// What [`State::checkpoint`](super::State::checkpoint) is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A prompt's last part begins here.
    Prompt,
    /// Here a prompt differed from the sequence before it, as where conversations share a system prompt.
    Shared,
}

/// What the rings held of the window before `position`; 0: nothing.
#[derive(Clone, Default)]
struct Checkpoint {
    position: usize,
    rows: Option<Store>, // [heads of all rings, window in blocks]
}

#[derive(Clone)]
enum Store {
    F16(Rows<u16>), // binary16
    Q8_0(Rows<u8>),
}

/// Rows of keys and values. Keys lie in blocks of [`KEYS`] positions, woven: value by value, or block of 32 by block; values row after row.
#[derive(Clone)]
struct Rows<T> {
    keys: Vec<T>,
    values: Vec<T>,
    /// Elements of a row.
    key: usize,
    value: usize,
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
    fn new(format: CacheFormat, rows: usize, key_length: usize, value_length: usize) -> Store {
        let [key, value] = [key_length, value_length].map(|length| format.row(length));
        match format {
            CacheFormat::F16 => Store::F16(Rows::new(rows, key_length, value_length)),
            CacheFormat::Q8_0 => Store::Q8_0(Rows::new(rows, key, value)),
        }
    }

    fn copy(&mut self, to: usize, from: &Store, rows: Range<usize>) {
        match (self, from) {
            (Store::F16(own), Store::F16(from)) => own.copy(to, from, rows),
            (Store::Q8_0(own), Store::Q8_0(from)) => own.copy(to, from, rows),
            _ => unreachable!("one cache has one format"),
        }
    }
}

impl Room {
    /// The rooms of all layers, and how many rows they are together.
    fn all(config: &Config, context: usize) -> (Vec<Room>, usize) {
        let mut rows = 0usize;
        let rooms = config.scopes().map(|scope| {
            let whole = context.next_multiple_of(KEYS);
            // What sees the whole text is evaluated with the whole text.
            let window = scope.window.filter(|_| config.causal);
            let ring = window.map(|w| w.saturating_add(SLACK).next_multiple_of(SEGMENT));
            let positions = ring.unwrap_or(whole).min(whole);
            let first = rows;
            rows = rows.saturating_add(positions.saturating_mul(config.kv_heads));
            Room {
                first,
                positions,
                is_ring: positions < whole,
            }
        });
        (rooms.collect(), rows)
    }

    /// The row of a head's position.
    fn row(&self, head: usize, position: usize) -> usize {
        self.first + head * self.positions + position % self.positions
    }

    /// The pieces in which the blocks that hold `positions` lie one after another: the row of each, and how many.
    fn runs(&self, head: usize, positions: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
        let mut at = positions.start / KEYS * KEYS;
        let (end, room) = (positions.end.next_multiple_of(KEYS), *self);
        std::iter::from_fn(move || {
            let left = end.checked_sub(at).filter(|left| *left > 0)?;
            let count = left.min(room.positions - at % room.positions);
            let row = room.row(head, at);
            at += count;
            Some((row, count))
        })
    }
}

/// The widest window of layers that keep only that; 0 where there are none.
fn window(config: &Config, rooms: &[Room]) -> usize {
    let rings = config.scopes().zip(rooms).filter(|(_, room)| room.is_ring);
    let windows = rings.filter_map(|(scope, _)| scope.window);
    windows.max().unwrap_or(0)
}

/// Rows of a checkpoint: of each head that has a ring, the blocks that hold a window.
fn checkpoint_rows(config: &Config, rooms: &[Room]) -> usize {
    let rings = rooms.iter().filter(|room| room.is_ring).count();
    rings * config.kv_heads * checkpoint_positions(window(config, rooms))
}

/// A window, and what the blocks at its ends hold besides.
fn checkpoint_positions(window: usize) -> usize {
    window.next_multiple_of(KEYS) + KEYS
}

/// Bytes of a cache for `context` positions; saturates instead of overflowing, so that a refusal can name a number.
pub(super) fn bytes(config: &Config, context: usize, format: CacheFormat) -> u64 {
    let (rooms, rows) = Room::all(config, context.min(usize::MAX - KEYS));
    let row = format.row(config.key_length) + format.row(config.value_length);
    let rows = rows.saturating_add(2 * checkpoint_rows(config, &rooms));
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
        let (layers, rows) = Room::all(config, context);
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
        let (heads, room) = (self.kv_heads, self.layers[layer]);
        let rows = keys
            .chunks_exact(self.key_length)
            .zip(values.chunks_exact(self.value_length));
        if room.is_ring {
            let end = start + rows.len() / heads;
            self.first = self.first.max(end.saturating_sub(room.positions));
        }
        for (number, (key, value)) in rows.enumerate() {
            let position = start + number / heads;
            let at = room.row(number % heads, position);
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

    /// See [`super::State::truncate`]: as far back as the rings have a window, or to a checkpoint.
    pub(super) fn truncate(&mut self, position: usize) -> usize {
        if self.window == 0 {
            return position;
        }
        let kept = if position.saturating_sub(self.window) >= self.first {
            position
        } else {
            let positions = self.checkpoints.iter().map(|c| c.position);
            let kept = positions.filter(|at| *at <= position).max().unwrap_or(0);
            self.rewind(kept);
            kept
        };
        // What comes after belongs to another sequence.
        for checkpoint in &mut self.checkpoints {
            if checkpoint.position > kept {
                checkpoint.position = 0;
            }
        }
        kept
    }

    /// Puts the checkpoint at `position` back into the rings; 0 needs none.
    fn rewind(&mut self, position: usize) {
        self.first = position.saturating_sub(self.window);
        let found = self.checkpoints.iter().position(|c| c.position == position);
        let Some(number) = found.filter(|_| position > 0) else {
            return;
        };
        let checkpoint = std::mem::take(&mut self.checkpoints[number]);
        if let Some(saved) = &checkpoint.rows {
            for (at, row, count) in self.checkpoint_runs(position) {
                self.store.copy(row, saved, at..at + count);
            }
        }
        self.checkpoints[number] = checkpoint;
    }

    /// Whether [`KvCache::checkpoint`] does anything.
    pub(super) fn has_checkpoints(&self) -> bool {
        self.window > 0
    }

    /// Keeps what going back to `position`, the tokens evaluated, needs, in place of the last checkpoint of this kind.
    pub(super) fn checkpoint(&mut self, mark: Mark, position: usize) {
        if self.window == 0 || position == 0 {
            return;
        }
        let mut checkpoint = std::mem::take(&mut self.checkpoints[mark as usize]);
        let rings = self.layers.iter().filter(|room| room.is_ring).count();
        let rows = rings * self.kv_heads * checkpoint_positions(self.window);
        let saved = checkpoint.rows.get_or_insert_with(|| {
            Store::new(self.format(), rows, self.key_length, self.value_length)
        });
        checkpoint.position = position;
        for (at, row, count) in self.checkpoint_runs(position) {
            saved.copy(at, &self.store, row..row + count);
        }
        self.checkpoints[mark as usize] = checkpoint;
    }

    /// What a checkpoint at `position` consists of: rows in it, rows in the rings, and how many.
    fn checkpoint_runs(&self, position: usize) -> Vec<(usize, usize, usize)> {
        let positions = position.saturating_sub(self.window)..position;
        let rings = self.layers.iter().filter(|room| room.is_ring);
        let heads = rings.flat_map(|room| (0..self.kv_heads).map(move |head| (room, head)));
        let per = checkpoint_positions(self.window);
        let mut runs = Vec::new();
        for (number, (room, head)) in heads.enumerate() {
            let mut at = number * per;
            for (row, count) in room.runs(head, positions.clone()) {
                runs.push((at, row, count));
                at += count;
            }
        }
        runs
    }

    /// The positions that a layer has of the first `position`.
    fn kept(&self, room: &Room, position: usize) -> Range<usize> {
        let first = if room.is_ring {
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
            .map_or(0, |room| room.first + self.kv_heads * room.positions);
        let mut store = Store::new(self.format(), rows, self.key_length, self.value_length);
        for room in &self.layers {
            for head in 0..self.kv_heads {
                for (row, count) in room.runs(head, self.kept(room, position)) {
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
            .map(|room| self.kept(room, position).len());
        positions.sum::<usize>() * self.kv_heads * self.position_bytes()
    }

    /// Each layer's heads' positions, of the first `position`, with their rows.
    fn places(&self, position: usize) -> impl Iterator<Item = (usize, usize)> {
        self.layers.iter().flat_map(move |room| {
            let kept = self.kept(room, position);
            (0..self.kv_heads).flat_map(move |head| {
                kept.clone()
                    .map(move |position| (position, room.row(head, position)))
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
