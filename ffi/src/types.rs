//! Plain values that cross the boundary, and how they become core's and back.

use crate::error::DramError;
use crate::form::{Constraint, ToolCall, Tools};
use crate::sampling::{SamplingOptions, TokenLogprobs, logprobs};
use std::collections::HashMap;
use std::time::Duration;

/// How to open a model.
#[derive(Debug, Clone, Default, uniffi::Record)]
pub struct ModelOptions {
    /// The most bytes that the file and one session may take together: mapped weights, cache and scratch. A session that
    /// needs more is `OutOfMemory`. None: no limit.
    #[uniffi(default = None)]
    pub memory_limit: Option<u64>,
    /// The chat template (Jinja), instead of the one that the file has.
    #[uniffi(default = None)]
    pub chat_template: Option<String>,
}

/// How to open a session.
#[derive(Debug, Clone, Default, uniffi::Record)]
pub struct SessionOptions {
    /// Positions of the KV cache: prompt and answer together. None: the model's own context length, at most 4096.
    #[uniffi(default = None)]
    pub context: Option<u32>,
    /// Threads that decode, the session's own included. None: chosen for this device.
    #[uniffi(default = None)]
    pub threads: Option<u32>,
    /// How the cache holds keys and values. None: `F16`.
    #[uniffi(default = None)]
    pub cache_format: Option<CacheFormat>,
}

/// How a session's cache holds keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum CacheFormat {
    /// 16-bit floating point.
    F16,
    /// 8-bit blocks: about half of the memory. Heads must be multiples of 32 long.
    Q8_0,
}

/// What a model file says about itself.
#[derive(Debug, Clone, uniffi::Record)]
pub struct ModelInfo {
    /// The model's name, as its file gives it.
    pub name: String,
    /// The family, `llama` for one.
    pub architecture: String,
    /// Number of weights.
    pub parameters: u64,
    /// Decoder layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub embedding_length: u32,
    /// Number of tokens.
    pub vocabulary: u32,
    /// Positions the model was trained for.
    pub context_length: u32,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// Whether the file says how a conversation becomes a prompt. Without that, `Prompt::Chat` is an invalid request.
    pub has_chat_template: bool,
    /// Whether it is an embedding model, as BERT is, or a reranker: it has encoders instead of sessions.
    pub is_encoder: bool,
    /// Whether it is a reranker: its encoders rank documents instead of embedding texts.
    pub is_reranker: bool,
    /// Weight formats and the bytes that each takes, largest first.
    pub formats: Vec<FormatShare>,
}

/// One weight format's part of a file.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct FormatShare {
    /// The format, `q4_0` for one.
    pub format: String,
    /// Bytes of weights in it.
    pub bytes: u64,
}

/// Bytes that a model and one session take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
pub struct MemoryNeed {
    /// Mapped from the file: the system may drop and read it again.
    pub mapped: u64,
    /// Keys and values of the context, of windowed layers those of the window, what short convolutions keep, and linear attention's matrices.
    pub kv_cache: u64,
    /// Buffers of the forward pass.
    pub scratch: u64,
}

/// Who says something in a chat.
#[derive(Debug, Clone, uniffi::Record)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant` or `tool`, as the model's chat template knows them.
    pub role: String,
    /// What is said; of a tool, what it returned.
    pub content: String,
    /// Of an assistant: what it thought before it spoke; the template decides in which turns it is shown.
    #[uniffi(default = None)]
    pub reasoning: Option<String>,
    /// Of an assistant: the calls that it asked for.
    #[uniffi(default = [])]
    pub tool_calls: Vec<ToolCall>,
    /// Of a tool: the id of the call that it answers.
    #[uniffi(default = None)]
    pub tool_call_id: Option<String>,
    /// Of a tool: its name.
    #[uniffi(default = None)]
    pub name: Option<String>,
}

/// What a model goes on from.
#[derive(Debug, Clone, uniffi::Enum)]
pub enum Prompt {
    /// Text, with the beginning-of-sequence token in front where the model asks for it.
    Text {
        /// The text.
        text: String,
    },
    /// Token ids.
    Tokens {
        /// The ids, each below the vocabulary's size.
        ids: Vec<u32>,
    },
    /// A conversation, put through the model's chat template.
    Chat {
        /// The messages, oldest first.
        messages: Vec<ChatMessage>,
    },
}

/// One generation.
#[derive(Debug, Clone, uniffi::Record)]
pub struct GenerationRequest {
    /// What to go on from.
    pub prompt: Prompt,
    /// The most tokens to make.
    #[uniffi(default = 256)]
    pub max_tokens: u32,
    /// How tokens are chosen; None: the likeliest always.
    #[uniffi(default = None)]
    pub sampling: Option<SamplingOptions>,
    /// The answer ends before any of these; none may be empty.
    #[uniffi(default = [])]
    pub stop: Vec<String>,
    /// Whether a text prompt, or what is said in a chat, may name special tokens, `<|im_start|>` for one. Leave it off for text that others wrote: then only
    /// the chat template writes them, and a message that spells one is text.
    #[uniffi(default = false)]
    pub parse_special: bool,
    /// Some(n): report each token's log-probability and the n likeliest tokens, at most 100, as the model gave them.
    #[uniffi(default = None)]
    pub logprobs: Option<u32>,
    /// What happens when prompt and answer outgrow the session's context. None: `Error`.
    #[uniffi(default = None)]
    pub context_policy: Option<ContextPolicy>,
    /// What the answer must be.
    #[uniffi(default = None)]
    pub constraint: Option<Constraint>,
    /// Functions that the model may ask to have called; only with a chat.
    #[uniffi(default = None)]
    pub tools: Option<Tools>,
    /// More variables for the chat template, `enable_thinking` for one: the values are JSON, or else texts. Only with a chat.
    #[uniffi(default)]
    pub template_args: HashMap<String, String>,
    /// Whether the answer's text has the control tokens that the model makes, as they are written, and the one that ended it.
    #[uniffi(default = false)]
    pub show_special: bool,
}

/// What happens when a session's context is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum ContextPolicy {
    /// A prompt that is too long is an invalid request; an answer ends with `FinishReason::ContextFull`.
    Error,
    /// Forget the older half of what follows the first tokens, as often as needed, tell it with `GenerationEvent::Slid`, and go on. What is left is
    /// read again, which takes as long as a prompt of its length. A chat forgets whole turns, the oldest first (`Completion.dropped_turns`); what the system
    /// says and the last user's turn stay, and where they alone do not fit, the request is invalid.
    Slide {
        /// Tokens that are never forgotten, those of an introduction for one. Fewer than the context has positions. Of no account for a chat.
        keep_first: u32,
    },
}

/// Why a generation ended.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
pub enum FinishReason {
    /// The model said that it is done, or the constraint is satisfied and nothing can be added.
    EndOfText,
    /// One of the request's stop strings appeared.
    StopString {
        /// Which one.
        text: String,
    },
    /// `max_tokens` were made.
    MaxTokens,
    /// The session's context is full.
    ContextFull,
    /// There was no room for more, and the answer does not satisfy its constraint yet.
    Unfinished {
        /// What was too small.
        limit: Limit,
    },
    /// The answer is whole, and breaks what its schema asks for beyond what can be followed token by token. It has no tool calls.
    Invalid {
        /// Where, and how.
        what: String,
    },
    /// The handle was cancelled or dropped.
    Cancelled,
}

/// What cut an answer short before it satisfied its constraint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum Limit {
    /// The request's `max_tokens`.
    MaxTokens,
    /// The session's context.
    Context,
}

/// Durations of one generation in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, uniffi::Record)]
pub struct Timings {
    /// Reading the prompt.
    pub prefill_ms: f64,
    /// From the request to the first token.
    pub first_token_ms: f64,
    /// Making the tokens after the first.
    pub decode_ms: f64,
}

/// A generation that ended.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct Completion {
    /// The whole answer.
    pub text: String,
    /// Ids of the tokens made, without the end token; those of a stop string are among them.
    pub tokens: Vec<u32>,
    /// Of each of `tokens`, if the request asks for it; else empty.
    pub logprobs: Vec<TokenLogprobs>,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// The first of them, which the session knew from before and did not read again.
    pub reused_tokens: u32,
    /// The chat's oldest messages that did not fit the context and were left out (`ContextPolicy::Slide`).
    pub dropped_turns: u32,
    /// Those of `tokens` that the constraint left no choice for.
    pub forced_tokens: u32,
    /// Tokens that were drafted.
    pub drafted_tokens: u32,
    /// Those of them that were right: they are among `tokens`.
    pub accepted_tokens: u32,
    /// The calls that the model asks for, if the request has tools. More than one only where `Tools.parallel` allows it.
    pub tool_calls: Vec<ToolCall>,
    /// Why it ended.
    pub finish: FinishReason,
    /// How long it took.
    pub timings: Timings,
}

/// Milliseconds, for languages whose own duration types differ between platform versions.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A count that crosses the boundary as 32 bits: no model comes near the limit.
pub(crate) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl From<SessionOptions> for dram_core::SessionOptions {
    fn from(options: SessionOptions) -> Self {
        dram_core::SessionOptions {
            context: options.context.map(|n| n as usize),
            threads: options.threads.map(|n| n as usize),
            cache_format: match options.cache_format {
                None | Some(CacheFormat::F16) => dram_core::CacheFormat::F16,
                Some(CacheFormat::Q8_0) => dram_core::CacheFormat::Q8_0,
            },
        }
    }
}

impl From<dram_core::SessionOptions> for SessionOptions {
    fn from(options: dram_core::SessionOptions) -> Self {
        SessionOptions {
            context: options.context.map(count),
            threads: options.threads.map(count),
            cache_format: Some(match options.cache_format {
                dram_core::CacheFormat::F16 => CacheFormat::F16,
                dram_core::CacheFormat::Q8_0 => CacheFormat::Q8_0,
            }),
        }
    }
}

impl From<ChatMessage> for dram_core::Message {
    fn from(message: ChatMessage) -> Self {
        dram_core::Message {
            role: message.role,
            content: message.content,
            reasoning: message.reasoning,
            tool_calls: message.tool_calls.into_iter().map(Into::into).collect(),
            tool_call_id: message.tool_call_id,
            name: message.name,
        }
    }
}

impl TryFrom<GenerationRequest> for dram_core::Request {
    type Error = DramError;

    fn try_from(request: GenerationRequest) -> Result<Self, DramError> {
        let prompt = match request.prompt {
            Prompt::Text { text } => dram_core::Prompt::Text(text),
            Prompt::Tokens { ids } => dram_core::Prompt::Tokens(ids),
            Prompt::Chat { messages } => {
                dram_core::Prompt::Chat(messages.into_iter().map(Into::into).collect())
            }
        };
        Ok(dram_core::Request {
            prompt,
            max_tokens: request.max_tokens as usize,
            sampling: request.sampling.map(Into::into).unwrap_or_default(),
            stop: request.stop,
            parse_special: request.parse_special,
            template_args: request.template_args.into_iter().collect(),
            show_special: request.show_special,
            logprobs: request.logprobs.map(|n| n as usize),
            context_policy: match request.context_policy {
                None | Some(ContextPolicy::Error) => dram_core::ContextPolicy::Error,
                Some(ContextPolicy::Slide { keep_first }) => dram_core::ContextPolicy::Slide {
                    keep_first: keep_first as usize,
                },
            },
            constraint: request.constraint.map(Into::into),
            tools: request.tools.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<dram_core::Completion> for Completion {
    fn from(completion: dram_core::Completion) -> Self {
        Completion {
            logprobs: logprobs(&completion),
            text: completion.text,
            tokens: completion.tokens,
            prompt_tokens: count(completion.prompt_tokens),
            reused_tokens: count(completion.reused_tokens),
            dropped_turns: count(completion.dropped_turns),
            forced_tokens: count(completion.forced_tokens),
            drafted_tokens: count(completion.drafted_tokens),
            accepted_tokens: count(completion.accepted_tokens),
            tool_calls: completion.tool_calls.into_iter().map(Into::into).collect(),
            finish: match completion.finish {
                dram_core::Finish::EndOfText => FinishReason::EndOfText,
                dram_core::Finish::StopString(text) => FinishReason::StopString { text },
                dram_core::Finish::ContextFull => FinishReason::ContextFull,
                dram_core::Finish::MaxTokens => FinishReason::MaxTokens,
                dram_core::Finish::Unfinished(limit) => FinishReason::Unfinished {
                    limit: match limit {
                        dram_core::Limit::MaxTokens => Limit::MaxTokens,
                        dram_core::Limit::Context => Limit::Context,
                    },
                },
                dram_core::Finish::Invalid(what) => FinishReason::Invalid { what },
                dram_core::Finish::Cancelled => FinishReason::Cancelled,
            },
            timings: Timings {
                prefill_ms: milliseconds(completion.timings.prefill),
                first_token_ms: milliseconds(completion.timings.first_token),
                decode_ms: milliseconds(completion.timings.decode),
            },
        }
    }
}
