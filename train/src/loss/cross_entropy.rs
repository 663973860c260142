//! Negative log likelihood of the data's next token.

use super::{Gradients, Inputs, Loss, Sizes, Term};
use crate::student::ops::softmax::{add_softmax, log_sum_exp};

pub(super) const LOSS: Loss = Loss {
    name: "cross_entropy",
    doc: "negative log likelihood of the label, nats per token",
    teacher_logits: false,
    hidden: false,
    run,
};

fn run(term: &Term, sizes: Sizes, inputs: &Inputs, gradients: &mut Gradients) -> f64 {
    let v = sizes.vocabulary;
    gradients.scratch.resize(inputs.labels.len(), 0.0);
    log_sum_exp(&mut gradients.scratch, inputs.logits, v, 1.0);
    let weight = term.weight * inputs.scale;
    add_softmax(
        &mut gradients.logits,
        inputs.logits,
        &gradients.scratch,
        v,
        weight,
    );
    let mut total = 0f64;
    for (row, (&label, lse)) in inputs.labels.iter().zip(&gradients.scratch).enumerate() {
        let at = row * v + label as usize;
        gradients.logits[at] -= weight;
        total += f64::from(lse - inputs.logits[at]);
    }
    total * f64::from(inputs.scale)
}
