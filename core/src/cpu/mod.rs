//! The forward pass's steps on the processor: a sequence's state, the buffers, and the threads that compute.

mod adapters;
mod attention;
mod experts;
mod importance;
mod linear_attention;
mod operations;
mod parallel;
mod scratch;
mod segments;
mod short_conv;

pub use importance::ImportanceSums;
pub(crate) use scratch::bytes;

use crate::Result;
use crate::decoder::{Place, Steps, View};
use crate::model::weights::{
    ExpertsWeights, Linear, LinearAttentionWeights, Matrix, Norm, ShortConvWeights,
};
use crate::model::{Adapter, Heads, Model, Scope};
use crate::quant::activation::Buffer;
use crate::state::{CacheFormat, State};
use crate::threads::Pool;
use adapters::Adapters;
use importance::Importance;
use operations::{Hooks, Operations};
use scratch::{Products, Scratch};
use std::ops::Range;
use std::sync::Arc;

/// One sequence on the processor.
pub(crate) struct Cpu {
    model: Model,
    pub(crate) pool: Arc<Pool>,
    pub(crate) state: State,
    scratch: Scratch,
}

impl Cpu {
    /// Room for `context` positions, and threads to compute on.
    pub(crate) fn new(model: Model, pool: Arc<Pool>, context: usize, format: CacheFormat) -> Cpu {
        Cpu {
            pool,
            state: State::new(model.config(), context, format),
            scratch: Scratch::new(model.config(), context),
            model,
        }
    }

    /// Most tokens evaluated together.
    pub(crate) fn max_tokens(&self) -> usize {
        self.scratch.tokens
    }

    /// Most positions whose logits are computed together.
    pub(crate) fn max_logit_rows(&self) -> usize {
        self.scratch.logit_rows
    }

    /// Makes room for the logits of `rows` positions, where there is less.
    pub(crate) fn reserve_logit_rows(&mut self, rows: usize) {
        self.scratch
            .reserve_logit_rows(rows, self.model.config().vocabulary);
        let adapters = self.adapters().to_vec();
        self.set_adapters(&adapters);
    }

    /// The logits `[vocabulary]` of one position of those computed last.
    pub(crate) fn logits(&self, row: usize) -> &[f32] {
        let logits = Place::Logits.view(row + 1, self.model.config().vocabulary);
        self.values(logits.rows(row..row + 1))
    }

    pub(crate) fn adapters(&self) -> &[(Adapter, f32)] {
        self.scratch.hooks.adapters.list()
    }

    /// Computes with these adapters, which were checked against the model.
    pub(crate) fn set_adapters(&mut self, list: &[(Adapter, f32)]) {
        let (tokens, logit_rows) = (self.scratch.tokens, self.scratch.logit_rows);
        self.scratch.hooks.adapters = Adapters::new(list, tokens, logit_rows);
    }

    /// Sums the squares of products' inputs, until [`Cpu::take_importance`].
    pub(crate) fn collect_importance(&mut self) {
        self.scratch.hooks.importance = Some(Importance::default());
    }

    pub(crate) fn collects_importance(&self) -> bool {
        self.scratch.hooks.importance.is_some()
    }

    pub(crate) fn take_importance(&mut self) -> Vec<ImportanceSums> {
        let importance = self.scratch.hooks.importance.take().unwrap_or_default();
        importance.by_tensor(self.model.gguf())
    }

    /// The product of one vector, with its bias.
    pub(crate) fn project_vector(&self, linear: &Linear, x: &[f32]) -> Vec<f32> {
        let o = Operations::new(&self.model, &self.pool);
        let mut int8 = Buffer::new(x.len());
        o.round(x, &mut int8, &[&linear.matrix]);
        let (mut out, mut bias) = (vec![0.0; linear.matrix.rows], vec![0.0; linear.matrix.rows]);
        let x = operations::activations(x, &int8, x.len());
        o.project(
            x,
            [(linear, &mut out[..])],
            &mut bias,
            &mut Hooks::default(),
        );
        out
    }

    /// What computes, the buffers and the state.
    fn split(&mut self) -> (Operations<'_>, &mut Scratch, &mut State) {
        let Cpu {
            model,
            pool,
            state,
            scratch,
        } = self;
        (Operations::new(model, pool), scratch, state)
    }
}

impl Steps for Cpu {
    fn begin(&mut self, start: usize, tokens: usize) {
        // Every state can drop a draft.
        assert_eq!(self.state.truncate(start), start);
        attention::angles(self, start..start + tokens);
    }

    fn commit(&mut self, tokens: usize) {
        self.state.conv.commit(tokens);
    }

    fn check_read(&self) -> Result<()> {
        self.model.gguf().check_read()?;
        let mut adapters = self.adapters().iter();
        adapters.try_for_each(|(adapter, _)| adapter.gguf().check_read())
    }

    fn embed(&mut self, ids: &[u32]) {
        let (o, s, _) = self.split();
        let (embedding, d) = (o.embedding(), o.config.embedding_length);
        let x = s.places.get_mut(Place::Stream.view(ids.len(), d));
        for (&id, x) in ids.iter().zip(x.chunks_exact_mut(d)) {
            o.unpack_row(embedding, id as usize, x);
        }
        s.hooks.adapters.embed(&o, ids, x);
    }

    fn add_rows(&mut self, table: &Matrix, first: usize, step: usize, x: View) {
        let (o, s, _) = self.split();
        let row = &mut s.vector[..x.cols];
        let x = s.places.get_mut(x).chunks_exact_mut(x.cols);
        for (number, x) in x.enumerate() {
            o.unpack_row(table, first + number * step, row);
            o.kernels.add(x, row);
        }
    }

    fn normalise(&mut self, norm: Option<&Norm>, x: View, to: Place, readers: &[&Matrix]) -> View {
        let Some(norm) = norm else {
            return self.prepare(x, readers);
        };
        let (o, s, _) = self.split();
        let (x_values, [out]) = s.places.split(x, [to]);
        let out = &mut out[..x_values.len()];
        o.normalise(norm, x_values, out, &mut s.int8, &mut s.vector, readers);
        s.prepared(to.view(x.rows, x.cols))
    }

    fn prepare(&mut self, x: View, readers: &[&Matrix]) -> View {
        let (o, s, _) = self.split();
        o.round(s.places.get(x), &mut s.int8, readers);
        s.prepared(x)
    }

    fn normalise_in_place(&mut self, norm: &Norm, group: usize, x: View) {
        let (o, s, _) = self.split();
        o.normalise_in_place(norm, group, s.places.get_mut(x), &mut s.vector);
    }

    fn product(&mut self, x: View, matrix: &Matrix, to: Place) {
        let (o, s, _) = self.split();
        let Products {
            x,
            outputs: [out],
            hooks,
            ..
        } = s.inputs(x, [to]);
        o.product(x, matrix, out, hooks);
    }

    fn project<const N: usize>(&mut self, x: View, outputs: [(&Linear, Place); N]) {
        let (o, s, _) = self.split();
        let products = s.inputs(x, outputs.map(|(_, place)| place));
        let mut linear = outputs.iter().map(|(linear, _)| *linear);
        let outputs = products
            .outputs
            .map(|out| (linear.next().expect("one for each output"), out));
        o.project(products.x, outputs, products.vector, products.hooks);
    }

    fn activate(&mut self, tokens: usize, reader: &Matrix) -> View {
        let (o, s, _) = self.split();
        let gate = Place::Gate.view(tokens, reader.cols);
        let (up, [out]) = s
            .places
            .split(Place::Up.view(tokens, reader.cols), [Place::Gate]);
        o.activate(&mut out[..up.len()], up, &mut s.int8, reader);
        s.prepared(gate)
    }

    fn add(&mut self, x: View, from: Place) {
        let (o, s, _) = self.split();
        let from = View { place: from, ..x };
        let (from, [to]) = s.places.split(from, [x.place]);
        o.kernels.add(&mut to[x.values()], from);
    }

    fn scale(&mut self, x: View, factor: f32) {
        let (o, s, _) = self.split();
        o.kernels.scale(s.places.get_mut(x), factor);
    }

    fn soft_cap(&mut self, x: View, cap: f32) {
        let (o, s, _) = self.split();
        o.kernels.soft_cap(s.places.get_mut(x), cap);
    }

    fn move_to_front(&mut self, x: View) {
        self.scratch
            .places
            .whole(x.place)
            .copy_within(x.values(), 0);
    }

    fn add_looked_up(&mut self, table: &Matrix, ids: &[u32], factor: f32, x: View) {
        let (o, s, _) = self.split();
        let row = &mut s.vector[..x.cols];
        let x = s.places.get_mut(x).chunks_exact_mut(x.cols);
        for (&id, x) in ids.iter().zip(x) {
            o.unpack_row(table, id as usize, row);
            o.kernels.scale(row, factor);
            o.kernels.add(x, row);
        }
    }

    fn copy_columns(&mut self, x: View, first: usize, to: View) {
        let (from, [out]) = self.scratch.places.split(x, [to.place]);
        let rows = from.chunks_exact(x.cols);
        for (from, to) in rows.zip(out[to.values()].chunks_exact_mut(to.cols)) {
            to.copy_from_slice(&from[first..first + to.len()]);
        }
    }

    fn divide_by_rms(&mut self, group: usize, x: View) {
        let (o, s, _) = self.split();
        let ones = &mut s.vector[..group];
        ones.fill(1.0);
        for x in s.places.get_mut(x).chunks_exact_mut(group) {
            o.kernels.rms_norm_in_place(x, ones, o.config.norm_epsilon);
        }
    }

    fn rotate(&mut self, rope: usize, start: usize, length: usize, x: View) {
        attention::rotate(self, rope, start, length, x);
    }

    fn write_kv(&mut self, cache: usize, start: usize, key: View, value: View) {
        let (o, s, state) = self.split();
        let (keys, values) = (s.places.get(key), s.places.get(value));
        state.kv.write(o.kernels, cache, start, keys, values);
    }

    fn attend(&mut self, cache: usize, scope: &Scope, start: usize, query: View) {
        attention::attend(self, cache, scope, start, query);
    }

    fn split_gated_query(&mut self, heads: &Heads, tokens: usize) {
        let (_, s, _) = self.split();
        let (query, gate) = (heads.key_length, heads.value_length);
        let both = Place::GatedQuery.view(tokens, heads.queries * (query + gate));
        let (both, [queries, gates]) = s.places.split(both, [Place::Query, Place::OutputGate]);
        let out = queries
            .chunks_exact_mut(query)
            .zip(gates.chunks_exact_mut(gate));
        for (both, (to_query, to_gate)) in both.chunks_exact(query + gate).zip(out) {
            let (from_query, from_gate) = both.split_at(query);
            to_query.copy_from_slice(from_query);
            to_gate.copy_from_slice(from_gate);
        }
    }

    fn multiply_by_sigmoid(&mut self, x: View, gate: View) {
        let (o, s, _) = self.split();
        let (values, [to]) = s.places.split(gate, [x.place]);
        let to = &mut to[x.values()];
        if gate.cols == x.cols {
            return o.kernels.sigmoid_mul(to, values);
        }
        for (row, gate) in to.chunks_exact_mut(x.cols).zip(values) {
            let mut factor = [1.0];
            o.kernels.sigmoid_mul(&mut factor, &[*gate]);
            o.kernels.scale(row, factor[0]);
        }
    }

    fn linear_attention(
        &mut self,
        weights: &LinearAttentionWeights,
        start: usize,
        wanted: Range<usize>,
    ) {
        linear_attention::linear_attention(self, weights, start, wanted);
    }

    fn write_conv(&mut self, weights: &ShortConvWeights, start: usize, gates: View) {
        short_conv::write(self, weights, start, gates);
    }

    fn convolve(&mut self, weights: &ShortConvWeights, gates: View) {
        short_conv::convolve(self, weights, gates);
    }

    fn mix_experts(&mut self, weights: &ExpertsWeights, x: View, scores: View) {
        experts::mix(self, weights, x, scores);
    }

    fn values(&self, x: View) -> &[f32] {
        self.scratch.places.get(x)
    }
}
