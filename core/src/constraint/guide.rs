//! One request's constraint while its text is made.

use super::{Constraint, Kind};
use crate::model::Model;
use crate::sampling::Allowed;
use crate::{Error, Result};
use llguidance::Matcher;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::SimpleVob;
use serde_json::{Map, Value};
use std::collections::VecDeque;

/// Says which tokens may come next, and which must.
pub(crate) struct Guide {
    kind: &'static str,
    matcher: Matcher,
    mask: SimpleVob,
    /// Tokens that must come next; the matcher is past them.
    forced: VecDeque<u32>,
}

/// Bytes of a constraint at most.
const MOST_BYTES: usize = 64 << 10;
/// References and rules that refer to each other are followed by recursion, at most once for each ten bytes or so. Only what is used of this is ever
/// backed by memory.
const STACK: usize = 64 << 20;
/// How deep brackets may be nested in a grammar, whose parser is recursive. Those of JSON and of regular expressions have limits of their own.
const DEEPEST: usize = 128;

impl Guide {
    /// # Errors
    /// [`Error::Constraint`]: what is wrong with it, or that it is too large.
    pub(crate) fn new(model: &Model, constraint: &Constraint) -> Result<Guide> {
        let kind = constraint.kind.name();
        let wrong = |what: String| Error::Constraint { kind, what };
        check(constraint).map_err(wrong)?;
        let grammar = grammar(constraint).map_err(wrong)?;
        let factory = model
            .grammars()
            .factory(model)
            .map_err(|what| wrong(what.to_owned()))?;
        let parser = on_a_deep_stack(|| factory.create_parser(grammar))?;
        let matcher = Matcher::new(parser);
        let mut guide = Guide {
            kind,
            matcher,
            mask: SimpleVob::new(),
            forced: VecDeque::new(),
        };
        guide.checked()?;
        guide.look_ahead()?;
        Ok(guide)
    }

    /// The tokens that may come next. Only when none is forced and it is not over.
    pub(crate) fn allowed(&mut self) -> Result<Allowed<'_>> {
        match self.matcher.compute_mask() {
            Ok(mask) => self.mask = mask,
            Err(error) => return Err(self.wrong(&error.to_string())),
        }
        Ok(Allowed(self.mask.as_slice()))
    }

    /// The token that was chosen.
    pub(crate) fn accept(&mut self, id: u32) -> Result<()> {
        if let Err(error) = self.matcher.consume_token(id) {
            return Err(self.wrong(&error.to_string()));
        }
        self.look_ahead()
    }

    /// Goes on over what must follow.
    fn look_ahead(&mut self) -> Result<()> {
        if !self.matcher.is_stopped() {
            self.forced.extend(self.matcher.consume_ff_tokens());
        }
        self.checked()
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
        if self.matcher.is_stopped() {
            return Ok(true);
        }
        match self.matcher.is_accepting() {
            Ok(is) => Ok(is),
            Err(error) => Err(self.wrong(&error.to_string())),
        }
    }

    /// Whether nothing may be added to the text.
    pub(crate) fn is_over(&self) -> bool {
        !self.has_forced() && self.matcher.is_stopped()
    }

    fn checked(&self) -> Result<()> {
        match self.matcher.get_error() {
            Some(error) => Err(self.wrong(&error)),
            None => Ok(()),
        }
    }

    fn wrong(&self, error: &str) -> Error {
        Error::Constraint {
            kind: self.kind,
            what: said(error),
        }
    }
}

/// Runs `make` where recursion as deep as [`MOST_BYTES`] allow does not overflow, whatever the caller's thread.
fn on_a_deep_stack<T: Send>(make: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("dram-constraint".into());
        let thread = builder.stack_size(STACK).spawn_scoped(scope, make);
        let thread = thread.map_err(|source| Error::Thread { index: 0, source })?;
        Ok(thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// What llguidance said, without the parts that are for its own authors, and not longer than a person reads.
fn said(error: &str) -> String {
    let ends = ["\n<backtrace>", "\n<state>", "\n<non-verbose/>"].map(|mark| error.find(mark));
    let end = ends.into_iter().flatten().min().unwrap_or(error.len());
    let text = match error[..end].trim_end() {
        "NoExtensionBias" => "no token of the model's vocabulary goes on with it",
        text => text,
    };
    text.chars().take(1000).collect()
}

/// Refuses what the engine's recursive parsers should not be given.
fn check(constraint: &Constraint) -> Result<(), String> {
    let text = &constraint.text;
    if text.len() > MOST_BYTES {
        return Err(format!(
            "expected at most {MOST_BYTES} bytes, got {}",
            text.len()
        ));
    }
    if constraint.kind != Kind::Lark {
        return Ok(());
    }
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if deepest > DEEPEST {
        return Err(format!(
            "expected brackets nested at most {DEEPEST} deep, got {deepest}"
        ));
    }
    Ok(())
}

fn grammar(constraint: &Constraint) -> Result<TopLevelGrammar, String> {
    let text = &constraint.text;
    match constraint.kind {
        Kind::Regex if text.is_empty() => Err("it is empty".into()),
        Kind::Regex => Ok(TopLevelGrammar::from_regex(text)),
        Kind::Lark => Ok(TopLevelGrammar::from_lark(text.clone())),
        Kind::JsonSchema => {
            let schema = serde_json::from_str(text).map_err(|error| error.to_string())?;
            let mut schema = match schema {
                Value::Bool(true) => Map::new(),
                Value::Object(schema) => schema,
                other => return Err(format!("expected an object, got {other}")),
            };
            Constraint::bound_white_space(&mut schema);
            let mut schema = Value::from(schema);
            sharpen(&mut schema);
            Ok(TopLevelGrammar::from_json_schema(schema))
        }
    }
}

/// An exclusive bound at a whole number, with the other bound before the next one, becomes an inclusive bound a billionth away: llguidance 1.9 takes it
/// for inclusive. The depth of recursion is that of JSON.
fn sharpen(schema: &mut Value) {
    let within = |a: f64, b: f64| a.fract() == 0.0 && a != b && (a - b).abs() < 1.0;
    let step = |x: f64| 1e-9 * x.abs().max(1.0);
    match schema {
        Value::Array(items) => items.iter_mut().for_each(sharpen),
        Value::Object(map) => {
            let number = |key: &str| map.get(key).and_then(Value::as_f64);
            let least = number("exclusiveMinimum");
            let most = number("exclusiveMaximum");
            let (ceiling, floor) = (most.or(number("maximum")), least.or(number("minimum")));
            if let (Some(a), Some(b)) = (least, ceiling)
                && within(a, b)
            {
                map.remove("exclusiveMinimum");
                map.insert("minimum".into(), (a + step(a)).into());
            }
            if let (Some(b), Some(a)) = (most, floor)
                && within(b, a)
            {
                map.remove("exclusiveMaximum");
                map.insert("maximum".into(), (b - step(b)).into());
            }
            let is_schema = |key: &str| !["const", "enum", "default", "examples"].contains(&key);
            let parts = map.iter_mut().filter(|(key, _)| is_schema(key));
            parts.for_each(|(_, part)| sharpen(part));
        }
        _ => {}
    }
}
