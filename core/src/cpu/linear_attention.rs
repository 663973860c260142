//! Linear attention: a convolution, then a matrix for each head.

use super::Cpu;
use super::parallel::{each, rows_per_job};
use super::short_conv::{convolve_one, taps};
use crate::decoder::Place;
use crate::kernels::MAX_STATE_COLS;
use crate::model::StateRule;
use crate::model::weights::LinearAttentionWeights;
use crate::state::{StateRun, take_up};
use std::ops::Range;

/// A delta net's queries and keys are divided by their length; this is added to its square.
const EPSILON: f32 = 1e-6;

/// See [`Steps::linear_attention`](crate::decoder::Steps::linear_attention).
pub(super) fn linear_attention(
    cpu: &mut Cpu,
    weights: &LinearAttentionWeights,
    start: usize,
    wanted: Range<usize>,
) {
    convolve(cpu, weights, start, wanted.end);
    gates(cpu, weights, wanted.end);
    update(cpu, weights, wanted.end);
    read(cpu, weights, wanted);
}

/// [`Place::ConvInput`] = silu of its convolution, a delta net's queries and keys normalised.
fn convolve(cpu: &mut Cpu, weights: &LinearAttentionWeights, start: usize, tokens: usize) {
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
    let (query, rest) = s.vector.split_at_mut(length);
    query.fill(1.0 / length as f32);
    let (key, bias) = rest.split_at_mut(length);
    key.fill(1.0 / (length as f32).sqrt());
    if let Some(values) = &weights.kernel_bias {
        o.unpack(values, bias);
    }
    let (query, key, bias): (&[f32], &[f32], &[f32]) = (query, key, &bias[..width]);
    let (inputs, taps) = (
        &s.conv[(tail + 1 - kernel) * width..],
        &s.taps[..kernel * width],
    );
    let per = rows_per_job(o.pool, tokens, (kernel + 2) * width * size_of::<f32>());
    let jobs = s.places.get_mut(rows).chunks_mut(per * width);
    each(o.pool, jobs, |lane, rows| {
        for (token, row) in (lane * per..).zip(rows.chunks_exact_mut(width)) {
            convolve_one(taps, &inputs[token * width..], row);
            if weights.kernel_bias.is_some() {
                o.kernels.add(row, bias);
            }
            o.kernels.silu(row);
            if spec.rule != StateRule::GatedDelta {
                continue;
            }
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

/// `state_gates` `[tokens, 2, heads]`: decay = exp(−exp(A) · softplus(step + bias)), then beta, the logistic function of a delta net's product, or a state
/// space's softplus(step + bias).
fn gates(cpu: &mut Cpu, weights: &LinearAttentionWeights, tokens: usize) {
    let (o, s, _) = cpu.split();
    let heads = weights.spec.value_heads;
    let (bias, decay) = s.vector.split_at_mut(heads);
    o.unpack(&weights.step_bias, bias);
    o.unpack(&weights.decay, decay);
    let steps = s.places.get(Place::Step.view(tokens, heads));
    let betas = weights.beta.as_ref();
    let betas = betas.map(|_| s.places.get(Place::Beta.view(tokens, heads)));
    let rows = steps.chunks_exact(heads).enumerate();
    for (out, (token, steps)) in s.state_gates.chunks_exact_mut(2 * heads).zip(rows) {
        // In f64, so that platforms' libraries agree on the f32.
        let (decays, written) = out.split_at_mut(heads);
        for head in 0..heads {
            let step = f64::from(steps[head] + bias[head]);
            let softplus = step.max(0.0) + (-step.abs()).exp().ln_1p();
            decays[head] = (f64::from(decay[head]) * softplus).exp() as f32;
            written[head] = softplus as f32;
        }
        let Some(betas) = betas else { continue };
        for (out, beta) in written.iter_mut().zip(&betas[token * heads..]) {
            *out = (1.0 / (1.0 + f64::from(-beta).exp())) as f32;
        }
    }
}

/// Every head takes up the tokens, one after another: which are evaluated together changes no bit. `state_out`: `[heads, tokens, value_length]`.
fn update(cpu: &mut Cpu, weights: &LinearAttentionWeights, tokens: usize) {
    let (o, s, state) = cpu.split();
    let spec = &weights.spec;
    let rows = s
        .places
        .get(Place::ConvInput.view(tokens, spec.conv_length()));
    let gates = &s.state_gates[..tokens * 2 * spec.value_heads];
    let StateRun { state, copies } = state.recurrent.run(weights.state_number, rows, gates);
    let head = spec.key_length * spec.value_length;
    let per = rows_per_job(o.pool, spec.value_heads, tokens * head * size_of::<f32>());
    let [(first, a), (second, b)] = copies;
    let copies = a.chunks_mut(per * head).zip(b.chunks_mut(per * head));
    let outputs = s.state_out.chunks_mut(per * tokens * spec.value_length);
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
                take_up(o.kernels, spec, [values, gates], (number, state), out);
            }
        }
    });
}

/// [`Place::Mixed`] = what the wanted tokens have found: a delta net's normalised and gated, a state space's with D · v, gated, and normalised.
fn read(cpu: &mut Cpu, weights: &LinearAttentionWeights, wanted: Range<usize>) {
    let (o, s, _) = cpu.split();
    let spec = &weights.spec;
    let (length, width) = (spec.value_length, spec.values_length());
    let tokens = wanted.end;
    let (norm, skip) = s.vector.split_at_mut(width);
    o.unpack(&weights.norm.weight, norm);
    if let Some(values) = &weights.skip {
        o.unpack(values, skip);
    }
    let (norm, skip): (&[f32], &[f32]) = (norm, &skip[..spec.value_heads]);
    let epsilon = o.config.norm_epsilon;
    let gate = Place::OutputGate.view(tokens, width).rows(wanted.clone());
    let (gate, [values, mixed]) = s.places.split(gate, [Place::ConvInput, Place::Mixed]);
    let mixed = &mut mixed[..wanted.len() * width];
    let found = &s.state_out;
    let per = rows_per_job(o.pool, wanted.len(), 3 * width * size_of::<f32>());
    let jobs = mixed.chunks_mut(per * width).zip(gate.chunks(per * width));
    each(o.pool, jobs, |lane, (mixed, gate)| {
        let rows = mixed.chunks_exact_mut(width).zip(gate.chunks_exact(width));
        for (token, (mixed, gate)) in (wanted.start + lane * per..).zip(rows) {
            mixed.copy_from_slice(gate);
            for (head, mixed) in mixed.chunks_exact_mut(length).enumerate() {
                let found = &found[(head * tokens + token) * length..][..length];
                let mut out = [0.0; MAX_STATE_COLS];
                let out = &mut out[..length];
                match spec.rule {
                    StateRule::GatedDelta => {
                        o.kernels.rms_norm(found, &norm[..length], epsilon, out);
                    }
                    StateRule::StateSpace => {
                        let value = &values[token * spec.conv_length() + head * length..];
                        for ((out, found), value) in out.iter_mut().zip(found).zip(value) {
                            *out = found + skip[head] * value;
                        }
                    }
                }
                o.kernels.silu_mul(mixed, out);
            }
            if spec.rule == StateRule::StateSpace {
                let group = width / spec.key_heads;
                let norms = norm.chunks_exact(group);
                for (mixed, norm) in mixed.chunks_exact_mut(group).zip(norms) {
                    o.kernels.rms_norm_in_place(mixed, norm, epsilon);
                }
            }
        }
    });
}
