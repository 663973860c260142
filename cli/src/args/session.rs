//! The session: context, cache, threads, adapters.

use anyhow::Result;
use dram_core::{CacheFormat, ContextPolicy, Model, Session, SessionOptions};

use super::LoraArgs;

/// Options of `run` and `chat` about the session.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Session")]
pub(crate) struct SessionArgs {
    /// Context length in tokens (default: the model's, at most 4096)
    #[arg(short, long)]
    context: Option<usize>,
    /// When the context is full, go on instead of stopping: drop the oldest turns of a conversation, of plain text the older half of what follows the first N tokens
    #[arg(long, value_name = "N")]
    slide: Option<usize>,
    /// Format of the KV cache; q8_0 takes about half the memory
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
