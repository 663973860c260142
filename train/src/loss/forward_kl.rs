//! KL(teacher ‖ student) of both distributions at a temperature T: T² · Σ p log(p / q), where p = softmax(teacher / T) and q = softmax(x / T), nats per
//! token ([Hinton, Vinyals and Dean, 2015](https://arxiv.org/abs/1503.02531)).

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Gradients, Inputs, Loss, Row, Sizes, read};
use crate::student::ops::softmax::{add_kl, log_sum_exp};

pub(super) const ROW: Row = Row {
    name: "forward_kl",
    doc: "KL(teacher ‖ student) at a temperature, times its square, nats per token",
    teacher_logits: true,
    hidden: false,
    read: |settings| {
        let loss = read::<ForwardKl>(settings)?;
        loss.check()?;
        Ok(Box::new(loss))
    },
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ForwardKl {
    /// Divides the logits of both; the loss is multiplied by its square. Default 1.
    temperature: f32,
}

impl Default for ForwardKl {
    fn default() -> Self {
        ForwardKl { temperature: 1.0 }
    }
}

impl Loss for ForwardKl {
    fn settings(&self) -> Result<Value> {
        Ok(serde_json::to_value(self)?)
    }

    /// A teacher that knows only the first tokens is compared on these: both distributions are over them alone.
    fn run(&self, weight: f32, sizes: Sizes, inputs: &Inputs, gradients: &mut Gradients) -> f64 {
        let (v, rows) = (sizes.vocabulary, inputs.labels.len());
        let shared = inputs.teacher_logits.len() / rows.max(1);
        if shared == v || rows == 0 {
            return self.compare(weight, v, inputs, gradients);
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
        let value = self.compare(weight, shared, &narrow, &mut part);
        let whole = gradients.logits.chunks_exact_mut(v);
        for (whole, part) in whole.zip(part.logits.chunks_exact(shared)) {
            whole.iter_mut().zip(part).for_each(|(w, p)| *w += p);
        }
        value
    }
}

impl ForwardKl {
    fn check(&self) -> Result<()> {
        let temperature = self.temperature;
        ensure!(
            temperature.is_finite() && temperature > 0.0,
            "temperature = {temperature}; expected more than 0"
        );
        Ok(())
    }

    /// Both with `v` logits a position. ∂/∂x = T · (q − p).
    fn compare(&self, weight: f32, v: usize, inputs: &Inputs, gradients: &mut Gradients) -> f64 {
        let (rows, t) = (inputs.labels.len(), self.temperature);
        gradients.scratch.resize(2 * rows, 0.0);
        let (student, teacher) = gradients.scratch.split_at_mut(rows);
        log_sum_exp(student, inputs.logits, v, t);
        log_sum_exp(teacher, inputs.teacher_logits, v, t);
        // The gradient shrinks with the square of the temperature; the factor keeps it comparable with the others.
        let weight = weight * inputs.scale * t * t;
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
}

#[cfg(test)]
mod tests {
    use candle_core::D;
    use candle_nn::ops::log_softmax;

    use super::super::autograd::{SIZES, compare, normal};
    use super::super::{LossConfig, Losses};
    use super::*;

    const S: usize = 5;

    #[test]
    fn value_and_gradient_equal_autograd() {
        let t = 2.5f64;
        compare(&ROW, &[("temperature", t.into())], |plain| {
            let (student, teacher) = (
                log_softmax(&(&plain.logits / t)?, D::Minus1)?,
                log_softmax(&(&plain.teacher_logits / t)?, D::Minus1)?,
            );
            let sum = (teacher.exp()? * (&teacher - student)?)?.sum_all()?;
            sum * (t * t / S as f64)
        });
    }

    /// A teacher that knows 30 of 37 tokens: as if both had these alone.
    #[test]
    fn a_teacher_of_fewer_tokens_is_compared_on_these() {
        let (v, shared) = (SIZES.vocabulary, 30);
        let logits = normal(S * v, 3.0, 1);
        let first: Vec<f32> = logits
            .chunks(v)
            .flat_map(|row| &row[..shared])
            .copied()
            .collect();
        let teacher_logits = normal(S * shared, 3.0, 2);
        let run = |vocabulary: usize, logits: &[f32]| {
            let config = LossConfig::new(0.5).with("temperature", 2.0);
            let sizes = Sizes {
                vocabulary,
                ..SIZES
            };
            let losses = Losses::new([(ROW.name, &config)], sizes).unwrap();
            let inputs = Inputs {
                logits,
                hidden: &[],
                labels: &[0; S],
                teacher_logits: &teacher_logits,
                teacher_hidden: &[],
                extra: &[],
                scale: 1.0 / S as f32,
            };
            let mut gradients = Gradients::default();
            let values = losses.run(&inputs, &mut gradients);
            (values, gradients.logits)
        };
        let (wide, narrow) = (run(v, &logits), run(shared, &first));
        assert_eq!(wide.0, narrow.0);
        for (wide, narrow) in wide.1.chunks(v).zip(narrow.1.chunks(shared)) {
            assert_eq!(&wide[..shared], narrow);
            assert_eq!(wide[shared..], [0.0; 7]);
        }
    }
}
