//! What a caller asks for, what happens meanwhile, and what comes of it.

use crate::chat::Message;
use crate::constraint::Constraint;
use crate::sampling::{Logprobs, MAX_TOP, Sampling, TokenLogprob};
use crate::tools::{ToolCall, ToolChoice, Tools};
use crate::{Error, Result};
use std::time::Duration;

/// Where a completion begins.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// Text, tokenised with the beginning-of-sequence token in front where the model asks for it.
    Text(String),
    /// Tokens, taken as they are.
    Tokens(Vec<u32>),
    /// A conversation, rendered by the model's chat template up to where the assistant speaks next.
    Chat(Vec<Message>),
}

/// One completion to make.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Where it begins.
    pub prompt: Prompt,
    /// Most tokens to make. 0 evaluates the prompt and stops.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the completion, and are no part of it: the first of them to come up.
    pub stop: Vec<String>,
    /// `Some(n)`: report each token's log-probability and the `n` likeliest tokens, at most 100, as the model gave them.
    pub logprobs: Option<usize>,
    /// What happens when prompt and completion outgrow the session's context.
    pub context_policy: ContextPolicy,
    /// What the text must be.
    pub constraint: Option<Constraint>,
    /// Functions that the model may ask to have called, or must. Only with [`Prompt::Chat`].
    pub tools: Option<Tools>,
    /// Whether [`Prompt::Text`], or what is said in a [`Prompt::Chat`], may name special tokens, such as `<|im_start|>`. Leave it off for text that others
    /// wrote. Without it a chat's template alone writes them. Tokens that users added, such as `<think>`, work in turns of the system and the assistant; in other
    /// turns, in calls and in their results those that the template writes do not.
    pub parse_special: bool,
    /// More variables for the chat's template, such as `enable_thinking`: their names, and their values as JSON. What is no JSON is a text. Only with
    /// [`Prompt::Chat`].
    pub template_args: Vec<(String, String)>,
    /// Whether the completion's text has the control tokens that the model makes, as they are written, and the one that ended it.
    pub show_special: bool,
}

impl Default for Request {
    fn default() -> Self {
        Request {
            prompt: Prompt::Text(String::new()),
            max_tokens: 256,
            sampling: Sampling::default(),
            stop: Vec::new(),
            logprobs: None,
            context_policy: ContextPolicy::Error,
            constraint: None,
            tools: None,
            parse_special: false,
            template_args: Vec::new(),
            show_special: false,
        }
    }
}

impl Request {
    /// Greedy completion of `prompt`, at most 256 tokens.
    #[must_use]
    pub fn new(prompt: Prompt) -> Self {
        Request {
            prompt,
            ..Request::default()
        }
    }
}

/// What happens when the session's context is full during a request. [`Session::prefill`](crate::Session::prefill) and
/// [`Session::decode`](crate::Session::decode) always refuse, with [`Error::ContextFull`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContextPolicy {
    /// A prompt that is too long is [`Error::ContextFull`]; a completion ends with [`Finish::ContextFull`].
    #[default]
    Error,
    /// Forget the older half of what follows the first `keep_first` tokens, as often as needed, and go on with [`Event::Slid`]. What is left is
    /// evaluated again at its new positions, as if it had been the whole sequence: exact for every model, at the price of that prefill.
    ///
    /// Of a [`Prompt::Chat`] whole turns are forgotten, the oldest first, and the rest is rendered anew: a user's turn with all that answers it, calls with their
    /// results. What the system says and the last user's turn stay; where they alone do not fit, that is [`Error::TurnTooLong`]. An answer that outgrows even
    /// what is left forgets its own older half, and ends with [`Finish::ContextFull`] where it has less than an eighth of the context.
    Slide {
        /// Tokens that are never forgotten, such as an introduction. Less than the context. Of no account for a chat.
        keep_first: usize,
    },
}

/// What happens during a request, in order.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The prompt has been evaluated. Sent once.
    Prefilled {
        /// Tokens of the prompt.
        tokens: usize,
        /// The first of them, which were in the cache already and were not evaluated again.
        reused: usize,
    },
    /// The context was full: tokens were dropped, and the others are about to be evaluated again. Only with [`ContextPolicy::Slide`].
    Slid {
        /// Tokens that were dropped.
        dropped: usize,
        /// Tokens that are left.
        kept: usize,
    },
    /// A token was made. Only with [`Request::logprobs`]; its text comes with a later [`Event::Piece`].
    Token {
        /// The token.
        id: u32,
        /// The natural logarithm of the probability that the model gave it.
        logprob: f32,
        /// The likeliest tokens, likeliest first: as many as the request asked for.
        top: &'a [TokenLogprob],
    },
    /// More text.
    Piece {
        /// Whole code points, never empty.
        text: &'a str,
        /// Tokens made since the last piece.
        tokens: usize,
    },
}

/// Why a completion ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model made an end token, or the constraint is satisfied and nothing can be added.
    EndOfText,
    /// This stop string came up.
    StopString(String),
    /// As many tokens as the request allowed. What the constraint asks for, if there is one, is satisfied.
    MaxTokens,
    /// The session has no room for another token. What the constraint asks for, if there is one, is satisfied.
    ContextFull,
    /// The text does not satisfy the constraint yet, and there is no room for more: it is not what was asked for.
    Unfinished(Limit),
    /// The text is whole, and breaks what its schema asks for beyond what can be followed token by token: where, and how. Calls in it are not in
    /// [`Completion::tool_calls`].
    Invalid(String),
    /// The caller stopped it, by its [`CancelToken`](crate::CancelToken) or from the event callback.
    Cancelled,
}

impl Finish {
    /// Whether the text is not what the request's constraint asks for: it was cut before, or breaks what is checked at its end.
    #[must_use]
    pub fn breaks_constraint(&self) -> bool {
        matches!(self, Finish::Unfinished(_) | Finish::Invalid(_))
    }
}

/// What cut a text short before it satisfied its constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// As [`Finish::MaxTokens`].
    MaxTokens,
    /// As [`Finish::ContextFull`].
    Context,
}

/// How long the parts of a request took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Evaluating the prompt.
    pub prefill: Duration,
    /// From the call to the first token: tokenising, prefill, choosing. Zero when no token was made.
    pub first_token: Duration,
    /// From the first token to the end.
    pub decode: Duration,
}

/// A finished completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// All pieces together.
    pub text: String,
    /// The tokens made, without the end token; those of a stop string are among them.
    pub tokens: Vec<u32>,
    /// One entry for each of `tokens`, if the request asked for it.
    pub logprobs: Option<Logprobs>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// The first of them, which were in the cache already and were not evaluated again.
    pub reused_tokens: usize,
    /// The chat's oldest messages that did not fit the context and were left out ([`ContextPolicy::Slide`]).
    pub dropped_turns: usize,
    /// Those of `tokens` that the constraint left no choice for. Several in a row are evaluated in one step.
    pub forced_tokens: usize,
    /// Evaluations after the prompt's: one for each token, less where tokens were forced or drafts accepted.
    pub decode_steps: usize,
    /// Tokens that were drafted and evaluated ([`Session::set_speculation`](crate::Session::set_speculation)).
    pub drafted_tokens: usize,
    /// Those of them that were right: they are among `tokens`, and took no step of their own.
    pub accepted_tokens: usize,
    /// The call that the model asks for, if the request has tools and the text is one: the first of `tool_calls`.
    pub tool_call: Option<ToolCall>,
    /// All calls that the text holds, in order. More than one only with [`Tools::in_parallel`].
    pub tool_calls: Vec<ToolCall>,
    /// Why it ended.
    pub finish: Finish,
    /// How long it took.
    pub timings: Timings,
}

impl Completion {
    /// Of a request that was cancelled before its prompt was known.
    pub(crate) fn cancelled() -> Self {
        Completion {
            text: String::new(),
            tokens: Vec::new(),
            logprobs: None,
            prompt_tokens: 0,
            reused_tokens: 0,
            dropped_turns: 0,
            forced_tokens: 0,
            decode_steps: 0,
            drafted_tokens: 0,
            accepted_tokens: 0,
            tool_call: None,
            tool_calls: Vec::new(),
            finish: Finish::Cancelled,
            timings: Timings::default(),
        }
    }
}

impl Request {
    /// Refuses what means nothing, whatever the prompt; the session's sampler checks [`Request::sampling`].
    pub(crate) fn check(&self, vocabulary: usize, context: usize) -> Result<()> {
        let refuse = |option, expected: String, got: String| {
            Err(Error::InvalidOption {
                option,
                expected,
                got,
            })
        };
        if self.stop.iter().any(String::is_empty) {
            let expected = "strings that are not empty".into();
            return refuse("stop", expected, "an empty one".into());
        }
        if let Some(tools) = &self.tools {
            if !matches!(self.prompt, Prompt::Chat(_)) {
                let expected = "a chat as the prompt, whose template gives the model the tools";
                return refuse("tools", expected.into(), "another prompt".into());
            }
            if tools.choice() != &ToolChoice::None && self.constraint.is_some() {
                let expected = "none beside tools that may be called";
                return refuse("constraint", expected.into(), "one".into());
            }
        }
        if !self.template_args.is_empty() {
            if !matches!(self.prompt, Prompt::Chat(_)) {
                let expected = "a chat as the prompt, whose template reads them";
                return refuse("template_args", expected.into(), "another prompt".into());
            }
            let own = ["messages", "tools", "add_generation_prompt"];
            let mut names = self.template_args.iter().map(|(name, _)| name.as_str());
            if let Some(name) = names.find(|name| own.contains(name)) {
                let expected = format!("names other than {}", own.join(", "));
                return refuse("template_args", expected, name.to_owned());
            }
        }
        let most = MAX_TOP.min(vocabulary);
        if let Some(n) = self.logprobs.filter(|&n| n > most) {
            return refuse("logprobs", format!("at most {most}"), n.to_string());
        }
        match self.context_policy {
            ContextPolicy::Slide { keep_first } if keep_first >= context => refuse(
                "keep_first",
                format!("less than the session's context of {context}"),
                keep_first.to_string(),
            ),
            _ => Ok(()),
        }
    }
}
