//! The cache of keys and values: what attention has seen so far, in f16.

use crate::kernels::{KEYS, Kernels};
use crate::model::Config;
use half::f16;

/// Keys and values of one sequence, for every layer. What lies at and after the session's position is left over and never read.
pub(crate) struct KvCache {
    keys: Vec<f16>,   // [layers, kv_heads, blocks of KEYS positions, key_length, KEYS]
    values: Vec<f16>, // [layers, kv_heads, context, value_length]
    kv_heads: usize,
    context: usize,
    key_length: usize,
    value_length: usize,
}

/// Bytes of a cache for `context` positions; saturates instead of overflowing, so that a refusal can name a number.
pub(crate) fn bytes(config: &Config, context: usize) -> u64 {
    let rows = config.layers as u64 * config.kv_heads as u64 * size_of::<f16>() as u64;
    let keys = (context as u64).saturating_add(KEYS as u64 - 1) / KEYS as u64 * KEYS as u64;
    let keys = keys.saturating_mul(config.key_length as u64);
    let values = (context as u64).saturating_mul(config.value_length as u64);
    rows.saturating_mul(keys.saturating_add(values))
}

impl KvCache {
    /// A cache for `context` positions. The pages are the system's zero pages until they are written, so a long context costs memory only as it fills.
    pub(crate) fn new(config: &Config, context: usize) -> Self {
        let heads = config.layers * config.kv_heads;
        KvCache {
            keys: vec![f16::ZERO; heads * context.next_multiple_of(KEYS) * config.key_length],
            values: vec![f16::ZERO; heads * context * config.value_length],
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
        let mut narrow = [f16::ZERO; 64];
        for (row, key) in keys.chunks_exact(self.key_length).enumerate() {
            let (position, head) = (start + row / heads, layer * heads + row % heads);
            let block = head * self.context.next_multiple_of(KEYS) + position / KEYS * KEYS;
            let block = &mut self.keys[block * self.key_length..][..KEYS * self.key_length];
            let mut lane = block[position % KEYS..].iter_mut().step_by(KEYS);
            for key in key.chunks(narrow.len()) {
                let narrow = &mut narrow[..key.len()];
                kernels.narrow(key, narrow);
                for (value, to) in narrow.iter().zip(lane.by_ref()) {
                    *to = *value;
                }
            }
        }
        for (row, value) in values.chunks_exact(self.value_length).enumerate() {
            let (position, head) = (start + row / heads, layer * heads + row % heads);
            let at = head * self.context + position;
            kernels.narrow(
                value,
                &mut self.values[at * self.value_length..][..self.value_length],
            );
        }
    }

    /// Takes the first `positions` positions of `other`, a cache of the same model with at least as long a context.
    pub(crate) fn copy(&mut self, other: &KvCache, positions: usize) {
        let heads = self.keys.len() / (self.context.next_multiple_of(KEYS) * self.key_length);
        let (keys, values) = (
            positions.next_multiple_of(KEYS) * self.key_length,
            positions * self.value_length,
        );
        for head in 0..heads {
            let (to, from) = (
                self.context.next_multiple_of(KEYS),
                other.context.next_multiple_of(KEYS),
            );
            self.keys[head * to * self.key_length..][..keys]
                .copy_from_slice(&other.keys[head * from * self.key_length..][..keys]);
            let (to, from) = (self.context, other.context);
            self.values[head * to * self.value_length..][..values]
                .copy_from_slice(&other.values[head * from * self.value_length..][..values]);
        }
    }

    /// One head's keys at the first `positions`, rounded up to whole blocks: `[blocks, key_length, KEYS]`.
    pub(crate) fn keys(&self, layer: usize, head: usize, positions: usize) -> &[f16] {
        let row = (layer * self.kv_heads + head) * self.context.next_multiple_of(KEYS);
        &self.keys[row * self.key_length..][..positions.next_multiple_of(KEYS) * self.key_length]
    }

    /// One head's values at the first `positions`, `[positions, value_length]`.
    pub(crate) fn values(&self, layer: usize, head: usize, positions: usize) -> &[f16] {
        let row = (layer * self.kv_heads + head) * self.context;
        &self.values[row * self.value_length..][..positions * self.value_length]
    }
}
