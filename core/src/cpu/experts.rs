//! Which experts a token takes, and the sum of what they make of it.

use super::Cpu;
use crate::decoder::{Place, Steps, View, feed_forward, readers};
use crate::kernels::Kernels;
use crate::model::weights::ExpertsWeights;
use crate::model::{ExpertScores, Experts};

/// That a token takes an expert, and the weight of what it makes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    expert: usize,
    token: usize,
    weight: f32,
}

/// Each expert is multiplied once, with the tokens that take it.
pub(super) fn mix(cpu: &mut Cpu, weights: &ExpertsWeights, x: View, scores: View) {
    route(cpu, weights, scores);
    let (tokens, d) = (x.rows, x.cols);
    let sum = Place::ExpertSum.view(tokens, d);
    cpu.scratch.places.get_mut(sum).fill(0.0);
    let choices = std::mem::take(&mut cpu.scratch.choices);
    for chosen in choices.chunk_by(|a, b| a.expert == b.expert) {
        let mlp = &weights.experts[chosen[0].expert];
        let count = chosen.len();
        let rows = if count == tokens {
            x
        } else {
            let places = &mut cpu.scratch.places;
            let (x, [rows]) = places.split(x, [Place::ExpertInput]);
            for (choice, row) in chosen.iter().zip(rows.chunks_exact_mut(d)) {
                row.copy_from_slice(&x[choice.token * d..][..d]);
            }
            Place::ExpertInput.view(count, d)
        };
        let rows = cpu.prepare(rows, &readers(mlp));
        feed_forward(cpu, mlp, rows, Place::ExpertOutput);
        let (o, s, _) = cpu.split();
        let out = Place::ExpertOutput.view(count, d);
        let [sum, out] = s.places.both_mut(sum, out);
        for (choice, row) in chosen.iter().zip(out.chunks_exact_mut(d)) {
            o.kernels.scale(row, choice.weight);
            o.kernels.add(&mut sum[choice.token * d..][..d], row);
        }
    }
    cpu.scratch.choices = choices;
}

/// The choices of every token, by expert.
fn route(cpu: &mut Cpu, weights: &ExpertsWeights, scores: View) {
    let (o, s, _) = cpu.split();
    let spec = &weights.spec;
    let bias = weights.choice_bias.as_ref().map(|bias| {
        o.unpack(bias, &mut s.vector);
        &s.vector[..spec.count]
    });
    s.choices.clear();
    let scores = s.places.get_mut(scores).chunks_exact_mut(spec.count);
    for (token, scores) in scores.enumerate() {
        score(o.kernels, spec.scores, scores);
        choose(spec, scores, bias, token, &mut s.order, &mut s.choices);
    }
    s.choices
        .sort_unstable_by_key(|choice| (choice.expert, choice.token));
}

/// The router's products become scores `[experts]`.
fn score(kernels: &Kernels, kind: ExpertScores, products: &mut [f32]) {
    match kind {
        ExpertScores::Softmax => {
            let [_, sum] = kernels.softmax_exp(products);
            kernels.scale(products, 1.0 / sum);
        }
        ExpertScores::Sigmoid => {
            for product in products {
                // The softmax of it and 0.
                let mut pair = [*product, 0.0];
                let [_, sum] = kernels.softmax_exp(&mut pair);
                *product = pair[0] / sum;
            }
        }
    }
}

/// The token takes the experts with the best scores, biased where there is a bias; of equal ones the first. `order` is room.
fn choose(
    spec: &Experts,
    scores: &[f32],
    bias: Option<&[f32]>,
    token: usize,
    order: &mut Vec<usize>,
    choices: &mut Vec<Choice>,
) {
    let biased = |expert: usize| scores[expert] + bias.map_or(0.0, |bias| bias[expert]);
    order.clear();
    order.extend(0..spec.count);
    let better = |a: &usize, b: &usize| biased(*b).total_cmp(&biased(*a)).then(a.cmp(b));
    if spec.used < spec.count {
        order.select_nth_unstable_by(spec.used, better);
    }
    let chosen = &mut order[..spec.used];
    chosen.sort_unstable(); // sums are in the order of their numbers
    let sum: f32 = chosen.iter().map(|expert| scores[*expert]).sum();
    let factor = if spec.normalized {
        spec.scale / sum.max(MIN_SUM)
    } else {
        spec.scale
    };
    choices.extend(chosen.iter().map(|&expert| Choice {
        expert,
        token,
        weight: scores[expert] * factor,
    }));
}

/// Keeps the division of scores that are all next to 0 finite: the smallest normal binary16 number, as llama.cpp has it.
const MIN_SUM: f32 = 6.103_515_6e-5;
