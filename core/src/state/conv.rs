//! What short convolutions have seen last: a few rows for each layer, and checkpoints of them to go back to.

use crate::model::Config;
use std::io;
use std::ops::Range;

/// Last positions whose inputs are kept: enough to drop a draft.
const RECENT: usize = 32;
/// Positions from one checkpoint to the next.
const SPACING: usize = 256;

/// The inputs of short convolutions, for every layer that has one; `layer` is its number among these.
///
/// What a run adds is staged, and counts when the run is committed: one that is cancelled between two layers changes nothing.
#[derive(Clone)]
pub(crate) struct ConvState {
    layers: usize,
    /// Values of a position: the embedding length.
    width: usize,
    /// Positions before its own that a convolution sees.
    tail: usize,
    /// Of positions `first..end`; position p is row p % RECENT.
    recent: Vec<f32>, // [layers, RECENT, width]
    staged: Vec<f32>,      // as `recent`
    checkpoints: Vec<f32>, // [context / SPACING, layers, tail, width]: what lies before each multiple of SPACING
    first: usize,
    end: usize,
}

const _: () = assert!(super::MAX_DRAFT + 15 < RECENT && RECENT <= SPACING);

/// Layers, values of a position, and positions that are seen before its own.
fn sizes(config: &Config) -> (usize, usize, usize) {
    let tail = config.convolutions().max().map_or(0, |kernel| kernel - 1);
    (config.convolutions().count(), config.embedding_length, tail)
}

/// Bytes for `context` positions.
pub(super) fn bytes(config: &Config, context: usize) -> u64 {
    let (layers, width, tail) = sizes(config);
    let rows = (2 * RECENT + (context / SPACING).saturating_mul(tail)) as u64;
    rows.saturating_mul((layers * width * size_of::<f32>()) as u64)
}

impl ConvState {
    pub(super) fn new(config: &Config, context: usize) -> ConvState {
        let (layers, width, tail) = sizes(config);
        ConvState {
            layers,
            width,
            tail,
            recent: vec![0.0; layers * RECENT * width],
            staged: vec![0.0; layers * RECENT * width],
            checkpoints: vec![0.0; context / SPACING * layers * tail * width],
            first: 0,
            end: 0,
        }
    }

    /// Positions before its own that a convolution sees.
    pub(crate) fn tail(&self) -> usize {
        self.tail
    }

    fn row(&self, layer: usize, position: usize) -> Range<usize> {
        let row = layer * RECENT + position % RECENT;
        row * self.width..(row + 1) * self.width
    }

    fn checkpoint(&self, number: usize, layer: usize) -> Range<usize> {
        let length = self.tail * self.width;
        let at = (number * self.layers + layer) * length;
        at..at + length
    }

    /// The inputs at the positions before `position`, one of the last, `[tail, width]`: zeros before the sequence's beginning.
    pub(crate) fn read_tail(&self, layer: usize, position: usize, out: &mut [f32]) {
        for (back, out) in (1..=self.tail).rev().zip(out.chunks_exact_mut(self.width)) {
            match position.checked_sub(back) {
                Some(position) => out.copy_from_slice(&self.recent[self.row(layer, position)]),
                None => out.fill(0.0),
            }
        }
    }

    /// Stages a layer's inputs at the positions after the sequence's end. `rows`: `[tail + tokens, width]`, the tail first.
    pub(crate) fn stage(&mut self, layer: usize, rows: &[f32]) {
        let width = self.width;
        let tokens = rows.len() / width - self.tail;
        let at = |position: usize| (position - self.end + self.tail) * width;
        let last = self.end + tokens;
        for position in last - tokens.min(RECENT)..last {
            let to = self.row(layer, position);
            self.staged[to].copy_from_slice(&rows[at(position)..][..width]);
        }
        for number in self.end / SPACING..last / SPACING {
            let end = at((number + 1) * SPACING);
            let to = self.checkpoint(number, layer);
            self.checkpoints[to].copy_from_slice(&rows[end - self.tail * width..end]);
        }
    }

    /// The sequence goes on with `tokens` positions, which every layer has staged.
    pub(crate) fn commit(&mut self, tokens: usize) {
        let last = self.end + tokens;
        for layer in 0..self.layers {
            for position in last - tokens.min(RECENT)..last {
                let row = self.row(layer, position);
                self.recent[row.clone()].copy_from_slice(&self.staged[row]);
            }
        }
        (self.first, self.end) = (self.first.max(last.saturating_sub(RECENT)), last);
    }

    /// See [`super::State::truncate`]: to one of the last positions, or to a checkpoint.
    pub(super) fn truncate(&mut self, position: usize) -> usize {
        if position >= self.end || self.layers == 0 {
            return position;
        }
        if position.saturating_sub(self.tail) >= self.first {
            self.end = position;
            return position;
        }
        let number = position / SPACING;
        self.end = number * SPACING;
        self.first = self.end.saturating_sub(self.tail);
        if let Some(number) = number.checked_sub(1) {
            for layer in 0..self.layers {
                let from = self.checkpoint(number, layer);
                let rows = self.checkpoints[from].chunks_exact(self.width);
                for (position, row) in (self.first..).zip(rows) {
                    let at = (layer * RECENT + position % RECENT) * self.width;
                    self.recent[at..at + self.width].copy_from_slice(row);
                }
            }
        }
        self.end
    }

    /// Values that are saved: each layer's tail, and the checkpoints.
    fn saved_values(&self, position: usize) -> usize {
        (1 + position / SPACING) * self.layers * self.tail * self.width
    }

    pub(super) fn saved_bytes(&self, position: usize) -> usize {
        self.saved_values(position) * size_of::<f32>()
    }

    pub(super) fn save(
        &self,
        position: usize,
        write: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut tail = vec![0.0; self.tail * self.width];
        let mut put = |values: &[f32]| -> io::Result<()> {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            write(&bytes)
        };
        for layer in 0..self.layers {
            self.read_tail(layer, position, &mut tail);
            put(&tail)?;
        }
        let kept = position / SPACING * self.layers * tail.len();
        self.checkpoints[..kept]
            .chunks(tail.len().max(1))
            .try_for_each(put)
    }

    pub(super) fn restore(
        &mut self,
        position: usize,
        read: &mut dyn FnMut(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut bytes = vec![0; self.tail * self.width * size_of::<f32>()];
        let mut get = |out: &mut [f32]| -> io::Result<()> {
            read(&mut bytes[..size_of_val(out)])?;
            for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_le_bytes(*bytes);
            }
            Ok(())
        };
        let mut tail = vec![0.0; self.tail * self.width];
        for layer in 0..self.layers {
            get(&mut tail)?;
            for (back, row) in (1..=self.tail).rev().zip(tail.chunks_exact(self.width)) {
                if let Some(position) = position.checked_sub(back) {
                    let at = (layer * RECENT + position % RECENT) * self.width;
                    self.recent[at..at + self.width].copy_from_slice(row);
                }
            }
        }
        let kept = position / SPACING * self.layers * tail.len();
        self.checkpoints[..kept]
            .chunks_mut(tail.len().max(1))
            .try_for_each(get)?;
        (self.first, self.end) = (position.saturating_sub(self.tail), position);
        Ok(())
    }
}
