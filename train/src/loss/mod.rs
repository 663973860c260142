//! What is minimised: a weighted sum of losses.
//!
//! A loss is a file: its settings, its value, its gradient, and the test of both against candle's autograd. [`LOSSES`] has a row for each. A loss adds its
//! gradient with respect to the student's logits and hidden states; the decoder's backward pass takes it from there. Values are means over the
//! positions that count in the whole step, whichever shard they are in.

mod cross_entropy;
mod forward_kl;
mod hidden;

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::student::{OutputSpec, fill_normal};
use dram_files::Rng;
use hidden::Layers;

/// Every loss.
pub static LOSSES: &[Row] = &[
    cross_entropy::ROW,
    forward_kl::ROW,
    hidden::MSE,
    hidden::COSINE,
];

/// One loss of the table.
pub struct Row {
    /// Its key in the recipe.
    pub name: &'static str,
    /// One line for people.
    pub doc: &'static str,
    /// Whether it compares with the teacher's logits.
    pub teacher_logits: bool,
    /// Whether it compares hidden states, through a learnt projection for each pair of layers.
    pub hidden: bool,
    /// Reads and checks its settings.
    read: fn(&toml::Table) -> Result<Box<dyn Loss>>,
}

/// A loss with its settings.
trait Loss: Send + Sync {
    /// The settings with their defaults.
    fn settings(&self) -> Result<Value>;

    /// Says which hidden states it compares, for losses that do.
    fn choose_layers(&mut self, _: Sizes, _: &mut Layers) -> Result<()> {
        Ok(())
    }

    /// Adds `weight` times the gradient, and gives the mean without the weight.
    fn run(&self, weight: f32, sizes: Sizes, inputs: &Inputs, gradients: &mut Gradients) -> f64;
}

/// A loss as the recipe asks for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LossConfig {
    /// Factor in the sum. Default 1.
    #[serde(default = "one")]
    pub weight: f32,
    /// The settings that the loss has of its own; its file documents them.
    #[serde(flatten)]
    pub settings: toml::Table,
}

fn one() -> f32 {
    1.0
}

impl LossConfig {
    /// With default settings.
    pub fn new(weight: f32) -> Self {
        LossConfig {
            weight,
            settings: toml::Table::new(),
        }
    }

    /// With one more setting.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<toml::Value>) -> Self {
        self.settings.insert(name.into(), value.into());
        self
    }

    /// # Errors
    /// When there is no such loss, or it has no such setting, or a number is impossible.
    pub(crate) fn check(&self, name: &str) -> Result<()> {
        self.loss(name).map(|_| ())
    }

    /// What of it decides a run. A checkpoint names temperature and layers of every loss, also of one that has none.
    pub(crate) fn identity(&self, name: &str) -> Result<Value> {
        let mut all =
            serde_json::json!({ "weight": self.weight, "temperature": 1.0, "layers": "uniform" });
        if let Value::Object(settings) = self.loss(name)?.1.settings()? {
            for (name, value) in settings {
                all[name] = value;
            }
        }
        Ok(all)
    }

    fn loss(&self, name: &str) -> Result<(&'static Row, Box<dyn Loss>)> {
        let Some(row) = LOSSES.iter().find(|row| row.name == name) else {
            bail!("[losses] {name}: unknown loss; known are {}", names());
        };
        let loss = self.read(row).with_context(|| format!("[losses] {name}"))?;
        Ok((row, loss))
    }

    fn read(&self, row: &Row) -> Result<Box<dyn Loss>> {
        let weight = self.weight;
        ensure!(
            weight.is_finite() && weight >= 0.0,
            "weight = {weight}; expected 0 or more"
        );
        (row.read)(&self.settings)
    }
}

/// A loss's settings out of a recipe.
fn read<T: DeserializeOwned>(settings: &toml::Table) -> Result<T> {
    Ok(settings.clone().try_into()?)
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
struct Term {
    row: &'static Row,
    weight: f32,
    loss: Box<dyn Loss>,
}

/// The whole sum.
pub struct Losses {
    terms: Vec<Term>,
    sizes: Sizes,
    layers: Layers,
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
    /// Builds the sum of `configs`: (name, what is asked of it). A weight of 0 leaves a loss out.
    ///
    /// # Errors
    /// When a name is unknown, a setting impossible, or a term wants what the teacher cannot give.
    pub fn new<'a>(
        configs: impl IntoIterator<Item = (&'a str, &'a LossConfig)>,
        sizes: Sizes,
    ) -> Result<Self> {
        let mut losses = Losses {
            terms: Vec::new(),
            sizes,
            layers: Layers::default(),
        };
        for (name, config) in configs {
            let (row, loss) = config.loss(name)?;
            if config.weight > 0.0 {
                losses
                    .push(row, config.weight, loss)
                    .with_context(|| format!("[losses] {name}"))?;
            }
        }
        ensure!(
            !losses.terms.is_empty(),
            "[losses] has no loss of positive weight; known are {}",
            names()
        );
        Ok(losses)
    }

    fn push(&mut self, row: &'static Row, weight: f32, mut loss: Box<dyn Loss>) -> Result<()> {
        ensure!(
            self.sizes.has_teacher || !(row.teacher_logits || row.hidden),
            "the loss needs a teacher, and the recipe names none"
        );
        loss.choose_layers(self.sizes, &mut self.layers)?;
        self.terms.push(Term { row, weight, loss });
        Ok(())
    }

    /// The names of the terms, in the order of [`Losses::run`]'s values.
    pub fn names(&self) -> Vec<&'static str> {
        self.terms.iter().map(|t| t.row.name).collect()
    }

    /// What to ask the student for.
    pub(crate) fn student_outputs(&self, positions: Vec<usize>) -> OutputSpec {
        OutputSpec {
            positions,
            hidden_layers: self.layers.student.clone(),
        }
    }

    /// What to ask the teacher for; `None` when no term looks at one.
    pub(crate) fn teacher_outputs(&self, positions: Vec<usize>) -> Option<OutputSpec> {
        let mut rows = self.terms.iter().map(|t| t.row);
        rows.any(|row| row.teacher_logits || row.hidden)
            .then(|| OutputSpec {
                positions,
                hidden_layers: self.layers.teacher.clone(),
            })
    }

    /// Initial projections, drawn so that they keep the scale of what they project.
    pub(crate) fn initial_projections(&self, seed: u64) -> Vec<f32> {
        let mut extra = vec![0f32; self.layers.projections];
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
        gradients.extra.resize(self.layers.projections, 0.0);
        self.terms
            .iter()
            .map(|t| t.loss.run(t.weight, self.sizes, inputs, gradients))
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

fn names() -> String {
    LOSSES.iter().map(|l| l.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod autograd;

#[cfg(test)]
mod tests {
    use super::autograd::SIZES;
    use super::*;

    #[test]
    fn impossible_sums_are_refused() {
        let plain = || LossConfig::new(1.0);
        let alone = Sizes {
            teacher: None,
            has_teacher: false,
            ..SIZES
        };
        let logits_only = Sizes {
            teacher: None,
            ..SIZES
        };
        let pairs = plain().with("layers", vec![vec![3, 1]]);
        let cold = plain().with("temperature", 0.0);
        for (name, config, sizes, word) in [
            ("reverse", plain(), SIZES, "known are cross_entropy"),
            ("forward_kl", plain(), alone, "names none"),
            ("hidden_mse", plain(), logits_only, "no hidden states"),
            ("hidden_mse", pairs, SIZES, "2 layers"),
            ("forward_kl", cold.clone(), SIZES, "temperature = 0"),
            ("cross_entropy", cold, SIZES, "unknown field `temperature`"),
            ("cross_entropy", LossConfig::new(0.0), SIZES, "no loss"),
            ("cross_entropy", LossConfig::new(-1.0), SIZES, "weight = -1"),
        ] {
            let message = format!("{:#}", Losses::new([(name, &config)], sizes).err().unwrap());
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn a_checkpoint_names_every_setting() {
        let identity = |name: &str, config: LossConfig| config.identity(name).unwrap().to_string();
        let config = LossConfig::new(0.5).with("temperature", 2);
        assert_eq!(
            identity("forward_kl", config),
            r#"{"weight":0.5,"temperature":2.0,"layers":"uniform"}"#
        );
        let config = LossConfig::new(1.0).with("layers", vec![vec![1, 2]]);
        assert_eq!(
            identity("hidden_mse", config),
            r#"{"weight":1.0,"temperature":1.0,"layers":[[1,2]]}"#
        );
    }
}
