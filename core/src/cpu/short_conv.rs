//! Short convolutions over the positions, each channel by itself.

use super::Cpu;
use super::operations::Operations;
use super::parallel::{each, rows_per_job};
use super::scratch::Scratch;
use crate::decoder::{Place, View};
use crate::model::weights::{Matrix, ShortConvWeights};

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
    taps(&o, s, &weights.kernel);
    let first = state.conv.tail() + 1 - kernel;
    let (inputs, taps) = (&s.conv[(first + gates.start) * d..], &s.taps[..kernel * d]);
    let tokens = gates.rows;
    let (gates, [mixed]) = s.places.split(gates, [Place::Mixed]);
    let per = rows_per_job(o.pool, tokens, (kernel + 2) * d * size_of::<f32>());
    let mixed = mixed[..tokens * d].chunks_mut(per * d);
    let jobs = mixed.zip(gates.chunks(per * 3 * d));
    each(o.pool, jobs, |lane, (mixed, gates)| {
        let rows = mixed.chunks_exact_mut(d).zip(gates.chunks_exact(3 * d));
        for (token, (out, gates)) in (lane * per..).zip(rows) {
            convolve_one(taps, &inputs[token * d..], out);
            for (out, c) in out.iter_mut().zip(&gates[d..2 * d]) {
                *out *= c;
            }
        }
    });
}

/// The scratch's taps `[kernel, channels]` = the convolution's kernels `[channels, kernel]`.
pub(super) fn taps(o: &Operations<'_>, s: &mut Scratch, kernels: &Matrix) {
    let (channels, kernel) = (kernels.rows, kernels.cols);
    let taps = &mut s.taps[..kernel * channels];
    let row = &mut s.vector[..kernel];
    for channel in 0..channels {
        o.unpack_row(kernels, channel, row);
        for (tap, value) in taps.chunks_exact_mut(channels).zip(&*row) {
            tap[channel] = *value;
        }
    }
}

/// `out` `[channels]` = the sum of the inputs `[kernel, channels]` under the taps `[kernel, channels]`.
pub(super) fn convolve_one(taps: &[f32], inputs: &[f32], out: &mut [f32]) {
    let channels = out.len();
    out.fill(0.0);
    let seen = inputs.chunks_exact(channels);
    for (tap, input) in taps.chunks_exact(channels).zip(seen) {
        for ((out, tap), input) in out.iter_mut().zip(tap).zip(input) {
            *out += tap * input;
        }
    }
}
