//! What the forward pass asks of whoever carries it out: the processor ([`crate::cpu`]), or another device.

use crate::Result;
use crate::model::weights::{
    ExpertsWeights, Linear, LinearAttentionWeights, Matrix, Norm, ShortConvWeights,
};
use crate::model::{Heads, Scope};
use std::ops::Range;

/// A buffer of activations: f32 values, a row for each token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The residual stream, `[tokens, embedding]`.
    Stream,
    /// What a branch reads, then what it adds to the stream, `[tokens, embedding]`.
    Branch,
    /// What the mixer adds where the feed-forward part reads the stream beside it, `[tokens, embedding]`.
    Parallel,
    /// `[tokens, heads, key_length]`
    Query,
    /// `[tokens, kv_heads, key_length]`
    Key,
    /// `[tokens, kv_heads, value_length]`
    Value,
    /// What a mixer found, `[tokens, heads, value_length]` or `[tokens, embedding]`.
    Mixed,
    /// A short convolution's b, c and x, `[tokens, 3, embedding]`, or linear attention's queries, keys and values.
    ConvInput,
    /// Queries, each head's with its gate behind it, `[tokens, heads, key_length + value_length]`.
    GatedQuery,
    /// What multiplies a mixer's result, as long as it.
    OutputGate,
    /// How long a step a token is, by which linear attention's heads decay, `[tokens, value heads]`.
    Step,
    /// How much a token writes to a delta net's heads, `[tokens, value heads]`.
    Beta,
    /// Each layer's own input, `[tokens, layers, length]`.
    LayerInput,
    /// `[tokens, feed_forward]`
    Gate,
    /// `[tokens, feed_forward]`
    Up,
    /// The router's products, `[tokens, experts]`.
    Router,
    /// The product that gates the expert which all tokens take, `[tokens, 1]`.
    SharedGate,
    /// What one expert reads, `[tokens, embedding]`.
    ExpertInput,
    /// What it makes of that, `[tokens, embedding]`.
    ExpertOutput,
    /// The weighted sum of the experts, `[tokens, embedding]`.
    ExpertSum,
    /// `[logit rows, vocabulary]`
    Logits,
}

impl Place {
    pub(crate) const COUNT: usize = Place::ALL.len();
    /// In the order of their numbers.
    pub(crate) const ALL: [Place; 21] = [
        Place::Stream,
        Place::Branch,
        Place::Parallel,
        Place::Query,
        Place::Key,
        Place::Value,
        Place::Mixed,
        Place::ConvInput,
        Place::GatedQuery,
        Place::OutputGate,
        Place::Step,
        Place::Beta,
        Place::LayerInput,
        Place::Gate,
        Place::Up,
        Place::Router,
        Place::SharedGate,
        Place::ExpertInput,
        Place::ExpertOutput,
        Place::ExpertSum,
        Place::Logits,
    ];

    /// Its first `rows` rows, of `cols` values each.
    pub(crate) fn view(self, rows: usize, cols: usize) -> View {
        View {
            place: self,
            start: 0,
            rows,
            cols,
        }
    }
}

/// Rows of a [`Place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) place: Place,
    /// The first row.
    pub(crate) start: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

impl View {
    /// These of its rows.
    pub(crate) fn rows(self, rows: Range<usize>) -> View {
        assert!(rows.end <= self.rows);
        View {
            start: self.start + rows.start,
            rows: rows.len(),
            ..self
        }
    }

    /// Where its values lie in the place.
    pub(crate) fn values(self) -> Range<usize> {
        self.start * self.cols..(self.start + self.rows) * self.cols
    }
}

/// The steps of the forward pass for one sequence: who implements it has the weights, the buffers and the state.
///
/// Steps are carried out in order. Results do not depend on how many tokens are evaluated together.
pub(crate) trait Steps {
    /// Begins a run: `tokens` tokens at position `start` and after. What the state has at and after `start` is a draft that was not accepted, and is
    /// dropped. Rotations are computed for these positions.
    fn begin(&mut self, start: usize, tokens: usize);

    /// The run is over: the state has its tokens.
    fn commit(&mut self, tokens: usize);

    /// Whether all weights that were read are those of the files.
    fn check_read(&self) -> Result<()>;

    /// The stream becomes the tokens' rows of the embedding.
    fn embed(&mut self, ids: &[u32]);

    /// Row i of `x` += row `first + i * step` of `table`.
    fn add_rows(&mut self, table: &Matrix, first: usize, step: usize, x: View);

    /// `x` as these matrices read it: normalised to `to` where there is a norm, and rounded where a format's products take int8. What is returned
    /// is for the products that follow at once.
    fn normalise(&mut self, norm: Option<&Norm>, x: View, to: Place, readers: &[&Matrix]) -> View;

    /// `x` as these matrices read it.
    fn prepare(&mut self, x: View, readers: &[&Matrix]) -> View;

    /// `x` = its norm, `group` values together; the norm's weights begin again where a row is longer.
    fn normalise_in_place(&mut self, norm: &Norm, group: usize, x: View);

    /// One product without a bias, of a prepared `x`.
    fn product(&mut self, x: View, matrix: &Matrix, to: Place);

    /// Products with one prepared `x`, each with its bias.
    fn project<const N: usize>(&mut self, x: View, outputs: [(&Linear, Place); N]);

    /// The family's activation of [`Place::Gate`], times [`Place::Up`] where it is gated, as `reader` reads it. `[tokens, reader.cols]`
    fn activate(&mut self, tokens: usize, reader: &Matrix) -> View;

    /// `x` += the same rows of `from`.
    fn add(&mut self, x: View, from: Place);

    fn scale(&mut self, x: View, factor: f32);

    /// `x` = cap · tanh(x / cap).
    fn soft_cap(&mut self, x: View, cap: f32);

    /// These rows become the first of their place.
    fn move_to_front(&mut self, x: View);

    /// Row i of `x` += `factor` · row `ids[i]` of `table`.
    fn add_looked_up(&mut self, table: &Matrix, ids: &[u32], factor: f32, x: View);

    /// `to` = the same rows of `x`, of each as many values as `to` has columns from `first` on.
    fn copy_columns(&mut self, x: View, first: usize, to: View);

    /// `x` = its values over their root mean square, `group` values together.
    fn divide_by_rms(&mut self, group: usize, x: View);

    /// Rotates queries or keys, heads of `length` values, with the rotary embedding of this number. The first row is at position `start`.
    fn rotate(&mut self, rope: usize, start: usize, length: usize, x: View);

    /// The KV cache of this number gains keys and values at `start` and after.
    fn write_kv(&mut self, cache: usize, start: usize, key: View, value: View);

    /// [`Place::Mixed`] = what these queries find in the cache of this number: softmax(query · keysᵀ · scale) · values. The first one is at position `start`;
    /// each sees the positions up to its own, or the scope's window of these, and in an encoder all of the run, or the window on both sides, its own among them.
    fn attend(&mut self, cache: usize, scope: &Scope, start: usize, query: View);

    /// [`Place::Query`] and [`Place::OutputGate`] = the two parts of each head of [`Place::GatedQuery`].
    fn split_gated_query(&mut self, heads: &Heads, tokens: usize);

    /// `x` *= the logistic function of `gate`, which has as many rows, and as many columns or one.
    fn multiply_by_sigmoid(&mut self, x: View, gate: View);

    /// Linear attention's heads take up the tokens' queries, keys and values of [`Place::ConvInput`], after a convolution, by [`Place::Step`] and
    /// [`Place::Beta`]. [`Place::Mixed`] = what the wanted tokens read there, normalised and multiplied by SiLU of [`Place::OutputGate`].
    fn linear_attention(
        &mut self,
        weights: &LinearAttentionWeights,
        start: usize,
        wanted: Range<usize>,
    );

    /// Keeps b · x of [`Place::ConvInput`] at `start` and after, which the convolution reads.
    fn write_conv(&mut self, weights: &ShortConvWeights, start: usize, gates: View);

    /// [`Place::Mixed`] = c · conv(b · x) of these rows of [`Place::ConvInput`].
    fn convolve(&mut self, weights: &ShortConvWeights, gates: View);

    /// [`Place::ExpertSum`] = the weighted sum of what its experts make of each row of `x`. `scores`: the router's products. A token's experts are added in
    /// the order of their numbers.
    fn mix_experts(&mut self, weights: &ExpertsWeights, x: View, scores: View);

    /// The values, `[rows, cols]`.
    fn values(&self, x: View) -> &[f32];
}
