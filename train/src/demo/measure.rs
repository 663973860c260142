//! The rows of the demo's table.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use dram_files::write_beside;

use super::Event;
use super::world::{Exported, World};
use crate::data::actions;
use crate::eval::{Case, Reference};
use crate::report::{Measure, Row, Table};
use crate::stop::{self, Watch};
use crate::teacher::Scored;

impl World<'_> {
    /// Measures every file; rows that an interrupted start measured are taken from the output folder.
    pub(super) fn measure(
        &self,
        files: &Exported,
        stop: &AtomicBool,
        listener: &mut dyn FnMut(Event<'_>),
    ) -> Result<Table> {
        let files: [(&str, &Path, bool); 5] = [
            ("teacher", &files.teacher, false),
            ("control, Q4_0", &files.control, true),
            ("student, f32", &files.f32, true),
            ("student, Q4_0 by rounding", &files.rounded, true),
            ("student, Q4_0 by QAT", &files.student, true),
        ];
        let scored = Scored {
            teacher: self.teacher.as_ref(),
            threads: self.options.threads,
        };
        let reference = Reference::new(&scored, Some(&self.options.out_dir));
        let cases: Vec<&[Case]> = self.sets.iter().map(|s| &s.cases[..]).collect();
        let held = &self.sets[0];
        let measure = |teacher| Measure {
            teacher,
            batches: &held.batches,
            cases: &cases,
            same: &actions::exact_match,
            workers: self.options.threads,
            speed: Measure::short_request(),
        };
        let folder = self.path("measured");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let mut rows = Vec::with_capacity(files.len());
        for (name, path, compared) in files {
            stop::check(stop)?;
            let kept = folder
                .join(path.file_name().context("a file without a name")?)
                .with_extension("json");
            let row = match fs::read_to_string(&kept)
                .ok()
                .and_then(|text| serde_json::from_str::<Row>(&text).ok())
            {
                Some(row) => row,
                None => {
                    let mut tell = |done, of| {
                        listener(Event::Working {
                            what: name,
                            done,
                            of,
                        });
                    };
                    let mut watch = Watch::new(stop, &mut tell);
                    let row =
                        measure(compared.then_some(&reference)).row(name, path, &mut watch)?;
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
        Ok(Table {
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
                measure(None).speed_note(),
            ],
        })
    }
}
