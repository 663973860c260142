//! One layer's backward pass.

use super::parts::Branches;
use super::{Back, LayerTape, Net, sized};
use crate::student::layout::LayerRanges;
use crate::student::ops::attention::attention_backward;
use crate::student::ops::elementwise::{add, scatter_add};
use crate::student::rows::Rows;

impl Net<'_> {
    /// Takes `back.dx` from [m, d] at the layer's output to [n, d] at its input.
    pub(super) fn layer_backward(
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
        let (qw, kw) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let kvw = 2 * kw;
        let w: &LayerRanges = &self.layout.layers[l];
        let rope = self.rope_of(l);
        let products = self.backward_products;
        let n = rows.ids.len();
        let last = l + 1 == c.layers;
        let (m, query_at, spans, _) = rows.queries(last);
        let normed = if last { &t.normed_wanted } else { &t.normed };

        // out = middle + down(activation of gate_up(norm(middle)))
        let dactivated = sized(&mut back.wide, m * f);
        let down = (&w.down, w.feed_forward_post_norm.as_ref());
        let mut branch = Branches {
            dstream: &back.dx,
            dbranch: &mut back.dbranch,
            dscaled: &mut back.dscaled,
        };
        let of = (&mut *dactivated, &*t.activated);
        self.add_branch_backward(gradient, of, down, &t.fed, &mut branch, [m, d, f]);
        self.activate_backward(&mut t.gate_up, dactivated);
        let read = if c.options.parallel {
            normed
        } else {
            &t.middle_normed
        };
        self.project_backward(gradient, &t.gate_up, read, &w.gate_up, [m, 2 * f, d]);
        let dread = if c.options.parallel {
            &mut back.dfed
        } else {
            &mut back.dnormed
        };
        let dread = sized(dread, m * d);
        let weight = self.at(&w.gate_up.weight);
        products.linear_input_gradient(dread, &t.gate_up, weight, [m, 2 * f, d], false);
        if !c.options.parallel {
            let (dx, of) = (&mut back.dx, (&*t.middle, &*t.middle_inverse));
            self.normalise_backward(dx, gradient, dread, of, w.feed_forward_norm.as_ref());
        }

        // middle = x + o(attention(q, k, v))
        let dattended = sized(&mut back.dattended, m * qw);
        let output = (&w.o, w.attention_post_norm.as_ref());
        let mut branch = Branches {
            dstream: &back.dx,
            dbranch: &mut back.dbranch,
            dscaled: &mut back.dscaled,
        };
        let of = (&mut *dattended, &*t.attended);
        self.add_branch_backward(gradient, of, output, &t.mixed, &mut branch, [m, d, qw]);
        let (dq, dkv) = (sized(&mut back.dq, m * qw), sized(&mut back.dkv, n * kvw));
        attention_backward(
            (&mut *dq, &mut *dkv),
            dattended,
            (&t.probabilities, &t.capped),
            (&t.q, &t.kv),
            query_at,
            self.attention_of(l, spans),
            &mut back.scratch,
        );
        if let Some(rope) = rope {
            rope.rotate(dq, qw, c.heads, query_at, true);
            rope.rotate(dkv, kvw, c.kv_heads, &rows.at, true);
        }
        if let Some([of_queries, of_keys]) = &w.head_norms {
            let (room, shape) = (&mut back.dheads, [qw, qw]);
            self.normalise_heads_backward(dq, gradient, &t.queries, of_queries, shape, room);
            let shape = [kw, kvw];
            self.normalise_heads_backward(dkv, gradient, &t.keys, of_keys, shape, room);
        }

        // q, k, v = matrices · norm(x)
        self.project_backward(gradient, dkv, &t.normed, &w.kv, [n, kvw, d]);
        let dnormed = sized(&mut back.dnormed, n * d);
        let weight = self.at(&w.kv.weight);
        products.linear_input_gradient(dnormed, dkv, weight, [n, kvw, d], false);
        self.project_backward(gradient, dq, normed, &w.q, [m, qw, d]);
        let weight = self.at(&w.q.weight);
        if last {
            let dwanted = sized(&mut back.dattended, m * d);
            products.linear_input_gradient(dwanted, dq, weight, [m, qw, d], false);
            if c.options.parallel {
                add(dwanted, &back.dfed);
            }
            scatter_add(dnormed, dwanted, &rows.wanted, d);
            let below = sized(&mut back.dx_below, n * d);
            below.fill(0.0);
            scatter_add(below, &back.dx, &rows.wanted, d);
            std::mem::swap(&mut back.dx, &mut back.dx_below);
        } else {
            products.linear_input_gradient(dnormed, dq, weight, [n, qw, d], true);
            if c.options.parallel {
                add(dnormed, &back.dfed);
            }
        }
        let (dx, of) = (&mut back.dx, (x, &*t.inverse));
        self.normalise_backward(dx, gradient, &back.dnormed, of, w.attention_norm.as_ref());
    }
}
