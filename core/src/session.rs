//! A session: one sequence, its cache and its threads. Prompt in, pieces of text out.

use crate::cancel::{CancelToken, Cancellation};
use crate::kv::KvCache;
use crate::model::Model;
use crate::model::forward::{Decoder, Want};
use crate::output::{Found, Output};
use crate::request::{Completion, Event, Finish, Request, Timings};
use crate::sampling::Sampler;
use crate::scratch::Scratch;
use crate::threads::{self, Pool};
use crate::{Error, Result};
use std::ops::ControlFlow;
use std::time::Instant;

/// What a session may use.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionOptions {
    /// Positions it has room for; `None`: the model's own context, at most 4096.
    pub context: Option<usize>,
    /// Threads that compute, the caller's among them; `None`: [`threads::default_threads`].
    pub threads: Option<usize>,
}

/// One sequence being evaluated. Not shared between threads, but may move from one to another.
pub struct Session {
    model: Model,
    pool: Pool,
    cache: KvCache,
    scratch: Scratch,
    sampler: Sampler,
    output: Output,
    cancellation: Cancellation,
    /// Tokens in the cache.
    position: usize,
}

/// Most threads that a session may ask for.
const MOST_THREADS: usize = 256;

impl Session {
    pub(crate) fn new(model: Model, options: SessionOptions) -> Result<Session> {
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
        if !(1..=MOST_THREADS).contains(&threads) {
            return Err(Error::InvalidOption {
                option: "threads",
                expected: format!("from 1 to {MOST_THREADS}"),
                got: threads.to_string(),
            });
        }
        model.check_memory(context)?;
        // The buffers below are made infallibly; ask first whether they can be.
        let bytes = model.memory(context).anonymous();
        let mut probe = Vec::<u8>::new();
        if !usize::try_from(bytes).is_ok_and(|bytes| {
            std::hint::black_box(&mut probe)
                .try_reserve_exact(bytes)
                .is_ok()
        }) {
            return Err(Error::OutOfMemory { bytes, context });
        }
        drop(probe);
        Ok(Session {
            pool: Pool::new(Some(threads))?,
            cache: KvCache::new(model.config(), context),
            scratch: Scratch::new(model.config(), context),
            sampler: Sampler::new(model.config().vocabulary),
            output: Output::default(),
            cancellation: Cancellation::new(),
            position: 0,
            model,
        })
    }

    /// The model it evaluates.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Tokens in the cache.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Positions it has room for.
    #[must_use]
    pub fn context(&self) -> usize {
        self.cache.context()
    }

    /// Threads that compute.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// A token that cancels the request that runs now, or else the next one. Take one for each request.
    #[must_use]
    pub fn cancel_token(&self) -> CancelToken {
        self.cancellation.token()
    }

    /// Forgets the sequence.
    pub fn reset(&mut self) {
        self.position = 0;
    }

    /// Forgets everything after the first `position` tokens. Does nothing when there are no more.
    pub fn truncate(&mut self, position: usize) {
        self.position = self.position.min(position);
    }

    /// Evaluates `ids` after what is in the cache, and returns the logits `[vocabulary]` that follow the last of them.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::BadToken`] and [`Error::ContextFull`] leave the session as it was. [`Error::Cancelled`]: the position is
    /// after the last part of `ids` that was evaluated as a whole, and the session goes on from there.
    pub fn prefill(&mut self, ids: &[u32]) -> Result<&[f32]> {
        self.check(ids)?;
        if let Err(error) = self.advance(ids) {
            self.cancellation.next();
            return Err(error);
        }
        Ok(self.logits())
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
        self.reset();
        self.check(ids)?;
        let result = self.evaluate_each(ids, each);
        self.cancellation.next();
        result
    }

    fn evaluate_each(&mut self, ids: &[u32], each: &mut dyn FnMut(usize, &[f32])) -> Result<()> {
        let (tokens, logit_rows) = (self.scratch.tokens, self.scratch.logit_rows);
        for part in ids.chunks(tokens) {
            let mut decoder =
                Decoder::new(&self.model, &self.pool, &mut self.cache, &mut self.scratch);
            decoder.run(part, self.position, Want::All, &self.cancellation)?;
            for first in (0..part.len()).step_by(logit_rows) {
                let rows = first..part.len().min(first + logit_rows);
                let logits = decoder.logits(rows.clone());
                for (row, logits) in rows.zip(logits.chunks_exact(self.model.config().vocabulary)) {
                    each(self.position + row, logits);
                }
            }
            self.position += part.len();
        }
        Ok(())
    }

    /// The vectors `[ids, embedding]` of an encoder's text, evaluated from an empty cache.
    pub(crate) fn vectors(&mut self, ids: &[u32]) -> Result<&[f32]> {
        self.reset();
        self.check(ids)?;
        let mut decoder = Decoder::new(&self.model, &self.pool, &mut self.cache, &mut self.scratch);
        let result = decoder.run(ids, 0, Want::All, &self.cancellation);
        self.cancellation.next();
        result?;
        Ok(&self.scratch.x[..ids.len() * self.model.config().embedding_length])
    }

    /// Refuses tokens that cannot be evaluated next.
    fn check(&self, ids: &[u32]) -> Result<()> {
        let vocabulary = self.model.config().vocabulary;
        if ids.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(Error::BadToken { id, vocabulary });
        }
        if ids.len() > self.context() - self.position {
            return Err(Error::ContextFull {
                tokens: self.position + ids.len(),
                context: self.context(),
            });
        }
        Ok(())
    }

    /// Evaluates tokens that were checked, part by part, and leaves the last one's logits in the scratch.
    fn advance(&mut self, ids: &[u32]) -> Result<()> {
        let parts = ids.chunks(self.scratch.tokens);
        let last = parts.len() - 1;
        for (number, part) in parts.enumerate() {
            let mut decoder =
                Decoder::new(&self.model, &self.pool, &mut self.cache, &mut self.scratch);
            let want = if number == last {
                Want::Last
            } else {
                Want::Nothing
            };
            decoder.run(part, self.position, want, &self.cancellation)?;
            if number == last {
                decoder.logits(0..1);
            }
            self.position += part.len();
        }
        Ok(())
    }

    /// The logits of the last position evaluated, `[vocabulary]`.
    fn logits(&self) -> &[f32] {
        &self.scratch.logits[..self.model.config().vocabulary]
    }

    /// Makes one completion, from an empty cache. Events come on the calling thread; one that returns [`ControlFlow::Break`] stops the request.
    ///
    /// # Errors
    /// A prompt that is empty, too long or names tokens that do not exist; options that mean nothing; a chat without a template, or with one
    /// that fails. Being cancelled is no error: see [`Finish::Cancelled`].
    pub fn generate(
        &mut self,
        request: &Request,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Completion> {
        let result = self.answer(request, on_event);
        self.cancellation.next();
        result
    }

    fn answer(
        &mut self,
        request: &Request,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Completion> {
        let start = Instant::now();
        self.sampler.start(&request.sampling)?;
        if request.stop.iter().any(String::is_empty) {
            return Err(Error::InvalidOption {
                option: "stop",
                expected: "strings that are not empty".into(),
                got: "an empty one".into(),
            });
        }
        let prompt = self.model.prompt_tokens(request)?;
        self.reset();
        self.check(&prompt)?;
        self.output.clear();
        let room = self.context() - prompt.len() + 1;
        let mut completion = Completion {
            text: String::new(),
            tokens: Vec::with_capacity(request.max_tokens.min(room)),
            prompt_tokens: prompt.len(),
            finish: Finish::Cancelled,
            timings: Timings::default(),
        };

        let before = Instant::now();
        let prefilled = self.advance(&prompt);
        completion.timings.prefill = before.elapsed();
        match prefilled {
            Ok(()) => {}
            Err(Error::Cancelled) => return Ok(completion),
            Err(error) => return Err(error),
        }
        if on_event(Event::Prefilled {
            tokens: prompt.len(),
        })
        .is_break()
        {
            return Ok(completion);
        }

        let finish = self.continue_text(request, &mut completion, start, on_event)?;
        completion.finish = finish;
        completion.text = self.output.text().to_owned();
        if !completion.tokens.is_empty() {
            completion.timings.decode = start.elapsed() - completion.timings.first_token;
        }
        Ok(completion)
    }

    /// Chooses tokens and evaluates them until something ends the text.
    fn continue_text(
        &mut self,
        request: &Request,
        completion: &mut Completion,
        start: Instant,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Finish> {
        let model = self.model.clone();
        let mut unsent = 0; // tokens since the last piece
        let mut send = |output: &mut Output, unsent: &mut usize| match output.take() {
            "" => ControlFlow::Continue(()),
            text => on_event(Event::Piece {
                text,
                tokens: std::mem::take(unsent),
            }),
        };

        let mut finish = loop {
            if completion.tokens.len() == request.max_tokens {
                break Finish::MaxTokens;
            }
            if let Some(&last) = completion.tokens.last() {
                if self.position == self.context() {
                    break Finish::ContextFull;
                }
                match self.advance(&[last]) {
                    Ok(()) => {}
                    Err(Error::Cancelled) => break Finish::Cancelled,
                    Err(error) => return Err(error),
                }
            }
            if self.cancellation.requested() {
                break Finish::Cancelled;
            }
            let vocabulary = model.config().vocabulary;
            let id = self.sampler.sample(&self.scratch.logits[..vocabulary])?;
            if completion.tokens.is_empty() {
                completion.timings.first_token = start.elapsed();
            }
            if model.tokenizer().is_end(id) {
                break Finish::EndOfText;
            }
            completion.tokens.push(id);
            unsent += 1;
            let found = self.output.push(&request.stop, |bytes| {
                model.tokenizer().decode_bytes(id, bytes)
            });
            if let Found::Stop(index) = found {
                break Finish::StopString(request.stop[index].clone());
            }
            if send(&mut self.output, &mut unsent).is_break() {
                return Ok(Finish::Cancelled);
            }
        };

        if !matches!(finish, Finish::StopString(_))
            && let Found::Stop(index) = self.output.finish(&request.stop)
        {
            finish = Finish::StopString(request.stop[index].clone());
        }
        match send(&mut self.output, &mut unsent) {
            ControlFlow::Break(()) => Ok(Finish::Cancelled),
            ControlFlow::Continue(()) => Ok(finish),
        }
    }
}
