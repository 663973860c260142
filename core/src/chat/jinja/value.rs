//! What a template's variables hold: Python's values, which never change once they are made. Only namespaces do.

use super::super::limits::{Budget, DEPTH, Held};
use super::ast;
use super::calls::Function;
use super::methods::Method;
use super::vm::{LoopState, Scope};
use super::{Fault, Result};
use serde_json::Value as Json;
use std::cell::RefCell;
use std::rc::{Rc, Weak};

#[derive(Clone)]
pub(in super::super) enum Value {
    Undefined,
    None,
    Bool(bool),
    /// Python's have no end; beyond 128 bits is an error.
    Int(i128),
    Float(f64),
    Str(Rc<Text>),
    Seq(Rc<Seq>),
    Dict(Rc<Dict>),
    Namespace(Rc<Namespace>),
    Callable(Rc<Callable>),
    Loop(Rc<LoopState>),
}

pub(in super::super) struct Text {
    pub(super) text: Box<str>,
    /// Marked by the filter `safe`: what is added to it is escaped for HTML.
    pub(super) safe: bool,
    _held: Held,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeqKind {
    List,
    Tuple,
    Range,
    /// What lazy filters give: it can be iterated over and nothing else, and is true even if it is empty.
    Generator,
    /// `dict.keys()`, `dict.values()` and `dict.items()`.
    View(&'static str),
}

pub(in super::super) struct Seq {
    pub(super) kind: SeqKind,
    pub(super) items: Vec<Value>,
    pub(super) depth: u16,
    _held: Held,
}

pub(in super::super) struct Dict {
    /// In the order in which they were given.
    pub(super) entries: Vec<(Value, Value)>,
    depth: u16,
    _held: Held,
}

/// The one thing that changes. A rendering keeps a list of all, and empties them when it ends: they may hold each other.
pub(in super::super) struct Namespace {
    pub(super) entries: RefCell<Vec<(Rc<str>, Value)>>,
    pub(super) held: RefCell<Vec<Held>>,
}

pub(in super::super) struct Callable {
    pub(super) what: Code,
    _held: Held,
}

pub(in super::super) enum Code {
    Function(&'static Function),
    Method(Value, &'static Method),
    /// With the scope in which it was declared.
    Macro(Rc<ast::Macro>, Weak<Scope>),
}

impl Value {
    /// What Python calls the type.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Undefined => "undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::Seq(seq) => match seq.kind {
                SeqKind::List => "list",
                SeqKind::Tuple => "tuple",
                SeqKind::Range => "range",
                SeqKind::Generator => "generator",
                SeqKind::View(name) => name,
            },
            Value::Dict(_) => "dict",
            Value::Namespace(_) => "namespace",
            Value::Callable(_) => "function",
            Value::Loop(_) => "loop",
        }
    }

    pub(super) fn is_true(&self) -> bool {
        match self {
            Value::Undefined | Value::None => false,
            Value::Bool(is) => *is,
            Value::Int(n) => *n != 0,
            Value::Float(x) => *x != 0.0,
            Value::Str(text) => !text.text.is_empty(),
            Value::Seq(seq) => seq.kind == SeqKind::Generator || !seq.items.is_empty(),
            Value::Dict(dict) => !dict.entries.is_empty(),
            Value::Namespace(_) | Value::Callable(_) | Value::Loop(_) => true,
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) => Some(&text.text),
            _ => None,
        }
    }

    /// A whole number; `true` is 1.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Value::Bool(is) => Some(i128::from(*is)),
            Value::Int(n) => Some(*n),
            _ => None,
        }
    }

    pub(super) fn as_float(&self) -> Option<f64> {
        match self {
            Value::Float(x) => Some(*x),
            _ => self.as_int().map(|n| n as f64),
        }
    }

    /// Levels of lists and maps.
    pub(super) fn depth(&self) -> u16 {
        match self {
            Value::Seq(seq) => seq.depth,
            Value::Dict(dict) => dict.depth,
            Value::Callable(callable) => match &callable.what {
                Code::Method(of, _) => of.depth() + 1,
                _ => 0,
            },
            Value::Loop(state) => state.depth_of_items() + 1,
            _ => 0,
        }
    }

    /// How many items it has, for what has a length.
    pub(super) fn len(&self) -> Result<usize> {
        match self {
            Value::Undefined => Ok(0),
            Value::Str(text) => Ok(text.text.chars().count()),
            Value::Seq(seq) if seq.kind != SeqKind::Generator => Ok(seq.items.len()),
            Value::Dict(dict) => Ok(dict.entries.len()),
            other => Err(Fault::new(format!("a {} has no length", other.kind()))),
        }
    }
}

impl Dict {
    /// The value of `key`.
    pub(super) fn get(&self, budget: &Budget<'_>, key: &Value) -> Result<Option<&Value>> {
        budget.spend(self.entries.len() as u64 / 8)?;
        match key.as_str() {
            Some(key) => Ok(self.field(key)),
            None => {
                for (known, value) in &self.entries {
                    if super::operators::equal(budget, known, key)? {
                        return Ok(Some(value));
                    }
                }
                Ok(None)
            }
        }
    }

    fn field(&self, key: &str) -> Option<&Value> {
        let found = self.entries.iter().find(|(k, _)| k.as_str() == Some(key));
        found.map(|(_, value)| value)
    }
}

fn next_depth(below: impl Iterator<Item = u16>) -> Result<u16> {
    match below.max().unwrap_or(0) {
        depth if depth < DEPTH => Ok(depth + 1),
        _ => Err(Fault::new(format!(
            "lists and maps are nested more than {DEPTH} deep"
        ))),
    }
}

/// Bytes of a value that is made, without what it holds.
const OVERHEAD: usize = 64;

impl Budget<'_> {
    pub(in super::super) fn text(&self, text: impl Into<Box<str>>) -> Result<Value> {
        self.marked(text, false)
    }

    /// A text that is `safe` or not.
    pub(super) fn marked(&self, text: impl Into<Box<str>>, safe: bool) -> Result<Value> {
        let text = text.into();
        let _held = self.hold(OVERHEAD + text.len())?;
        Ok(Value::Str(Rc::new(Text { text, safe, _held })))
    }

    pub(in super::super) fn list(&self, items: Vec<Value>) -> Result<Value> {
        self.seq(SeqKind::List, items)
    }

    pub(super) fn seq(&self, kind: SeqKind, items: Vec<Value>) -> Result<Value> {
        Ok(Value::Seq(Rc::new(Seq {
            kind,
            depth: next_depth(items.iter().map(Value::depth))?,
            _held: self.hold(OVERHEAD + items.len() * size_of::<Value>())?,
            items,
        })))
    }

    pub(super) fn callable(&self, what: Code) -> Result<Value> {
        let _held = self.hold(4 * OVERHEAD)?;
        Ok(Value::Callable(Rc::new(Callable { what, _held })))
    }

    /// A map of keys that differ.
    pub(super) fn dict(&self, entries: Vec<(Value, Value)>) -> Result<Value> {
        Ok(Value::Dict(Rc::new(Dict {
            depth: next_depth(entries.iter().map(|(_, value)| value.depth()))?,
            _held: self.hold(OVERHEAD + entries.len() * size_of::<(Value, Value)>())?,
            entries,
        })))
    }

    /// A map of `pairs`, of which the last with a key wins.
    pub(super) fn dict_of(&self, pairs: impl IntoIterator<Item = (Value, Value)>) -> Result<Value> {
        let mut entries: Vec<(Value, Value)> = Vec::new();
        for (key, value) in pairs {
            if matches!(key, Value::Dict(_)) || key.kind() == "list" {
                return Err(Fault::new(format!("a {} as a key", key.kind())));
            }
            self.spend(entries.len() as u64 / 8)?;
            let mut known = None;
            for (at, (other, _)) in entries.iter().enumerate() {
                if super::operators::equal(self, other, &key)? {
                    known = Some(at);
                    break;
                }
            }
            match known {
                Some(at) => entries[at].1 = value,
                None => entries.push((key, value)),
            }
        }
        self.dict(entries)
    }
}

/// JSON as a value. A number that is no whole one is a float, as Python's reader makes of it.
pub(in super::super) fn from_json(budget: &Budget<'_>, json: &Json) -> Result<Value> {
    budget.spend(1)?;
    match json {
        Json::Null => Ok(Value::None),
        Json::Bool(is) => Ok(Value::Bool(*is)),
        Json::Number(number) => Ok(match (number.as_i64(), number.as_u64()) {
            (Some(n), _) => Value::Int(i128::from(n)),
            (None, Some(n)) => Value::Int(i128::from(n)),
            (None, None) => Value::Float(number.as_f64().unwrap_or_default()),
        }),
        Json::String(text) => budget.text(text.as_str()),
        Json::Array(items) => {
            let items = items.iter().map(|item| from_json(budget, item));
            budget.list(items.collect::<Result<_>>()?)
        }
        Json::Object(map) => {
            let entry = |(key, json): (&String, &Json)| {
                Ok((budget.text(key.as_str())?, from_json(budget, json)?))
            };
            budget.dict(map.iter().map(entry).collect::<Result<_>>()?)
        }
    }
}
