//! The mixture of experts (arXiv:1701.06538): each token takes some of many feed-forward parts.

use super::Decoder;
use crate::kernels::Kernels;
use crate::model::weights::{ExpertsWeights, Layer, MlpWeights};
use crate::model::{ExpertScores, Experts};

/// That a token takes an expert, and the weight of what it makes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    expert: usize,
    token: usize,
    weight: f32,
}

impl Decoder<'_> {
    /// x += the weighted sum of what its experts make of a normalised x. Each expert is multiplied once, with the tokens that take it; a token's experts
    /// are added in the order of their numbers, so that which tokens are evaluated together changes no bit.
    pub(super) fn experts(&mut self, layer: &Layer, weights: &ExpertsWeights, tokens: usize) {
        let norm = self.feed_forward_norm(layer);
        let (o, s) = (self.operations, &mut *self.scratch);
        let (d, spec) = (self.config.embedding_length, &weights.spec);
        let router = &weights.router;
        let x = o.normalise(
            norm,
            &s.x[..tokens * d],
            &mut s.branch,
            &mut s.int8,
            &mut s.vector,
            &[&router.matrix],
        );
        o.project(
            x,
            [(router, &mut s.expert_scores)],
            &mut s.vector,
            &mut s.hooks,
        );
        let bias = weights.choice_bias.as_ref().map(|bias| {
            o.unpack(bias, &mut s.vector);
            &s.vector[..spec.count]
        });
        s.choices.clear();
        let scores = s.expert_scores.chunks_exact_mut(spec.count);
        for (token, scores) in scores.take(tokens).enumerate() {
            score(o.kernels, spec.scores, scores);
            choose(spec, scores, bias, token, &mut s.order, &mut s.choices);
        }
        s.choices
            .sort_unstable_by_key(|choice| (choice.expert, choice.token));

        let input = if norm.is_some() { &s.branch } else { &s.x };
        s.expert_sum[..tokens * d].fill(0.0);
        for chosen in s.choices.chunk_by(|a, b| a.expert == b.expert) {
            let MlpWeights { gate, up, down } = &weights.experts[chosen[0].expert];
            let (count, length) = (chosen.len(), down.matrix.cols);
            let rows = if count == tokens {
                &input[..tokens * d]
            } else {
                for (choice, row) in chosen.iter().zip(s.expert_in.chunks_exact_mut(d)) {
                    row.copy_from_slice(&input[choice.token * d..][..d]);
                }
                &s.expert_in[..count * d]
            };
            let x = o.round(
                rows,
                &mut s.int8,
                &[&up.matrix, &gate.as_ref().unwrap_or(up).matrix],
            );
            match gate {
                Some(gate) => {
                    let outputs = [(gate, &mut *s.gate), (up, &mut *s.up)];
                    o.project(x, outputs, &mut s.vector, &mut s.hooks);
                }
                None => o.project(x, [(up, &mut *s.gate)], &mut s.vector, &mut s.hooks),
            }
            let inner = o.activate(
                &mut s.gate[..count * length],
                &s.up[..count * length],
                &mut s.int8,
                &down.matrix,
            );
            o.project(
                inner,
                [(down, &mut *s.expert_out)],
                &mut s.vector,
                &mut s.hooks,
            );
            for (choice, row) in chosen.iter().zip(s.expert_out.chunks_exact_mut(d)) {
                o.kernels.scale(row, choice.weight);
                o.kernels
                    .add(&mut s.expert_sum[choice.token * d..][..d], row);
            }
        }
        s.branch[..tokens * d].copy_from_slice(&s.expert_sum[..tokens * d]);
        self.add_feed_forward(layer, tokens);
    }
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
