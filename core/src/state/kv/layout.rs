//! Where each layer's positions lie: all of them, or those of a window in a ring.

use super::{CacheFormat, SEGMENT, SLACK};
use crate::kernels::KEYS;
use crate::model::{Config, Heads};
use std::ops::Range;

/// Where a layer's rows lie. Each head has as many as the layer keeps positions: position p is row p % positions.
#[derive(Clone, Copy)]
pub(super) struct LayerLayout {
    pub(super) heads: Heads,
    pub(super) positions: usize,
    pub(super) is_ring: bool,
}

impl LayerLayout {
    /// The layouts of all layers that have a cache.
    pub(super) fn all(config: &Config, context: usize) -> Vec<LayerLayout> {
        let layouts = config.caches().map(|scope| {
            let whole = context.next_multiple_of(KEYS);
            // What sees the whole text is evaluated with the whole text.
            let window = scope.window.filter(|_| config.causal);
            let ring = window.map(|w| w.saturating_add(SLACK).next_multiple_of(SEGMENT));
            let positions = ring.unwrap_or(whole).min(whole);
            LayerLayout {
                heads: scope.heads,
                positions,
                is_ring: positions < whole,
            }
        });
        layouts.collect()
    }

    /// Its rows; saturates.
    pub(super) fn rows(&self) -> usize {
        self.heads.kv.saturating_mul(self.positions)
    }

    /// Bytes of one head's key and value at one position.
    pub(super) fn position_bytes(&self, format: CacheFormat) -> usize {
        format.row(self.heads.key_length) + format.row(self.heads.value_length)
    }

    /// The row of a head's position.
    pub(super) fn row(&self, head: usize, position: usize) -> usize {
        head * self.positions + position % self.positions
    }

    /// The pieces in which the blocks that hold `positions` lie one after another: the row of each, and how many.
    pub(super) fn runs(
        &self,
        head: usize,
        positions: Range<usize>,
    ) -> impl Iterator<Item = (usize, usize)> {
        let mut at = positions.start / KEYS * KEYS;
        let (end, layout) = (positions.end.next_multiple_of(KEYS), *self);
        std::iter::from_fn(move || {
            let left = end.checked_sub(at).filter(|left| *left > 0)?;
            let count = left.min(layout.positions - at % layout.positions);
            let row = layout.row(head, at);
            at += count;
            Some((row, count))
        })
    }
}

/// The widest window of layers that keep only that; 0 where there are none.
pub(super) fn window(config: &Config, layouts: &[LayerLayout]) -> usize {
    let rings = config
        .caches()
        .zip(layouts)
        .filter(|(_, layout)| layout.is_ring);
    let windows = rings.filter_map(|(scope, _)| scope.window);
    windows.max().unwrap_or(0)
}
