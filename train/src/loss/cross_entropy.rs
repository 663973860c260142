//! Negative log likelihood of the data's next token: −log softmax(x)[label], nats per token.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Gradients, Inputs, Loss, Row, Sizes, read};
use crate::student::ops::softmax::{add_softmax, log_sum_exp};

pub(super) const ROW: Row = Row {
    name: "cross_entropy",
    doc: "negative log likelihood of the label, nats per token",
    teacher_logits: false,
    hidden: false,
    read: |settings| Ok(Box::new(read::<CrossEntropy>(settings)?)),
};

/// It has no settings beside its weight.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CrossEntropy {}

impl Loss for CrossEntropy {
    fn settings(&self) -> Result<Value> {
        Ok(serde_json::to_value(self)?)
    }

    /// ∂/∂x = softmax(x) − onehot(label).
    fn run(&self, weight: f32, sizes: Sizes, inputs: &Inputs, gradients: &mut Gradients) -> f64 {
        let v = sizes.vocabulary;
        gradients.scratch.resize(inputs.labels.len(), 0.0);
        log_sum_exp(&mut gradients.scratch, inputs.logits, v, 1.0);
        let weight = weight * inputs.scale;
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
}

#[cfg(test)]
mod tests {
    use candle_core::{D, Device, Tensor};
    use candle_nn::ops::log_softmax;

    use super::super::autograd::{LABELS, compare};
    use super::*;

    #[test]
    fn value_and_gradient_equal_autograd() {
        compare(&ROW, &[], |plain| {
            let at = Tensor::from_slice(&LABELS, (LABELS.len(), 1), &Device::Cpu)?;
            let log_probabilities = log_softmax(&plain.logits, D::Minus1)?;
            log_probabilities.gather(&at, 1)?.mean_all()?.neg()
        });
    }
}
