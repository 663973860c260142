//! Every buffer that a forward pass writes to, sized once for a session.

use crate::model::attention::{SEGMENT, part_length};
use crate::model::operations::Beside;
use crate::model::parallel::LANES;
use crate::model::{Adapter, Config, adapter};
use crate::quant::activation::Buffer;
use std::ops::{Deref, DerefMut};

/// Room for one part of a prompt, or one token.
pub(crate) struct Scratch {
    pub(crate) tokens: usize,         // most tokens evaluated together
    pub(crate) logit_rows: usize,     // most positions whose logits are computed together
    pub(crate) x: Floats,             // [tokens, embedding]: the residual stream
    pub(crate) branch: Floats,        // [tokens, embedding]: what a branch reads, then what it adds
    pub(crate) query: Floats,         // [tokens, heads, key_length]
    pub(crate) key: Floats,           // [tokens, kv_heads, key_length]
    pub(crate) value: Floats,         // [tokens, kv_heads, value_length]
    pub(crate) mixed: Floats,         // [tokens, heads, value_length]: what attention found
    pub(crate) gate: Floats,          // [tokens, feed_forward]
    pub(crate) up: Floats,            // [tokens, feed_forward]
    pub(crate) int8: Buffer,          // [tokens, widest]: inputs of products with quantised weights
    pub(crate) spare: Floats, // [tokens, embedding] where branches are parallel: what attention adds, until both have read x
    pub(crate) vector: Floats, // [2, widest]: a norm's weights and bias, unpacked
    pub(crate) cosine: Floats, // [ropes, tokens, rope dimensions / 2]
    pub(crate) sine: Floats,  // [ropes, tokens, rope dimensions / 2]
    pub(crate) scores: Floats, // [LANES, TOGETHER, SEGMENT]
    pub(crate) parts: Floats, // [kv_heads, segments, group, part], or [LANES, TOGETHER, part]
    pub(crate) states: Vec<[f32; 2]>, // [tokens, heads]
    pub(crate) logits: Floats, // [logit_rows, vocabulary]
    pub(crate) beside: Beside,
}

/// Zeros at first, beginning where a line of the cache does: a register of them then never lies in two lines.
pub(crate) struct Floats {
    values: Vec<f32>,
    start: usize,
}

impl Floats {
    const LINE: usize = 64; // bytes of the longest line, and of the longest register

    pub(crate) fn new(count: usize) -> Floats {
        let mut values = vec![0.0; count + Floats::LINE / size_of::<f32>()];
        let start = values.as_ptr().align_offset(Floats::LINE);
        let start = start.min(values.len() - count);
        values.truncate(start + count);
        Floats { values, start }
    }

    /// Bytes that `count` of them take.
    fn bytes(count: usize) -> u64 {
        (count * size_of::<f32>() + Floats::LINE) as u64
    }
}

impl Deref for Floats {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.values[self.start..]
    }
}

impl DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..]
    }
}

/// Queries that attention takes together: what it reads and widens of the cache serves them all.
pub(crate) const TOGETHER: usize = 4;

/// The number of values in each buffer.
struct Sizes {
    tokens: usize,
    logit_rows: usize,
    widest: usize,
    states: usize,
    floats: [usize; 15],
}

/// Most tokens evaluated together. More would amortise little, cost memory, and keep a cancelled prompt waiting.
const MOST_TOKENS: usize = 256;
/// Tokens evaluated together even by models so wide that they take much room.
const LEAST_TOKENS: usize = 32;
/// Bytes of activations that keep a wide model from the full [`MOST_TOKENS`].
const ENOUGH_BYTES: usize = 8 << 20;
/// Bytes of logits that are computed together at most, if they are of more than one position.
const LOGIT_BYTES: usize = 1 << 20;
const MOST_LOGIT_ROWS: usize = 16;

/// Sizes for a session that wants the logits of `positions` positions at once.
fn sizes(config: &Config, context: usize, positions: usize) -> Sizes {
    let (d, ff, pairs) = (
        config.embedding_length,
        config.feed_forward_length,
        config.rope.dimensions / 2 * config.ropes().count(),
    );
    let (query, key, value, mixed) = (
        config.query_length(),
        config.keys_length(),
        config.values_length(),
        config.mixed_length(),
    );
    let widest = d.max(query).max(mixed).max(ff).max(key).max(value);
    let spare = if config.parallel { d } else { 0 };
    let per_token = 2 * d + spare + query + key + value + mixed + 2 * ff + 2 * pairs;
    let wanted = ENOUGH_BYTES / (per_token * size_of::<f32>()) / LEAST_TOKENS * LEAST_TOKENS;
    let tokens = if config.causal {
        wanted.clamp(LEAST_TOKENS, MOST_TOKENS).min(context)
    } else {
        context // what sees the whole text is evaluated with the whole text
    };
    let logit_rows = (LOGIT_BYTES / (config.vocabulary * size_of::<f32>()))
        .clamp(1, MOST_LOGIT_ROWS)
        .max(positions)
        .min(tokens);
    let n = tokens;
    let floats = [
        n * d,
        n * d,
        n * query,
        n * key,
        n * value,
        n * mixed,
        n * ff,
        n * ff,
        n * spare,
        2 * widest,
        n * pairs,
        n * pairs,
        LANES * TOGETHER * SEGMENT,
        (config.heads * context.div_ceil(SEGMENT)).max(LANES * TOGETHER) * part_length(config),
        logit_rows * config.vocabulary,
    ];
    Sizes {
        tokens,
        logit_rows,
        widest,
        states: n * config.heads,
        floats,
    }
}

/// Bytes that [`Scratch::new`] allocates, with room for the logits of `positions` positions at once, and those of `adapters`.
pub(crate) fn bytes(
    config: &Config,
    context: usize,
    adapters: &[(Adapter, f32)],
    positions: usize,
) -> u64 {
    let sizes = sizes(config, context, positions);
    let floats: u64 = sizes.floats.iter().map(|&n| Floats::bytes(n)).sum();
    floats
        + (sizes.states * size_of::<[f32; 2]>()) as u64
        + Buffer::bytes(sizes.tokens * sizes.widest) as u64
        + adapter::bytes(adapters, sizes.tokens, sizes.logit_rows)
}

impl Scratch {
    /// Makes room for the logits of `rows` positions at once, where there is less.
    pub(crate) fn make_room(&mut self, rows: usize, vocabulary: usize) {
        if rows > self.logit_rows {
            self.logit_rows = rows;
            self.logits = Floats::new(rows * vocabulary);
        }
    }

    pub(crate) fn new(config: &Config, context: usize) -> Self {
        let Sizes {
            tokens,
            logit_rows,
            widest,
            states,
            floats,
        } = sizes(config, context, 1);
        let [
            x,
            branch,
            query,
            key,
            value,
            mixed,
            gate,
            up,
            spare,
            vector,
            cosine,
            sine,
            scores,
            parts,
            logits,
        ] = floats.map(Floats::new);
        let int8 = Buffer::new(tokens * widest);
        Scratch {
            tokens,
            logit_rows,
            x,
            branch,
            query,
            key,
            value,
            mixed,
            gate,
            up,
            int8,
            spare,
            vector,
            cosine,
            sine,
            scores,
            parts,
            states: vec![[0.0; 2]; states],
            logits,
            beside: Beside::default(),
        }
    }
}
