//! What several subcommands share: sampling options, Ctrl-C, formatting, JSON output.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use dram_core::{CancelToken, Sampling};
use indicatif::ProgressBar;

/// Options of `run` and `chat` that choose the next token.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct SamplingArgs {
    /// 0 always takes the most likely token; 0.7–1.0 is usual for free text
    #[arg(long, default_value_t = 0.0, help_heading = "Sampling")]
    pub temperature: f32,
    /// Keep only the K most likely tokens (0: all)
    #[arg(long, default_value_t = 40, help_heading = "Sampling")]
    pub top_k: usize,
    /// Keep the most likely tokens that together reach this probability (1: all)
    #[arg(long, default_value_t = 0.95, help_heading = "Sampling")]
    pub top_p: f32,
    /// Drop tokens less likely than this share of the most likely one (0: none)
    #[arg(long, default_value_t = 0.05, help_heading = "Sampling")]
    pub min_p: f32,
    /// The same seed gives the same text
    #[arg(long, default_value_t = 0, help_heading = "Sampling")]
    pub seed: u64,
}

impl SamplingArgs {
    pub(crate) fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed,
            ..Sampling::default()
        }
    }
}

/// A flag that Ctrl-C raises. The second Ctrl-C ends the process at once.
pub(crate) fn stop_on_ctrl_c() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("\nstopping at the next safe point (Ctrl-C again: at once)");
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(stop)
}

/// Lets Ctrl-C stop the answer that is being made, in its prefill too. When none is, Ctrl-C ends the process as usual.
pub(crate) struct Interrupt(Arc<Mutex<Option<CancelToken>>>);

impl Interrupt {
    pub(crate) fn listen() -> Result<Self> {
        let running: Arc<Mutex<Option<CancelToken>>> = Arc::default();
        let seen = running.clone();
        ctrlc::set_handler(move || {
            match seen.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(token) => token.cancel(),
                None => std::process::exit(130),
            }
        })
        .context("cannot listen for Ctrl-C")?;
        Ok(Interrupt(running))
    }

    /// Runs `work`, whose request `token` cancels.
    pub(crate) fn during<T>(&self, token: CancelToken, work: impl FnOnce() -> T) -> T {
        let set = |token| *self.0.lock().unwrap_or_else(PoisonError::into_inner) = token;
        set(Some(token));
        let result = work();
        set(None);
        result
    }
}

/// A line above the bar; where no terminal draws the bar, a plain line on standard error.
pub(crate) fn say(bar: &ProgressBar, line: impl AsRef<str>) {
    if bar.is_hidden() {
        eprintln!("{}", line.as_ref());
    } else {
        bar.println(line);
    }
}

/// Writes `value` to `path` (`-`: standard output); files are written beside and renamed.
pub(crate) fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    if path == Path::new("-") {
        return Ok(io::stdout().write_all(text.as_bytes())?);
    }
    let beside = path.with_extension("json.tmp");
    std::fs::write(&beside, text)
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// `1234567` bytes as `1.23 MB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{n} B"),
        _ if value < 10.0 => format!("{value:.2} {}", UNITS[unit]),
        _ if value < 100.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// Rows as a Markdown table, columns padded so that it also reads well in a terminal; the first column is left-aligned.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(c, h)| {
            rows.iter()
                .map(|r| r[c].chars().count())
                .chain([h.chars().count(), 3])
                .max()
                .unwrap_or(3)
        })
        .collect();
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        for (c, cell) in cells.enumerate() {
            let pad = " ".repeat(width[c].saturating_sub(cell.chars().count()));
            let _ = if c == 0 {
                write!(out, "| {cell}{pad} ")
            } else {
                write!(out, "| {pad}{cell} ")
            };
        }
        out.push_str("|\n");
    };
    line(&mut header.iter().copied());
    let rule: Vec<String> = width
        .iter()
        .enumerate()
        .map(|(c, w)| {
            if c == 0 {
                "-".repeat(*w)
            } else {
                format!("{}:", "-".repeat(w - 1))
            }
        })
        .collect();
    line(&mut rule.iter().map(String::as_str));
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    out
}

/// `dram … | head` closes the pipe; that is no failure.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|e| {
        e.downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_well() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_000), "1.00 kB");
        assert_eq!(bytes(999_900), "1.00 MB");
        assert_eq!(bytes(12_345_678), "12.3 MB");
    }

    #[test]
    fn tables_align() {
        let t = table(&["model", "x"], &[vec!["a".into(), "12345".into()]]);
        assert_eq!(
            t,
            "| model |     x |\n| ----- | ----: |\n| a     | 12345 |\n"
        );
    }
}
