//! The report of one run: teacher and student on the same held-out data, as the runtime measures them.

use std::path::Path;

use anyhow::Result;
use dram_core::Model;

use super::sources::{HeldOut, Sources};
use super::{LOG, Place, Summary};
use crate::data::Batch;
use crate::data::actions;
use crate::eval::{Scorer, evaluate};
use crate::recipe::Recipe;
use crate::report::{Curve, Measure, Page, Row, Table, count, duration, write};
use crate::teacher::{Scored, Teacher};

/// Measures teacher, control and the exported student, fills `summary.exact` and `summary.table`, and writes `report.md` into its folder.
pub(super) fn report(
    recipe: &Recipe,
    teacher: Option<&dyn Teacher>,
    sources: &Sources,
    place: &Place<'_>,
    summary: &mut Summary,
) -> Result<()> {
    let Some(gguf) = &summary.gguf else {
        return Ok(());
    };
    let threads = recipe.train.threads();
    let scored = teacher.map(|teacher| Scored { teacher, threads });
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
        teacher: scored.as_ref().map(|s| s as &dyn Scorer),
        batches: &batches,
        cases: &cases,
        same: &actions::exact_match,
        workers: threads,
        speed: Measure::short_request_within(Model::open(gguf)?.config().context_length),
    };
    let mut rows = Vec::new();
    if let (Some(teacher), Some(section), Some(scored)) = (teacher, &recipe.teacher, &scored) {
        rows.push(if section.path.is_file() {
            measure.row("teacher", &section.path)?
        } else {
            let figures = evaluate(&[scored], None, &batches)?[0];
            let parameters = teacher.decoder().map(|d| d.config().parameters() as u64);
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
    if let Some(control) = place.control {
        rows.push(measure.row("control, without a teacher", control)?);
    }
    let student = measure.row(&recipe.name, gguf)?;
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
        curves: vec![Curve {
            name: "training".into(),
            points: losses(&place.out.join(LOG))?,
        }],
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
    write(place.out, &page)
}

/// (step, loss) of every line of the log that is a step.
fn losses(log: &Path) -> Result<Vec<(f64, f64)>> {
    let text = std::fs::read_to_string(log)?;
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    Ok(lines
        .filter_map(|v| Some((v["step"].as_f64()?, v["loss"].as_f64()?)))
        .collect())
}
