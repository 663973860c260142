//! What the user writes: one TOML file for `dram pretrain` (no teacher) and `dram distill` (with one).
//!
//! ```toml
//! name = "my student"
//!
//! [data]
//! kind = "jsonl"
//! path = "requests.jsonl"
//!
//! [teacher]
//! path = "teachers/llama-3.2-1b"
//!
//! [losses]
//! cross_entropy = { weight = 0.3 }
//! forward_kl = { weight = 1.0, temperature = 2.0 }
//!
//! [quant]
//! linear = "q4_0"
//! ```
//!
//! Every field has a default except `data.path` (where the kind reads files). A field that does not exist is an error. A section is a file of this room: its
//! fields, their defaults and their check.

mod data;
mod eval;
mod export;
mod losses;
mod quant;
mod student;
mod teacher;
mod train;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

pub use data::{Data, Kind};
pub use eval::Eval;
pub use export::Export;
pub use quant::Quant;
pub use student::Student;
pub use teacher::Teacher;
pub use train::{Precision, Train};

use crate::loss::LossConfig;
use crate::student::{Layout, Scheme};
use crate::trainer::Settings;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What the model is called in its file and in reports. Default "student".
    #[serde(default = "default_name")]
    pub name: String,
    #[serde(default)]
    pub data: Data,
    #[serde(default)]
    pub student: Student,
    /// The teacher: needed by `distill`, refused by `pretrain`.
    #[serde(default)]
    pub teacher: Option<Teacher>,
    /// What to minimise: a weighted sum. Names are those of [`crate::loss::LOSSES`]. Default: cross entropy alone, or with a teacher
    /// 0.3 · cross entropy + forward KL.
    #[serde(default)]
    pub losses: BTreeMap<String, LossConfig>,
    #[serde(default)]
    pub train: Train,
    /// Quantisation-aware training; absent: none.
    #[serde(default)]
    pub quant: Option<Quant>,
    #[serde(default)]
    pub export: Export,
    #[serde(default)]
    pub eval: Eval,
}

fn default_name() -> String {
    "student".into()
}

impl Default for Recipe {
    fn default() -> Self {
        Recipe {
            name: default_name(),
            data: Data::default(),
            student: Student::default(),
            teacher: None,
            losses: BTreeMap::new(),
            train: Train::default(),
            quant: None,
            export: Export::default(),
            eval: Eval::default(),
        }
    }
}

impl Recipe {
    /// Reads a recipe; paths in it are relative to its folder.
    ///
    /// # Errors
    /// With line and field of what is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the recipe {}", path.display()))?;
        let mut recipe =
            Self::parse(&text).with_context(|| format!("recipe {}", path.display()))?;
        recipe.resolve(path.parent().unwrap_or(Path::new("")));
        Ok(recipe)
    }

    /// Reads a recipe's text.
    ///
    /// # Errors
    /// With line and field of what is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let recipe: Recipe = toml::from_str(text)?;
        recipe.check()?;
        Ok(recipe)
    }

    /// Makes relative paths relative to `folder`.
    pub fn resolve(&mut self, folder: &Path) {
        let paths = [
            &mut self.data.path,
            &mut self.data.held_out,
            &mut self.data.tokenizer,
            &mut self.student.init,
        ];
        let teacher = self.teacher.as_mut().map(|t| &mut t.path);
        for path in paths.into_iter().flatten().chain(teacher) {
            *path = folder.join(&path);
        }
    }

    /// # Errors
    /// When a number is impossible or options contradict each other.
    pub fn check(&self) -> Result<()> {
        self.train.check()?;
        self.data.check(&self.student)?;
        self.eval.check(self.data.kind)?;
        if let Some(quant) = &self.quant {
            quant.check()?;
        }
        for (name, config) in &self.losses {
            config.check(name)?;
        }
        let scheme = self.scheme()?;
        if self.student.init.is_none() {
            let layout = Layout::new(&self.student.config(self.data.vocabulary)?);
            scheme.check(&layout).context(match self.quant {
                Some(_) => "[quant]",
                None => "[export]",
            })?;
        }
        Ok(())
    }

    /// The folder that the tokenizer comes from, where it does come from one.
    pub(crate) fn tokenizer_folder(&self) -> Option<&Path> {
        let teacher = self.teacher.as_ref().map(|teacher| &teacher.path);
        let named = [
            self.data.tokenizer.as_ref(),
            teacher,
            self.student.init.as_ref(),
        ];
        let first = named.into_iter().flatten().next()?;
        first.is_dir().then_some(first)
    }

    /// The formats of the exported file.
    ///
    /// # Errors
    /// When a name is unknown.
    pub fn scheme(&self) -> Result<Scheme> {
        match &self.quant {
            Some(q) => Scheme::by_name(&q.linear, &q.embedding, &q.head).context("[quant]"),
            None => {
                let format = &self.export.format;
                Scheme::by_name(format, format, format).context("[export]")
            }
        }
    }

    /// The losses, with the defaults filled in.
    pub fn loss_configs(&self) -> BTreeMap<String, LossConfig> {
        if self.losses.is_empty() {
            losses::default(self.teacher.is_some())
        } else {
            self.losses.clone()
        }
    }

    /// The numbers of the loop.
    pub fn settings(&self) -> Settings {
        self.train.settings(self.quant.as_ref())
    }

    /// The recipe of the control: what is left without a teacher.
    pub(crate) fn of_control(&self) -> Recipe {
        Recipe {
            name: format!("{}, control", self.name),
            teacher: None,
            losses: BTreeMap::new(),
            eval: Eval {
                control: false,
                ..self.eval.clone()
            },
            ..self.clone()
        }
    }

    /// # Errors
    /// When there is a teacher.
    pub(crate) fn expect_no_teacher(&self) -> Result<()> {
        if self.teacher.is_some() {
            bail!(
                "the recipe names a [teacher]; `pretrain` learns from data alone: use `distill`, or take the section out"
            );
        }
        ensure!(
            !self.eval.control,
            "[eval] control = true; a control stands beside a distilled student, and the recipe names no [teacher]"
        );
        Ok(())
    }

    /// # Errors
    /// When there is none.
    pub(crate) fn expect_teacher(&self) -> Result<&Teacher> {
        self.teacher.as_ref().context("the recipe names no [teacher]; add one (path = a Hugging Face folder or a GGUF file), or use `pretrain`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_recipe_is_the_default() {
        assert_eq!(Recipe::parse("").unwrap(), Recipe::default());
        let text = toml::to_string(&Recipe {
            quant: Some(Quant::default()),
            ..Recipe::default()
        })
        .unwrap();
        assert_eq!(Recipe::parse(&text).unwrap().quant, Some(Quant::default()));
    }

    #[test]
    fn paths_are_relative_to_the_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.toml");
        std::fs::write(
            &path,
            "data = { kind = 'text', path = 'a.txt' }\nteacher = { path = '/t' }",
        )
        .unwrap();
        let recipe = Recipe::read(&path).unwrap();
        assert_eq!(recipe.data.path.unwrap(), folder.path().join("a.txt"));
        assert_eq!(recipe.teacher.unwrap().path, Path::new("/t"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("[train]\nlearningrate = 1", "learningrate"),
            ("[data]\nkind = 'csv'", "actions"),
            ("[data]\nkind = 'text'", "path is missing"),
            ("[data]\npath = 'x'", "reads no path"),
            ("[student]\nheads = 3", "multiple of heads"),
            ("[student]\nkv_heads = 3", "kv_heads"),
            (
                "[student]\nembedding_length = 120\n[quant]",
                "multiples of 32",
            ),
            ("[quant]\nlinear = 'q3_x'", "q4_0"),
            ("[quant]\nstart = 2", "0 to 1"),
            ("[losses]\nkl = {}", "forward_kl"),
            (
                "[losses]\nforward_kl = { weight = 1, temp = 2 }",
                "unknown field `temp`",
            ),
            (
                "[losses]\ncross_entropy = { temperature = 2 }",
                "[losses] cross_entropy",
            ),
            ("[losses]\nhidden_mse = { layers = 'last' }", "uniform"),
            ("[train]\nsteps = 0", "steps"),
            ("[train]\nsteps = 10\nwarmup = 20", "warmup"),
            ("[train]\nprecision = 'f8'", "bf16"),
            ("[data]\nsequence = 512", "context_length"),
            ("[train", "line 1"),
        ] {
            let message = format!("{:#}", Recipe::parse(text).expect_err(text));
            assert!(message.contains(word), "{text}: {message}");
        }
        assert!(Recipe::default().expect_teacher().is_err());
    }
}
