//! The gated delta net: a convolution, then a matrix for each head.

use super::Cpu;
use super::parallel::{each, rows_per_job};
use super::short_conv::{convolve_one, taps};
use crate::decoder::Place;
use crate::model::weights::DeltaNetWeights;
use crate::state::{DeltaRun, delta_token};
use std::ops::Range;

/// Queries and keys are divided by their length; this is added to its square.
const EPSILON: f32 = 1e-6;

/// See [`Steps::delta_net`](crate::decoder::Steps::delta_net).
pub(super) fn delta_net(
    cpu: &mut Cpu,
    weights: &DeltaNetWeights,
    start: usize,
    wanted: Range<usize>,
) {
    convolve(cpu, weights, start, wanted.end);
    gates(cpu, weights, wanted.end);
    update(cpu, weights, wanted.end);
    read(cpu, weights, wanted);
}

/// [`Place::ConvInput`] = silu of its convolution, queries and keys normalised.
fn convolve(cpu: &mut Cpu, weights: &DeltaNetWeights, start: usize, tokens: usize) {
    let (o, s, state) = cpu.split();
    let (spec, kernel) = (&weights.spec, weights.kernel.cols);
    let (width, length) = (spec.conv_length(), spec.key_length);
    let rows = Place::ConvInput.view(tokens, width);
    let tail = state.conv.tail();
    let conv = &mut s.conv[..(tail + tokens) * width];
    let (before, new) = conv.split_at_mut(tail * width);
    state.conv.read_tail(weights.number, start, before);
    new.copy_from_slice(s.places.get(rows));
    state.conv.stage(weights.number, conv);

    taps(&o, s, &weights.kernel);
    // x / √(Σx² + ε) by the norm that divides by √(mean(x²) + ε / length); queries are divided by the root of their length besides.
    let mean = EPSILON / length as f32;
    let (query, key) = s.vector.split_at_mut(length);
    query.fill(1.0 / length as f32);
    key[..length].fill(1.0 / (length as f32).sqrt());
    let (query, key): (&[f32], &[f32]) = (query, &key[..length]);
    let (inputs, taps) = (
        &s.conv[(tail + 1 - kernel) * width..],
        &s.taps[..kernel * width],
    );
    let per = rows_per_job(o.pool, tokens, (kernel + 2) * width * size_of::<f32>());
    let jobs = s.places.get_mut(rows).chunks_mut(per * width);
    each(o.pool, jobs, |lane, rows| {
        for (token, row) in (lane * per..).zip(rows.chunks_exact_mut(width)) {
            convolve_one(taps, &inputs[token * width..], row);
            o.kernels.silu(row);
            let (queries, rest) = row.split_at_mut(spec.keys_length());
            for head in queries.chunks_exact_mut(length) {
                o.kernels.rms_norm_in_place(head, query, mean);
            }
            for head in rest[..spec.keys_length()].chunks_exact_mut(length) {
                o.kernels.rms_norm_in_place(head, key, mean);
            }
        }
    });
}

/// `delta_gates` `[tokens, 2, heads]`: decay = exp(−exp(A) · softplus(step + bias)), beta = the logistic function of it.
fn gates(cpu: &mut Cpu, weights: &DeltaNetWeights, tokens: usize) {
    let (o, s, _) = cpu.split();
    let heads = weights.spec.value_heads;
    let (bias, decay) = s.vector.split_at_mut(heads);
    o.unpack(&weights.step_bias, bias);
    o.unpack(&weights.decay, decay);
    let steps = s.places.get(Place::DeltaStep.view(tokens, heads));
    let betas = s.places.get(Place::DeltaBeta.view(tokens, heads));
    let rows = steps.chunks_exact(heads).zip(betas.chunks_exact(heads));
    for (out, (steps, betas)) in s.delta_gates.chunks_exact_mut(2 * heads).zip(rows) {
        // In f64, so that platforms' libraries agree on the f32.
        let (decays, out) = out.split_at_mut(heads);
        for (head, out) in decays.iter_mut().enumerate() {
            let step = f64::from(steps[head] + bias[head]);
            let softplus = step.max(0.0) + (-step.abs()).exp().ln_1p();
            *out = (f64::from(decay[head]) * softplus).exp() as f32;
        }
        for (out, beta) in out.iter_mut().zip(betas) {
            *out = (1.0 / (1.0 + f64::from(-beta).exp())) as f32;
        }
    }
}

/// Every head takes up the tokens, one after another: which are evaluated together changes no bit. `delta_out`: `[heads, tokens, value_length]`.
fn update(cpu: &mut Cpu, weights: &DeltaNetWeights, tokens: usize) {
    let (o, s, state) = cpu.split();
    let spec = &weights.spec;
    let rows = s
        .places
        .get(Place::ConvInput.view(tokens, spec.conv_length()));
    let gates = &s.delta_gates[..tokens * 2 * spec.value_heads];
    let DeltaRun { state, copies } = state.recurrent.run(weights.delta_number, rows, gates);
    let head = spec.key_length * spec.value_length;
    let per = rows_per_job(o.pool, spec.value_heads, tokens * head * size_of::<f32>());
    let [(first, a), (second, b)] = copies;
    let copies = a.chunks_mut(per * head).zip(b.chunks_mut(per * head));
    let outputs = s.delta_out.chunks_mut(per * tokens * spec.value_length);
    let jobs = state.chunks_mut(per * head).zip(copies).zip(outputs);
    each(o.pool, jobs, |lane, ((states, (a, b)), outputs)| {
        let heads = states.chunks_exact_mut(head);
        let copies = a.chunks_exact_mut(head).zip(b.chunks_exact_mut(head));
        let outputs = outputs.chunks_exact_mut(tokens * spec.value_length);
        for (number, ((state, (a, b)), out)) in (lane * per..).zip(heads.zip(copies).zip(outputs)) {
            let tokens = rows.chunks_exact(spec.conv_length());
            let tokens = tokens.zip(gates.chunks_exact(2 * spec.value_heads));
            let out = out.chunks_exact_mut(spec.value_length);
            for (token, ((values, gates), out)) in tokens.zip(out).enumerate() {
                if first == Some(token) {
                    a.copy_from_slice(state);
                }
                if second == Some(token) {
                    b.copy_from_slice(state);
                }
                let token = delta_token(spec, values, gates, number);
                o.kernels.delta_rule(state, token, out);
            }
        }
    });
}

/// [`Place::Mixed`] = what the wanted tokens have found, normalised and gated.
fn read(cpu: &mut Cpu, weights: &DeltaNetWeights, wanted: Range<usize>) {
    let (o, s, _) = cpu.split();
    let (length, width) = (weights.spec.value_length, weights.spec.values_length());
    let tokens = wanted.end;
    o.unpack(&weights.norm.weight, &mut s.vector);
    let (norm, epsilon) = (&s.vector[..length], o.config.norm_epsilon);
    let gate = Place::OutputGate.view(tokens, width).rows(wanted.clone());
    let (gate, [mixed]) = s.places.split(gate, [Place::Mixed]);
    let mixed = &mut mixed[..wanted.len() * width];
    let found = &s.delta_out;
    let per = rows_per_job(o.pool, wanted.len(), 3 * width * size_of::<f32>());
    let jobs = mixed.chunks_mut(per * width).zip(gate.chunks(per * width));
    each(o.pool, jobs, |lane, (mixed, gate)| {
        let rows = mixed.chunks_exact_mut(width).zip(gate.chunks_exact(width));
        for (token, (mixed, gate)) in (wanted.start + lane * per..).zip(rows) {
            mixed.copy_from_slice(gate);
            for (head, mixed) in mixed.chunks_exact_mut(length).enumerate() {
                let found = &found[(head * tokens + token) * length..][..length];
                let mut normal = [0.0; crate::kernels::MAX_DELTA_COLS];
                let normal = &mut normal[..length];
                o.kernels.rms_norm(found, norm, epsilon, normal);
                o.kernels.silu_mul(mixed, normal);
            }
        }
    });
}
