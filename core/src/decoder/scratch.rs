//! Every buffer that a forward pass writes to, sized once for a session.

use super::adapters;
use super::experts::Choice;
use super::operations::Hooks;
use super::parallel::LANES;
use super::segments::part_length;
use crate::model::{Adapter, Config};
use crate::quant::activation::Buffer;
use crate::state::{SEGMENT, SLACK};
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
    pub(crate) mixed: Floats, // [tokens, heads, value_length] or [tokens, embedding]: what a mixer found
    pub(super) gates: Floats, // [tokens, 3, embedding]: a short convolution's b, c and x
    pub(super) conv: Floats,  // [tail + tokens, embedding]: what it reads
    pub(super) taps: Floats,  // [kernel, embedding]
    pub(crate) gate: Floats,  // [tokens, feed_forward]
    pub(crate) up: Floats,    // [tokens, feed_forward]
    pub(crate) int8: Buffer,  // [tokens, widest]: inputs of products with quantised weights
    pub(crate) spare: Floats, // [tokens, embedding] where branches are parallel: what attention adds, until both have read x
    pub(crate) vector: Floats, // [2, widest]: a norm's weights and bias, unpacked
    pub(crate) cosine: Floats, // [ropes, tokens, rope dimensions / 2]
    pub(crate) sine: Floats,  // [ropes, tokens, rope dimensions / 2]
    pub(crate) scores: Floats, // [LANES, TOGETHER, SEGMENT]
    pub(crate) parts: Floats, // [kv_heads, segments, group, part], or [LANES, TOGETHER, part]
    pub(crate) states: Vec<[f32; 2]>, // [tokens, heads]
    pub(super) expert_scores: Floats, // [tokens, experts]
    pub(super) choices: Vec<Choice>, // ≤ [tokens, used]
    pub(super) order: Vec<usize>, // ≤ [experts]
    pub(super) expert_in: Floats, // [tokens, embedding]: what an expert reads
    pub(super) expert_out: Floats, // [tokens, embedding]: what it makes of it
    pub(super) expert_sum: Floats, // [tokens, embedding]: of the experts
    pub(crate) logits: Floats, // [logit_rows, vocabulary]
    pub(crate) hooks: Hooks,
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
    choices: usize,
    experts: usize,
    floats: [usize; 22],
}

/// Most tokens evaluated together. More would amortise little, cost memory, and keep a cancelled prompt waiting.
const MAX_TOKENS: usize = 256;
const _: () = assert!(MAX_TOKENS <= SLACK);
/// Tokens evaluated together even by models so wide that they take much room.
const MIN_TOKENS: usize = 32;
/// Bytes of activations that keep a wide model from the full [`MAX_TOKENS`].
const ENOUGH_BYTES: usize = 8 << 20;
/// Bytes of logits that are computed together at most, if they are of more than one position.
const LOGIT_BYTES: usize = 1 << 20;
const MAX_LOGIT_ROWS: usize = 16;

/// Sizes for a session that wants the logits of `positions` positions at once.
fn sizes(config: &Config, context: usize, positions: usize) -> Sizes {
    let (d, ff, pairs) = (
        config.embedding_length,
        config.feed_forward_length(),
        config.rope.dimensions / 2 * config.ropes().count(),
    );
    let (query, key, value, mixed) = (
        config.query_length(),
        config.keys_length(),
        config.values_length(),
        config.mixed_length(),
    );
    let kernel = config.convolutions().max().unwrap_or(0);
    let [gates, conv] = if kernel > 0 { [3 * d, d] } else { [0, 0] };
    let mixed = mixed.max(conv);
    let experts = config.experts().map(|e| e.count).max().unwrap_or(0);
    let used = config.experts().map(|e| e.used).max().unwrap_or(0);
    let of_expert = if experts > 0 { d } else { 0 };
    let widest = d
        .max(query)
        .max(mixed)
        .max(ff)
        .max(key)
        .max(value)
        .max(experts)
        .max(kernel);
    let spare = if config.parallel { d } else { 0 };
    let mixers = query + key + value + mixed + gates + conv;
    let per_token = 2 * d + spare + mixers + 2 * ff + 2 * pairs + experts + 3 * of_expert;
    let wanted = ENOUGH_BYTES / (per_token * size_of::<f32>()) / MIN_TOKENS * MIN_TOKENS;
    let tokens = if config.causal {
        wanted.clamp(MIN_TOKENS, MAX_TOKENS).min(context)
    } else {
        context // what sees the whole text is evaluated with the whole text
    };
    let logit_rows = (LOGIT_BYTES / (config.vocabulary * size_of::<f32>()))
        .clamp(1, MAX_LOGIT_ROWS)
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
        n * gates,
        (kernel.saturating_sub(1) + n) * conv,
        kernel * conv,
        n * experts,
        n * of_expert,
        n * of_expert,
        n * of_expert,
    ];
    Sizes {
        tokens,
        logit_rows,
        widest,
        states: n * config.heads,
        choices: n * used,
        experts,
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
        + (sizes.choices * size_of::<Choice>() + sizes.experts * size_of::<usize>()) as u64
        + Buffer::bytes(sizes.tokens * sizes.widest) as u64
        + adapters::bytes(adapters, sizes.tokens, sizes.logit_rows)
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
            choices,
            experts,
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
            gates,
            conv,
            taps,
            expert_scores,
            expert_in,
            expert_out,
            expert_sum,
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
            gates,
            conv,
            taps,
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
            expert_scores,
            choices: Vec::with_capacity(choices),
            order: Vec::with_capacity(experts),
            expert_in,
            expert_out,
            expert_sum,
            logits,
            hooks: Hooks::default(),
        }
    }
}
