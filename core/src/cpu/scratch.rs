//! Every buffer that a forward pass writes to, sized once for a session.

use super::experts::Choice;
use super::operations::Hooks;
use super::parallel::LANES;
use super::segments::partial_length;
use super::{adapters, operations};
use crate::decoder::{Place, View};
use crate::kernels::Activations;
use crate::model::{Adapter, Config, Heads, LayerSpec, LinearAttention, Mixer, StateRule};
use crate::quant::activation::Buffer;
use crate::state::{SEGMENT, SLACK};
use std::ops::{Deref, DerefMut};

/// Room for one part of a prompt, or one token.
pub(super) struct Scratch {
    pub(super) tokens: usize,     // most tokens evaluated together
    pub(super) logit_rows: usize, // most positions whose logits are computed together
    pub(super) places: Places,
    pub(super) int8: Buffer, // [tokens, widest]: inputs of products with quantised weights
    prepared: Option<View>,  // whose values `int8` holds, where a reader takes them
    pub(super) vector: Floats, // [2, widest]: a norm's weights and bias, unpacked
    pub(super) cosine: Floats, // [ropes, tokens, rope dimensions / 2]
    pub(super) sine: Floats, // [ropes, tokens, rope dimensions / 2]
    pub(super) first_angle: usize, // the position of the first ones
    pub(super) scores: Floats, // [LANES, TOGETHER, SEGMENT]
    pub(super) partials: Floats, // [kv_heads, segments, group, partial], or [LANES, TOGETHER, partial]
    pub(super) states: Vec<[f32; 2]>, // [tokens, heads]
    pub(super) conv: Floats,     // [tail + tokens, channels]: what a short convolution reads
    pub(super) taps: Floats,     // [kernel, channels]
    pub(super) state_gates: Floats, // [tokens, 2, value heads]: decays and betas
    pub(super) state_out: Floats, // [value heads, tokens, value_length]
    pub(super) choices: Vec<Choice>, // ≤ [tokens, used]
    pub(super) order: Vec<usize>, // ≤ [experts]
    pub(super) hooks: Hooks,
}

/// A buffer for each [`Place`].
pub(super) struct Places([Floats; Place::COUNT]);

impl Places {
    pub(super) fn whole(&mut self, place: Place) -> &mut [f32] {
        &mut self.0[place as usize]
    }

    pub(super) fn get(&self, x: View) -> &[f32] {
        &self.0[x.place as usize][x.values()]
    }

    pub(super) fn get_mut(&mut self, x: View) -> &mut [f32] {
        &mut self.whole(x.place)[x.values()]
    }

    /// Values, and all of other places, each another one.
    pub(super) fn split<const N: usize>(
        &mut self,
        x: View,
        to: [Place; N],
    ) -> (&[f32], [&mut [f32]; N]) {
        let mut all = self.0.each_mut().map(Some);
        let mut take =
            |place: Place| -> &mut [f32] { all[place as usize].take().expect("each place once") };
        (&take(x.place)[x.values()], to.map(take))
    }

    /// Values of two places.
    pub(super) fn both_mut(&mut self, a: View, b: View) -> [&mut [f32]; 2] {
        let both = self
            .0
            .get_disjoint_mut([a.place as usize, b.place as usize]);
        let [x, y] = both.expect("two places");
        [&mut x[a.values()], &mut y[b.values()]]
    }
}

/// Zeros at first, beginning where a line of the cache does: a register of them then never lies in two lines.
pub(super) struct Floats {
    values: Vec<f32>,
    start: usize,
}

impl Floats {
    const LINE: usize = 64; // bytes of the longest line, and of the longest register

    fn new(count: usize) -> Floats {
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
pub(super) const TOGETHER: usize = 4;

/// The number of values in each buffer.
struct Sizes {
    tokens: usize,
    logit_rows: usize,
    widest: usize,
    states: usize,
    choices: usize,
    experts: usize,
    places: [usize; Place::COUNT],
    vector: usize,
    angles: usize,
    scores: usize,
    partials: usize,
    conv: usize,
    taps: usize,
    state_gates: usize,
    state_out: usize,
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
    let pairs: usize = config.ropes().map(|rope| rope.dimensions / 2).sum();
    let kernel = config.convolutions().map(|(kernel, _)| kernel).max();
    let conv = config.convolutions().map(|(_, width)| width).max();
    let (kernel, conv) = (kernel.unwrap_or(0), conv.unwrap_or(0));
    let linear = |length: fn(&LinearAttention) -> usize| linear_attention(config, length);
    let experts = config.experts().map(|e| e.count).max().unwrap_or(0);
    let used = config.experts().map(|e| e.used).max().unwrap_or(0);
    let cols = Place::ALL.map(|place| cols(config, place));
    let state_values = linear(LinearAttention::values_length);
    let per_token = cols.iter().sum::<usize>() + conv + 2 * pairs + state_values;
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
    // These are read by no product.
    let unread = [Place::ConvInput, Place::GatedQuery, Place::LayerInput];
    let read = Place::ALL.iter().filter(|place| !unread.contains(place));
    let widest = read.map(|place| cols[*place as usize]).max();
    let widest = widest.unwrap_or(0).max(kernel);
    let mut places = cols.map(|cols| tokens * cols);
    places[Place::Logits as usize] = logit_rows * config.vocabulary;
    let segments = context.div_ceil(SEGMENT);
    let partials = |heads: &Heads| {
        let rows = (heads.queries * segments).max(LANES * TOGETHER);
        rows * partial_length(heads)
    };
    Sizes {
        tokens,
        logit_rows,
        widest,
        states: tokens * config.longest(|heads| heads.queries),
        choices: tokens * used,
        experts,
        places,
        // A norm's weights and bias, a product's bias, or what divides queries and keys and a convolution's bias.
        vector: cols.iter().fold(2 * widest, |most, cols| most.max(*cols))
            + 2 * linear(|a| a.key_length),
        angles: tokens * pairs,
        scores: LANES * TOGETHER * SEGMENT,
        partials: config.longest(partials),
        conv: (kernel.saturating_sub(1) + tokens) * conv,
        taps: kernel * conv,
        state_gates: tokens * 2 * linear(|a| a.value_heads),
        state_out: tokens * state_values,
    }
}

/// The greatest length of this kind of the layers' linear attention.
fn linear_attention(config: &Config, length: fn(&LinearAttention) -> usize) -> usize {
    config.linear_attentions().map(length).max().unwrap_or(0)
}

/// Values that each token has in a place. Logits have rows of their own.
fn cols(config: &Config, place: Place) -> usize {
    let d = config.embedding_length;
    let is_short_conv = |layer: &LayerSpec| matches!(layer.mixer, Mixer::ShortConv { .. });
    let short_conv = usize::from(config.layers.iter().any(is_short_conv)) * d;
    let gate = usize::from(config.gated_attention) * config.longest(Heads::mixed_length);
    let linear = |length: fn(&LinearAttention) -> usize| linear_attention(config, length);
    let experts = config.experts().map(|e| e.count).max().unwrap_or(0);
    let layer_input = config.per_layer_input.unwrap_or(0);
    match place {
        Place::Stream | Place::Branch => d,
        Place::Parallel => usize::from(config.parallel) * d,
        Place::Query => config.longest(Heads::query_length),
        Place::Key => config.longest(Heads::keys_length),
        Place::Value => config.longest(Heads::values_length),
        Place::Mixed => {
            let mixed = config.longest(Heads::mixed_length).max(short_conv);
            mixed.max(linear(LinearAttention::values_length))
        }
        Place::ConvInput => (3 * short_conv).max(linear(LinearAttention::conv_length)),
        Place::GatedQuery if gate == 0 => 0,
        Place::GatedQuery => config.longest(Heads::query_length) + gate,
        Place::OutputGate => gate.max(linear(LinearAttention::values_length)),
        Place::Step => linear(|a| a.value_heads),
        Place::Beta => linear(|a| usize::from(a.rule == StateRule::GatedDelta) * a.value_heads),
        Place::LayerInput => config.layers.len() * layer_input,
        Place::Gate | Place::Up => config.feed_forward_length().max(layer_input),
        Place::Router => experts,
        Place::SharedGate => experts.min(1),
        Place::ExpertInput | Place::ExpertOutput | Place::ExpertSum => experts.min(1) * d,
        Place::Logits => 0,
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
    let others = [
        sizes.vector,
        sizes.angles,
        sizes.angles,
        sizes.scores,
        sizes.partials,
        sizes.conv,
        sizes.taps,
        sizes.state_gates,
        sizes.state_out,
    ];
    let floats = sizes.places.iter().chain(&others);
    let floats: u64 = floats.map(|&n| Floats::bytes(n)).sum();
    floats
        + (sizes.states * size_of::<[f32; 2]>()) as u64
        + (sizes.choices * size_of::<Choice>() + sizes.experts * size_of::<usize>()) as u64
        + Buffer::bytes(sizes.tokens * sizes.widest) as u64
        + adapters::bytes(adapters, sizes.tokens, sizes.logit_rows)
}

impl Scratch {
    /// Makes room for the logits of `rows` positions at once, where there is less.
    pub(super) fn reserve_logit_rows(&mut self, rows: usize, vocabulary: usize) {
        if rows > self.logit_rows {
            self.logit_rows = rows;
            self.places.0[Place::Logits as usize] = Floats::new(rows * vocabulary);
        }
    }

    pub(super) fn new(config: &Config, context: usize) -> Self {
        let sizes = sizes(config, context, 1);
        Scratch {
            tokens: sizes.tokens,
            logit_rows: sizes.logit_rows,
            places: Places(sizes.places.map(Floats::new)),
            int8: Buffer::new(sizes.tokens * sizes.widest),
            prepared: None,
            vector: Floats::new(sizes.vector),
            cosine: Floats::new(sizes.angles),
            sine: Floats::new(sizes.angles),
            first_angle: 0,
            scores: Floats::new(sizes.scores),
            partials: Floats::new(sizes.partials),
            states: vec![[0.0; 2]; sizes.states],
            conv: Floats::new(sizes.conv),
            taps: Floats::new(sizes.taps),
            state_gates: Floats::new(sizes.state_gates),
            state_out: Floats::new(sizes.state_out),
            choices: Vec::with_capacity(sizes.choices),
            order: Vec::with_capacity(sizes.experts),
            hooks: Hooks::default(),
        }
    }

    /// Notes that `int8` has what the readers of `x` take.
    pub(super) fn prepared(&mut self, x: View) -> View {
        self.prepared = Some(x);
        x
    }

    /// The prepared `x` as products read it, and the places that they write.
    pub(super) fn inputs<const N: usize>(&mut self, x: View, to: [Place; N]) -> Products<'_, N> {
        assert_eq!(
            self.prepared,
            Some(x),
            "products read what was prepared last"
        );
        let (float, outputs) = self.places.split(x, to);
        Products {
            x: operations::activations(float, &self.int8, x.cols),
            outputs,
            vector: &mut self.vector,
            hooks: &mut self.hooks,
        }
    }
}

/// What products read and write.
pub(super) struct Products<'a, const N: usize> {
    pub(super) x: Activations<'a>,
    pub(super) outputs: [&'a mut [f32]; N],
    pub(super) vector: &'a mut [f32],
    pub(super) hooks: &'a mut Hooks,
}
