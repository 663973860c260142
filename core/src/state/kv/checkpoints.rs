//! What the rings held at certain positions, to go back to.

use super::KvCache;
use super::layout::{LayerLayout, window};
use super::store::Store;
use crate::kernels::KEYS;
use crate::model::Config;

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
    rows: Option<Store>, // [heads of all rings, window in blocks]
}

/// Rows of a checkpoint: of each head that has a ring, the blocks that hold a window.
pub(super) fn checkpoint_rows(config: &Config, layouts: &[LayerLayout]) -> usize {
    let rings = layouts.iter().filter(|layout| layout.is_ring).count();
    rings * config.kv_heads * checkpoint_positions(window(config, layouts))
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
        if let Some(saved) = &checkpoint.rows {
            for (at, row, count) in self.checkpoint_runs(position) {
                self.store.copy(row, saved, at..at + count);
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
        let rings = self.layers.iter().filter(|layout| layout.is_ring).count();
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
        let rings = self.layers.iter().filter(|layout| layout.is_ring);
        let heads = rings.flat_map(|layout| (0..self.kv_heads).map(move |head| (layout, head)));
        let per = checkpoint_positions(self.window);
        let mut runs = Vec::new();
        for (number, (layout, head)) in heads.enumerate() {
            let mut at = number * per;
            for (row, count) in layout.runs(head, positions.clone()) {
                runs.push((at, row, count));
                at += count;
            }
        }
        runs
    }
}
