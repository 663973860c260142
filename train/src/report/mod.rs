//! The report that every distillation ends with: one table of measured models, in text, Markdown and JSON, and the loss curves.

mod curves;
mod measure;
mod page;

pub use curves::{Curve, svg};
pub use measure::Measure;
pub use page::{Page, write};

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::eval::Figures;

/// One measured model. `None` is a figure that was not measured, shown as `–`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What the model is: "teacher", "student Q4_0, QAT".
    pub name: String,
    pub parameters: Option<u64>,
    /// Share of requests whose whole answer is right, 0 to 1, one per set of [`Table::sets`].
    pub exact: Vec<Option<f64>>,
    /// Mean negative log likelihood of the held-out targets, nats per token.
    pub nll: Option<f64>,
    /// exp(NLL).
    #[serde(default)]
    pub perplexity: Option<f64>,
    /// Mean forward KL from the teacher over the same positions, nats per token.
    pub kl: Option<f64>,
    /// Share of those positions at which the most likely token is the teacher's, 0 to 1.
    pub top1: Option<f64>,
    pub file_bytes: Option<u64>,
    /// Tokens per second, medians.
    pub prefill: Option<f64>,
    pub decode: Option<f64>,
    /// Time to first token, milliseconds, median.
    pub first_token_ms: Option<f64>,
    /// Memory while it runs: the mapped file, which the system may drop, and what it may not (KV cache and scratch), bytes.
    pub mapped: Option<u64>,
    pub anonymous: Option<u64>,
}

impl Row {
    /// Takes over held-out figures.
    pub fn set_figures(&mut self, figures: &Figures) {
        (self.nll, self.kl, self.top1) = (Some(figures.nll), figures.kl, figures.top1);
        self.perplexity = Some(figures.perplexity());
    }
}

/// Rows measured on the same data and the same machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Names of the exact-match sets, in the order of [`Row::exact`].
    pub sets: Vec<String>,
    pub rows: Vec<Row>,
    /// What a reader must know to repeat it: counts, prompt and generated length, threads, instruction set.
    pub notes: Vec<String>,
}

/// What a column shows of a row.
type Cell = Box<dyn Fn(&Row) -> Option<String>>;

/// One column: its heading and how a row fills it.
struct Column {
    heading: String,
    cell: Cell,
}

fn column(heading: impl Into<String>, cell: impl Fn(&Row) -> Option<String> + 'static) -> Column {
    Column {
        heading: heading.into(),
        cell: Box::new(cell),
    }
}

impl Table {
    fn columns(&self) -> Vec<Column> {
        let percent = |v: f64| format!("{:.1} %", v * 100.0);
        let mut columns = vec![
            column("model", |r| Some(r.name.clone())),
            column("params", |r| r.parameters.map(count)),
        ];
        for (i, set) in self.sets.iter().enumerate() {
            columns.push(column(format!("exact, {set}"), move |r| {
                r.exact.get(i).copied().flatten().map(percent)
            }));
        }
        columns.extend([
            column("NLL", |r| r.nll.map(|v| format!("{v:.4}"))),
            column("perplexity", |r| {
                r.perplexity.map(|v| {
                    let digits = if v < 1000.0 { 4 } else { 0 };
                    format!("{v:.digits$}")
                })
            }),
            column("KL", |r| r.kl.map(|v| format!("{v:.4}"))),
            column("top-1", move |r| r.top1.map(percent)),
            column("file", |r| r.file_bytes.map(bytes)),
            column("prefill t/s", |r| r.prefill.map(rate)),
            column("decode t/s", |r| r.decode.map(rate)),
            column("TTFT", |r| r.first_token_ms.map(|v| format!("{v:.1} ms"))),
            column("mapped", |r| r.mapped.map(bytes)),
            column("anonymous", |r| r.anonymous.map(bytes)),
        ]);
        // A column that no row fills says nothing.
        columns.retain(|c| self.rows.iter().any(|r| (c.cell)(r).is_some()));
        columns
    }

    /// Headings first, then one line per row; every line has as many cells as there are columns.
    fn grid(&self) -> Vec<Vec<String>> {
        let columns = self.columns();
        let mut grid = vec![
            columns
                .iter()
                .map(|c| c.heading.clone())
                .collect::<Vec<_>>(),
        ];
        for row in &self.rows {
            grid.push(
                columns
                    .iter()
                    .map(|c| (c.cell)(row).unwrap_or_else(|| "–".into()))
                    .collect(),
            );
        }
        grid
    }

    /// For a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let grid = self.grid();
        let widths = widths(&grid);
        let mut out = String::new();
        for (i, line) in grid.iter().enumerate() {
            let cells: Vec<String> = line
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(c, (cell, &w))| pad(cell, w, c > 0))
                .collect();
            out.push_str(cells.join("  ").trim_end());
            out.push('\n');
            if i == 0 {
                out.push_str(
                    &"─".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)),
                );
                out.push('\n');
            }
        }
        for note in &self.notes {
            let _ = writeln!(out, "{note}");
        }
        out
    }

    /// For a README.
    #[must_use]
    pub fn markdown(&self) -> String {
        let grid = self.grid();
        let mut out = String::new();
        for (i, line) in grid.iter().enumerate() {
            let cells: Vec<String> = line.iter().map(|c| c.replace('|', "\\|")).collect();
            let _ = writeln!(out, "| {} |", cells.join(" | "));
            if i == 0 {
                let rule: Vec<&str> = (0..line.len())
                    .map(|c| if c == 0 { "---" } else { "---:" })
                    .collect();
                let _ = writeln!(out, "| {} |", rule.join(" | "));
            }
        }
        if !self.notes.is_empty() {
            out.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(out, "- {note}");
        }
        out
    }

    /// For machines: the fields of [`Table`] and [`Row`], unrounded.
    ///
    /// # Errors
    /// Never for finite figures.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

fn widths(grid: &[Vec<String>]) -> Vec<usize> {
    let columns = grid.first().map_or(0, Vec::len);
    (0..columns)
        .map(|c| {
            grid.iter()
                .map(|line| line[c].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect()
}

fn pad(cell: &str, width: usize, right: bool) -> String {
    let fill = " ".repeat(width.saturating_sub(cell.chars().count()));
    if right {
        fill + cell
    } else {
        cell.to_owned() + &fill
    }
}

/// 1234567 → "1.23 MB" (powers of ten, as file managers count).
#[must_use]
pub fn bytes(n: u64) -> String {
    scaled(n as f64, &["B", "kB", "MB", "GB", "TB"])
}

/// 1234567 → "1.23 M".
#[must_use]
pub fn count(n: u64) -> String {
    scaled(n as f64, &["", "k", "M", "G", "T"])
        .trim_end()
        .to_owned()
}

fn scaled(mut value: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {}", units[unit])
}

fn rate(v: f64) -> String {
    if v >= 100.0 {
        format!("{v:.0}")
    } else {
        format!("{v:.1}")
    }
}

/// 83 s → "1 min 23 s".
#[must_use]
pub fn duration(d: Duration) -> String {
    let s = d.as_secs_f64();
    if s < 10.0 {
        format!("{s:.1} s")
    } else if s < 60.0 {
        format!("{s:.0} s")
    } else {
        let whole = s.round() as u64;
        format!("{} min {} s", whole / 60, whole % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let teacher = Row {
            name: "teacher".into(),
            exact: vec![Some(0.984), None],
            file_bytes: Some(9_950_000),
            decode: Some(812.4),
            ..Row::default()
        };
        let student = Row {
            name: "student Q4_0, QAT".into(),
            exact: vec![Some(0.9512), Some(1.0)],
            kl: Some(0.01234),
            file_bytes: Some(640_512),
            ..Row::default()
        };
        Table {
            sets: vec!["phrasings".into(), "no function".into()],
            rows: vec![teacher, student],
            notes: vec!["500 requests".into()],
        }
    }

    #[test]
    fn text_lines_up_and_leaves_out_empty_columns() {
        let text = table().text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("model")
                && lines[0].contains("exact, phrasings")
                && !lines[0].contains("TTFT"),
            "{text}"
        );
        assert!(
            lines[2].contains("98.4 %") && lines[2].contains("9.95 MB") && lines[2].contains("–"),
            "{text}"
        );
        assert_eq!(lines[1].chars().count(), lines[0].chars().count(), "{text}");
        assert_eq!(lines[4], "500 requests");
    }

    #[test]
    fn markdown_and_json_hold_the_same_rows() {
        let markdown = table().markdown();
        assert!(
            markdown.contains("| student Q4_0, QAT |") && markdown.contains("| 0.0123 |"),
            "{markdown}"
        );
        let back: Table = serde_json::from_str(&table().json().unwrap()).unwrap();
        assert_eq!(back, table());
    }

    #[test]
    fn figures_are_readable() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(640_512), "641 kB");
        assert_eq!(bytes(1_234_567), "1.23 MB");
        assert_eq!(count(1_234_567), "1.23 M");
        assert_eq!(duration(Duration::from_secs(83)), "1 min 23 s");
    }
}
