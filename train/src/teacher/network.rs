//! Logits at every wanted position out of candle-transformers' models, most of which return the last position only.
//!
//! | way | when | cost of T positions |
//! | --- | --- | --- |
//! | [`Whole`] | the model gives hidden states of all positions | one pass |
//! | [`Stepped`] | it has a KV cache and can be cloned | the prompt in one pass, then one pass per position |
//! | [`Prefixes`] | neither | one pass over the prefix for each position |
//!
//! A stored model is always one with an empty cache; cloning it copies no weights and starts a fresh sequence.

use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor};

/// A causal language model that answers at chosen positions.
pub(super) trait Network: Send + Sync {
    /// `ids: [B, T]` u32, `positions`: flat indices into `ids`. Returns `[positions, vocabulary]` f32, in the order of `positions`.
    fn logits(&self, ids: &Tensor, positions: &[usize]) -> Result<Tensor>;
}

/// Hidden states of all positions, then the output matrix on the wanted ones.
pub(super) struct Whole<M> {
    pub(super) model: M,
    /// `(model, ids [B, T]) → [B, T, d]`, after the last norm.
    pub(super) hidden: fn(&mut M, &Tensor) -> Result<Tensor>,
    pub(super) head: Tensor, // [vocabulary, d]
}

impl<M: Clone + Send + Sync> Network for Whole<M> {
    fn logits(&self, ids: &Tensor, positions: &[usize]) -> Result<Tensor> {
        let hidden = (self.hidden)(&mut self.model.clone(), ids)?.flatten_to(1)?; // [B·T, d]
        let wanted = hidden.index_select(&index(positions, ids)?, 0)?; // [S, d]
        wanted.matmul(&self.head.t()?)?.to_dtype(DType::F32)
    }
}

/// The columns up to the first wanted one in one pass, then column by column through the KV cache.
pub(super) struct Stepped<M> {
    pub(super) model: M,
    /// Whether the cache takes several columns at once; otherwise the prompt, too, goes column by column.
    pub(super) takes_prompt: bool,
    /// `(model, ids [B, n], tokens in the cache) → [B, vocabulary]` or `[B, 1, vocabulary]`.
    pub(super) step: fn(&mut M, &Tensor, usize) -> Result<Tensor>,
}

impl<M: Clone + Send + Sync> Network for Stepped<M> {
    fn logits(&self, ids: &Tensor, positions: &[usize]) -> Result<Tensor> {
        let columns = Columns::new(ids, positions)?;
        let mut model = self.model.clone();
        let mut fed = 0;
        let mut found = Vec::with_capacity(columns.by_column.len());
        for column in if self.takes_prompt {
            columns.first()
        } else {
            0
        }..=columns.last()
        {
            let last = (self.step)(&mut model, &ids.narrow(1, fed, column + 1 - fed)?, fed)?;
            fed = column + 1;
            if let Some(wanted) = columns.by_column.get(&column) {
                let rows: Vec<u32> = wanted.iter().map(|w| w.row).collect();
                found.push(rows_of(&last)?.index_select(&Tensor::new(rows, ids.device())?, 0)?);
            }
        }
        columns.restore(&found)
    }
}

/// Each wanted position by a pass over everything before it.
pub(super) struct Prefixes<F>(pub(super) F);

impl<F: Fn(&Tensor) -> Result<Tensor> + Send + Sync> Network for Prefixes<F> {
    fn logits(&self, ids: &Tensor, positions: &[usize]) -> Result<Tensor> {
        let columns = Columns::new(ids, positions)?;
        let mut found = Vec::with_capacity(columns.by_column.len());
        for (column, wanted) in &columns.by_column {
            let rows: Vec<u32> = wanted.iter().map(|w| w.row).collect();
            let prefix = ids
                .index_select(&Tensor::new(rows, ids.device())?, 0)?
                .narrow(1, 0, column + 1)?; // [rows, column + 1]
            found.push(rows_of(&(self.0)(&prefix.contiguous()?)?)?);
        }
        columns.restore(&found)
    }
}

/// `[B, 1, V]` or `[B, V]` → `[B, V]` f32
fn rows_of(last: &Tensor) -> Result<Tensor> {
    let last = if last.rank() == 3 {
        last.squeeze(1)?
    } else {
        last.clone()
    };
    last.to_dtype(DType::F32)
}

fn index(positions: &[usize], like: &Tensor) -> Result<Tensor> {
    Tensor::new(
        positions.iter().map(|&p| p as u32).collect::<Vec<_>>(),
        like.device(),
    )
}

struct Wanted {
    row: u32,
    /// Where in the caller's list.
    place: usize,
}

/// Wanted positions, grouped by column.
struct Columns {
    by_column: BTreeMap<usize, Vec<Wanted>>,
    count: usize,
}

impl Columns {
    fn new(ids: &Tensor, positions: &[usize]) -> Result<Self> {
        let (batch, length) = ids.dims2()?;
        let mut by_column: BTreeMap<usize, Vec<Wanted>> = BTreeMap::new();
        for (place, &position) in positions.iter().enumerate() {
            if position >= batch * length {
                candle_core::bail!("position {position} is outside a batch of {batch} × {length}");
            }
            by_column
                .entry(position % length)
                .or_default()
                .push(Wanted {
                    row: (position / length) as u32,
                    place,
                });
        }
        if by_column.is_empty() {
            candle_core::bail!("no position is wanted");
        }
        Ok(Self {
            by_column,
            count: positions.len(),
        })
    }

    fn first(&self) -> usize {
        self.by_column.keys().next().copied().unwrap_or(0)
    }

    fn last(&self) -> usize {
        self.by_column.keys().next_back().copied().unwrap_or(0)
    }

    /// From column order back to the caller's. `found[i]: [rows of column i, V]`
    fn restore(&self, found: &[Tensor]) -> Result<Tensor> {
        let stacked = Tensor::cat(found, 0)?; // [S, V]
        let mut from = vec![0u32; self.count];
        for (at, wanted) in self.by_column.values().flatten().enumerate() {
            from[wanted.place] = at as u32;
        }
        stacked.index_select(&Tensor::new(from, stacked.device())?, 0)
    }
}
