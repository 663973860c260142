//! Jinja, as chat templates use it: the language of Python's Jinja2 in the sandbox that Hugging Face transformers renders in, with its `tojson`,
//! `raise_exception`, `strftime_now`, `break`, `continue` and `{% generation %}`. Nothing is read but the values given, and everything that a template
//! does is paid for from a [`Budget`](super::limits::Budget).

mod ast;
mod calls;
mod eval;
mod filters;
mod format;
mod lexer;
mod lists;
mod methods;
mod operators;
mod parser;
mod primary;
mod print;
mod sequences;
mod statements;
mod tests;
mod texts;
mod value;
mod vm;

pub(super) use value::{Value, from_json};
pub(super) use vm::render;

/// Why a template gave no text.
#[derive(Debug)]
pub(super) enum Fault {
    /// What is wrong, and in which line; 0 where that is not known yet.
    Wrong { line: u32, what: String },
    /// The caller asked to stop.
    Cancelled,
}

impl Fault {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Fault::Wrong {
            line: 0,
            what: what.into(),
        }
    }

    /// In `line`, unless an inner line is known.
    fn at(self, line: u32) -> Self {
        match self {
            Fault::Wrong { line: 0, what } => Fault::Wrong { line, what },
            other => other,
        }
    }
}

type Result<T> = std::result::Result<T, Fault>;
