//! The gated short convolution of LFM2 (arXiv:2511.23404): `out(c · conv(b · x))`, channel by channel.

use super::Decoder;
use super::parallel::{each, rows_per_job};
use crate::model::weights::{Layer, ShortConvWeights};
use std::ops::Range;

impl Decoder<'_> {
    /// Normalises x, projects it to b, c and x, and stages b · x, which the convolution reads.
    pub(super) fn write_conv(
        &mut self,
        layer: &Layer,
        weights: &ShortConvWeights,
        start: usize,
        tokens: usize,
    ) {
        let (o, s, state) = (self.operations, &mut *self.scratch, &mut self.state.conv);
        let (d, tail) = (self.config.embedding_length, state.tail());
        let input = &weights.input;
        let x = o.normalise(
            layer.mixer_norm.as_ref(),
            &s.x[..tokens * d],
            &mut s.branch,
            &mut s.int8,
            &mut s.vector,
            &[&input.matrix],
        );
        o.project(x, [(input, &mut s.gates)], &mut s.vector, &mut s.hooks);
        let (before, new) = s.conv[..(tail + tokens) * d].split_at_mut(tail * d);
        state.read_tail(weights.number, start, before);
        for (new, bcx) in new.chunks_exact_mut(d).zip(s.gates.chunks_exact(3 * d)) {
            let (b, x) = (&bcx[..d], &bcx[2 * d..]);
            for ((new, b), x) in new.iter_mut().zip(b).zip(x) {
                *new = b * x;
            }
        }
        state.stage(weights.number, &s.conv[..(tail + tokens) * d]);
    }

    /// x += out(c · conv(b · x)) of these tokens. Their vectors move to the front of x.
    pub(super) fn convolve(
        &mut self,
        layer: &Layer,
        weights: &ShortConvWeights,
        tokens: Range<usize>,
    ) {
        let (o, s) = (self.operations, &mut *self.scratch);
        let (d, kernel) = (self.config.embedding_length, weights.kernel.cols);
        let taps = &mut s.taps[..kernel * d]; // [kernel, embedding]
        let row = &mut s.vector[..kernel];
        for channel in 0..d {
            o.unpack_row(&weights.kernel, channel, row);
            for (tap, value) in taps.chunks_exact_mut(d).zip(&*row) {
                tap[channel] = *value;
            }
        }
        let first = self.state.conv.tail() + 1 - kernel;
        let inputs = &s.conv[(first + tokens.start) * d..]; // [tokens + kernel - 1, embedding]
        let gates = &s.gates[tokens.start * 3 * d..tokens.end * 3 * d];
        let mixed = &mut s.mixed[..tokens.len() * d];
        let per = rows_per_job(o.pool, tokens.len(), (kernel + 2) * d * size_of::<f32>());
        let jobs = mixed.chunks_mut(per * d).zip(gates.chunks(per * 3 * d));
        each(o.pool, jobs, |lane, (mixed, gates)| {
            let rows = mixed.chunks_exact_mut(d).zip(gates.chunks_exact(3 * d));
            for (token, (out, gates)) in (lane * per..).zip(rows) {
                let seen = inputs[token * d..].chunks_exact(d);
                out.fill(0.0);
                for (tap, input) in taps.chunks_exact(d).zip(seen) {
                    for ((out, tap), input) in out.iter_mut().zip(tap).zip(input) {
                        *out += tap * input;
                    }
                }
                for (out, c) in out.iter_mut().zip(&gates[d..2 * d]) {
                    *out *= c;
                }
            }
        });
        self.add_mixed(layer, &weights.output, tokens);
    }
}
