//! A short convolution over the positions.

use super::Cpu;
use super::parallel::{each, rows_per_job};
use crate::decoder::{Place, View};
use crate::model::weights::ShortConvWeights;

/// Keeps b · x, which the convolution reads, behind what the state has of the positions before.
pub(super) fn write(cpu: &mut Cpu, weights: &ShortConvWeights, start: usize, gates: View) {
    let (o, s, state) = cpu.split();
    let (d, state) = (o.config.embedding_length, &mut state.conv);
    let tail = state.tail();
    let conv = &mut s.conv[..(tail + gates.rows) * d];
    let (before, new) = conv.split_at_mut(tail * d);
    state.read_tail(weights.number, start, before);
    let gates = s.places.get(gates).chunks_exact(3 * d);
    for (new, bcx) in new.chunks_exact_mut(d).zip(gates) {
        let (b, x) = (&bcx[..d], &bcx[2 * d..]);
        for ((new, b), x) in new.iter_mut().zip(b).zip(x) {
            *new = b * x;
        }
    }
    state.stage(weights.number, conv);
}

/// [`Place::Mixed`] = c · conv(b · x) of these rows.
pub(super) fn convolve(cpu: &mut Cpu, weights: &ShortConvWeights, gates: View) {
    let (o, s, state) = cpu.split();
    let (d, kernel) = (o.config.embedding_length, weights.kernel.cols);
    let taps = &mut s.taps[..kernel * d]; // [kernel, embedding]
    let row = &mut s.vector[..kernel];
    for channel in 0..d {
        o.unpack_row(&weights.kernel, channel, row);
        for (tap, value) in taps.chunks_exact_mut(d).zip(&*row) {
            tap[channel] = *value;
        }
    }
    let first = state.conv.tail() + 1 - kernel;
    let inputs = &s.conv[(first + gates.start) * d..]; // [tokens + kernel - 1, embedding]
    let tokens = gates.rows;
    let (gates, [mixed]) = s.places.split(gates, [Place::Mixed]);
    let per = rows_per_job(o.pool, tokens, (kernel + 2) * d * size_of::<f32>());
    let mixed = mixed[..tokens * d].chunks_mut(per * d);
    let jobs = mixed.zip(gates.chunks(per * 3 * d));
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
}
