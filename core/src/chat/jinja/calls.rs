//! Calls: the arguments that were given, and the functions that templates find.

use super::value::{Namespace, SeqKind, Value};
use super::vm::Vm;
use super::{Fault, Result};
use std::cell::RefCell;
use std::rc::Rc;

/// Evaluated arguments.
#[derive(Default)]
pub(super) struct Called {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(Rc<str>, Value)>,
}

impl Called {
    pub(super) fn with(positional: Vec<Value>) -> Self {
        Called {
            positional,
            named: Vec::new(),
        }
    }

    /// The arguments of a function with parameters of these `names`, as far as they were given.
    pub(super) fn bind<const N: usize>(&self, names: [&str; N]) -> Result<[Option<Value>; N]> {
        if self.positional.len() > N {
            return Err(Fault::new(format!(
                "expected at most {N} arguments, got {}",
                self.positional.len()
            )));
        }
        let mut bound = [const { None }; N];
        for (slot, value) in bound.iter_mut().zip(&self.positional) {
            *slot = Some(value.clone());
        }
        for (name, value) in &self.named {
            match names.iter().position(|known| **known == **name) {
                Some(at) if bound[at].is_none() => bound[at] = Some(value.clone()),
                _ => return Err(Fault::new(format!("unexpected argument `{name}`"))),
            }
        }
        Ok(bound)
    }

    /// None may be given.
    pub(super) fn nothing(&self) -> Result<()> {
        self.bind([]).map(|[]| ())
    }
}

/// An argument that is a whole number, where there is one.
pub(super) fn int(value: &Option<Value>, default: i128) -> Result<i128> {
    match value {
        None => Ok(default),
        Some(value) => value
            .as_int()
            .ok_or_else(|| Fault::new(format!("expected a whole number, got a {}", value.kind()))),
    }
}

/// An argument that is a text, where there is one.
pub(super) fn text<'v>(value: &'v Option<Value>, default: &'v str) -> Result<&'v str> {
    match value {
        None => Ok(default),
        Some(value) => value
            .as_str()
            .ok_or_else(|| Fault::new(format!("expected a text, got a {}", value.kind()))),
    }
}

/// An argument that must be given.
pub(super) fn given(value: Option<Value>) -> Result<Value> {
    value.ok_or_else(|| Fault::new("an argument is missing"))
}

/// Whether an argument was given that is true.
pub(super) fn flag(value: &Option<Value>) -> bool {
    value.as_ref().is_some_and(Value::is_true)
}

/// What is not `none`, as parameters with that default have it.
pub(super) fn some(value: Option<Value>) -> Option<Value> {
    value.filter(|value| !matches!(value, Value::None))
}

/// A number of places: negative ones are none.
pub(super) fn size(number: i128) -> usize {
    usize::try_from(number.max(0)).unwrap_or(usize::MAX)
}

pub(in super::super) struct Function {
    pub(super) name: &'static str,
    pub(super) call: fn(&Vm<'_>, &Called) -> Result<Value>,
}

/// Every name that is defined without the template's doing, besides the conversation's.
pub(super) static FUNCTIONS: &[Function] = &[
    Function {
        name: "range",
        call: range,
    },
    Function {
        name: "dict",
        call: |vm, called| {
            let [pairs] = Called::with(called.positional.clone()).bind(["pairs"])?;
            let mut entries = match pairs {
                Some(Value::Dict(dict)) => dict.entries.clone(),
                Some(pairs) => vm.pairs(&pairs)?,
                None => Vec::new(),
            };
            for (name, value) in &called.named {
                entries.push((vm.budget.text(&**name)?, value.clone()));
            }
            vm.budget.dict_of(entries)
        },
    },
    Function {
        name: "namespace",
        call: |vm, called| {
            let [from] = Called::with(called.positional.clone()).bind(["from"])?;
            let space = Rc::new(Namespace {
                entries: RefCell::default(),
                held: RefCell::new(vec![vm.budget.hold(128)?]),
            });
            vm.spaces.borrow_mut().push(Rc::clone(&space));
            if let Some(Value::Dict(dict)) = from {
                for (key, value) in &dict.entries {
                    vm.set_attribute(&space, &key.as_str().unwrap_or_default().into(), value)?;
                }
            }
            for (name, value) in &called.named {
                vm.set_attribute(&space, name, value)?;
            }
            Ok(Value::Namespace(space))
        },
    },
    Function {
        name: "raise_exception",
        call: |vm, called| {
            let [message] = called.bind(["message"])?;
            let message = vm.string(&message.unwrap_or(Value::Undefined))?;
            Err(Fault::new(message))
        },
    },
    Function {
        name: "strftime_now",
        call: |vm, called| {
            let [format] = called.bind(["format"])?;
            vm.budget.text((vm.clock)(text(&format, "")?)?)
        },
    },
];

/// The most numbers that Jinja2's sandbox allows too.
const MAX_NUMBERS: i128 = 100_000;

fn range(vm: &Vm<'_>, called: &Called) -> Result<Value> {
    let [a, b, step] = called.bind(["start", "stop", "step"])?;
    let a = given(a)?;
    let (start, stop) = match &b {
        Some(_) => (int(&Some(a), 0)?, int(&b, 0)?),
        None => (0, int(&Some(a), 0)?),
    };
    let step = int(&step, 1)?;
    let span = stop.saturating_sub(start);
    let count = match step {
        0 => return Err(Fault::new("range: expected a step other than 0")),
        1.. => span.saturating_add(step - 1).checked_div(step),
        _ => span.saturating_add(step + 1).checked_div(step),
    };
    let count = count.unwrap_or(i128::MAX);
    if count > MAX_NUMBERS {
        return Err(Fault::new(format!(
            "range: expected at most {MAX_NUMBERS} numbers"
        )));
    }
    vm.budget.room(size(count) * size_of::<Value>())?;
    let numbers = (0..count.max(0)).map(|i| Value::Int(start + i * step));
    vm.budget.seq(SeqKind::Range, numbers.collect())
}
