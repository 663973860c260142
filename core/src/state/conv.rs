//! What short convolutions have seen last: a few rows for each layer, and checkpoints of them to go back to.

use super::{Mark, read_floats, write_floats};
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
    /// Values of a position.
    width: usize,
    /// Positions before its own that a convolution sees.
    tail: usize,
    /// Of positions `first..end`; position p is row p % RECENT.
    recent: Vec<f32>, // [layers, RECENT, width]
    staged: Vec<f32>,      // as `recent`
    checkpoints: Vec<f32>, // [context / SPACING, layers, tail, width]: what lies before each multiple of SPACING; empty where the layers keep more than this
    marked: [Marked; 2],
    first: usize,
    end: usize,
}

/// What lies before a position; 0: nothing.
#[derive(Clone, Default)]
struct Marked {
    position: usize,
    tails: Vec<f32>, // [layers, tail, width]
}

const _: () = assert!(super::MAX_DRAFT + 15 < RECENT && RECENT <= SPACING);

/// Layers, values of a position, and positions that are seen before its own.
fn sizes(config: &Config) -> (usize, usize, usize) {
    let tail = config.convolutions().map(|(kernel, _)| kernel - 1).max();
    let width = config.convolutions().map(|(_, width)| width).max();
    let layers = config.convolutions().count();
    (layers, width.unwrap_or(0), tail.unwrap_or(0))
}

/// Checkpoints at multiples of [`SPACING`]. Linear attention cannot go back to these.
fn spaced_checkpoints(config: &Config, context: usize) -> usize {
    match config.linear_attentions().next() {
        Some(_) => 0,
        None => context / SPACING,
    }
}

/// Bytes for `context` positions.
pub(super) fn bytes(config: &Config, context: usize) -> u64 {
    let (layers, width, tail) = sizes(config);
    let checkpoints = 2 + spaced_checkpoints(config, context);
    let rows = (2 * RECENT + checkpoints.saturating_mul(tail)) as u64;
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
            checkpoints: vec![0.0; spaced_checkpoints(config, context) * layers * tail * width],
            marked: std::array::from_fn(|_| Marked {
                position: 0,
                tails: vec![0.0; layers * tail * width],
            }),
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

    fn spaced(&self, number: usize, layer: usize) -> Range<usize> {
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
            if self.checkpoints.is_empty() {
                break;
            }
            let end = at((number + 1) * SPACING);
            let to = self.spaced(number, layer);
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
        if position.saturating_sub(self.tail) < self.first {
            let per = self.layers * self.tail * self.width;
            let number = (position / SPACING).min(self.checkpoints.len() / per.max(1));
            let marked = self.marked.iter().filter(|m| m.position <= position);
            let (kept, tails) = match marked.max_by_key(|m| m.position) {
                Some(marked) if marked.position > number * SPACING => {
                    (marked.position, marked.tails.clone())
                }
                _ if number > 0 => {
                    let at = (number - 1) * per;
                    (number * SPACING, self.checkpoints[at..at + per].to_vec())
                }
                _ => (0, vec![0.0; per]),
            };
            self.rewind(kept, &tails);
        }
        self.end = self.end.min(position);
        for marked in &mut self.marked {
            if marked.position > self.end {
                marked.position = 0;
            }
        }
        self.end
    }

    /// The sequence ends at `position`, before which lie these rows `[layers, tail, width]`.
    fn rewind(&mut self, position: usize, tails: &[f32]) {
        self.end = position;
        self.first = position.saturating_sub(self.tail);
        let tail = (self.tail * self.width).max(1);
        for (layer, tails) in tails.chunks_exact(tail).enumerate() {
            for (back, row) in (1..=self.tail).rev().zip(tails.chunks_exact(self.width)) {
                if let Some(position) = position.checked_sub(back) {
                    let to = self.row(layer, position);
                    self.recent[to].copy_from_slice(row);
                }
            }
        }
    }

    /// See [`super::State::checkpoint`].
    pub(super) fn checkpoint(&mut self, mark: Mark, position: usize) {
        let tail = self.tail * self.width;
        if self.layers == 0 || position == 0 {
            return;
        }
        let mut marked = std::mem::take(&mut self.marked[mark as usize]);
        marked.position = position;
        for (layer, out) in marked.tails.chunks_exact_mut(tail.max(1)).enumerate() {
            self.read_tail(layer, position, out);
        }
        self.marked[mark as usize] = marked;
    }

    /// Values of the checkpoints up to `position`.
    fn spaced_values(&self, position: usize) -> usize {
        let values = position / SPACING * self.layers * self.tail * self.width;
        values.min(self.checkpoints.len())
    }

    pub(super) fn saved_bytes(&self, position: usize) -> usize {
        let tails = self.layers * self.tail * self.width;
        (tails + self.spaced_values(position)) * size_of::<f32>()
    }

    pub(super) fn save(
        &self,
        position: usize,
        write: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut tail = vec![0.0; self.tail * self.width];
        for layer in 0..self.layers {
            self.read_tail(layer, position, &mut tail);
            write_floats(&tail, write)?;
        }
        write_floats(&self.checkpoints[..self.spaced_values(position)], write)
    }

    pub(super) fn restore(
        &mut self,
        position: usize,
        read: &mut dyn FnMut(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut tails = vec![0.0; self.layers * self.tail * self.width];
        read_floats(&mut tails, read)?;
        self.rewind(position, &tails);
        self.marked.iter_mut().for_each(|m| m.position = 0);
        let kept = self.spaced_values(position);
        read_floats(&mut self.checkpoints[..kept], read)
    }
}
