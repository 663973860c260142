//! The decoder's forward and backward pass on slices.
//!
//! [`Net`] borrows weights; [`Tape`] owns every buffer and is reused from step to step, so that a step allocates nothing once shapes have
//! been seen. Gradients are added into a flat buffer laid out like the weights. `forward` and `backward` are one layer, `parts` what they have in common.

mod backward;
mod forward;
mod parts;

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use anyhow::Result;

use dram_core::model::Rotation;

use super::ops::attention::{Heads, Layer, Scratch, Span};
use super::ops::elementwise::{
    add, gather, scale, scatter_add, soft_cap_all, soft_cap_all_backward,
};
use super::ops::gemm::Products;
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
    /// Of layers with a rotation of their own.
    pub(crate) local_rope: Option<&'a Table>,
    pub(crate) weights: &'a [f32],
    pub(crate) rounding: Rounding,
    /// What the forward pass multiplies with.
    pub(crate) products: Products,
    /// What the backward pass multiplies with.
    pub(crate) backward_products: Products,
    /// Whether values change in their last bits between the layers; see [`super::Prepared::perturbed`].
    pub(crate) perturbed: bool,
}

/// Buffers of one layer. n: rows; m: rows whose output is wanted (n, or s in the last layer); d, f: widths. What a family does not do stays empty.
#[derive(Debug, Default)]
struct LayerTape {
    normed: Vec<f32>,         // [n, d]
    inverse: Vec<f32>,        // [n]
    normed_wanted: Vec<f32>,  // [s, d], last layer only
    q: Vec<f32>,              // [m, heads · head_dim]
    kv: Vec<f32>,             // [n, 2 · kv_heads · head_dim]
    queries: HeadNormTape,    // [m, heads · head_dim]
    keys: HeadNormTape,       // [n, kv_heads · head_dim]
    probabilities: Vec<f32>,  // per sequence [heads, queries, padded length]
    capped: Vec<f32>,         // as long: bounded scores
    attended: Vec<f32>,       // [m, heads · head_dim]
    mixed: BranchTape,        // [m, d]
    middle: Vec<f32>,         // [m, d]
    middle_inverse: Vec<f32>, // [m]
    middle_normed: Vec<f32>,  // [m, d]
    gate_up: Vec<f32>,        // [m, 2 · f]
    activated: Vec<f32>,      // [m, f]
    fed: BranchTape,          // [m, d]
}

/// Queries or keys before their norm.
#[derive(Debug, Default)]
struct HeadNormTape {
    before: Vec<f32>,
    inverse: Vec<f32>, // of each norm
}

/// What a branch adds to the stream, before its norm.
#[derive(Debug, Default)]
struct BranchTape {
    added: Vec<f32>,   // [m, d]
    inverse: Vec<f32>, // [m]
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
    branch: Vec<f32>, // [m, d]
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
    dlogits: Vec<f32>,     // [s, vocabulary], where logits are scaled or bounded
    dbranch: Vec<f32>,     // [m, d], where branches are normalised or scaled
    dscaled: Vec<f32>,     // [m, d]
    dfed: Vec<f32>,        // [m, d], where the branches are parallel
    dheads: [Vec<f32>; 2], // queries or keys after their norm, and before it
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

impl<'a> Net<'a> {
    /// What layer `l`'s attention does with these sequences.
    fn attention_of<'s>(&self, l: usize, spans: &'s [Span]) -> Layer<'s> {
        let c = self.config;
        Layer {
            heads: Heads {
                heads: c.heads,
                kv_heads: c.kv_heads,
                head_dim: c.head_dim,
            },
            spans,
            scale: c.attention_scale(),
            window: c.scope(l).window,
            cap: c.options.attention_cap,
        }
    }

    /// How layer `l` rotates.
    fn rope_of(&self, l: usize) -> Option<&'a Table> {
        match self.config.scope(l).rotation {
            Rotation::None => None,
            Rotation::Global => Some(self.rope),
            Rotation::Local => Some(self.local_rope.unwrap_or(self.rope)),
        }
    }

    fn at(&self, range: &Range<usize>) -> &'a [f32] {
        &self.weights[range.clone()]
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
        let options = &self.config.options;
        if options.logit_scale != 1.0 {
            scale(logits, options.logit_scale);
        }
        if let Some(cap) = options.logit_cap {
            soft_cap_all(logits, cap);
        }
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
        let (d, layers) = (self.config.embedding_length, self.config.layers);
        let (n, s) = (rows.ids.len(), rows.wanted.len());
        let Tape {
            residual,
            layers: layer_tapes,
            hidden,
            scratch,
            branch,
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
        if self.config.options.embedding_scale != 1.0 {
            scale(&mut residual[0], self.config.options.embedding_scale);
        }
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
                (scratch, branch),
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
        self.normalise(normed, &mut tape.inverse, x, Some(&self.layout.norm));
        if self.rounding.head {
            fakequant::round_activations(normed);
        }
        tape.hidden_layers.clear();
        tape.hidden_layers.extend_from_slice(hidden_layers);
        tape.rows = rows;
        Ok(())
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
        let c = self.config;
        let (d, vocabulary, layers) = (c.embedding_length, c.vocabulary, c.layers);
        let Tape {
            rows,
            residual,
            layers: layer_tapes,
            normed,
            inverse,
            hidden_layers,
            logits,
            back,
            ..
        } = tape;
        let s = rows.wanted.len();
        if s == 0 {
            return;
        }
        let mut own = std::mem::take(&mut back.dlogits);
        let dlogits = if c.options.logit_scale != 1.0 || c.options.logit_cap.is_some() {
            let own = sized(&mut own, s * vocabulary);
            own.copy_from_slice(dlogits);
            if let Some(cap) = c.options.logit_cap {
                soft_cap_all_backward(own, logits, cap);
            }
            scale(own, c.options.logit_scale);
            own
        } else {
            dlogits
        };
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
        let norm = Some(&self.layout.norm);
        let (dx, x) = (&mut back.dx, &residual[layers]);
        self.normalise_backward(dx, gradient, dnormed, (x, inverse), norm);
        back.dlogits = own;
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
        if c.options.embedding_scale != 1.0 {
            scale(&mut back.dx, c.options.embedding_scale);
        }
        scatter_add(
            &mut gradient[self.layout.embedding.clone()],
            &back.dx,
            &rows.ids,
            d,
        );
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
