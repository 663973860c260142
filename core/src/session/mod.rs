//! A session: one sequence, its cache and its threads.

mod generate;
mod memory;
mod open;
mod overflow;
mod saved;
pub(crate) mod speculation;
mod vectors;

pub use memory::{Memory, MemoryQuery};
pub use speculation::Speculation;

use crate::cancel::{CancelToken, Cancellation};
use crate::cpu::{Cpu, ImportanceSums};
use crate::decoder::{Decoder, Outputs};
use crate::model::{Adapter, Model};
use crate::output::Output;
use crate::sampling::Sampler;
use crate::state::{CacheFormat, Mark};
use crate::threads::{self, Pool, ThreadCount};
use crate::{Error, Result};
use speculation::Speculator;
use std::sync::Arc;

/// What a session may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// Positions it has room for; `None`: the model's own context, at most 4096.
    pub context: Option<usize>,
    /// Threads that compute, the caller's among them; `None`: [`threads::default_threads`].
    pub threads: Option<usize>,
    /// How keys and values are kept.
    pub cache_format: CacheFormat,
}

/// One sequence being evaluated. Not shared between threads, but may move from one to another. Sessions of one model share its weights.
pub struct Session {
    model: Model,
    cpu: Cpu,
    sampler: Sampler,
    output: Output,
    cancellation: Cancellation,
    /// The sequence. Those at `position` and after are about to be evaluated; between calls these are what the state could not keep.
    ids: Vec<u32>, // ≤ [context]
    /// Tokens in the state. Drafts may lie beyond.
    position: usize,
    /// The row of the scratch's logits that follows the sequence.
    row: usize,
    speculator: Option<Speculator>,
}

/// Most threads that a session may ask for.
const MAX_THREADS: usize = 256;

/// Buffers are made infallibly: asks first whether the system has `bytes` for them.
fn check_system(bytes: u64, context: usize) -> Result<()> {
    let mut probe = Vec::<u8>::new();
    let fits = usize::try_from(bytes).is_ok_and(|bytes| {
        std::hint::black_box(&mut probe)
            .try_reserve_exact(bytes)
            .is_ok()
    });
    if fits {
        Ok(())
    } else {
        Err(Error::OutOfMemory { bytes, context })
    }
}

/// Bytes of the sequence's tokens.
pub(crate) fn bytes(context: usize) -> u64 {
    (context as u64).saturating_mul(size_of::<u32>() as u64)
}

impl Session {
    pub(crate) fn new(model: Model, options: SessionOptions) -> Result<Session> {
        Session::on(model, options, None)
    }

    /// A session that computes on the threads of `pool`, if that is given.
    fn on(model: Model, options: SessionOptions, pool: Option<Arc<Pool>>) -> Result<Session> {
        let most = model.config().context_length;
        let context = options.context.unwrap_or_else(|| model.default_context());
        if context == 0 || context > most {
            return Err(Error::InvalidOption {
                option: "context",
                expected: format!("from 1 to the model's {most}"),
                got: context.to_string(),
            });
        }
        let threads = options.threads.unwrap_or_else(threads::default_threads);
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(Error::InvalidOption {
                option: "threads",
                expected: format!("from 1 to {MAX_THREADS}"),
                got: threads.to_string(),
            });
        }
        let format = options.cache_format;
        format.check(model.config())?;
        let options = SessionOptions {
            context: Some(context),
            ..options
        };
        model.check_memory(options)?;
        let memory = model.memory(options);
        check_system(memory.kv_cache.saturating_add(memory.scratch), context)?;
        let pool = match pool {
            Some(pool) => pool,
            None => Arc::new(Pool::new(Some(threads))?),
        };
        Ok(Session {
            cpu: Cpu::new(model.clone(), pool, context, format),
            sampler: Sampler::new(model.config().vocabulary, context),
            output: Output::default(),
            cancellation: Cancellation::new(),
            ids: Vec::with_capacity(context),
            position: 0,
            row: 0,
            speculator: None,
            model,
        })
    }

    /// Another session with the same options, adapters and speculation and the same sequence: what is in the cache is copied, up to the position.
    ///
    /// # Errors
    /// As [`Model::session`].
    pub fn fork(&self) -> Result<Session> {
        let mut fork = Session::new(self.model.clone(), self.options())?;
        fork.set_adapters(self.adapters())?;
        fork.set_speculation(self.speculation())?;
        fork.cpu.state = self.cpu.state.fork(self.position);
        fork.ids.extend_from_slice(&self.ids);
        fork.position = self.position;
        Ok(fork)
    }

    /// Evaluates with these adapters from now on, each with a scale of its own (1 is what it was trained for); none turns them off. What they change
    /// adds up. The base model's weights stay shared, and other sessions as they are.
    ///
    /// Keys and values in the cache came from other adapters, so the sequence is forgotten, unless the list is the same as before.
    ///
    /// # Errors
    /// [`Error::WrongBase`] for an adapter that was checked against another model, [`Error::InvalidOption`] for a scale that is not finite,
    /// [`Error::MemoryLimit`] and [`Error::OutOfMemory`] for the room they need ([`Model::memory`]). The session stays as it was.
    pub fn set_adapters(&mut self, adapters: &[(Adapter, f32)]) -> Result<()> {
        for (adapter, scale) in adapters {
            if !adapter.base().is(&self.model) {
                return Err(Error::WrongBase {
                    adapter: adapter.gguf().name().to_owned(),
                    base: adapter.base().gguf().name().to_owned(),
                    got: self.model.gguf().name().to_owned(),
                });
            }
            if !scale.is_finite() {
                return Err(Error::InvalidOption {
                    option: "adapter scale",
                    expected: "a finite number".into(),
                    got: scale.to_string(),
                });
            }
        }
        let on = adapters.iter().filter(|(_, scale)| *scale != 0.0);
        let list: Vec<(Adapter, f32)> = on.cloned().collect();
        let key = |(adapter, scale): &(Adapter, f32)| (adapter.fingerprint(), scale.to_bits());
        if list.iter().map(key).eq(self.adapters().iter().map(key)) {
            return Ok(());
        }
        let options = self.options();
        let model = &self.model;
        let query = MemoryQuery {
            adapters: &list,
            ..options.into()
        };
        model.check_memory(MemoryQuery {
            speculation: self.speculation(),
            ..query
        })?;
        let all = model.memory(query).anonymous();
        let own = model.memory(options).anonymous();
        check_system(all - own, self.context())?;
        self.cpu.set_adapters(&list);
        self.reset();
        Ok(())
    }

    /// The adapters it evaluates with, and their scales.
    #[must_use]
    pub fn adapters(&self) -> &[(Adapter, f32)] {
        self.cpu.adapters()
    }

    /// Generates with drafts from now on, or without. The result is what it would be without them: the same tokens where sampling is greedy or drafts
    /// are looked up, and where a draft model's tokens are drawn, the same distribution. What changes is the time that it takes.
    ///
    /// Their length follows how many were right of late; where drafts do not pay, there are hardly any. A draft model computes on the session's
    /// threads, without the session's adapters, and rests where the sequence outgrows its context. It takes the memory of a session of its own, and any
    /// drafts take the logits of their positions ([`Model::memory`]). There are none while [`Session::collect_importance`] watches.
    ///
    /// # Errors
    /// [`Error::DraftVocabulary`] for a draft model with other tokens, [`Error::InvalidOption`] for a draft of no token or of more than
    /// [`Speculation::MAX`], [`Error::MemoryLimit`] where the session's model has one, and what [`Model::session`] gives for the draft model. The session
    /// stays as it was.
    pub fn set_speculation(&mut self, speculation: &Speculation) -> Result<()> {
        let (options, adapters) = (self.options(), self.adapters());
        let model = &self.model;
        model.check_memory(MemoryQuery {
            adapters,
            speculation,
            ..options.into()
        })?;
        let speculator = Speculator::new(self, speculation)?;
        let vocabulary = self.model.config().vocabulary;
        let rows = (speculation.most() + 1).min(self.cpu.max_tokens());
        if rows > self.cpu.max_logit_rows() {
            let bytes = rows * vocabulary * size_of::<f32>();
            check_system(bytes as u64, self.context())?;
            self.cpu.reserve_logit_rows(rows);
        }
        self.speculator = speculator;
        Ok(())
    }

    /// Where drafts come from.
    #[must_use]
    pub fn speculation(&self) -> &Speculation {
        match &self.speculator {
            Some(speculator) => speculator.speculation(),
            None => &Speculation::Off,
        }
    }

    /// Begins to sum the squares of what the model's matrices are multiplied with, anew where that had begun before: a row for each token that is
    /// evaluated. It takes time and memory until [`Session::take_importance`] ends it, and meanwhile no drafts are made: those that are dropped would count.
    pub fn collect_importance(&mut self) {
        self.cpu.collect_importance();
    }

    /// Ends what [`Session::collect_importance`] began and returns the sums, in the order of the model's file; none where nothing was evaluated.
    pub fn take_importance(&mut self) -> Vec<ImportanceSums> {
        self.cpu.take_importance()
    }

    /// What it uses, as [`Model::session`] takes it.
    #[must_use]
    pub fn options(&self) -> SessionOptions {
        SessionOptions {
            context: Some(self.context()),
            threads: Some(self.threads()),
            cache_format: self.cpu.state.kv.format(),
        }
    }

    /// The model it evaluates.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Tokens of the sequence.
    #[must_use]
    pub fn position(&self) -> usize {
        self.ids.len()
    }

    /// The sequence's tokens, in order.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.ids
    }

    /// Positions it has room for.
    #[must_use]
    pub fn context(&self) -> usize {
        self.cpu.state.context()
    }

    /// Threads that compute.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.cpu.pool.threads()
    }

    /// What changes how many threads compute, from any thread and while a request runs: at most as many as the session was made with.
    #[must_use]
    pub fn thread_count(&self) -> ThreadCount {
        self.cpu.pool.thread_count()
    }

    /// A token that cancels the request that runs now, or else the next one. Take one for each request.
    #[must_use]
    pub fn cancel_token(&self) -> CancelToken {
        self.cancellation.token()
    }

    /// Forgets the sequence.
    pub fn reset(&mut self) {
        self.truncate(0);
    }

    /// Forgets everything after the first `position` tokens. Does nothing when there are no more. Where a model's state cannot go back so far as to there
    /// alone, as that of short convolutions, some of the tokens before are evaluated again with the next ones.
    pub fn truncate(&mut self, position: usize) {
        self.rewind(position);
        self.ids.truncate(position);
    }

    /// Evaluates those of its tokens again that the state could not keep.
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.request(|session| session.evaluate_waiting(None))
    }

    /// The tokens after the first `position` are no longer in the state.
    fn rewind(&mut self, position: usize) {
        if position < self.position {
            self.position = self.cpu.state.truncate(position);
        }
    }

    /// Evaluates `ids` after what is in the cache, and returns the logits `[vocabulary]` that follow the last of them.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::BadToken`] and [`Error::ContextFull`] leave the session as it was. [`Error::Cancelled`]: the position is
    /// after the last part of `ids` that was evaluated as a whole, and the session goes on from there. [`Error::FileChanged`]: the model's file, or an
    /// adapter's, is not what was opened, and the session is of no more use.
    ///
    /// Nothing is forgotten here: a [`ContextPolicy`](crate::ContextPolicy) is a request's. Make room with [`Session::truncate`] or
    /// [`Session::reset`], and evaluate again what is to stay.
    pub fn prefill(&mut self, ids: &[u32]) -> Result<&[f32]> {
        self.request(|session| {
            session.check(ids)?;
            session.check_room(ids.len())?;
            session.advance(ids)
        })?;
        Ok(self.logits())
    }

    /// Does the work of one request. Whatever becomes of it, its tokens cancel nothing after it.
    fn request<T>(&mut self, work: impl FnOnce(&mut Session) -> Result<T>) -> Result<T> {
        let result = self.check_files().and_then(|()| work(self));
        self.cancellation.next();
        result
    }

    /// Refuses to go on with files that are not what they were when they were opened: the model's, its adapters', the draft model's.
    fn check_files(&self) -> Result<()> {
        self.model.gguf().check_unchanged()?;
        if let Speculation::Draft { model, .. } = self.speculation() {
            model.gguf().check_unchanged()?;
        }
        let mut adapters = self.adapters().iter();
        adapters.try_for_each(|(adapter, _)| adapter.gguf().check_unchanged())
    }

    /// Evaluates one token after what is in the cache, and returns the logits `[vocabulary]` that follow it.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn decode(&mut self, id: u32) -> Result<&[f32]> {
        self.prefill(&[id])
    }

    /// Evaluates `ids` from an empty cache and hands `each` every position with the logits `[vocabulary]` that follow it, in order.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn evaluate(&mut self, ids: &[u32], each: &mut dyn FnMut(usize, &[f32])) -> Result<()> {
        self.request(|session| session.evaluate_each(ids, each))
    }

    fn evaluate_each(&mut self, ids: &[u32], each: &mut dyn FnMut(usize, &[f32])) -> Result<()> {
        self.reset();
        self.check(ids)?;
        self.check_room(ids.len())?;
        let (tokens, logit_rows) = (self.cpu.max_tokens(), self.cpu.max_logit_rows());
        for part in ids.chunks(tokens) {
            let mut decoder = Decoder::new(&self.model, &mut self.cpu);
            decoder.run(part, self.position, Outputs::All, &self.cancellation)?;
            for first in (0..part.len()).step_by(logit_rows) {
                let rows = first..part.len().min(first + logit_rows);
                let logits = decoder.logits(rows.clone())?;
                for (row, logits) in rows.zip(logits.chunks_exact(self.model.config().vocabulary)) {
                    each(self.position + row, logits);
                }
            }
            self.ids.extend_from_slice(part);
            self.position += part.len();
        }
        Ok(())
    }

    /// Refuses tokens that cannot be evaluated.
    fn check(&self, ids: &[u32]) -> Result<()> {
        let vocabulary = self.model.config().vocabulary;
        if ids.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        match ids.iter().find(|&&id| id as usize >= vocabulary) {
            Some(&id) => Err(Error::BadToken { id, vocabulary }),
            None => Ok(()),
        }
    }

    /// Refuses more tokens than there is room for.
    fn check_room(&self, tokens: usize) -> Result<()> {
        if tokens > self.context() - self.ids.len() {
            return Err(Error::ContextFull {
                tokens: self.ids.len() + tokens,
                context: self.context(),
            });
        }
        Ok(())
    }

    /// Evaluates tokens that were checked, part by part, and leaves the last one's logits in the scratch.
    fn advance(&mut self, ids: &[u32]) -> Result<()> {
        self.ids.extend_from_slice(ids);
        self.evaluate_waiting(Some(Mark::Prompt))
    }

    /// Evaluates `prompt`, of which the sequence has the first `shared` tokens and the state as many as it could keep.
    fn read_prompt(&mut self, prompt: &[u32], shared: usize) -> Result<()> {
        if self.position < shared && self.cpu.state.has_checkpoints() {
            self.evaluate_waiting(None)?;
            self.cpu.state.checkpoint(Mark::Shared, shared);
        }
        self.advance(&prompt[shared..])
    }

    /// Evaluates the tokens after the position. Those that were not, because it was cancelled, are forgotten.
    /// Before the last part, if that is of several tokens, the state keeps a checkpoint for `mark`.
    fn evaluate_waiting(&mut self, mark: Option<Mark>) -> Result<()> {
        self.row = 0;
        while self.position < self.ids.len() {
            let end = self.ids.len().min(self.position + self.cpu.max_tokens());
            let is_last = end == self.ids.len();
            if let Some(mark) = mark.filter(|_| is_last && end - self.position > 1) {
                self.cpu.state.checkpoint(mark, self.position);
            }
            let mut decoder = Decoder::new(&self.model, &mut self.cpu);
            let outputs = if is_last {
                Outputs::Last
            } else {
                Outputs::None
            };
            let part = &self.ids[self.position..end];
            if let Err(error) = decoder.run(part, self.position, outputs, &self.cancellation) {
                self.ids.truncate(self.position);
                return Err(error);
            }
            if is_last && let Err(error) = decoder.logits(0..1) {
                self.ids.truncate(self.position);
                return Err(error);
            }
            self.position = end;
        }
        Ok(())
    }

    /// The logits that follow the sequence, `[vocabulary]`.
    fn logits(&self) -> &[f32] {
        self.cpu.logits(self.row)
    }
}
