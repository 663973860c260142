//! What can stand behind `is`.

use super::ast::Comparison;
use super::filters::FILTERS;
use super::operators::{compare, contains};
use super::value::{SeqKind, Value};
use super::vm::Vm;
use super::{Fault, Result, sequences};

pub(in super::super) struct Test {
    pub(super) name: &'static str,
    pub(super) run: fn(&Vm<'_>, &Value, &[Value]) -> Result<bool>,
}

/// The test of this name.
pub(super) fn find(name: &str) -> Option<&'static Test> {
    TESTS.iter().find(|test| test.name == name)
}

fn argument(args: &[Value]) -> Result<&Value> {
    match args {
        [one] => Ok(one),
        _ => Err(Fault::new("expected one argument")),
    }
}

fn whole(value: &Value) -> Result<i128> {
    let number = value.as_int();
    number.ok_or_else(|| Fault::new(format!("expected a whole number, got a {}", value.kind())))
}

/// A test that asks nothing but the value.
macro_rules! plain {
    ($name:literal, $run:expr) => {
        Test {
            name: $name,
            run: |_, value, _| {
                let run: fn(&Value) -> bool = $run;
                Ok(run(value))
            },
        }
    };
}

/// A test that compares.
macro_rules! comparison {
    ($name:literal, $op:ident) => {
        Test {
            name: $name,
            run: |vm, value, args| compare(vm.budget, Comparison::$op, value, argument(args)?),
        }
    };
}

/// A text of which all letters that have a case have this one, and at least one has.
fn has_case(value: &Value, wanted: fn(char) -> bool, other: fn(char) -> bool) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.chars().any(wanted) && !text.chars().any(other)
}

static TESTS: &[Test] = &[
    plain!("defined", |v| !matches!(v, Value::Undefined)),
    plain!("undefined", |v| matches!(v, Value::Undefined)),
    plain!("none", |v| matches!(v, Value::None)),
    plain!("boolean", |v| matches!(v, Value::Bool(_))),
    plain!("true", |v| matches!(v, Value::Bool(true))),
    plain!("false", |v| matches!(v, Value::Bool(false))),
    plain!("integer", |v| matches!(v, Value::Int(_))),
    plain!("float", |v| matches!(v, Value::Float(_))),
    plain!("number", |v| v.as_float().is_some()),
    plain!("string", |v| matches!(v, Value::Str(_))),
    plain!("mapping", |v| matches!(v, Value::Dict(_))),
    plain!("iterable", sequences::is_iterable),
    plain!("sequence", |v| match v {
        Value::Undefined | Value::Str(_) | Value::Dict(_) => true,
        Value::Seq(seq) => !matches!(seq.kind, SeqKind::Generator | SeqKind::View(_)),
        _ => false,
    }),
    plain!("callable", |v| matches!(
        v,
        Value::Callable(_) | Value::Loop(_) | Value::Undefined
    )),
    plain!("escaped", |v| matches!(v, Value::Str(text) if text.safe)),
    plain!("lower", |v| has_case(
        v,
        char::is_lowercase,
        char::is_uppercase
    )),
    plain!("upper", |v| has_case(
        v,
        char::is_uppercase,
        char::is_lowercase
    )),
    comparison!("eq", Eq),
    comparison!("equalto", Eq),
    comparison!("==", Eq),
    comparison!("ne", Ne),
    comparison!("!=", Ne),
    comparison!("lt", Lt),
    comparison!("lessthan", Lt),
    comparison!("<", Lt),
    comparison!("le", Le),
    comparison!("<=", Le),
    comparison!("gt", Gt),
    comparison!("greaterthan", Gt),
    comparison!(">", Gt),
    comparison!("ge", Ge),
    comparison!(">=", Ge),
    Test {
        name: "in",
        run: |vm, value, args| contains(vm.budget, argument(args)?, value),
    },
    Test {
        name: "sameas",
        run: |_, value, args| Ok(sequences::same(value, argument(args)?)),
    },
    Test {
        name: "odd",
        run: |_, value, _| Ok(whole(value)? % 2 != 0),
    },
    Test {
        name: "even",
        run: |_, value, _| Ok(whole(value)? % 2 == 0),
    },
    Test {
        name: "divisibleby",
        run: |_, value, args| match (whole(value)?, whole(argument(args)?)?) {
            (_, 0) => Err(Fault::new("division by zero")),
            (_, -1) => Ok(true),
            (a, b) => Ok(a % b == 0),
        },
    },
    Test {
        name: "filter",
        run: |_, value, _| {
            let name = value.as_str().unwrap_or_default();
            Ok(FILTERS.iter().any(|filter| filter.name == name))
        },
    },
    Test {
        name: "test",
        run: |_, value, _| Ok(find(value.as_str().unwrap_or_default()).is_some()),
    },
];
