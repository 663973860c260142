//! The decoder's forward and backward pass on slices.
//!
//! [`Net`] borrows weights; [`Tape`] owns every buffer and is reused from step to step, so that a step allocates nothing once shapes have
//! been seen. Gradients are added into a flat buffer laid out like the weights.

use std::sync::atomic::AtomicBool;

use anyhow::Result;

use super::layout::LayerRanges;
use super::ops::attention::{Heads, Layer, Scratch, Span, attention, attention_backward};
use super::ops::elementwise::{add, gather, scatter_add, swiglu, swiglu_backward};
use super::ops::gemm::Products;
use super::ops::norm::{rms_norm, rms_norm_backward};
use super::ops::rope::Table;
use super::rows::Rows;
use super::{Config, Layout, fakequant};
use crate::stop::{self, Stopped};

/// Which values are rounded on the way, as the runtime rounds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Rounding {
    /// Inputs of the layers' products go through int8 blocks.
    pub(crate) linear: bool,
    /// Inputs of the output matrix go through int8 blocks.
    pub(crate) head: bool,
    /// Keys and values go through f16.
    pub(crate) cache: bool,
}

/// A decoder ready to run: shape, weights as the products see them, and what is rounded.
#[derive(Clone, Copy)]
pub(crate) struct Net<'a> {
    pub(crate) config: &'a Config,
    pub(crate) layout: &'a Layout,
    pub(crate) rope: &'a Table,
    pub(crate) weights: &'a [f32],
    pub(crate) rounding: Rounding,
    /// What the forward pass multiplies with.
    pub(crate) products: Products,
    /// What the backward pass multiplies with.
    pub(crate) backward_products: Products,
    /// Whether values change in their last bits between the layers; see [`super::Prepared::perturbed`].
    pub(crate) perturbed: bool,
}

/// Buffers of one layer. n: rows; m: rows whose output is wanted (n, or s in the last layer); d, f: widths.
#[derive(Debug, Default)]
struct LayerTape {
    normed: Vec<f32>,         // [n, d]
    inverse: Vec<f32>,        // [n]
    normed_wanted: Vec<f32>,  // [s, d], last layer only
    q: Vec<f32>,              // [m, heads · head_dim]
    kv: Vec<f32>,             // [n, 2 · kv_heads · head_dim]
    probabilities: Vec<f32>,  // per sequence [heads, queries, padded length]
    attended: Vec<f32>,       // [m, heads · head_dim]
    middle: Vec<f32>,         // [m, d]
    middle_inverse: Vec<f32>, // [m]
    middle_normed: Vec<f32>,  // [m, d]
    gate_up: Vec<f32>,        // [m, 2 · f]
    activated: Vec<f32>,      // [m, f]
}

/// Everything a backward pass needs.
#[derive(Debug, Default)]
pub(crate) struct Tape {
    rows: Rows,
    /// Residual stream before each layer and after the last: [n, d] …, [s, d].
    residual: Vec<Vec<f32>>,
    layers: Vec<LayerTape>,
    normed: Vec<f32>,  // [s, d]
    inverse: Vec<f32>, // [s]
    /// [s, vocabulary]
    pub(crate) logits: Vec<f32>,
    /// The residual stream at the wanted rows, [s, d] for each layer asked for.
    pub(crate) hidden: Vec<Vec<f32>>,
    hidden_layers: Vec<usize>,
    scratch: Scratch,
    back: Back,
}

/// Buffers of the backward pass.
#[derive(Debug, Default)]
struct Back {
    dx: Vec<f32>,       // [m, d]
    dx_below: Vec<f32>, // [n, d]
    dnormed: Vec<f32>,  // [n, d]
    wide: Vec<f32>,     // [m, f]
    dattended: Vec<f32>,
    dq: Vec<f32>,
    dkv: Vec<f32>,
    scratch: Scratch,
}

/// Gives `v` exactly `n` values, of any content.
fn sized(v: &mut Vec<f32>, n: usize) -> &mut [f32] {
    v.resize(n, 0.0);
    v
}

impl Tape {
    /// Number of packed rows of the last forward pass.
    pub(crate) fn tokens(&self) -> usize {
        self.rows.ids.len()
    }
}

impl Net<'_> {
    fn heads(&self) -> Heads {
        let c = self.config;
        Heads {
            heads: c.heads,
            kv_heads: c.kv_heads,
            head_dim: c.head_dim,
        }
    }

    /// Logits and hidden states of `rows`, left in `tape`. With `keep` the tape can be run backwards; without it, layers share buffers.
    pub(crate) fn forward(&self, rows: Rows, hidden_layers: &[usize], keep: bool, tape: &mut Tape) {
        let s = rows.wanted.len();
        let never = AtomicBool::new(false);
        if self.layers(rows, hidden_layers, keep, tape, &never).is_ok() {
            let logits = sized(&mut tape.logits, s * self.config.vocabulary);
            self.logits(logits, &tape.normed, s);
        }
    }

    /// Hands `each` the logits of `rows`, at most `most` of the wanted rows at a time, with the index of the first of them. Looks at `stop` between
    /// layers and portions.
    pub(crate) fn forward_in_portions(
        &self,
        rows: Rows,
        most: usize,
        stop: &AtomicBool,
        each: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let (s, d) = (rows.wanted.len(), self.config.embedding_length);
        let mut tape = Tape::default();
        self.layers(rows, &[], false, &mut tape, stop)?;
        // Multiply-adds between two looks at the flag: less than a second's.
        const WORK: usize = 1 << 33;
        let most = most.min(WORK / (self.config.vocabulary * d)).max(1);
        for first in (0..s).step_by(most) {
            stop::check(stop)?;
            let n = most.min(s - first);
            let logits = sized(&mut tape.logits, n * self.config.vocabulary);
            self.logits(logits, &tape.normed[first * d..][..n * d], n);
            each(first, logits)?;
        }
        Ok(())
    }

    /// `logits` [s, vocabulary] of normalised rows [s, d].
    fn logits(&self, logits: &mut [f32], normed: &[f32], s: usize) {
        let head = &self.weights[self.layout.head.clone()];
        let shape = [s, self.config.vocabulary, self.config.embedding_length];
        self.products.linear(logits, normed, head, shape, false);
    }

    /// Everything before the output matrix: leaves its input in `tape.normed`.
    fn layers(
        &self,
        rows: Rows,
        hidden_layers: &[usize],
        keep: bool,
        tape: &mut Tape,
        stop: &AtomicBool,
    ) -> Result<(), Stopped> {
        let Config {
            embedding_length: d,
            layers,
            norm_eps,
            ..
        } = *self.config;
        let (n, s) = (rows.ids.len(), rows.wanted.len());
        let Tape {
            residual,
            layers: layer_tapes,
            hidden,
            scratch,
            ..
        } = tape;
        let kept = if keep { layers } else { 1 };
        layer_tapes.resize_with(kept, LayerTape::default);
        residual.resize_with(if keep { layers + 1 } else { 2 }, Vec::new);
        hidden.resize_with(hidden_layers.len(), Vec::new);

        gather(
            sized(&mut residual[0], n * d),
            &self.weights[self.layout.embedding.clone()],
            &rows.ids,
            d,
        );
        for l in 0..layers {
            stop::check(stop)?;
            let (from, to) = if keep {
                (l, l + 1)
            } else {
                (l % 2, (l + 1) % 2)
            };
            let [x, out] = residual
                .get_disjoint_mut([from, to])
                .expect("two different buffers");
            if self.perturbed {
                shake(x);
            }
            for (h, _) in hidden_layers.iter().enumerate().filter(|(_, at)| **at == l) {
                gather(sized(&mut hidden[h], s * d), x, &rows.wanted, d);
            }
            self.layer(
                l,
                &rows,
                x,
                out,
                &mut layer_tapes[if keep { l } else { 0 }],
                scratch,
            );
        }
        let x = &residual[if keep { layers } else { layers % 2 }];
        for (h, _) in hidden_layers
            .iter()
            .enumerate()
            .filter(|(_, at)| **at == layers)
        {
            sized(&mut hidden[h], s * d).copy_from_slice(x);
        }
        let normed = sized(&mut tape.normed, s * d);
        rms_norm(
            normed,
            sized(&mut tape.inverse, s),
            x,
            &self.weights[self.layout.norm.clone()],
            norm_eps,
        );
        if self.rounding.head {
            fakequant::round_activations(normed);
        }
        tape.hidden_layers.clear();
        tape.hidden_layers.extend_from_slice(hidden_layers);
        tape.rows = rows;
        Ok(())
    }

    /// One layer: `x` [n, d] to `out` [m, d].
    fn layer(
        &self,
        l: usize,
        rows: &Rows,
        x: &[f32],
        out: &mut Vec<f32>,
        t: &mut LayerTape,
        scratch: &mut Scratch,
    ) {
        let c = self.config;
        let (d, f, eps) = (c.embedding_length, c.feed_forward_length, c.norm_eps);
        let (qw, kvw) = (c.heads * c.head_dim, 2 * c.kv_heads * c.head_dim);
        let at = |range: &std::ops::Range<usize>| &self.weights[range.clone()];
        let w: &LayerRanges = &self.layout.layers[l];
        let n = rows.ids.len();
        let last = l + 1 == c.layers;
        let (m, query_at, spans, probabilities) = queries(rows, last);

        let normed = sized(&mut t.normed, n * d);
        rms_norm(
            normed,
            sized(&mut t.inverse, n),
            x,
            at(&w.attention_norm),
            eps,
        );
        if self.rounding.linear {
            fakequant::round_activations(normed);
        }
        let kv = sized(&mut t.kv, n * kvw);
        self.products
            .linear(kv, normed, at(&w.kv), [n, kvw, d], false);
        self.rope.rotate(kv, kvw, c.kv_heads, &rows.at, false);
        if self.rounding.cache {
            fakequant::round_f16(kv);
        }
        let normed = if last {
            gather(sized(&mut t.normed_wanted, m * d), normed, &rows.wanted, d);
            &t.normed_wanted
        } else {
            &*normed
        };
        let q = sized(&mut t.q, m * qw);
        self.products.linear(q, normed, at(&w.q), [m, qw, d], false);
        self.rope.rotate(q, qw, c.heads, query_at, false);

        let attended = sized(&mut t.attended, m * qw);
        attention(
            attended,
            sized(&mut t.probabilities, probabilities),
            q,
            kv,
            query_at,
            Layer {
                heads: self.heads(),
                spans,
            },
            scratch,
        );
        if self.rounding.linear {
            fakequant::round_activations(attended);
        }
        let middle = sized(&mut t.middle, m * d);
        if last {
            gather(middle, x, &rows.wanted, d);
        } else {
            middle.copy_from_slice(x);
        }
        self.products
            .linear(middle, attended, at(&w.o), [m, d, qw], true);

        let normed = sized(&mut t.middle_normed, m * d);
        rms_norm(
            normed,
            sized(&mut t.middle_inverse, m),
            middle,
            at(&w.feed_forward_norm),
            eps,
        );
        if self.rounding.linear {
            fakequant::round_activations(normed);
        }
        let gate_up = sized(&mut t.gate_up, m * 2 * f);
        // Gate and up matrices lie one after the other, so their rows make one product.
        self.products
            .linear(gate_up, normed, at(&w.gate_up), [m, 2 * f, d], false);
        let activated = sized(&mut t.activated, m * f);
        swiglu(activated, gate_up, f);
        if self.rounding.linear {
            fakequant::round_activations(activated);
        }
        let out = sized(out, m * d);
        out.copy_from_slice(middle);
        self.products
            .linear(out, activated, at(&w.down), [m, d, f], true);
    }

    /// Adds the gradient of every weight to `gradient`, given those of the logits [s, vocabulary] and of the hidden states asked for
    /// ([s, d] each; empty ones count as zero). The tape must come from a forward pass of this net with `keep`; `gate_up` buffers are used up.
    pub(crate) fn backward(
        &self,
        tape: &mut Tape,
        dlogits: &[f32],
        dhidden: &[Vec<f32>],
        gradient: &mut [f32],
    ) {
        let Config {
            embedding_length: d,
            vocabulary,
            layers,
            ..
        } = *self.config;
        let Tape {
            rows,
            residual,
            layers: layer_tapes,
            normed,
            inverse,
            hidden_layers,
            back,
            ..
        } = tape;
        let s = rows.wanted.len();
        if s == 0 {
            return;
        }
        let head = self.layout.head.clone();
        self.backward_products.linear_weight_gradient(
            &mut gradient[head.clone()],
            dlogits,
            normed,
            [s, vocabulary, d],
        );
        let dnormed = sized(&mut back.dnormed, s * d);
        self.backward_products.linear_input_gradient(
            dnormed,
            dlogits,
            &self.weights[head],
            [s, vocabulary, d],
            false,
        );
        sized(&mut back.dx, s * d).fill(0.0);
        let norm = self.layout.norm.clone();
        rms_norm_backward(
            &mut back.dx,
            &mut gradient[norm.clone()],
            dnormed,
            &residual[layers],
            inverse,
            &self.weights[norm],
        );
        let asked = |layer: usize| {
            hidden_layers
                .iter()
                .zip(dhidden)
                .filter(move |(at, g)| **at == layer && !g.is_empty())
        };
        for (_, g) in asked(layers) {
            add(&mut back.dx, g);
        }
        for l in (0..layers).rev() {
            self.layer_backward(l, rows, &residual[l], &mut layer_tapes[l], back, gradient);
            for (_, g) in asked(l) {
                scatter_add(&mut back.dx, g, &rows.wanted, d);
            }
        }
        scatter_add(
            &mut gradient[self.layout.embedding.clone()],
            &back.dx,
            &rows.ids,
            d,
        );
    }

    /// Takes `back.dx` from [m, d] at the layer's output to [n, d] at its input.
    fn layer_backward(
        &self,
        l: usize,
        rows: &Rows,
        x: &[f32],
        t: &mut LayerTape,
        back: &mut Back,
        gradient: &mut [f32],
    ) {
        let c = self.config;
        let (d, f) = (c.embedding_length, c.feed_forward_length);
        let (qw, kvw) = (c.heads * c.head_dim, 2 * c.kv_heads * c.head_dim);
        let at = |range: &std::ops::Range<usize>| &self.weights[range.clone()];
        let w: &LayerRanges = &self.layout.layers[l];
        let n = rows.ids.len();
        let last = l + 1 == c.layers;
        let (m, query_at, spans, _) = queries(rows, last);

        // out = middle + down(swiglu(gate_up(norm(middle))))
        self.backward_products.linear_weight_gradient(
            &mut gradient[w.down.clone()],
            &back.dx,
            &t.activated,
            [m, d, f],
        );
        let dactivated = sized(&mut back.wide, m * f);
        self.backward_products.linear_input_gradient(
            dactivated,
            &back.dx,
            at(&w.down),
            [m, d, f],
            false,
        );
        swiglu_backward(&mut t.gate_up, dactivated, f);
        self.backward_products.linear_weight_gradient(
            &mut gradient[w.gate_up.clone()],
            &t.gate_up,
            &t.middle_normed,
            [m, 2 * f, d],
        );
        let dnormed = sized(&mut back.dnormed, m * d);
        self.backward_products.linear_input_gradient(
            dnormed,
            &t.gate_up,
            at(&w.gate_up),
            [m, 2 * f, d],
            false,
        );
        let norm = w.feed_forward_norm.clone();
        rms_norm_backward(
            &mut back.dx,
            &mut gradient[norm.clone()],
            dnormed,
            &t.middle,
            &t.middle_inverse,
            at(&norm),
        );

        // middle = x + o(attention(q, k, v))
        self.backward_products.linear_weight_gradient(
            &mut gradient[w.o.clone()],
            &back.dx,
            &t.attended,
            [m, d, qw],
        );
        let dattended = sized(&mut back.dattended, m * qw);
        self.backward_products.linear_input_gradient(
            dattended,
            &back.dx,
            at(&w.o),
            [m, d, qw],
            false,
        );
        let (dq, dkv) = (sized(&mut back.dq, m * qw), sized(&mut back.dkv, n * kvw));
        attention_backward(
            (&mut *dq, &mut *dkv),
            dattended,
            &t.probabilities,
            (&t.q, &t.kv),
            query_at,
            Layer {
                heads: self.heads(),
                spans,
            },
            &mut back.scratch,
        );
        self.rope.rotate(dq, qw, c.heads, query_at, true);
        self.rope.rotate(dkv, kvw, c.kv_heads, &rows.at, true);

        // q, k, v = matrices · norm(x)
        self.backward_products.linear_weight_gradient(
            &mut gradient[w.kv.clone()],
            dkv,
            &t.normed,
            [n, kvw, d],
        );
        let dnormed = sized(&mut back.dnormed, n * d);
        self.backward_products
            .linear_input_gradient(dnormed, dkv, at(&w.kv), [n, kvw, d], false);
        if last {
            self.backward_products.linear_weight_gradient(
                &mut gradient[w.q.clone()],
                dq,
                &t.normed_wanted,
                [m, qw, d],
            );
            let dwanted = sized(&mut back.dattended, m * d);
            self.backward_products
                .linear_input_gradient(dwanted, dq, at(&w.q), [m, qw, d], false);
            scatter_add(dnormed, dwanted, &rows.wanted, d);
            let below = sized(&mut back.dx_below, n * d);
            below.fill(0.0);
            scatter_add(below, &back.dx, &rows.wanted, d);
            std::mem::swap(&mut back.dx, &mut back.dx_below);
        } else {
            self.backward_products.linear_weight_gradient(
                &mut gradient[w.q.clone()],
                dq,
                &t.normed,
                [n, qw, d],
            );
            self.backward_products
                .linear_input_gradient(dnormed, dq, at(&w.q), [n, qw, d], true);
        }
        let norm = w.attention_norm.clone();
        rms_norm_backward(
            &mut back.dx,
            &mut gradient[norm.clone()],
            &back.dnormed,
            x,
            &t.inverse,
            at(&norm),
        );
    }
}

/// How many query rows a layer has, their positions, sequences, and the room for their probabilities.
fn queries(rows: &Rows, last: bool) -> (usize, &[u32], &[Span], usize) {
    if last {
        (
            rows.wanted.len(),
            &rows.wanted_at,
            &rows.wanted_spans,
            rows.wanted_probabilities,
        )
    } else {
        (rows.ids.len(), &rows.at, &rows.spans, rows.probabilities)
    }
}

/// Makes each value greater or smaller by 2⁻²¹ of itself, by a pattern without meaning.
fn shake(values: &mut [f32]) {
    const SHARE: f32 = 1.0 / (1 << 21) as f32;
    for (index, value) in values.iter_mut().enumerate() {
        let up = (index as u32).wrapping_mul(0x9e37_79b9) >> 31 == 0;
        *value *= if up { 1.0 + SHARE } else { 1.0 - SHARE };
    }
}
