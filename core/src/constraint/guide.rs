//! One request's constraint while its text is made.

use super::Constraint;
use super::build::{Built, build, on_a_deep_stack, said};
use super::check::violation;
use super::watch::Watch;
use crate::cancel::Cancellation;
use crate::model::Model;
use crate::sampling::Allowed;
use crate::{Error, Result};
use llguidance::Matcher;
use llguidance::toktrie::SimpleVob;
use serde_json::Value;
use std::collections::VecDeque;

/// Says which tokens may come next, and which must.
pub(crate) struct Guide {
    kind: &'static str,
    matcher: Matcher,
    mask: SimpleVob,
    /// Tokens that must come next; the matcher is past them.
    forced: VecDeque<u32>,
    /// Schemas that the finished text has to be checked with: of tools by name, else by no name.
    checks: Vec<(String, Value)>,
    watch: Watch,
}

impl Guide {
    /// # Errors
    /// [`Error::Constraint`]: what is wrong with it, or that it is too large; [`Error::Cancelled`].
    pub(crate) fn new(
        model: &Model,
        constraint: &Constraint,
        cancellation: &Cancellation,
    ) -> Result<Guide> {
        let Built {
            matcher,
            forced,
            handle,
            checks,
        } = build(model, constraint, cancellation)?;
        Ok(Guide {
            kind: constraint.kind.name(),
            matcher,
            mask: SimpleVob::new(),
            forced: forced.into(),
            checks,
            watch: Watch::new(handle, cancellation.clone())?,
        })
    }

    /// The tokens that may come next. Only when none is forced and it is not over.
    pub(crate) fn allowed(&mut self) -> Result<Allowed<'_>> {
        let (matcher, watch) = (&mut self.matcher, &self.watch);
        match watch.during(|| matcher.compute_mask()) {
            Ok(mask) => self.mask = mask,
            Err(error) => return Err(self.wrong(&error.to_string())),
        }
        Ok(Allowed(self.mask.as_slice()))
    }

    /// The token that was chosen; goes on over what must follow.
    pub(crate) fn accept(&mut self, id: u32) -> Result<()> {
        let (matcher, watch) = (&mut self.matcher, &self.watch);
        let forced = watch.during(|| match matcher.consume_token(id) {
            Ok(()) if !matcher.is_stopped() => matcher.consume_ff_tokens(),
            _ => Vec::new(),
        });
        self.forced.extend(forced);
        match self.matcher.get_error() {
            Some(error) => Err(self.wrong(&error)),
            None => Ok(()),
        }
    }

    /// The token that must come next.
    pub(crate) fn next_forced(&mut self) -> Option<u32> {
        self.forced.pop_front()
    }

    pub(crate) fn has_forced(&self) -> bool {
        !self.forced.is_empty()
    }

    /// Whether the text may end here.
    pub(crate) fn is_satisfied(&mut self) -> Result<bool> {
        if self.has_forced() {
            return Ok(false);
        }
        if self.is_over() {
            return Ok(true);
        }
        match self.matcher.is_accepting() {
            Ok(is) => Ok(is),
            Err(error) => Err(self.wrong(&error.to_string())),
        }
    }

    /// Whether nothing may be added to the text.
    pub(crate) fn is_over(&self) -> bool {
        !self.has_forced() && !self.matcher.is_cancelled() && self.matcher.is_stopped()
    }

    /// What is wrong with a finished text, beyond what its tokens were held to.
    pub(crate) fn violation(&self, text: &str) -> Result<Option<String>> {
        self.check("", text)
    }

    /// What is wrong with the arguments of a finished call.
    pub(crate) fn violation_of_call(&self, tool: &str, arguments: &str) -> Result<Option<String>> {
        let found = self.check(tool, arguments)?;
        Ok(found.map(|what| format!("tool `{tool}`: {what}")))
    }

    fn check(&self, name: &str, text: &str) -> Result<Option<String>> {
        let Some((_, schema)) = self.checks.iter().find(|(of, _)| of == name) else {
            return Ok(None);
        };
        on_a_deep_stack(|| match serde_json::from_str(text) {
            Ok(value) => violation(schema, &value).unwrap_or_else(Some),
            Err(error) => Some(error.to_string()),
        })
    }

    fn wrong(&self, error: &str) -> Error {
        if self.matcher.is_cancelled() && !self.watch.ran_out() {
            return Error::Cancelled;
        }
        let what = match self.watch.ran_out() {
            true => "it is too complex: its tokens take too long".to_owned(),
            false => said(error),
        };
        Error::Constraint {
            kind: self.kind,
            what,
        }
    }
}
