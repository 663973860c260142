//! What a model and its sessions take, known beforehand.

use super::{SessionOptions, Speculation, speculation};
#[cfg(feature = "constraint")]
use crate::constraint::Grammars;
use crate::model::{Adapter, Model};
use crate::{Error, Result, cpu, sampling, state};

/// Bytes that a model and one session take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The file, and those of adapters and of a draft model, mapped. The system may drop these pages under pressure and read them again.
    pub mapped: u64,
    /// Keys and values for the whole context, what short convolutions keep, and linear attention's matrices. Pages count against the process as the context fills.
    pub kv_cache: u64,
    /// Activations, logits, the sampler's buffers and the sequence's tokens.
    pub scratch: u64,
    /// What the first request of this model with a constraint or with tools takes at most, once for all of its sessions: the vocabulary as a trie.
    /// Before that request nothing, unless [`MemoryQuery::constraints`] asks for it; 0 in a build without the feature `constraint`. What a request's
    /// own grammar takes comes on top, mostly less than a megabyte.
    pub constraint: u64,
}

impl Memory {
    /// Bytes that are the process's own: cache, scratch, and what constraints share.
    #[must_use]
    pub fn anonymous(&self) -> u64 {
        self.kv_cache
            .saturating_add(self.scratch)
            .saturating_add(self.constraint)
    }

    /// All bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.anonymous().saturating_add(self.mapped)
    }
}

/// What [`Model::memory`] counts.
#[derive(Clone, Copy, Debug)]
pub struct MemoryQuery<'a> {
    /// The session's.
    pub options: SessionOptions,
    /// The session's adapters: their files count as mapped, and what they compute with as scratch.
    pub adapters: &'a [(Adapter, f32)],
    /// Drafts: a draft model's file counts as mapped, and its session's cache and scratch with the session's own, as do the logits of a draft's
    /// positions.
    pub speculation: &'a Speculation,
    /// Whether [`Memory::constraint`] is what constraints will take at most, also before the first.
    pub constraints: bool,
}

impl Default for MemoryQuery<'_> {
    fn default() -> Self {
        SessionOptions::default().into()
    }
}

/// A session without adapters, drafts or constraints.
impl From<SessionOptions> for MemoryQuery<'_> {
    fn from(options: SessionOptions) -> Self {
        MemoryQuery {
            options,
            adapters: &[],
            speculation: &Speculation::Off,
            constraints: false,
        }
    }
}

impl Model {
    /// Bytes that a session takes, known before it is made: of its [`SessionOptions`], or of a [`MemoryQuery`] with more than these. A session
    /// allocates `kv_cache + scratch` bytes when it is made, and nothing per token.
    #[must_use]
    pub fn memory<'a>(&self, query: impl Into<MemoryQuery<'a>>) -> Memory {
        let MemoryQuery {
            options,
            adapters,
            speculation,
            constraints,
        } = query.into();
        let config = self.config();
        let context = options.context.unwrap_or_else(|| self.default_context());
        let scratch = cpu::bytes(config, context, adapters, speculation.most() + 1)
            .saturating_add(sampling::bytes(config.vocabulary, context))
            .saturating_add(super::bytes(context));
        let own = Memory {
            mapped: adapters
                .iter()
                .fold(self.info().file_bytes, |sum, (adapter, _)| {
                    sum.saturating_add(adapter.gguf().file_bytes() as u64)
                }),
            kv_cache: state::bytes(config, context, options.cache_format),
            constraint: self.constraint_bytes(constraints),
            scratch,
        };
        let Speculation::Draft { model, .. } = speculation else {
            return own;
        };
        let draft = model.memory(speculation::draft_options(model, context, None));
        Memory {
            mapped: own.mapped.saturating_add(draft.mapped),
            kv_cache: own.kv_cache.saturating_add(draft.kv_cache),
            scratch: own.scratch.saturating_add(draft.scratch),
            ..own
        }
    }

    #[cfg(feature = "constraint")]
    /// What constraints take of the model, or with `all` false what they take already.
    fn constraint_bytes(&self, all: bool) -> u64 {
        let grammars = self.shared::<Grammars>();
        let counted = grammars.filter(|grammars| all || grammars.are_made());
        counted.map_or(0, |grammars| grammars.bytes(self.tokenizer()))
    }

    #[cfg(not(feature = "constraint"))]
    fn constraint_bytes(&self, _: bool) -> u64 {
        0
    }

    /// Refuses a context that does not fit the limit the model was opened with, and says which would.
    pub(crate) fn check_memory<'a>(&self, query: impl Into<MemoryQuery<'a>>) -> Result<()> {
        let Some(limit) = self.options().memory_limit else {
            return Ok(());
        };
        let query = query.into();
        let context = query.options.context;
        let context = context.unwrap_or_else(|| self.default_context());
        let needs = |context| {
            let options = SessionOptions {
                context: Some(context),
                ..query.options
            };
            self.memory(MemoryQuery { options, ..query })
        };
        let needed = needs(context);
        if needed.total() <= limit {
            return Ok(());
        }
        // Memory grows with the context: halve the interval.
        let (mut fits, mut too_long) = (0, context);
        while too_long - fits > 1 {
            let middle = fits + (too_long - fits) / 2;
            if needs(middle).total() <= limit {
                fits = middle
            } else {
                too_long = middle
            }
        }
        let Memory {
            mapped,
            kv_cache,
            scratch,
            constraint,
        } = needed;
        Err(Error::MemoryLimit {
            limit,
            context,
            mapped,
            kv_cache,
            scratch,
            constraint,
            fits,
        })
    }
}
