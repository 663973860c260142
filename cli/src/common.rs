//! What several subcommands share: session options, Ctrl-C, formatting, JSON output.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use dram_core::files::{Access, NewFile};
use dram_core::{
    Adapter, CacheFormat, CancelToken, ContextPolicy, Model, Session, SessionOptions, Speculation,
};

/// Adapters that several subcommands take.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct LoraArgs {
    /// Change the model by a LoRA adapter in GGUF, times SCALE (default 1); may be given several times
    #[arg(long = "lora", value_name = "FILE[:SCALE]")]
    files: Vec<Lora>,
}

/// An adapter's file and its scale.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lora {
    file: PathBuf,
    scale: f32,
}

impl FromStr for Lora {
    type Err = Infallible;

    /// What follows the last colon is the scale if it is a number, and otherwise a part of the name.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let scaled = text
            .rsplit_once(':')
            .and_then(|(file, scale)| Some((file, scale.parse().ok()?)));
        let (file, scale) = scaled.unwrap_or((text, 1.0));
        Ok(Lora {
            file: file.into(),
            scale,
        })
    }
}

impl LoraArgs {
    /// The adapters, checked against `model`.
    pub(crate) fn open(&self, model: &Model) -> Result<Vec<(Adapter, f32)>> {
        open_adapters(&self.files, model)
    }

    /// What a table says of them.
    pub(crate) fn note(&self) -> Option<String> {
        let name = |lora: &Lora| format!("{} times {}", lora.file.display(), lora.scale);
        let names: Vec<String> = self.files.iter().map(name).collect();
        (!names.is_empty()).then(|| format!("with the adapters {}", names.join(", ")))
    }
}

pub(crate) fn open_adapters(files: &[Lora], model: &Model) -> Result<Vec<(Adapter, f32)>> {
    let open = |Lora { file, scale }: &Lora| Ok((model.adapter(file)?, *scale));
    files.iter().map(open).collect()
}

/// Options of `run` and `chat` about the session.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Session")]
pub(crate) struct SessionArgs {
    /// Tokens the KV cache holds (default: what the model was made for, at most 4096)
    #[arg(short, long)]
    context: Option<usize>,
    /// When the cache is full, go on instead of stopping: a conversation forgets its oldest turns, plain text the older half of what follows the first N tokens
    #[arg(long, value_name = "N")]
    slide: Option<usize>,
    /// How the KV cache holds keys and values; q8_0 takes about half the memory
    #[arg(long, value_parser = ["f16", "q8_0"], default_value = "f16")]
    cache_format: String,
    /// Threads (default: the processor's fast cores)
    #[arg(short, long)]
    threads: Option<usize>,
    #[command(flatten)]
    lora: LoraArgs,
}

impl SessionArgs {
    /// A session of `model` with these options and adapters.
    pub(crate) fn open(&self, model: &Model) -> Result<Session> {
        let mut session = model.session(self.options())?;
        session.set_adapters(&self.lora.open(model)?)?;
        Ok(session)
    }

    fn options(&self) -> SessionOptions {
        SessionOptions {
            context: self.context,
            threads: self.threads,
            cache_format: match &*self.cache_format {
                "q8_0" => CacheFormat::Q8_0,
                _ => CacheFormat::F16,
            },
        }
    }

    pub(crate) fn policy(&self) -> ContextPolicy {
        self.slide
            .map_or(ContextPolicy::Error, |keep_first| ContextPolicy::Slide {
                keep_first,
            })
    }
}

/// Options of `run`, `chat` and `bench` about speculative decoding.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Speculation (the same answers in less time)")]
pub(crate) struct DraftArgs {
    /// Let this small GGUF model propose tokens, which the model checks several at a time. It needs the same vocabulary, as a student of the model has
    #[arg(long, value_name = "FILE")]
    draft: Option<PathBuf>,
    /// Propose what followed when the last N tokens came up before; needs no second model, helps where an answer repeats the prompt (2 is a good start)
    #[arg(long, value_name = "N", conflicts_with = "draft")]
    lookup: Option<usize>,
    /// Most tokens proposed at a time, 1 to 15; fewer are proposed where few are right
    #[arg(long, value_name = "N", default_value_t = 8)]
    draft_max: usize,
}

impl DraftArgs {
    pub(crate) fn speculation(&self) -> Result<Speculation> {
        let most = self.draft_max;
        Ok(match (&self.draft, self.lookup) {
            (Some(path), _) => Speculation::Draft {
                model: Model::open(path)?,
                most,
            },
            (None, Some(ngram)) => Speculation::Lookup { ngram, most },
            (None, None) => Speculation::Off,
        })
    }

    /// What a table says of where drafts come from; nothing without.
    pub(crate) fn note(&self) -> Option<String> {
        match (&self.draft, self.lookup) {
            (Some(path), _) => Some(path.display().to_string()),
            (None, Some(ngram)) => Some(format!("lookup {ngram}")),
            (None, None) => None,
        }
    }
}

/// `12 of 15 drafted tokens accepted (80 %)`.
pub(crate) fn acceptance(accepted: usize, drafted: usize) -> String {
    let share = 100.0 * accepted as f64 / drafted.max(1) as f64;
    format!("{accepted} of {drafted} drafted tokens accepted ({share:.0} %)")
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

/// Writes `value` to `path` (`-`: standard output); files are written beside and renamed.
pub(crate) fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    if path == Path::new("-") {
        return Ok(io::stdout().write_all(text.as_bytes())?);
    }
    NewFile::create(path, Access::Shared)
        .and_then(|mut new| {
            new.file().write_all(text.as_bytes())?;
            new.commit()
        })
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

/// What `println!` and `print!` do in this crate.
pub(crate) fn print(text: std::fmt::Arguments<'_>) {
    match io::Write::write_fmt(&mut io::stdout().lock(), text) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            eprintln!("error: cannot write to standard output: {error}");
            std::process::exit(1)
        }
    }
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
    fn a_scale_is_told_from_a_name() {
        let read = |text: &str| {
            let Ok(Lora { file, scale }) = text.parse();
            (file.display().to_string(), scale)
        };
        assert_eq!(read("a.gguf"), ("a.gguf".into(), 1.0));
        assert_eq!(read("a.gguf:-0.5"), ("a.gguf".into(), -0.5));
        assert_eq!(read("C:\\a.gguf"), ("C:\\a.gguf".into(), 1.0));
        assert_eq!(read("C:\\a.gguf:2"), ("C:\\a.gguf".into(), 2.0));
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
