//! The cache of keys and values: what attention has seen so far, in f16.

use crate::kernels::Kernels;
use crate::model::Config;
use half::f16;

/// Keys and values of one sequence, for every layer. What lies at and after the session's position is left over and never read.
pub(crate) struct KvCache {
    keys: Vec<f16>,   // [layers, kv_heads, context, key_length]
    values: Vec<f16>, // [layers, kv_heads, context, value_length]
    kv_heads: usize,
    context: usize,
    key_length: usize,
    value_length: usize,
}

/// Bytes of a cache for `context` positions; saturates instead of overflowing, so that a refusal can name a number.
pub(crate) fn bytes(config: &Config, context: usize) -> u64 {
    let per_position = config.layers as u64
        * config.kv_heads as u64
        * (config.key_length as u64 + config.value_length as u64)
        * size_of::<f16>() as u64;
    per_position.saturating_mul(context as u64)
}

impl KvCache {
    /// A cache for `context` positions. The pages are the system's zero pages until they are written, so a long context costs memory only as it fills.
    pub(crate) fn new(config: &Config, context: usize) -> Self {
        let rows = config.layers * config.kv_heads * context;
        KvCache {
            keys: vec![f16::ZERO; rows * config.key_length],
            values: vec![f16::ZERO; rows * config.value_length],
            kv_heads: config.kv_heads,
            context,
            key_length: config.key_length,
            value_length: config.value_length,
        }
    }

    /// Positions it has room for.
    pub(crate) fn context(&self) -> usize {
        self.context
    }

    /// Stores `keys` `[tokens, kv_heads, key_length]` and `values` `[tokens, kv_heads, value_length]` at `start` and after, rounded to nearest even.
    pub(crate) fn write(
        &mut self,
        kernels: &Kernels,
        layer: usize,
        start: usize,
        keys: &[f32],
        values: &[f32],
    ) {
        let heads = self.kv_heads;
        let store = |cache: &mut [f16], rows: &[f32], length: usize| {
            for (row, from) in rows.chunks_exact(length).enumerate() {
                let (token, head) = (row / heads, row % heads);
                let at = (layer * heads + head) * self.context + start + token;
                kernels.narrow(from, &mut cache[at * length..][..length]);
            }
        };
        store(&mut self.keys, keys, self.key_length);
        store(&mut self.values, values, self.value_length);
    }

    /// One head's keys at the first `positions`, `[positions, key_length]`.
    pub(crate) fn keys(&self, layer: usize, head: usize, positions: usize) -> &[f16] {
        let row = (layer * self.kv_heads + head) * self.context;
        &self.keys[row * self.key_length..][..positions * self.key_length]
    }

    /// One head's values at the first `positions`, `[positions, value_length]`.
    pub(crate) fn values(&self, layer: usize, head: usize, positions: usize) -> &[f16] {
        let row = (layer * self.kv_heads + head) * self.context;
        &self.values[row * self.value_length..][..positions * self.value_length]
    }
}
