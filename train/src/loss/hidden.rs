//! Hidden states of the student, projected to the teacher's width, against the teacher's (as in TinyBERT and MiniLLM's relatives).

use super::{Gradients, Inputs, Loss, Sizes, Term};
use crate::student::ops::gemm::Products;

pub(super) const MSE: Loss = Loss {
    name: "hidden_mse",
    doc: "mean squared difference of projected student and teacher hidden states",
    teacher_logits: false,
    hidden: true,
    run: |term, sizes, inputs, gradients| run(term, sizes, inputs, gradients, mse_row),
};

pub(super) const COSINE: Loss = Loss {
    name: "hidden_cosine",
    doc: "1 − cosine of projected student and teacher hidden states",
    teacher_logits: false,
    hidden: true,
    run: |term, sizes, inputs, gradients| run(term, sizes, inputs, gradients, cosine_row),
};

/// `row` compares one projected state with its target, overwrites it with `weight` times the gradient, and returns the value.
fn run(
    term: &Term,
    sizes: Sizes,
    inputs: &Inputs,
    gradients: &mut Gradients,
    row: fn(&mut [f32], &[f32], f32) -> f64,
) -> f64 {
    let Some((_, wide)) = sizes.teacher else {
        return 0.0;
    };
    let (s, d) = (inputs.labels.len(), sizes.width);
    let scale = inputs.scale / term.pairs.len() as f32;
    let mut total = 0f64;
    for pair in &term.pairs {
        let (student, teacher) = (
            &inputs.hidden[pair.student],
            &inputs.teacher_hidden[pair.teacher],
        );
        let projection = &inputs.extra[pair.projection.clone()]; // [wide, d]
        gradients.scratch.resize(s * wide, 0.0);
        let projected = &mut gradients.scratch; // [s, wide]
        Products::F32.linear(projected, student, projection, [s, wide, d], false);
        for (projected, teacher) in projected
            .chunks_exact_mut(wide)
            .zip(teacher.chunks_exact(wide))
        {
            total += row(projected, teacher, term.weight * scale);
        }
        Products::F32.linear_weight_gradient(
            &mut gradients.extra[pair.projection.clone()],
            projected,
            student,
            [s, wide, d],
        );
        Products::F32.linear_input_gradient(
            &mut gradients.hidden[pair.student],
            projected,
            projection,
            [s, wide, d],
            true,
        );
    }
    total * f64::from(scale)
}

fn mse_row(x: &mut [f32], target: &[f32], weight: f32) -> f64 {
    let n = x.len() as f32;
    let mut sum = 0f32;
    for (x, t) in x.iter_mut().zip(target) {
        let difference = *x - t;
        sum += difference * difference;
        *x = 2.0 * weight / n * difference;
    }
    f64::from(sum / n)
}

/// With c = x·t / (|x||t|): ∂(1 − c)/∂x = (c·x/|x| − t/|t|) / |x|.
fn cosine_row(x: &mut [f32], target: &[f32], weight: f32) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    // A zero vector has no direction; the bound keeps its gradient finite.
    let (nx, nt) = (
        dot(x, x).sqrt().max(1e-8),
        dot(target, target).sqrt().max(1e-8),
    );
    let cosine = dot(x, target) / (nx * nt);
    let (a, b) = ((cosine / (nx * nx)) as f32, (1.0 / (nx * nt)) as f32);
    for (x, t) in x.iter_mut().zip(target) {
        *x = weight * (*x * a - t * b);
    }
    1.0 - cosine
}
