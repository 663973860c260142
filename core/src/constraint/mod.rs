//! Output that follows a JSON schema, a regular expression or a grammar.
//!
//! The engine is llguidance: a parser over bytes and a trie of the vocabulary say which tokens may come next. Where only one text may, it is taken as
//! the tokenizer would write it and evaluated in one step. The engine is a cargo feature, `constraint`; without it, a request that has a constraint is
//! an error.

#[cfg(feature = "constraint")]
mod guide;
#[cfg(feature = "constraint")]
mod vocabulary;

#[cfg(feature = "constraint")]
pub(crate) use guide::Guide;
#[cfg(feature = "constraint")]
pub(crate) use vocabulary::Grammars;

#[cfg(not(feature = "constraint"))]
mod absent;
#[cfg(not(feature = "constraint"))]
pub(crate) use absent::Guide;

use serde_json::{Map, Value, json};

/// What a completion's text must be. It is checked when a request begins, since grammars may name a model's special tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    kind: Kind,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    JsonSchema,
    Regex,
    Lark,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::JsonSchema => "JSON schema",
            Kind::Regex => "regular expression",
            Kind::Lark => "Lark grammar",
        }
    }
}

impl Constraint {
    /// One JSON value that the schema (draft 2020-12 and older) accepts. Values are written with at most one space or line break between parts, unless the
    /// schema has an `x-guidance` object that says otherwise. A keyword that cannot be followed is an error, none is passed over.
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

    /// Without a bound a model may write white space for ever.
    pub(crate) fn bound_white_space(schema: &mut Map<String, Value>) {
        schema
            .entry("x-guidance")
            .or_insert_with(|| json!({ "whitespace_pattern": r" |\n {0,40}" }));
    }

    fn new(kind: Kind, text: &str) -> Self {
        Constraint {
            kind,
            text: text.to_owned(),
        }
    }
}
