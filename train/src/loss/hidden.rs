//! Hidden states of the student, projected to the teacher's width by a learnt matrix W, against the teacher's t: as in
//! [TinyBERT, Jiao et al., 2020](https://arxiv.org/abs/1909.10351).
//!
//! `hidden_mse` is the mean of (W x − t)², `hidden_cosine` is 1 − cos(W x, t), over the pairs of layers that are compared.

use std::ops::Range;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Gradients, Inputs, Loss, Row, Sizes, read};
use crate::student::ops::gemm::Products;

pub(super) const MSE: Row = Row {
    name: "hidden_mse",
    doc: "mean squared difference of projected student and teacher hidden states",
    teacher_logits: false,
    hidden: true,
    read: |settings| Hidden::with(settings, mse_row),
};

pub(super) const COSINE: Row = Row {
    name: "hidden_cosine",
    doc: "1 − cosine of projected student and teacher hidden states",
    teacher_logits: false,
    hidden: true,
    read: |settings| Hidden::with(settings, cosine_row),
};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Which student layer learns from which teacher layer. Default "uniform".
    layers: Mapping,
}

/// Which layers are compared. Layers count from 1; 0 is the embeddings.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
enum Mapping {
    /// `"uniform"`: student layer i of m with teacher layer round(i·n/m), for i = 1..=m.
    #[default]
    Uniform,
    /// `[[student, teacher], …]`
    Pairs(Vec<(usize, usize)>),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Name(String),
    Pairs(Vec<(usize, usize)>),
}

impl TryFrom<Written> for Mapping {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Name(name) if name == "uniform" => Ok(Mapping::Uniform),
            Written::Name(name) => Err(format!(
                "layers = {name:?}; expected \"uniform\" or pairs [[student, teacher], …]"
            )),
            Written::Pairs(pairs) => Ok(Mapping::Pairs(pairs)),
        }
    }
}

impl From<Mapping> for Written {
    fn from(mapping: Mapping) -> Self {
        match mapping {
            Mapping::Uniform => Written::Name("uniform".into()),
            Mapping::Pairs(pairs) => Written::Pairs(pairs),
        }
    }
}

/// Compares one projected state with its target, overwrites it with the factor times the gradient, and gives the value.
type CompareRow = fn(&mut [f32], &[f32], f32) -> f64;

struct Hidden {
    settings: Settings,
    pairs: Vec<Pair>,
    row: CompareRow,
}

/// Two layers that are compared: places in the lists of [`Layers`], and the projection's place among the extra parameters.
struct Pair {
    student: usize,
    teacher: usize,
    projection: Range<usize>,
}

/// The layers whose hidden states a sum of losses compares, and the length of the projections.
#[derive(Default)]
pub(super) struct Layers {
    pub(super) student: Vec<usize>,
    pub(super) teacher: Vec<usize>,
    pub(super) projections: usize,
}

impl Layers {
    fn pair(&mut self, student: usize, teacher: usize, projection: usize) -> Pair {
        let begin = self.projections;
        self.projections += projection;
        Pair {
            student: place(&mut self.student, student),
            teacher: place(&mut self.teacher, teacher),
            projection: begin..self.projections,
        }
    }
}

fn place(list: &mut Vec<usize>, layer: usize) -> usize {
    list.iter().position(|l| *l == layer).unwrap_or_else(|| {
        list.push(layer);
        list.len() - 1
    })
}

impl Hidden {
    fn with(settings: &toml::Table, row: CompareRow) -> Result<Box<dyn Loss>> {
        Ok(Box::new(Hidden {
            settings: read(settings)?,
            pairs: Vec::new(),
            row,
        }))
    }
}

impl Loss for Hidden {
    fn settings(&self) -> Result<Value> {
        Ok(serde_json::to_value(&self.settings)?)
    }

    fn choose_layers(&mut self, sizes: Sizes, layers: &mut Layers) -> Result<()> {
        let Some((teacher_layers, teacher_width)) = sizes.teacher else {
            bail!(
                "this teacher gives no hidden states; use a Hugging Face folder or GGUF of a llama model, or remove this loss"
            );
        };
        let m = sizes.layers;
        let pairs = match &self.settings.layers {
            Mapping::Uniform => (1..=m)
                .map(|i| (i, (2 * i * teacher_layers + m) / (2 * m)))
                .collect(),
            Mapping::Pairs(pairs) => pairs.clone(),
        };
        ensure!(!pairs.is_empty(), "layers = [] compares nothing");
        for (s, t) in pairs {
            ensure!(
                s <= m && t <= teacher_layers,
                "layers = [{s}, {t}]: the student has {m} layers, the teacher {teacher_layers}"
            );
            let pair = layers.pair(s, t, teacher_width * sizes.width);
            self.pairs.push(pair);
        }
        Ok(())
    }

    fn run(&self, weight: f32, sizes: Sizes, inputs: &Inputs, gradients: &mut Gradients) -> f64 {
        let Some((_, wide)) = sizes.teacher else {
            return 0.0;
        };
        let (s, d) = (inputs.labels.len(), sizes.width);
        let scale = inputs.scale / self.pairs.len() as f32;
        let mut total = 0f64;
        for pair in &self.pairs {
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
                total += (self.row)(projected, teacher, weight * scale);
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
}

/// ∂/∂x = 2 (x − t) / n.
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

#[cfg(test)]
mod tests {
    use candle_core::{Result, Tensor};

    use super::super::autograd::{Plain, SIZES, compare};
    use super::super::{LossConfig, Losses};
    use super::*;

    /// The mean of `loss` over both pairs of layers.
    fn mean(plain: &Plain, loss: impl Fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let [a, b] = &plain.projected[..] else {
            panic!("two pairs of layers")
        };
        let [s, t] = &plain.teacher_hidden[..] else {
            panic!("two pairs of layers")
        };
        (loss(a, s)? + loss(b, t)?)? / 2.0
    }

    fn pairs() -> [(&'static str, toml::Value); 1] {
        [("layers", vec![vec![2, 4], vec![1, 1]].into())]
    }

    #[test]
    fn mse_equals_autograd() {
        compare(&MSE, &pairs(), |plain| {
            mean(plain, |p, t| (p - t)?.sqr()?.mean_all())
        });
    }

    #[test]
    fn cosine_equals_autograd() {
        compare(&COSINE, &pairs(), |plain| {
            mean(plain, |p, t| {
                let norms = (p.sqr()?.sum(1)?.sqrt()? * t.sqr()?.sum(1)?.sqrt()?)?;
                (1.0 - ((p * t)?.sum(1)? / norms)?)?.mean_all()
            })
        });
    }

    #[test]
    fn uniform_layers_are_spread_over_the_teacher() {
        let config = LossConfig::new(1.0);
        let losses = Losses::new([(COSINE.name, &config)], SIZES).unwrap();
        let layers = losses.layers;
        assert_eq!((layers.student, layers.teacher), (vec![1, 2], vec![2, 4]));
    }
}
