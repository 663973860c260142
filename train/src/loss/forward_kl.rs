//! KL(teacher ‖ student) of softened distributions (Hinton, Vinyals and Dean, 2015).

use super::{Gradients, Inputs, Loss, Sizes, Term};
use crate::student::ops::softmax::{add_kl, log_sum_exp};

pub(super) const LOSS: Loss = Loss {
    name: "forward_kl",
    doc: "KL(teacher ‖ student) at a temperature, times its square, nats per token",
    teacher_logits: true,
    hidden: false,
    run,
};

fn run(term: &Term, sizes: Sizes, inputs: &Inputs, gradients: &mut Gradients) -> f64 {
    let (v, rows, t) = (sizes.vocabulary, inputs.labels.len(), term.temperature);
    gradients.scratch.resize(2 * rows, 0.0);
    let (student, teacher) = gradients.scratch.split_at_mut(rows);
    log_sum_exp(student, inputs.logits, v, t);
    log_sum_exp(teacher, inputs.teacher_logits, v, t);
    // The gradient of softened distributions shrinks with the square of the temperature; the factor keeps it comparable with the others.
    let weight = term.weight * inputs.scale * t * t;
    let sum = add_kl(
        &mut gradients.logits,
        inputs.logits,
        inputs.teacher_logits,
        student,
        teacher,
        v,
        t,
        weight,
    );
    sum * f64::from(inputs.scale * t * t)
}
