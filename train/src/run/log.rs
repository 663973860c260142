//! `train.jsonl`.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use dram_files::write_beside;
use serde_json::Value as Json;

use super::LOG;
use crate::eval::Figures;
use crate::trainer::Step;

/// One JSON object a line: steps, and held-out figures.
pub(super) struct Log {
    file: fs::File,
    /// Steps after which there are held-out figures.
    evaluated: BTreeSet<u64>,
}

impl Log {
    /// Keeps what an earlier start wrote up to `step`.
    pub(super) fn open(path: &Path, step: u64) -> Result<Self> {
        let mut kept = String::new();
        let mut evaluated = BTreeSet::new();
        let text = fs::read_to_string(path).unwrap_or_default();
        for line in text.lines().filter(|_| step > 0) {
            let json: Json = serde_json::from_str(line).unwrap_or_default();
            let Some(at) = json["step"].as_u64().filter(|at| *at <= step) else {
                continue;
            };
            if json["set"].is_string() {
                evaluated.insert(at);
            }
            kept.extend([line, "\n"]);
        }
        write_beside(path, |beside| Ok(fs::write(beside, kept)?))?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Log { file, evaluated })
    }

    pub(super) fn evaluated(&self, step: u64) -> bool {
        self.evaluated.contains(&step)
    }

    pub(super) fn step(&mut self, step: &Step, names: &[&str]) -> Result<()> {
        let mut line = serde_json::to_value(step)?;
        line["terms"] = names
            .iter()
            .zip(&step.terms)
            .map(|(n, t)| ((*n).to_string(), Json::from(*t)))
            .collect();
        Ok(writeln!(self.file, "{line}")?)
    }

    pub(super) fn figures(&mut self, step: u64, figures: &[(String, Figures)]) -> Result<()> {
        self.evaluated.insert(step);
        for (set, figures) in figures {
            let mut line = serde_json::to_value(figures)?;
            line["step"] = step.into();
            line["set"] = set.as_str().into();
            writeln!(self.file, "{line}")?;
        }
        Ok(())
    }
}

/// What the log in `folder` says of one loss: (step, value on the training batch).
pub(crate) fn loss_of_steps(folder: &Path, loss: &str) -> Result<Vec<(f64, f64)>> {
    let path = folder.join(LOG);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Json>(line).ok());
    Ok(lines
        .filter_map(|line| Some((line["step"].as_f64()?, line["terms"][loss].as_f64()?)))
        .collect())
}
