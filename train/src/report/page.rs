//! `report.md` with its table as JSON and its curves as SVG beside it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use dram_files::write_beside;

use super::{Curve, Table, svg};

/// What a report tells.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub title: String,
    /// The command that repeats the run.
    pub command: Option<String>,
    /// Paragraphs before the table.
    pub lead: Vec<String>,
    pub table: Table,
    pub curves: Vec<Curve>,
    /// Sections after the table: heading and Markdown text.
    pub sections: Vec<(String, String)>,
}

/// Writes `report.md`, `report.json` (the table) and, where there are curves, `loss.svg` into `folder`.
///
/// # Errors
/// When the disk refuses; files that were there before stay whole.
pub fn write(folder: &Path, page: &Page) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let mut text = format!("# {}\n\n", page.title);
    if let Some(command) = &page.command {
        let _ = writeln!(text, "```\n{command}\n```\n");
    }
    for paragraph in &page.lead {
        let _ = writeln!(text, "{paragraph}\n");
    }
    text.push_str(&page.table.markdown());
    if page.curves.iter().any(|c| !c.points.is_empty()) {
        put(
            &folder.join("loss.svg"),
            &svg("training loss", &page.curves)?,
        )?;
        text.push_str("\n![training loss](loss.svg)\n");
    }
    for (heading, body) in &page.sections {
        let _ = writeln!(text, "\n## {heading}\n\n{body}");
    }
    put(&folder.join("report.md"), &text)?;
    put(&folder.join("report.json"), &page.table.json()?)
}

fn put(path: &Path, text: &str) -> Result<()> {
    write_beside(path, |beside| Ok(fs::write(beside, text)?))
}
