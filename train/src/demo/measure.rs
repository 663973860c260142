//! The rows of the demo's table.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use dram_core::{Model, kernels, latency};

use super::{Event, Exported, World};
use crate::checkpoint::write_beside;
use crate::data::actions;
use crate::eval::{Figures, Runtime, evaluate, exact_match};
use crate::report::{Row, Table};
use crate::teacher::Scored;

const PROMPT: usize = 32;
const GENERATE: usize = 32;

impl World<'_> {
    /// Measures every file; rows that an interrupted start measured are taken from the output folder. `None` when it was stopped.
    pub(super) fn measure(
        &self,
        files: &Exported,
        stop: &AtomicBool,
        listener: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<Table>> {
        let files: [(&str, &Path, bool); 5] = [
            ("teacher", &files.teacher, false),
            ("control, Q4_0", &files.control, true),
            ("student, f32", &files.f32, true),
            ("student, Q4_0 by rounding", &files.rounded, true),
            ("student, Q4_0 by QAT", &files.student, true),
        ];
        let folder = self.path("measured");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let mut rows = Vec::with_capacity(files.len());
        for (name, path, compared) in files {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let kept = folder
                .join(path.file_name().context("a file without a name")?)
                .with_extension("json");
            let row = match fs::read_to_string(&kept)
                .ok()
                .and_then(|text| serde_json::from_str::<Row>(&text).ok())
            {
                Some(row) => row,
                None => {
                    let row = self.row(name, path, compared)?;
                    let text = serde_json::to_string_pretty(&row)?;
                    write_beside(&kept, |beside| Ok(fs::write(beside, text)?))?;
                    row
                }
            };
            let exact: Vec<String> = row
                .exact
                .iter()
                .flatten()
                .map(|v| format!("{:.1} %", v * 100.0))
                .collect();
            listener(Event::Note(&format!(
                "{name}: exact match {}",
                exact.join(" and ")
            )));
            rows.push(row);
        }
        let held = &self.sets[0];
        Ok(Some(Table {
            sets: self.sets.iter().map(|s| s.name.to_owned()).collect(),
            rows,
            notes: vec![
                format!(
                    "exact match: {} held-out requests in each set; NLL, KL and top-1 against the teacher over the {} answer tokens of \"{}\"",
                    held.cases.len(),
                    held.batches.iter().map(|b| b.targets.len()).sum::<usize>(),
                    held.name
                ),
                "Q4_0: matrices of the layers Q4_0, embeddings (also the output matrix) Q8_0"
                    .to_owned(),
                format!(
                    "speed: {PROMPT} tokens in, {GENERATE} out, one thread, {}; medians of 5",
                    kernels::selected().name()
                ),
            ],
        }))
    }

    fn row(&self, name: &str, path: &Path, compared: bool) -> Result<Row> {
        let threads = self.options.threads;
        let model = Model::open(path)?;
        let runtime = Runtime::new(
            name.to_owned(),
            model.clone(),
            threads,
            Some(
                self.config
                    .context_length
                    .min(model.config().context_length),
            ),
        )?;
        let exact = self.sets.iter().map(|set| {
            Ok(Some(
                exact_match(&runtime, &set.cases, &actions::exact_match)?.share(),
            ))
        });
        let exact = exact.collect::<Result<Vec<_>>>()?;
        let teacher = Scored {
            teacher: self.teacher.as_ref(),
            threads,
        };
        let figures: Figures = if compared {
            evaluate(&[&runtime], Some(&teacher), &self.sets[0].batches)?[0]
        } else {
            evaluate(&[&runtime], None, &self.sets[0].batches)?[0]
        };
        drop(runtime);
        let options = latency::LatencyOptions {
            prompt: PROMPT,
            generate: GENERATE,
            threads: Some(1),
            repetitions: 5,
            ..Default::default()
        };
        let speed = latency::measure(&model, &options, &mut |_| {})?;
        Ok(Row {
            name: name.to_owned(),
            parameters: Some(model.info().parameters),
            exact,
            nll: Some(figures.nll),
            kl: figures.kl,
            top1: figures.top1,
            file_bytes: Some(model.info().file_bytes),
            prefill: Some(speed.prefill),
            decode: Some(speed.decode),
            first_token_ms: Some(speed.first_token.as_secs_f64() * 1e3),
            mapped: Some(speed.memory.mapped),
            anonymous: Some(speed.memory.anonymous()),
        })
    }
}
