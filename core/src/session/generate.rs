//! Completions: prompt in, pieces of text out.

use super::overflow::{Overflow, Prepared, Shift};
use super::speculation::Speculator;
use super::{MemoryQuery, Session};
use crate::constraint::Guide;
use crate::decoder::{Decoder, Outputs};
use crate::model::Model;
use crate::output::{Found, Output};
use crate::request::{Completion, Event, Finish, Limit, Request};
use crate::sampling::{Allowed, Logprobs};
use crate::tools::ToolCall;
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
    /// that fails; a constraint that cannot be followed: these leave the session as it was. [`Error::Constraint`] also ends a text whose constraint turns
    /// out to be too complex on the way, and [`Error::FileChanged`] a request whose model's file is not what was opened. Being cancelled is no error: see [`Finish::Cancelled`].
    pub fn generate(
        &mut self,
        request: &Request,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Completion> {
        self.request(|session| {
            let result = session.answer(request, on_event);
            if let Some(speculator) = &mut session.speculator {
                speculator.clear();
            }
            result
        })
    }

    fn answer(&mut self, request: &Request, on_event: OnEvent<'_>) -> Result<Completion> {
        let start = Instant::now();
        let (model, context) = (self.model.clone(), self.context());
        request.check(model.config().vocabulary, context)?;
        self.sampler
            .start(&request.sampling, model.config().vocabulary)?;
        if let Some(speculator) = &mut self.speculator {
            speculator.start(&request.sampling)?;
        }
        let cancellation = &self.cancellation;
        let stop = || cancellation.requested();
        let Prepared {
            prompt,
            whole: prompt_tokens,
            mut overflow,
        } = match Prepared::new(&model, request, context, &stop) {
            Err(Error::Cancelled) => return Ok(Completion::cancelled()),
            prepared => prepared?,
        };
        self.check(&prompt)?;
        let constraint = request.tools.as_ref().and_then(|t| t.constraint(&model));
        let constraint = constraint.as_ref().or(request.constraint.as_ref());
        if constraint.is_some() {
            model.check_memory(MemoryQuery {
                options: self.options(),
                adapters: self.adapters(),
                speculation: self.speculation(),
                constraints: true,
            })?;
        }
        let room = match overflow {
            Overflow::Stop => context - prompt.len() + 1,
            Overflow::Tokens { .. } | Overflow::Turns { .. } => context,
        };
        let most = request.max_tokens.min(room);
        self.output.clear();
        let same = self.ids.iter().zip(&prompt).take_while(|(a, b)| a == b);
        // The last token's logits are not kept: it is always evaluated.
        let reused = same.count().min(prompt.len() - 1);
        let mut completion = Completion {
            tokens: Vec::with_capacity(most),
            logprobs: request.logprobs.map(|n| Logprobs::with_capacity(most, n)),
            prompt_tokens,
            dropped_turns: overflow.dropped_turns(),
            ..Completion::cancelled()
        };
        let guide = constraint.map(|c| Guide::new(&model, c, &self.cancellation));
        let mut guide = match guide.transpose() {
            Ok(guide) => guide,
            Err(Error::Cancelled) => return Ok(completion),
            Err(error) => return Err(error),
        };
        let kept = prompt.len();
        let dropped = prompt_tokens.saturating_sub(kept);
        if dropped > 0 && on_event(Event::Slid { dropped, kept }).is_break() {
            return Ok(completion);
        }

        let before = Instant::now();
        self.truncate(reused);
        completion.reused_tokens = self.position;
        let prefilled = self.read_prompt(&prompt, reused);
        completion.timings.prefill = before.elapsed();
        match prefilled {
            Ok(()) => {}
            Err(Error::Cancelled) => return Ok(completion),
            Err(error) => return Err(error),
        }
        let event = Event::Prefilled {
            tokens: prompt_tokens,
            reused: completion.reused_tokens,
        };
        if on_event(event).is_break() {
            return Ok(completion);
        }
        for &id in &prompt {
            self.accept(&model, id);
        }

        let mut answer = Answer {
            request,
            guide: guide.as_mut(),
            overflow: &mut overflow,
            start,
        };
        let finish = self.continue_text(&mut answer, &mut completion, on_event);
        completion.dropped_turns = overflow.dropped_turns();
        completion.finish = match finish {
            Err(Error::Cancelled) => Finish::Cancelled,
            finish => self.checked(finish?, request, guide.as_ref(), &mut completion)?,
        };
        completion.text = self.output.text().to_owned();
        if !completion.tokens.is_empty() {
            completion.timings.decode = start.elapsed() - completion.timings.first_token;
        }
        Ok(completion)
    }

    /// Reads the calls of a finished text, and checks what could not be followed token by token.
    fn checked(
        &self,
        finish: Finish,
        request: &Request,
        guide: Option<&Guide>,
        completion: &mut Completion,
    ) -> Result<Finish> {
        let is_whole = matches!(
            finish,
            Finish::EndOfText | Finish::MaxTokens | Finish::ContextFull
        );
        if finish == Finish::EndOfText
            && let Some(tools) = &request.tools
        {
            let (answer, prompt) = (&completion.tokens, completion.prompt_tokens);
            completion.tool_calls = ToolCall::parse(tools, &self.model, answer, prompt);
        }
        let Some(guide) = guide.filter(|_| is_whole) else {
            completion.tool_call = completion.tool_calls.first().cloned();
            return Ok(finish);
        };
        let mut violation = guide.violation(self.output.text())?;
        for call in &completion.tool_calls {
            let of_call = guide.violation_of_call(&call.name, &call.arguments)?;
            violation = violation.or(of_call);
        }
        if let Some(what) = violation {
            // What must not be made is not offered.
            completion.tool_calls.clear();
            return Ok(Finish::Invalid(what));
        }
        completion.tool_call = completion.tool_calls.first().cloned();
        Ok(finish)
    }

    fn accept(&mut self, model: &Model, id: u32) {
        self.sampler
            .accept(id, &|id, out| model.tokenizer().decode_bytes(id, out));
    }

    /// Chooses tokens and evaluates them until something ends the text.
    fn continue_text(
        &mut self,
        answer: &mut Answer<'_, '_>,
        completion: &mut Completion,
        on_event: OnEvent<'_>,
    ) -> Result<Finish> {
        let model = self.model.clone();
        let Answer {
            request,
            guide,
            overflow,
            start,
        } = answer;
        let mut unsent = 0; // tokens since the last piece
        let mut waiting = 0; // tokens that were not evaluated yet

        let mut finish = loop {
            if guide.as_ref().is_some_and(|guide| guide.is_over()) {
                break Finish::EndOfText;
            }
            if completion.tokens.len() == request.max_tokens {
                break Finish::MaxTokens;
            }
            // What must follow is evaluated together with what it follows, unless the probabilities on the way are asked for.
            let together = self.position + waiting < self.context() && request.logprobs.is_none();
            let goes_on = together && guide.as_ref().is_some_and(|guide| guide.has_forced());
            if waiting > 0 && !goes_on {
                let made = completion.tokens.len();
                let known = self.follow_draft(&completion.tokens[made - waiting..]);
                completion.accepted_tokens += known;
                if known < waiting {
                    let new = waiting - known;
                    // The step itself gives the token after them.
                    let more = request.max_tokens - made - 1;
                    match self.evaluate_next(&completion.tokens, new, more, overflow, on_event) {
                        Ok(Step::Done { drafted }) => completion.drafted_tokens += drafted,
                        Ok(Step::Over(finish)) => break finish,
                        Err(Error::Cancelled) => break Finish::Cancelled,
                        Err(error) => return Err(error),
                    }
                    completion.decode_steps += 1;
                }
                waiting = 0;
            }
            if self.cancellation.requested() {
                break Finish::Cancelled;
            }
            let forced = guide.as_mut().and_then(|guide| guide.next_forced());
            let id = match forced {
                Some(id) => id,
                None => {
                    let allowed = guide.as_mut().map(|guide| guide.allowed()).transpose()?;
                    self.choose(&model, allowed)?
                }
            };
            if completion.tokens.is_empty() {
                completion.timings.first_token = start.elapsed();
            }
            // A grammar may have end tokens in the middle of its texts.
            if model.tokenizer().is_end(id)
                && forced.is_none()
                && guide
                    .as_mut()
                    .map_or(Ok(true), |guide| guide.is_satisfied())?
            {
                if request.show_special {
                    self.output.push(&[], |bytes| {
                        model.tokenizer().shown_bytes(id, true, bytes);
                    });
                }
                break Finish::EndOfText;
            }
            completion.forced_tokens += usize::from(forced.is_some());
            if let (Some(guide), None) = (guide.as_mut(), forced) {
                guide.accept(id)?;
            }
            waiting += 1;
            let index = completion.tokens.len();
            completion.tokens.push(id);
            unsent += 1;
            self.accept(&model, id);
            let found = self.output.push(&request.stop, |bytes| {
                let special = request.show_special;
                model.tokenizer().shown_bytes(id, special, bytes)
            });
            if let Some(logprobs) = &mut completion.logprobs {
                logprobs.push(self.logits(), id);
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
        if let Some(guide) = guide {
            finish = match finish {
                Finish::MaxTokens if !guide.is_satisfied()? => Finish::Unfinished(Limit::MaxTokens),
                Finish::ContextFull if !guide.is_satisfied()? => Finish::Unfinished(Limit::Context),
                finish => finish,
            };
        }

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

    /// Chooses the token that follows the sequence.
    fn choose(&mut self, model: &Model, allowed: Option<Allowed<'_>>) -> Result<u32> {
        let logits = self.cpu.logits(self.row);
        let text = &|id, out: &mut Vec<u8>| model.tokenizer().decode_bytes(id, out);
        let draft = self.speculator.as_ref().and_then(Speculator::next);
        match draft {
            Some((id, shares)) if !shares.is_empty() => self
                .sampler
                .sample_after_draft(logits, allowed, &self.ids, text, id, shares),
            // What a draft was certain of is accepted with the probability that it is drawn.
            _ => self.sampler.sample(logits, allowed, &self.ids, text),
        }
    }

    /// Goes on with those of `ids` that the draft foresaw and that were evaluated with it; returns how many. If it did not foresee all of them, the
    /// draft is over.
    fn follow_draft(&mut self, ids: &[u32]) -> usize {
        let Some(speculator) = &mut self.speculator else {
            return 0;
        };
        let foreseen = ids.iter().take_while(|&&id| speculator.accept(id)).count();
        self.ids.extend_from_slice(&ids[..foreseen]);
        self.position += foreseen;
        self.row += foreseen;
        foreseen
    }

    /// Evaluates the last `new` of the tokens made, and drafts of at most `more` tokens that might follow; where there is no room for them, makes it
    /// if it can.
    fn evaluate_next(
        &mut self,
        made: &[u32],
        new: usize,
        more: usize,
        overflow: &mut Overflow<'_>,
        on_event: OnEvent<'_>,
    ) -> Result<Step> {
        if self.position + new <= self.context() {
            self.ids.extend_from_slice(&made[made.len() - new..]);
            let drafted = self.evaluate_with_draft(more)?;
            return Ok(Step::Done { drafted });
        }
        let Shift::Shifted { dropped } = overflow.shift(self, made, new, more)? else {
            return Ok(Step::Over(Finish::ContextFull));
        };
        let kept = self.ids.len();
        if on_event(Event::Slid { dropped, kept }).is_break() {
            self.ids.truncate(self.position);
            return Ok(Step::Over(Finish::Cancelled));
        }
        self.evaluate_waiting(None)?;
        Ok(Step::Done { drafted: 0 })
    }

    /// Evaluates the tokens after the position, and in the same pass a draft of at most `more` tokens that might follow, whose logits are the rows after
    /// the first. Returns the draft's length; the sequence ends before it.
    fn evaluate_with_draft(&mut self, more: usize) -> Result<usize> {
        let (start, end) = (self.position, self.ids.len());
        let context = self.context();
        let room = self.cpu.max_tokens().saturating_sub(end - start);
        let room = room.min(self.cpu.max_logit_rows() - 1).min(context - end);
        let mut drafted = 0;
        let watched = self.cpu.collects_importance();
        if let Some(speculator) = self.speculator.as_mut().filter(|_| !watched) {
            if let Err(error) = speculator.draft(&self.ids, room.min(more)) {
                self.ids.truncate(start);
                return Err(error);
            }
            drafted = speculator.append(&mut self.ids);
        }
        if drafted == 0 {
            self.evaluate_waiting(None)?;
            return Ok(0);
        }
        let mut decoder = Decoder::new(&self.model, &mut self.cpu);
        let rows = end - 1 - start..self.ids.len() - start;
        let evaluated = decoder
            .run(&self.ids[start..], start, Outputs::All, &self.cancellation)
            .and_then(|()| decoder.logits(rows).map(|_| ()));
        if evaluated.is_err() {
            self.ids.truncate(start);
        }
        evaluated?;
        self.ids.truncate(end);
        (self.position, self.row) = (end, 0);
        Ok(drafted)
    }
}

/// What holds while an answer is made.
struct Answer<'a, 'b> {
    request: &'a Request,
    guide: Option<&'a mut Guide>,
    overflow: &'a mut Overflow<'b>,
    start: Instant,
}

/// What became of a step.
enum Step {
    Done { drafted: usize },
    Over(Finish),
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
