//! What an answer must look like, and the functions that a model may ask to have called.

use crate::error::DramError;

/// What an answer must be. Only in a build with the cargo feature `constraint`.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
pub enum Constraint {
    /// JSON that a schema accepts. Objects have the listed properties only, unless `additionalProperties` says otherwise; strings, arrays and numbers
    /// without bounds get some (4096 code points, 1024 items, ±10¹⁸ with 8 digits after the point). What cannot be followed token by token is checked at the
    /// end: `FinishReason::Invalid`.
    JsonSchema {
        /// The schema, as JSON.
        schema: String,
    },
    /// A text that a regular expression matches as a whole.
    Regex {
        /// The expression, without anchors and look-around.
        expression: String,
    },
    /// A text of a context-free grammar in GBNF, the form of llama.cpp, from its rule `root` on.
    Gbnf {
        /// The grammar, without tokens (`<…>`).
        grammar: String,
    },
    /// A text of a context-free grammar, from its rule `start` on.
    Lark {
        /// The grammar, in llguidance's dialect of Lark.
        grammar: String,
    },
}

/// Whether the model calls a function.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
pub enum ToolChoice {
    /// It answers with text or with a call.
    Auto,
    /// It calls one of them.
    Required,
    /// It is told of them, and answers with text.
    Never,
    /// It calls this one.
    Named {
        /// Its name.
        name: String,
    },
}

/// Functions that a model may ask to have called. Only in a build with the cargo feature `constraint`, unless the choice is
/// `Never`.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct Tools {
    /// `[{"type": "function", "function": {"name": …, "description": …, "parameters": SCHEMA}}, …]`
    pub json: String,
    /// Whether the model calls.
    pub choice: ToolChoice,
    /// Whether an answer may hold several calls.
    #[uniffi(default = false)]
    pub parallel: bool,
}

/// A call that a model asks for.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct ToolCall {
    /// By which the result names the call that it answers: `ChatMessage.tool_call_id`.
    pub id: String,
    /// The function.
    pub name: String,
    /// A JSON object that the function's schema accepts.
    pub arguments: String,
}

impl From<Constraint> for dram_core::Constraint {
    fn from(constraint: Constraint) -> Self {
        match constraint {
            Constraint::JsonSchema { schema } => dram_core::Constraint::json_schema(&schema),
            Constraint::Regex { expression } => dram_core::Constraint::regex(&expression),
            Constraint::Gbnf { grammar } => dram_core::Constraint::gbnf(&grammar),
            Constraint::Lark { grammar } => dram_core::Constraint::lark(&grammar),
        }
    }
}

impl TryFrom<Tools> for dram_core::Tools {
    type Error = DramError;

    fn try_from(tools: Tools) -> Result<Self, DramError> {
        let choice = match tools.choice {
            ToolChoice::Auto => dram_core::ToolChoice::Auto,
            ToolChoice::Required => dram_core::ToolChoice::Required,
            ToolChoice::Never => dram_core::ToolChoice::None,
            ToolChoice::Named { name } => dram_core::ToolChoice::Named(name),
        };
        let made = dram_core::Tools::from_json(&tools.json, choice)?;
        Ok(if tools.parallel {
            made.in_parallel()
        } else {
            made
        })
    }
}

impl From<ToolCall> for dram_core::ToolCall {
    fn from(call: ToolCall) -> Self {
        dram_core::ToolCall {
            id: call.id,
            name: call.name,
            arguments: call.arguments,
        }
    }
}

impl From<dram_core::ToolCall> for ToolCall {
    fn from(call: dram_core::ToolCall) -> Self {
        ToolCall {
            id: call.id,
            name: call.name,
            arguments: call.arguments,
        }
    }
}
