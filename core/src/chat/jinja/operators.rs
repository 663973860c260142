//! Python's operators.

use super::super::limits::{Budget, Out};
use super::ast::{Comparison, Operator};
use super::value::{SeqKind, Value};
use super::{Fault, Result, format, print};
use std::cmp::Ordering;

/// `a == b`. Values of different types are not equal, but numbers and truth values are compared as numbers.
pub(super) fn equal(budget: &Budget<'_>, a: &Value, b: &Value) -> Result<bool> {
    budget.spend(1)?;
    Ok(match (a, b) {
        (Value::Undefined, Value::Undefined) | (Value::None, Value::None) => true,
        (Value::Str(a), Value::Str(b)) => {
            budget.read(a.text.len().min(b.text.len()))?;
            a.text == b.text
        }
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Seq(a), Value::Seq(b)) => {
            if std::rc::Rc::ptr_eq(a, b) {
                return Ok(true);
            }
            if a.kind != b.kind || a.items.len() != b.items.len() {
                return Ok(false);
            }
            budget.deeper(|| {
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !equal(budget, a, b)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            })?
        }
        (Value::Dict(a), Value::Dict(b)) => {
            if std::rc::Rc::ptr_eq(a, b) {
                return Ok(true);
            }
            if a.entries.len() != b.entries.len() {
                return Ok(false);
            }
            budget.deeper(|| {
                for (key, value) in &a.entries {
                    match b.get(budget, key)? {
                        Some(other) if equal(budget, value, other)? => {}
                        _ => return Ok(false),
                    }
                }
                Ok(true)
            })?
        }
        (Value::Namespace(a), Value::Namespace(b)) => std::rc::Rc::ptr_eq(a, b),
        (Value::Callable(a), Value::Callable(b)) => std::rc::Rc::ptr_eq(a, b),
        _ => match (a.as_float(), b.as_float()) {
            (Some(a), Some(b)) => a == b,
            _ => false,
        },
    })
}

/// How `a` stands to `b`, for what Python can order. Not a number is equal to everything.
pub(super) fn order(budget: &Budget<'_>, a: &Value, b: &Value) -> Result<Ordering> {
    budget.spend(1)?;
    match (a, b) {
        (Value::Str(a), Value::Str(b)) => {
            budget.read(a.text.len().min(b.text.len()))?;
            Ok(a.text.cmp(&b.text))
        }
        (Value::Seq(a), Value::Seq(b))
            if a.kind == b.kind && matches!(a.kind, SeqKind::List | SeqKind::Tuple) =>
        {
            budget.deeper(|| {
                for (x, y) in a.items.iter().zip(&b.items) {
                    if !equal(budget, x, y)? {
                        return order(budget, x, y);
                    }
                }
                Ok(a.items.len().cmp(&b.items.len()))
            })
        }
        _ => match (a.as_int(), b.as_int(), a.as_float(), b.as_float()) {
            (Some(a), Some(b), ..) => Ok(a.cmp(&b)),
            (.., Some(a), Some(b)) => Ok(a.partial_cmp(&b).unwrap_or(Ordering::Equal)),
            _ => Err(Fault::new(format!(
                "a {} and a {} have no order",
                a.kind(),
                b.kind()
            ))),
        },
    }
}

pub(super) fn compare(budget: &Budget<'_>, op: Comparison, a: &Value, b: &Value) -> Result<bool> {
    let has_order = |wanted: &[Ordering]| Ok(wanted.contains(&order(budget, a, b)?));
    let nan = |value: &Value| matches!(value, Value::Float(x) if x.is_nan());
    match op {
        Comparison::Eq => equal(budget, a, b),
        Comparison::Ne => Ok(!equal(budget, a, b)?),
        Comparison::In => contains(budget, b, a),
        Comparison::NotIn => Ok(!contains(budget, b, a)?),
        _ if nan(a) || nan(b) => Ok(false),
        Comparison::Lt => has_order(&[Ordering::Less]),
        Comparison::Le => has_order(&[Ordering::Less, Ordering::Equal]),
        Comparison::Gt => has_order(&[Ordering::Greater]),
        Comparison::Ge => has_order(&[Ordering::Greater, Ordering::Equal]),
    }
}

/// `item in container`.
pub(super) fn contains(budget: &Budget<'_>, container: &Value, item: &Value) -> Result<bool> {
    match container {
        Value::Undefined => Ok(false),
        Value::Str(text) => match item.as_str() {
            Some(part) => {
                budget.read(text.text.len() + part.len())?;
                Ok(text.text.contains(part))
            }
            None => Err(Fault::new(format!("a {} in a text", item.kind()))),
        },
        Value::Seq(seq) => {
            for other in &seq.items {
                if equal(budget, other, item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Dict(dict) => Ok(dict.get(budget, item)?.is_some()),
        other => Err(Fault::new(format!("something in a {}", other.kind()))),
    }
}

/// `a op b` for numbers, texts and lists.
pub(super) fn binary(budget: &Budget<'_>, op: Operator, a: &Value, b: &Value) -> Result<Value> {
    match (op, a, b) {
        (Operator::Add, Value::Str(x), Value::Str(y)) => {
            budget.room(x.text.len() + y.text.len())?;
            if x.safe == y.safe {
                return budget.marked([&*x.text, &*y.text].concat(), x.safe);
            }
            let mut out = Out::new(budget)?;
            for part in [x, y] {
                match part.safe {
                    true => out.push_str(&part.text)?,
                    false => escape(&mut out, &part.text)?,
                }
            }
            return budget.marked(out.finish(), true);
        }
        (Operator::Add, Value::Seq(x), Value::Seq(y))
            if x.kind == y.kind && matches!(x.kind, SeqKind::List | SeqKind::Tuple) =>
        {
            let count = x.items.len() + y.items.len();
            budget.room(count * size_of::<Value>())?;
            return budget.seq(x.kind, x.items.iter().chain(&y.items).cloned().collect());
        }
        (Operator::Mul, Value::Str(_) | Value::Seq(_), times)
        | (Operator::Mul, times, Value::Str(_) | Value::Seq(_)) => {
            let repeated = if times.as_int().is_some() && a.as_int().is_none() {
                a
            } else {
                b
            };
            if let Some(times) = times.as_int() {
                return repeat(budget, repeated, times);
            }
        }
        (Operator::Mod, Value::Str(_), args) => return format::percent(budget, a, args),
        _ => {}
    }
    let what = || Fault::new(format!("{op:?} of a {} and a {}", a.kind(), b.kind()));
    if let (Some(x), Some(y)) = (a.as_int(), b.as_int()) {
        return whole(op, x, y);
    }
    match (a.as_float(), b.as_float()) {
        (Some(x), Some(y)) => real(op, x, y).map(Value::Float),
        _ => Err(what()),
    }
}

fn repeat(budget: &Budget<'_>, value: &Value, times: i128) -> Result<Value> {
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    match value {
        Value::Str(text) => {
            let mut out = Out::new(budget)?;
            out.repeat(&text.text, if text.text.is_empty() { 0 } else { times })?;
            budget.marked(out.finish(), text.safe)
        }
        Value::Seq(seq) if matches!(seq.kind, SeqKind::List | SeqKind::Tuple) => {
            let count = seq.items.len().saturating_mul(times);
            budget.room(count.saturating_mul(size_of::<Value>()))?;
            budget.seq(
                seq.kind,
                seq.items.iter().cycle().take(count).cloned().collect(),
            )
        }
        other => Err(Fault::new(format!("a {} times a number", other.kind()))),
    }
}

fn whole(op: Operator, a: i128, b: i128) -> Result<Value> {
    let floored = |a: i128, b: i128| {
        let (quotient, rest) = (a.checked_div(b)?, a.checked_rem(b)?);
        match rest != 0 && (rest < 0) != (b < 0) {
            true => Some((quotient - 1, rest + b)),
            false => Some((quotient, rest)),
        }
    };
    if b == 0 && matches!(op, Operator::Div | Operator::FloorDiv | Operator::Mod) {
        return Err(Fault::new("division by zero"));
    }
    let result = match op {
        Operator::Add => a.checked_add(b),
        Operator::Sub => a.checked_sub(b),
        Operator::Mul => a.checked_mul(b),
        Operator::Div => return Ok(Value::Float(a as f64 / b as f64)),
        Operator::FloorDiv => floored(a, b).map(|(quotient, _)| quotient),
        Operator::Mod => floored(a, b).map(|(_, rest)| rest),
        Operator::Pow if b < 0 => return real(op, a as f64, b as f64).map(Value::Float),
        Operator::Pow => match a {
            0 | 1 => Some(if b == 0 { 1 } else { a }),
            _ => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
        },
    };
    let result = result.map(Value::Int);
    result.ok_or_else(|| Fault::new("a whole number of more than 128 bits"))
}

fn real(op: Operator, a: f64, b: f64) -> Result<f64> {
    let by_zero = matches!(op, Operator::Div | Operator::FloorDiv | Operator::Mod)
        || op == Operator::Pow && a == 0.0 && b < 0.0;
    if by_zero && (b == 0.0 || op == Operator::Pow) {
        return Err(Fault::new("division by zero"));
    }
    Ok(match op {
        Operator::Add => a + b,
        Operator::Sub => a - b,
        Operator::Mul => a * b,
        Operator::Div => a / b,
        Operator::FloorDiv => (a / b).floor(),
        Operator::Mod => {
            let rest = a % b;
            if rest != 0.0 && (rest < 0.0) != (b < 0.0) {
                rest + b
            } else {
                rest
            }
        }
        Operator::Pow => a.powf(b),
    })
}

pub(super) fn negative(value: &Value) -> Result<Value> {
    match (value.as_int(), value) {
        (Some(n), _) => n
            .checked_neg()
            .map(Value::Int)
            .ok_or_else(|| Fault::new("a whole number of more than 128 bits")),
        (None, Value::Float(x)) => Ok(Value::Float(-x)),
        _ => Err(Fault::new(format!("minus a {}", value.kind()))),
    }
}

/// For HTML, as MarkupSafe does it.
pub(super) fn escape(out: &mut Out<'_, '_>, text: &str) -> Result<()> {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;")?,
            '<' => out.push_str("&lt;")?,
            '>' => out.push_str("&gt;")?,
            '\'' => out.push_str("&#39;")?,
            '"' => out.push_str("&#34;")?,
            c => out.push(c)?,
        }
    }
    Ok(())
}

/// `parts` one after the other, each as `str` gives it.
pub(super) fn concat(budget: &Budget<'_>, parts: &[Value]) -> Result<Value> {
    let mut out = Out::new(budget)?;
    for part in parts {
        print::write(&mut out, part)?;
    }
    budget.text(out.finish())
}
