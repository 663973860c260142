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

/// A teacher that knows only the first tokens is compared on these: both distributions are over them alone.
fn run(term: &Term, sizes: Sizes, inputs: &Inputs, gradients: &mut Gradients) -> f64 {
    let (v, rows) = (sizes.vocabulary, inputs.labels.len());
    let shared = inputs.teacher_logits.len() / rows.max(1);
    if shared == v || rows == 0 {
        return compare(term, v, inputs, gradients);
    }
    let first = inputs.logits.chunks_exact(v).flat_map(|row| &row[..shared]);
    let logits: Vec<f32> = first.copied().collect(); // [s, shared]
    let mut part = Gradients {
        logits: vec![0.0; logits.len()], // [s, shared]
        ..Gradients::default()
    };
    let narrow = Inputs {
        logits: &logits,
        ..*inputs
    };
    let value = compare(term, shared, &narrow, &mut part);
    let whole = gradients.logits.chunks_exact_mut(v);
    for (whole, part) in whole.zip(part.logits.chunks_exact(shared)) {
        whole.iter_mut().zip(part).for_each(|(w, p)| *w += p);
    }
    value
}

/// Both with `v` logits a position.
fn compare(term: &Term, v: usize, inputs: &Inputs, gradients: &mut Gradients) -> f64 {
    let (rows, t) = (inputs.labels.len(), term.temperature);
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
