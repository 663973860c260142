//! What the rings held at certain positions, to go back to.

use super::KvCache;
use super::layout::LayerLayout;
use super::store::Store;
use crate::kernels::KEYS;

/// What [`State::checkpoint`](crate::state::State::checkpoint) is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A prompt's last part begins here.
    Prompt,
    /// Here a prompt differed from the sequence before it, as where conversations share a system prompt.
    Shared,
}

/// What the rings held of the window before `position`; 0: nothing.
#[derive(Clone, Default)]
pub(super) struct Checkpoint {
    position: usize,
    rings: Vec<Store>, // of each ring [heads, window in blocks]; empty at first
}

/// A layer's rows in a checkpoint: if it has a ring, of each head the blocks that hold a window.
pub(super) fn checkpoint_rows(layout: &LayerLayout, window: usize) -> usize {
    usize::from(layout.is_ring) * layout.heads.kv * checkpoint_positions(window)
}

/// A window, and what the blocks at its ends hold besides.
fn checkpoint_positions(window: usize) -> usize {
    window.next_multiple_of(KEYS) + KEYS
}

impl KvCache {
    /// See [`State::truncate`](crate::state::State::truncate): as far back as the rings have a window, or to a checkpoint.
    pub(in crate::state) fn truncate(&mut self, position: usize) -> usize {
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
        for (layer, saved) in self.rings().zip(&checkpoint.rings) {
            for (at, row, count) in self.checkpoint_runs(layer, position) {
                self.stores[layer].copy(row, saved, at..at + count);
            }
        }
        self.checkpoints[number] = checkpoint;
    }

    /// Whether [`KvCache::checkpoint`] does anything.
    pub(in crate::state) fn has_checkpoints(&self) -> bool {
        self.window > 0
    }

    /// Keeps what going back to `position`, the tokens evaluated, needs, in place of the last checkpoint of this kind.
    pub(in crate::state) fn checkpoint(&mut self, mark: Mark, position: usize) {
        if self.window == 0 || position == 0 {
            return;
        }
        let mut checkpoint = std::mem::take(&mut self.checkpoints[mark as usize]);
        if checkpoint.rings.is_empty() {
            let store = |layer: usize| {
                let layout = &self.layers[layer];
                let rows = checkpoint_rows(layout, self.window);
                Store::new(self.format, rows, &layout.heads)
            };
            checkpoint.rings = self.rings().map(store).collect();
        }
        checkpoint.position = position;
        for (layer, saved) in self.rings().zip(&mut checkpoint.rings) {
            for (at, row, count) in self.checkpoint_runs(layer, position) {
                saved.copy(at, &self.stores[layer], row..row + count);
            }
        }
        self.checkpoints[mark as usize] = checkpoint;
    }

    /// The layers that have rings.
    fn rings(&self) -> impl Iterator<Item = usize> + use<> {
        let rings: Vec<usize> = (0..self.layers.len())
            .filter(|layer| self.layers[*layer].is_ring)
            .collect();
        rings.into_iter()
    }

    /// What a checkpoint at `position` consists of in one layer: rows in it, rows in the ring, and how many.
    fn checkpoint_runs(&self, layer: usize, position: usize) -> Vec<(usize, usize, usize)> {
        let positions = position.saturating_sub(self.window)..position;
        let (layout, per) = (&self.layers[layer], checkpoint_positions(self.window));
        let mut runs = Vec::new();
        for head in 0..layout.heads.kv {
            let mut at = head * per;
            for (row, count) in layout.runs(head, positions.clone()) {
                runs.push((at, row, count));
                at += count;
            }
        }
        runs
    }
}
