//! One layer's forward pass.

use super::{LayerTape, Net, sized};
use crate::student::fakequant;
use crate::student::layout::LayerRanges;
use crate::student::ops::attention::{Scratch, attention};
use crate::student::ops::elementwise::gather;
use crate::student::rows::Rows;

impl Net<'_> {
    /// One layer: `x` [n, d] to `out` [m, d].
    pub(super) fn layer(
        &self,
        l: usize,
        rows: &Rows,
        x: &[f32],
        out: &mut Vec<f32>,
        t: &mut LayerTape,
        (scratch, branch): (&mut Scratch, &mut Vec<f32>),
    ) {
        let c = self.config;
        let (d, f) = (c.embedding_length, c.feed_forward_length);
        let (qw, kw) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let kvw = 2 * kw;
        let w: &LayerRanges = &self.layout.layers[l];
        let rope = self.rope_of(l);
        let n = rows.ids.len();
        let last = l + 1 == c.layers;
        let (m, query_at, spans, probabilities) = rows.queries(last);

        let normed = sized(&mut t.normed, n * d);
        self.normalise(normed, &mut t.inverse, x, w.attention_norm.as_ref());
        if self.rounding.linear {
            fakequant::round_activations(normed);
        }
        let kv = sized(&mut t.kv, n * kvw);
        self.project(kv, normed, &w.kv, [n, kvw, d]);
        if let Some([_, of_keys]) = &w.head_norms {
            self.normalise_heads(kv, &mut t.keys, of_keys, [kw, kvw], branch);
        }
        if let Some(rope) = rope {
            rope.rotate(kv, kvw, c.kv_heads, &rows.at, false);
        }
        if self.rounding.cache {
            fakequant::round_f16(kv);
        }
        let normed = if last {
            gather(sized(&mut t.normed_wanted, m * d), normed, &rows.wanted, d);
            &t.normed_wanted
        } else {
            &t.normed
        };
        let q = sized(&mut t.q, m * qw);
        self.project(q, normed, &w.q, [m, qw, d]);
        if let Some([of_queries, _]) = &w.head_norms {
            self.normalise_heads(q, &mut t.queries, of_queries, [qw, qw], branch);
        }
        if let Some(rope) = rope {
            rope.rotate(q, qw, c.heads, query_at, false);
        }

        let attended = sized(&mut t.attended, m * qw);
        let capped = c.options.attention_cap.map_or(0, |_| probabilities);
        attention(
            attended,
            (
                sized(&mut t.probabilities, probabilities),
                sized(&mut t.capped, capped),
            ),
            q,
            kv,
            query_at,
            self.attention_of(l, spans),
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
        let output = (&w.o, w.attention_post_norm.as_ref());
        self.add_branch(middle, attended, output, &mut t.mixed, branch, [m, d, qw]);

        // Parallel branches read the same.
        let normed = if c.options.parallel {
            normed
        } else {
            let normed = sized(&mut t.middle_normed, m * d);
            let norm = w.feed_forward_norm.as_ref();
            self.normalise(normed, &mut t.middle_inverse, middle, norm);
            if self.rounding.linear {
                fakequant::round_activations(normed);
            }
            &t.middle_normed
        };
        let gate_up = sized(&mut t.gate_up, m * 2 * f);
        // Gate and up matrices lie one after the other, so their rows make one product.
        self.project(gate_up, normed, &w.gate_up, [m, 2 * f, d]);
        let activated = sized(&mut t.activated, m * f);
        self.activate(activated, gate_up);
        if self.rounding.linear {
            fakequant::round_activations(activated);
        }
        let out = sized(out, m * d);
        out.copy_from_slice(middle);
        let down = (&w.down, w.feed_forward_post_norm.as_ref());
        self.add_branch(out, activated, down, &mut t.fed, branch, [m, d, f]);
    }
}
