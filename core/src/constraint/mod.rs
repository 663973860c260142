//! Output that follows a JSON schema, a regular expression or a grammar.
//!
//! The engine is llguidance: a parser over bytes and a trie of the vocabulary say which tokens may come next. Where only one text may, it is taken as
//! the tokenizer would write it and evaluated in one step. The engine is a cargo feature, `constraint`; without it, a request that has a constraint is
//! an error.

#[cfg(feature = "constraint")]
mod build;
#[cfg(feature = "constraint")]
mod check;
#[cfg(feature = "constraint")]
mod gbnf;
#[cfg(feature = "constraint")]
mod guide;
#[cfg(feature = "constraint")]
mod pattern;
#[cfg(feature = "constraint")]
mod schema;
#[cfg(feature = "constraint")]
mod vocabulary;
#[cfg(feature = "constraint")]
mod watch;

#[cfg(feature = "constraint")]
pub(crate) use guide::Guide;
#[cfg(feature = "constraint")]
pub(crate) use vocabulary::Grammars;

#[cfg(not(feature = "constraint"))]
mod absent;
#[cfg(not(feature = "constraint"))]
pub(crate) use absent::Guide;

use serde_json::Value;
use std::sync::Arc;

/// What a completion's text must be. It is checked when a request begins, since grammars may name a model's special tokens; that takes a bounded time
/// and obeys the request's [`CancelToken`](crate::CancelToken).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    kind: Kind,
    /// Of tools, the grammar of their calls without the arguments.
    text: String,
    /// Names, and the schemas of the arguments.
    tools: Arc<[(String, Value)]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    JsonSchema,
    Regex,
    Lark,
    Gbnf,
    Tools,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::JsonSchema => "JSON schema",
            Kind::Regex => "regular expression",
            Kind::Lark => "Lark grammar",
            Kind::Gbnf => "GBNF grammar",
            Kind::Tools => "list of tools",
        }
    }
}

impl Constraint {
    /// One JSON value that the schema (draft 2020-12 and older) accepts. Values are written with at most one space or line break between parts, unless the
    /// schema has an `x-guidance` object that says otherwise.
    ///
    /// - What the schema leaves without a bound gets one, so that an answer ends: strings have at most 4096 code points, arrays at most 1024 items, whole
    ///   numbers lie within ±10¹⁸, other numbers too and have no exponent and at most 8 digits after the point. `maxLength`, `maxItems`, `minimum`,
    ///   `maximum` and `multipleOf` set others.
    /// - Objects that list `properties` have no others, unless `additionalProperties` says so.
    /// - Keywords that cannot be followed token by token (`uniqueItems`, `not`, `if`, `contains`, `propertyNames`, `dependentRequired`, …, and `oneOf` beyond
    ///   `anyOf`) are checked on the finished text: [`Finish::Invalid`](crate::Finish::Invalid). `format` is followed where it is one of date-time, time,
    ///   date, duration, email, hostname, ipv4, ipv6, uuid and uri.
    /// - A bound beyond 64 bits, a reference out of the schema, and what has no meaning is an error that names its place in the schema.
    #[must_use]
    pub fn json_schema(schema: &str) -> Self {
        Self::new(Kind::JsonSchema, schema)
    }

    /// A text that the expression matches as a whole: the syntax of Rust's `regex`, without anchors and look-around.
    #[must_use]
    pub fn regex(expression: &str) -> Self {
        Self::new(Kind::Regex, expression)
    }

    /// A text of a context-free grammar in llguidance's dialect of Lark, from the rule `start` on.
    #[must_use]
    pub fn lark(grammar: &str) -> Self {
        Self::new(Kind::Lark, grammar)
    }

    /// A text of a context-free grammar in GBNF, the form of llama.cpp, from the rule `root` on. Its tokens (`<…>`) are refused: a Lark grammar has them.
    #[must_use]
    pub fn gbnf(grammar: &str) -> Self {
        Self::new(Kind::Gbnf, grammar)
    }

    /// A grammar in GBNF if its rules are written with `::=`, else in Lark.
    #[must_use]
    pub fn grammar(grammar: &str) -> Self {
        let is_rule = |line: &str| {
            let name = line.split("::=").next().unwrap_or_default().trim();
            name.len() < line.trim_end().len()
                && !name.is_empty()
                && name
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
        };
        match grammar
            .lines()
            .any(|line| line.contains("::=") && is_rule(line))
        {
            true => Self::gbnf(grammar),
            false => Self::lark(grammar),
        }
    }

    /// Calls of `tools`, by a grammar in which `args_0`, `args_1`, … are their arguments.
    pub(crate) fn tools(grammar: String, tools: Vec<(String, Value)>) -> Self {
        Constraint {
            kind: Kind::Tools,
            text: grammar,
            tools: tools.into(),
        }
    }

    fn new(kind: Kind, text: &str) -> Self {
        Constraint {
            kind,
            text: text.to_owned(),
            tools: Arc::new([]),
        }
    }
}
