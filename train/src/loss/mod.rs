//! What is minimised: a weighted sum of rows of [`LOSSES`].
//!
//! Each row adds its value and its gradient with respect to the student's logits and hidden states; the decoder's backward pass takes it
//! from there. Values are means over the positions that count in the whole step, whichever shard they are in.

mod cross_entropy;
mod forward_kl;
mod hidden;

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use dram_files::Rng;
use serde::{Deserialize, Serialize};

use crate::student::{Want, fill_normal};

/// One loss.
pub struct Loss {
    /// Its key in the recipe.
    pub name: &'static str,
    /// One line for people.
    pub doc: &'static str,
    /// Whether it compares with the teacher's logits.
    pub teacher_logits: bool,
    /// Whether it compares hidden states, through a learnt projection for each pair of layers.
    pub hidden: bool,
    /// Adds gradients times weight and returns the mean, without weight.
    run: fn(&Term, Sizes, &Inputs, &mut Gradients) -> f64,
}

/// Every loss.
pub static LOSSES: &[Loss] = &[
    cross_entropy::LOSS,
    forward_kl::LOSS,
    hidden::MSE,
    hidden::COSINE,
];

/// A loss as the recipe asks for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// Factor in the sum. Default 1.
    #[serde(default = "one")]
    pub weight: f32,
    /// `forward_kl`: both distributions are softened by it, and the loss multiplied by its square. Default 1.
    #[serde(default = "one")]
    pub temperature: f32,
    /// Hidden losses: which student layer learns from which teacher layer. Default "uniform".
    #[serde(default)]
    pub layers: Mapping,
}

fn one() -> f32 {
    1.0
}

/// Which layers are compared. Layers count from 1; 0 is the embeddings.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Mapping {
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

/// Widths and depths that a sum of losses is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    pub vocabulary: usize,
    pub layers: usize,
    pub width: usize,
    /// Layers and width of the teacher's hidden states, where it gives them.
    pub teacher: Option<(usize, usize)>,
    pub has_teacher: bool,
}

/// One term of the sum.
pub(crate) struct Term {
    loss: &'static Loss,
    weight: f32,
    temperature: f32,
    pairs: Vec<Pair>,
}

/// Two layers that are compared: places in the lists of hidden states asked for, and the projection's place among the extra parameters.
struct Pair {
    student: usize,
    teacher: usize,
    projection: Range<usize>,
}

/// The whole sum.
pub struct Losses {
    terms: Vec<Term>,
    sizes: Sizes,
    student_layers: Vec<usize>,
    teacher_layers: Vec<usize>,
    extra: usize,
}

/// What the terms read. s: positions.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) logits: &'a [f32],              // [s, vocabulary]
    pub(crate) hidden: &'a [Vec<f32>],         // [s, width] each
    pub(crate) labels: &'a [u32],              // [s]
    pub(crate) teacher_logits: &'a [f32], // [s, vocabulary or the tokens that both know], empty without a teacher
    pub(crate) teacher_hidden: &'a [Vec<f32>], // [s, teacher width] each
    pub(crate) extra: &'a [f32],          // projections, [teacher width, width] each
    /// 1 / positions of the whole step.
    pub(crate) scale: f32,
}

/// Where the terms add gradients, and what they reuse.
#[derive(Debug, Default)]
pub(crate) struct Gradients {
    pub(crate) logits: Vec<f32>,      // [s, vocabulary]
    pub(crate) hidden: Vec<Vec<f32>>, // [s, width] each
    pub(crate) extra: Vec<f32>,       // like `Inputs::extra`; added to until somebody clears it
    scratch: Vec<f32>,
}

impl Losses {
    /// Builds the sum that `asked` describes; `asked`: (name, settings).
    ///
    /// # Errors
    /// When a name is unknown, a number impossible, or a term wants what the teacher cannot give.
    pub fn new<'a>(
        asked: impl IntoIterator<Item = (&'a str, &'a LossConfig)>,
        sizes: Sizes,
    ) -> Result<Self> {
        let mut losses = Losses {
            terms: Vec::new(),
            sizes,
            student_layers: Vec::new(),
            teacher_layers: Vec::new(),
            extra: 0,
        };
        for (name, asked) in asked {
            losses
                .push(name, asked)
                .with_context(|| format!("[losses] {name}"))?;
        }
        ensure!(
            !losses.terms.is_empty(),
            "[losses] asks for no loss of positive weight; known are {}",
            names()
        );
        Ok(losses)
    }

    fn push(&mut self, name: &str, asked: &LossConfig) -> Result<()> {
        let Some(loss) = LOSSES.iter().find(|l| l.name == name) else {
            bail!("unknown loss; known are {}", names());
        };
        let LossConfig {
            weight,
            temperature,
            layers,
        } = asked;
        ensure!(
            weight.is_finite() && *weight >= 0.0,
            "weight = {weight}; expected 0 or more"
        );
        ensure!(
            temperature.is_finite() && *temperature > 0.0,
            "temperature = {temperature}; expected more than 0"
        );
        if *weight == 0.0 {
            return Ok(());
        }
        if loss.teacher_logits || loss.hidden {
            ensure!(
                self.sizes.has_teacher,
                "it compares with a teacher, and the recipe names none"
            );
        }
        let mut term = Term {
            loss,
            weight: *weight,
            temperature: *temperature,
            pairs: Vec::new(),
        };
        if loss.hidden {
            let Some((teacher_layers, teacher_width)) = self.sizes.teacher else {
                bail!(
                    "this teacher gives no hidden states; use a Hugging Face folder or GGUF of a llama model, or drop this loss"
                );
            };
            let m = self.sizes.layers;
            let pairs = match layers {
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
                let projection = self.extra..self.extra + teacher_width * self.sizes.width;
                self.extra = projection.end;
                term.pairs.push(Pair {
                    student: place(&mut self.student_layers, s),
                    teacher: place(&mut self.teacher_layers, t),
                    projection,
                });
            }
        }
        self.terms.push(term);
        Ok(())
    }

    /// The names of the terms, in the order of [`Losses::run`]'s values.
    pub fn names(&self) -> Vec<&'static str> {
        self.terms.iter().map(|t| t.loss.name).collect()
    }

    /// What to ask the student for.
    pub(crate) fn student_want(&self, positions: Vec<usize>) -> Want {
        Want {
            positions,
            hidden_layers: self.student_layers.clone(),
        }
    }

    /// What to ask the teacher for; `None` when no term looks at one.
    pub(crate) fn teacher_want(&self, positions: Vec<usize>) -> Option<Want> {
        let asked = self
            .terms
            .iter()
            .any(|t| t.loss.teacher_logits || t.loss.hidden);
        asked.then(|| Want {
            positions,
            hidden_layers: self.teacher_layers.clone(),
        })
    }

    /// Initial projections, drawn so that they keep the scale of what they project.
    pub(crate) fn initial_projections(&self, seed: u64) -> Vec<f32> {
        let mut extra = vec![0f32; self.extra];
        let std = (1.0 / self.sizes.width as f64).sqrt();
        fill_normal(&mut extra, std, &mut Rng::new(&[seed, 0x7072_6f6a]));
        extra
    }

    /// Values of the terms (means without weights), with gradients of the weighted sum in `gradients`: those of logits and hidden states
    /// overwritten, those of the projections added to.
    pub(crate) fn run(&self, inputs: &Inputs, gradients: &mut Gradients) -> Vec<f64> {
        gradients.logits.clear();
        gradients.logits.resize(inputs.logits.len(), 0.0);
        gradients.hidden.resize_with(inputs.hidden.len(), Vec::new);
        for (g, h) in gradients.hidden.iter_mut().zip(inputs.hidden) {
            g.clear();
            g.resize(h.len(), 0.0);
        }
        gradients.extra.resize(self.extra, 0.0);
        self.terms
            .iter()
            .map(|t| (t.loss.run)(t, self.sizes, inputs, gradients))
            .collect()
    }

    /// The weighted sum of the values that [`Losses::run`] gave.
    pub fn total(&self, values: &[f64]) -> f64 {
        self.terms
            .iter()
            .zip(values)
            .map(|(t, v)| f64::from(t.weight) * v)
            .sum()
    }
}

fn place(list: &mut Vec<usize>, layer: usize) -> usize {
    list.iter().position(|l| *l == layer).unwrap_or_else(|| {
        list.push(layer);
        list.len() - 1
    })
}

fn names() -> String {
    LOSSES.iter().map(|l| l.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
