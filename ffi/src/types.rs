//! Plain values that cross the boundary, and how they become core's and back.

use crate::error::DramError;
use crate::form::{Constraint, ToolCall, Tools};
use std::time::Duration;

/// How to open a model.
#[derive(Debug, Clone, Default, uniffi::Record)]
pub struct ModelOptions {
    /// The most bytes that the file and one session may take together: mapped weights, cache and scratch. A session that
    /// needs more is `OutOfMemory`. None: no limit.
    #[uniffi(default = None)]
    pub memory_limit: Option<u64>,
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
    /// Keys and values of every position.
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

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct SamplingOptions {
    /// 0 takes the likeliest token always; 1 samples from the model's own distribution.
    #[uniffi(default = 0.0)]
    pub temperature: f32,
    /// Only the k likeliest tokens; 0: all.
    #[uniffi(default = 40)]
    pub top_k: u32,
    /// Only the likeliest tokens that hold this much probability together, in (0, 1]; 1: all.
    #[uniffi(default = 0.95)]
    pub top_p: f32,
    /// Only tokens at least this likely relative to the likeliest, in [0, 1); 0: all.
    #[uniffi(default = 0.05)]
    pub min_p: f32,
    /// The same seed gives the same answer.
    #[uniffi(default = 0)]
    pub seed: u64,
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
    /// Whether a text prompt may name special tokens, `<|im_start|>` for one. Leave it off for text that others wrote.
    #[uniffi(default = false)]
    pub parse_special: bool,
    /// What the answer must be.
    #[uniffi(default = None)]
    pub constraint: Option<Constraint>,
    /// Functions that the model may ask to have called; only with a chat.
    #[uniffi(default = None)]
    pub tools: Option<Tools>,
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
    /// `max_tokens` were made or the context is full, and the answer does not satisfy its constraint yet.
    Unfinished,
    /// The handle was cancelled or dropped.
    Cancelled,
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
#[derive(Debug, Clone, uniffi::Record)]
pub struct Completion {
    /// The whole answer.
    pub text: String,
    /// Ids of the tokens made.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// The call that the model asks for, if the request has tools and the answer is one.
    pub tool_call: Option<ToolCall>,
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

impl From<SamplingOptions> for dram_core::Sampling {
    fn from(s: SamplingOptions) -> Self {
        dram_core::Sampling {
            temperature: s.temperature,
            top_k: s.top_k as usize,
            top_p: s.top_p,
            min_p: s.min_p,
            seed: s.seed,
            ..dram_core::Sampling::default()
        }
    }
}

impl From<ChatMessage> for dram_core::Message {
    fn from(message: ChatMessage) -> Self {
        dram_core::Message {
            role: message.role,
            content: message.content,
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
            constraint: request.constraint.map(Into::into),
            tools: request.tools.map(TryInto::try_into).transpose()?,
            ..dram_core::Request::default()
        })
    }
}

impl From<dram_core::Completion> for Completion {
    fn from(completion: dram_core::Completion) -> Self {
        Completion {
            text: completion.text,
            tokens: completion.tokens,
            prompt_tokens: count(completion.prompt_tokens),
            tool_call: completion.tool_call.map(Into::into),
            finish: match completion.finish {
                dram_core::Finish::EndOfText => FinishReason::EndOfText,
                dram_core::Finish::StopString(text) => FinishReason::StopString { text },
                dram_core::Finish::ContextFull => FinishReason::ContextFull,
                dram_core::Finish::MaxTokens => FinishReason::MaxTokens,
                dram_core::Finish::Unfinished(_) => FinishReason::Unfinished,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers in `uniffi(default)` are literals; they must stay core's own.
    #[test]
    fn defaults_are_cores() {
        let literal = SamplingOptions {
            temperature: 0.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            seed: 0,
        };
        assert_eq!(
            dram_core::Sampling::from(literal),
            dram_core::Sampling::default()
        );
        assert_eq!(dram_core::Request::default().max_tokens, 256);
    }
}
