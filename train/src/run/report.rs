//! The report of one run: teacher and student on the same held-out data, as the runtime measures them.

use std::path::Path;

use anyhow::Result;
use dram_core::Model;

use super::LOG;
use super::events::{Event, Summary};
use super::job::Job;
use crate::data::Batch;
use crate::eval::{Figures, HeldOut, evaluate_with};
use crate::report::{Curve, Measure, Page, Row, Table, count, duration, write};
use crate::stop::Watch;
use crate::tasks::actions;

impl Job<'_> {
    /// Measures teacher, control and the exported student, fills `summary.exact` and `summary.table`, and writes `report.md` into its folder.
    pub(super) fn report(
        &self,
        summary: &mut Summary,
        listener: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let (recipe, sources) = (self.recipe, self.sources);
        let Some(gguf) = &summary.gguf else {
            return Ok(());
        };
        let batches: Vec<Batch> = sources
            .held_out
            .iter()
            .flat_map(|set| set.batches.iter().cloned())
            .collect();
        let asked: Vec<&HeldOut> = sources
            .held_out
            .iter()
            .filter(|set| !set.cases.is_empty())
            .collect();
        let cases: Vec<&[_]> = asked.iter().map(|set| &set.cases[..]).collect();
        let measure = Measure {
            teacher: self.teacher.map(|t| t.reference),
            batches: &batches,
            cases: &cases,
            same: &actions::exact_match,
            workers: recipe.train.all_threads(),
            speed: Measure::short_request_within(Model::open(gguf)?.config().context_length),
        };
        let mut rows = Vec::new();
        let mut tell = |done, of| {
            listener(Event::Working {
                what: "measuring",
                done,
                of,
            });
        };
        let watch = &mut Watch::new(self.stop, &mut tell);
        if let (Some(open), Some(section)) = (&self.teacher, &recipe.teacher) {
            rows.push(if section.path.is_file() {
                measure.row("teacher", &section.path, watch)?
            } else {
                let figures = evaluate_with(&[open.reference], None, &batches, watch)?[0];
                let decoder = open.teacher.decoder();
                let parameters = decoder.map(|d| d.config().parameters() as u64);
                let mut row = Row {
                    name: "teacher".into(),
                    parameters,
                    exact: vec![None; cases.len()],
                    ..Row::default()
                };
                row.set_figures(&figures);
                row
            });
        }
        if let Some(control) = self.control {
            rows.push(measure.row("control, without a teacher", control, watch)?);
        }
        let student = measure.row(&recipe.name, gguf, watch)?;
        let shares = asked.iter().zip(&student.exact);
        summary.exact = shares
            .filter_map(|(set, share)| Some((set.name.clone(), (*share)?)))
            .collect();
        rows.push(student);
        let table = Table {
            sets: asked.iter().map(|set| set.name.clone()).collect(),
            rows,
            notes: vec![
                format!(
                    "NLL, perplexity, KL and top-1 over {} held-out tokens",
                    batches.iter().map(|b| b.targets.len()).sum::<usize>()
                ),
                measure.speed_note(),
            ],
        };
        let page = Page {
            title: recipe.name.clone(),
            command: None,
            lead: vec![format!(
                "{} parameters, {} steps.",
                count(summary.parameters as u64),
                summary.steps
            )],
            table: table.clone(),
            curves: curves(&self.out.join(LOG), &summary.figures, summary.steps)?,
            sections: vec![
                (
                    "Parity".into(),
                    summary.parity.map_or_else(String::new, |p| {
                        format!("The runtime against the training model: {p}.")
                    }),
                ),
                (
                    "Recipe".into(),
                    format!("```toml\n{}```", toml::to_string(recipe)?),
                ),
                (
                    "Time".into(),
                    format!(
                        "This start took {}.",
                        duration(std::time::Duration::from_secs_f64(summary.seconds))
                    ),
                ),
            ],
        };
        summary.table = Some(table);
        write(self.out, &page)
    }
}

/// What the log says of every step and evaluation: the sum that is minimised, each loss where there are several, the held-out sets, and of those the
/// figures of the finished model.
fn curves(log: &Path, last: &[(String, Figures)], steps: u64) -> Result<Vec<Curve>> {
    let mut curves: Vec<Curve> = Vec::new();
    let mut add = |name: String, step: f64, value: f64| match curves
        .iter_mut()
        .find(|curve| curve.name == name)
    {
        Some(curve) => curve.points.push((step, value)),
        None => curves.push(Curve {
            name,
            points: vec![(step, value)],
        }),
    };
    let mut held_out = |set: &str, step: f64, nll: Option<f64>, kl: Option<f64>| {
        for (what, value) in [("NLL", nll), ("KL to the teacher", kl)] {
            if let Some(value) = value {
                add(format!("{set}: {what}"), step, value);
            }
        }
    };
    let text = std::fs::read_to_string(log)?;
    let lines = || {
        text.lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter_map(|line| Some((line["step"].as_f64()?, line)))
    };
    for (step, line) in lines() {
        if let Some(set) = line["set"].as_str()
            && step < steps as f64
        {
            held_out(set, step, line["nll"].as_f64(), line["kl"].as_f64());
        }
    }
    for (set, figures) in last {
        held_out(set, steps as f64, Some(figures.nll), figures.kl);
    }
    for (step, line) in lines() {
        let Some(loss) = line["loss"].as_f64() else {
            continue;
        };
        add("training: sum".into(), step, loss);
        let terms = line["terms"].as_object().filter(|terms| terms.len() > 1);
        for (name, value) in terms.into_iter().flatten() {
            if let Some(value) = value.as_f64() {
                add(format!("training: {}", name.replace('_', " ")), step, value);
            }
        }
    }
    Ok(curves)
}
