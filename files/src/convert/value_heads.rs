//! The order of a delta net's value heads.

use std::ops::Range;

use dram_core::model::folder::{Dim, Heads, Part, Shape};

use super::planner::Planner;
use super::source::Stored;
use super::tensors::Rows;

impl<'a> Planner<'a> {
    /// All of `stored`, `[rows, cols]` or a vector, with value heads in the file's order: see [`Heads`]. With the length of the rows that it is taken by.
    pub(super) fn in_order(
        &self,
        part: &Part,
        stored: &'a Stored,
        rows: usize,
        cols: usize,
    ) -> (Vec<Rows<'a>>, usize) {
        let Shape {
            delta_key_heads: keys,
            delta_value_heads: values,
            delta_head: length,
            ..
        } = *self.shape;
        let is_vector = stored.shape.len() == 1;
        if part.heads == Heads::None || keys == values || part.heads == Heads::Cols && is_vector {
            return (vec![Rows::all(stored, cols)], cols);
        }
        let heads = (0..values).map(|head| head % keys * (values / keys) + head / keys);
        let some = |rows: Range<usize>| Rows { stored, rows };
        if part.heads == Heads::Cols {
            let row = |row: usize| heads.clone().map(move |head| row * values + head);
            let heads = (0..rows).flat_map(row);
            return (heads.map(|at| some(at..at + 1)).collect(), cols / values);
        }
        let before = match part.rows {
            Dim::DeltaConv => 2 * keys * length,
            _ => 0,
        };
        let own = (rows - before) / values;
        let heads = heads.map(|head| some(before + head * own..before + (head + 1) * own));
        let first = (before > 0).then(|| some(0..before));
        let cols = if is_vector { 1 } else { cols };
        (first.into_iter().chain(heads).collect(), cols)
    }
}
