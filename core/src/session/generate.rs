//! Completions: prompt in, pieces of text out.

use super::Session;
use crate::model::Model;
use crate::output::{Found, Output};
use crate::request::{Completion, ContextPolicy, Event, Finish, Request, Timings};
use crate::sampling::Logprobs;
use crate::{Error, Result};
use std::ops::ControlFlow;
use std::time::Instant;

type OnEvent<'a> = &'a mut dyn FnMut(Event<'_>) -> ControlFlow<()>;

impl Session {
    /// Makes one completion. Events come on the calling thread; one that returns [`ControlFlow::Break`] stops the request.
    ///
    /// The sequence becomes the prompt and what follows it. Where the prompt begins with tokens that are in the cache, as that of a chat's next turn
    /// does, only the rest is evaluated; the result is the same, bit for bit.
    ///
    /// # Errors
    /// A prompt that is empty, too long or names tokens that do not exist; options that mean nothing; a chat without a template, or with one
    /// that fails: these leave the session as it was. Being cancelled is no error: see [`Finish::Cancelled`].
    pub fn generate(
        &mut self,
        request: &Request,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Completion> {
        let result = self.answer(request, on_event);
        self.cancellation.next();
        result
    }

    fn answer(&mut self, request: &Request, on_event: OnEvent<'_>) -> Result<Completion> {
        let start = Instant::now();
        let (model, context) = (self.model.clone(), self.context());
        request.check(model.config().vocabulary, context)?;
        self.sampler
            .start(&request.sampling, model.config().vocabulary)?;
        let mut prompt = model.prompt_tokens(request)?;
        self.check(&prompt)?;
        let prompt_tokens = prompt.len();
        let mut dropped = 0;
        match request.context_policy {
            ContextPolicy::Error if prompt.len() > context => {
                return Err(Error::ContextFull {
                    tokens: prompt.len(),
                    context,
                });
            }
            ContextPolicy::Error => {}
            ContextPolicy::Slide { keep_first } => {
                dropped = ContextPolicy::dropped(keep_first, prompt.len(), context);
                if dropped > 0 {
                    prompt.drain(keep_first..keep_first + dropped);
                }
            }
        }
        let room = match request.context_policy {
            ContextPolicy::Error => context - prompt.len() + 1,
            ContextPolicy::Slide { .. } => context,
        };
        let most = request.max_tokens.min(room);
        self.output.clear();
        let same = self.ids.iter().zip(&prompt).take_while(|(a, b)| a == b);
        // The last token's logits are not kept: it is always evaluated.
        let reused = same.count().min(prompt.len() - 1);
        let mut completion = Completion {
            text: String::new(),
            tokens: Vec::with_capacity(most),
            logprobs: request.logprobs.map(|n| Logprobs::with_capacity(most, n)),
            prompt_tokens,
            reused_tokens: reused,
            finish: Finish::Cancelled,
            timings: Timings::default(),
        };
        if dropped > 0 {
            let kept = prompt.len();
            if on_event(Event::Slid { dropped, kept }).is_break() {
                return Ok(completion);
            }
        }

        let before = Instant::now();
        self.truncate(reused);
        let prefilled = self.advance(&prompt[reused..]);
        completion.timings.prefill = before.elapsed();
        match prefilled {
            Ok(()) => {}
            Err(Error::Cancelled) => return Ok(completion),
            Err(error) => return Err(error),
        }
        let event = Event::Prefilled {
            tokens: prompt_tokens,
            reused,
        };
        if on_event(event).is_break() {
            return Ok(completion);
        }
        for &id in &prompt {
            self.accept(&model, id);
        }

        let finish = self.continue_text(request, &mut completion, start, on_event)?;
        completion.finish = finish;
        completion.text = self.output.text().to_owned();
        if !completion.tokens.is_empty() {
            completion.timings.decode = start.elapsed() - completion.timings.first_token;
        }
        Ok(completion)
    }

    fn accept(&mut self, model: &Model, id: u32) {
        self.sampler
            .accept(id, &|id, out| model.tokenizer().decode_bytes(id, out));
    }

    /// Chooses tokens and evaluates them until something ends the text.
    fn continue_text(
        &mut self,
        request: &Request,
        completion: &mut Completion,
        start: Instant,
        on_event: OnEvent<'_>,
    ) -> Result<Finish> {
        let model = self.model.clone();
        let vocabulary = model.config().vocabulary;
        let mut unsent = 0; // tokens since the last piece

        let mut finish = loop {
            if completion.tokens.len() == request.max_tokens {
                break Finish::MaxTokens;
            }
            if let Some(&last) = completion.tokens.last() {
                match self.evaluate_next(last, request.context_policy, on_event) {
                    Ok(None) => {}
                    Ok(Some(finish)) => break finish,
                    Err(Error::Cancelled) => break Finish::Cancelled,
                    Err(error) => return Err(error),
                }
            }
            if self.cancellation.requested() {
                break Finish::Cancelled;
            }
            let logits = &self.scratch.logits[..vocabulary];
            let id = self.sampler.sample(logits, &self.ids, &|id, out| {
                model.tokenizer().decode_bytes(id, out);
            })?;
            if completion.tokens.is_empty() {
                completion.timings.first_token = start.elapsed();
            }
            if model.tokenizer().is_end(id) {
                break Finish::EndOfText;
            }
            let index = completion.tokens.len();
            completion.tokens.push(id);
            unsent += 1;
            self.accept(&model, id);
            let found = self.output.push(&request.stop, |bytes| {
                model.tokenizer().decode_bytes(id, bytes)
            });
            if let Some(logprobs) = &mut completion.logprobs {
                logprobs.push(&self.scratch.logits[..vocabulary], id);
                let event = Event::Token {
                    id,
                    logprob: logprobs.chosen(index),
                    top: logprobs.top(index),
                };
                if on_event(event).is_break() {
                    return Ok(Finish::Cancelled);
                }
            }
            if let Found::Stop(index) = found {
                break Finish::StopString(request.stop[index].clone());
            }
            if send(&mut self.output, &mut unsent, on_event).is_break() {
                return Ok(Finish::Cancelled);
            }
        };

        if !matches!(finish, Finish::StopString(_))
            && let Found::Stop(index) = self.output.finish(&request.stop)
        {
            finish = Finish::StopString(request.stop[index].clone());
        }
        match send(&mut self.output, &mut unsent, on_event) {
            ControlFlow::Break(()) => Ok(Finish::Cancelled),
            ControlFlow::Continue(()) => Ok(finish),
        }
    }

    /// Evaluates the token just made; where there is no room for it, does what the policy says. Returns why the completion ends here, if it does.
    fn evaluate_next(
        &mut self,
        id: u32,
        policy: ContextPolicy,
        on_event: OnEvent<'_>,
    ) -> Result<Option<Finish>> {
        if self.position < self.context() {
            self.advance(&[id])?;
            return Ok(None);
        }
        let ContextPolicy::Slide { keep_first } = policy else {
            return Ok(Some(Finish::ContextFull));
        };
        let dropped = ContextPolicy::dropped(keep_first, self.position + 1, self.context());
        self.position = keep_first;
        self.ids.drain(keep_first..keep_first + dropped);
        self.ids.push(id);
        let kept = self.ids.len();
        if on_event(Event::Slid { dropped, kept }).is_break() {
            self.ids.truncate(self.position);
            return Ok(Some(Finish::Cancelled));
        }
        self.evaluate_waiting()?;
        Ok(None)
    }
}

/// Hands out the text that may be shown, if there is any.
fn send(output: &mut Output, unsent: &mut usize, on_event: OnEvent<'_>) -> ControlFlow<()> {
    match output.take() {
        "" => ControlFlow::Continue(()),
        text => on_event(Event::Piece {
            text,
            tokens: std::mem::take(unsent),
        }),
    }
}
