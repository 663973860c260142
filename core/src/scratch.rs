//! Every buffer that a forward pass writes to, sized once for a session.

use crate::model::attention::{SEGMENT, part_length};
use crate::model::operations::Beside;
use crate::model::parallel::LANES;
use crate::model::{Adapter, Config, adapter};
use crate::quant::activation::Buffer;

/// Room for one part of a prompt, or one token.
pub(crate) struct Scratch {
    pub(crate) tokens: usize,         // most tokens evaluated together
    pub(crate) logit_rows: usize,     // most positions whose logits are computed together
    pub(crate) x: Vec<f32>,           // [tokens, embedding]: the residual stream
    pub(crate) branch: Vec<f32>,      // [tokens, embedding]: what a branch reads, then what it adds
    pub(crate) query: Vec<f32>,       // [tokens, heads, key_length]
    pub(crate) key: Vec<f32>,         // [tokens, kv_heads, key_length]
    pub(crate) value: Vec<f32>,       // [tokens, kv_heads, value_length]
    pub(crate) mixed: Vec<f32>,       // [tokens, heads, value_length]: what attention found
    pub(crate) gate: Vec<f32>,        // [tokens, feed_forward]
    pub(crate) up: Vec<f32>,          // [tokens, feed_forward]
    pub(crate) int8: Buffer,          // [tokens, widest]: inputs of products with quantised weights
    pub(crate) spare: Vec<f32>, // [tokens, embedding] where branches are parallel: what attention adds, until both have read x
    pub(crate) vector: Vec<f32>, // [2, widest]: a norm's weights and bias, unpacked
    pub(crate) cosine: Vec<f32>, // [ropes, tokens, rope dimensions / 2]
    pub(crate) sine: Vec<f32>,  // [ropes, tokens, rope dimensions / 2]
    pub(crate) scores: Vec<f32>, // [LANES, TOGETHER, SEGMENT]
    pub(crate) parts: Vec<f32>, // [kv_heads, segments, group, part], or [LANES, TOGETHER, part]
    pub(crate) states: Vec<[f32; 2]>, // [tokens, heads]
    pub(crate) logits: Vec<f32>, // [logit_rows, vocabulary]
    pub(crate) beside: Beside,
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

fn sizes(config: &Config, context: usize) -> Sizes {
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

/// Bytes that [`Scratch::new`] allocates, and those of `adapters`.
pub(crate) fn bytes(config: &Config, context: usize, adapters: &[(Adapter, f32)]) -> u64 {
    let sizes = sizes(config, context);
    let floats: u64 = sizes.floats.iter().map(|&n| n as u64).sum();
    let floats = floats + 2 * sizes.states as u64;
    floats * size_of::<f32>() as u64
        + Buffer::bytes(sizes.tokens * sizes.widest) as u64
        + adapter::bytes(adapters, sizes.tokens, sizes.logit_rows)
}

impl Scratch {
    /// Makes room for the logits of `rows` positions at once, where there is less.
    pub(crate) fn make_room(&mut self, rows: usize, vocabulary: usize) {
        if rows > self.logit_rows {
            self.logit_rows = rows;
            self.logits.resize(rows * vocabulary, 0.0);
        }
    }

    pub(crate) fn new(config: &Config, context: usize) -> Self {
        let Sizes {
            tokens,
            logit_rows,
            widest,
            states,
            floats,
        } = sizes(config, context);
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
        ] = floats.map(|n| vec![0.0; n]);
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
