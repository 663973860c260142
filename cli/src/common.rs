//! What several subcommands share: sampling options, Ctrl-C, formatting, JSON output.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use dram_core::sampling::{Dry, Penalties, Xtc};
use dram_core::{
    Adapter, CacheFormat, CancelToken, ContextPolicy, Model, Sampling, Session, SessionOptions,
    Speculation,
};

/// Options of `run` and `chat` that choose the next token, in the order in which they act.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Add BIAS to the logit of token ID (-inf bans it); may be given several times
    #[arg(long, value_name = "ID=BIAS", value_parser = logit_bias, allow_hyphen_values = true)]
    pub logit_bias: Vec<(u32, f32)>,
    /// Divide the logits of tokens among the last ones by this (1: off)
    #[arg(long, default_value_t = 1.0)]
    pub repeat_penalty: f32,
    /// Take this off the logits of tokens among the last ones
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true)]
    pub presence_penalty: f32,
    /// Take this off for each time that a token came up among the last ones
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true)]
    pub frequency_penalty: f32,
    /// How many last tokens the penalties look at
    #[arg(long, default_value_t = 64)]
    pub repeat_last_n: usize,
    /// Make going on with a repetition unlikely (DRY; 0: off, 0.8 is usual)
    #[arg(long, default_value_t = 0.0)]
    pub dry_multiplier: f32,
    /// How fast DRY grows with the length of the repetition
    #[arg(long, default_value_t = 1.75)]
    pub dry_base: f32,
    /// The longest repetition that DRY lets pass
    #[arg(long, default_value_t = 2)]
    pub dry_allowed_length: usize,
    /// Keep only the K most likely tokens (0: all)
    #[arg(long, default_value_t = 40)]
    pub top_k: usize,
    /// Keep the tokens nearest to the usual surprise that together reach this probability (1: all)
    #[arg(long, default_value_t = 1.0)]
    pub typical_p: f32,
    /// Keep the most likely tokens that together reach this probability (1: all)
    #[arg(long, default_value_t = 0.95)]
    pub top_p: f32,
    /// Drop tokens less likely than this share of the most likely one (0: none)
    #[arg(long, default_value_t = 0.05)]
    pub min_p: f32,
    /// How often to drop all but the least likely token above the threshold (XTC; 0: never)
    #[arg(long, default_value_t = 0.0)]
    pub xtc_probability: f32,
    /// XTC's threshold
    #[arg(long, default_value_t = 0.1)]
    pub xtc_threshold: f32,
    /// 0 always takes the most likely token; 0.7–1.0 is usual for free text
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f32,
    /// The same seed gives the same text
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

impl SamplingArgs {
    pub(crate) fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            typical_p: self.typical_p,
            top_p: self.top_p,
            min_p: self.min_p,
            xtc: Xtc {
                probability: self.xtc_probability,
                threshold: self.xtc_threshold,
            },
            dry: Dry {
                multiplier: self.dry_multiplier,
                base: self.dry_base,
                allowed_length: self.dry_allowed_length,
                ..Dry::default()
            },
            penalties: Penalties {
                repetition: self.repeat_penalty,
                presence: self.presence_penalty,
                frequency: self.frequency_penalty,
                window: self.repeat_last_n,
            },
            logit_bias: self.logit_bias.clone(),
            seed: self.seed,
        }
    }
}

fn logit_bias(text: &str) -> Result<(u32, f32), String> {
    let parse = || {
        let (id, bias) = text.split_once('=')?;
        Some((id.trim().parse().ok()?, bias.trim().parse().ok()?))
    };
    parse().ok_or_else(|| "expected ID=BIAS, such as 13=-inf".into())
}

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
    /// When the cache is full, forget the older half of what follows the first N tokens and go on, instead of stopping
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
