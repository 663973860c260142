//! What Python does with lists, texts and maps by position.

use super::super::limits::Budget;
use super::calls::int;
use super::value::{SeqKind, Value};
use super::{Fault, Result, operators};
use std::cmp::Ordering;
use std::rc::Rc;

/// What a loop over `value` gives: items, keys, letters.
pub(super) fn items(budget: &Budget<'_>, value: &Value) -> Result<Vec<Value>> {
    match value {
        Value::Undefined => Ok(Vec::new()),
        Value::Seq(seq) => {
            budget.room(seq.items.len() * size_of::<Value>())?;
            budget.spend(seq.items.len() as u64 / 4)?;
            Ok(seq.items.clone())
        }
        Value::Dict(dict) => {
            budget.room(dict.entries.len() * size_of::<Value>())?;
            budget.spend(dict.entries.len() as u64 / 4)?;
            Ok(dict.entries.iter().map(|(key, _)| key.clone()).collect())
        }
        Value::Str(text) => {
            let chars = text.text.chars();
            chars.map(|c| budget.text(c.to_string())).collect()
        }
        other => Err(Fault::new(format!(
            "cannot iterate over a {}",
            other.kind()
        ))),
    }
}

pub(super) fn is_iterable(value: &Value) -> bool {
    matches!(
        value,
        Value::Undefined | Value::Seq(_) | Value::Dict(_) | Value::Str(_) | Value::Loop(_)
    )
}

/// The place that `index` names among `count` items; negative ones count from the end.
pub(super) fn place(index: i128, count: usize) -> Option<usize> {
    let index = if index < 0 {
        index + count as i128
    } else {
        index
    };
    usize::try_from(index).ok().filter(|at| *at < count)
}

/// `of[key]`, where there is such an entry.
pub(super) fn item(budget: &Budget<'_>, of: &Value, key: &Value) -> Result<Option<Value>> {
    match (of, key.as_int()) {
        (Value::Dict(dict), _) => Ok(dict.get(budget, key)?.cloned()),
        (Value::Seq(seq), Some(index))
            if !matches!(seq.kind, SeqKind::Generator | SeqKind::View(_)) =>
        {
            Ok(place(index, seq.items.len()).map(|at| seq.items[at].clone()))
        }
        (Value::Str(text), Some(index)) => {
            budget.read(text.text.len())?;
            let count = text.text.chars().count();
            let found = place(index, count).and_then(|at| text.text.chars().nth(at));
            found.map(|c| budget.text(c.to_string())).transpose()
        }
        _ => Ok(None),
    }
}

/// `of[from:to:step]`.
pub(super) fn slice(budget: &Budget<'_>, of: &Value, bounds: &[Option<Value>; 3]) -> Result<Value> {
    let [from, to, step] = bounds;
    let step = int(step, 1)?;
    if step == 0 {
        return Err(Fault::new("a slice's step is 0"));
    }
    let places = |count: usize| -> Result<Vec<usize>> {
        let count = count as i128;
        let (low, high) = if step > 0 {
            (0, count)
        } else {
            (-1, count - 1)
        };
        let bound = |value: &Option<Value>, default: i128| -> Result<i128> {
            match value {
                None => Ok(default),
                Some(_) => {
                    let n = int(value, 0)?;
                    let n = if n < 0 { n.saturating_add(count) } else { n };
                    Ok(n.clamp(low, high))
                }
            }
        };
        let (begin, end) = if step > 0 { (low, high) } else { (high, low) };
        let (mut at, end) = (bound(from, begin)?, bound(to, end)?);
        let mut places = Vec::new();
        budget.room(count as usize * size_of::<usize>())?;
        while if step > 0 { at < end } else { at > end } {
            places.push(at as usize);
            at = at.saturating_add(step);
        }
        budget.spend(places.len() as u64 / 16)?;
        Ok(places)
    };
    match of {
        Value::Undefined => Err(Fault::new("an undefined value has no slices")),
        Value::Str(text) => {
            budget.room(4 * text.text.len())?;
            budget.read(4 * text.text.len())?;
            let chars: Vec<char> = text.text.chars().collect();
            let kept = places(chars.len())?.into_iter().map(|at| chars[at]);
            budget.marked(kept.collect::<String>(), text.safe)
        }
        Value::Seq(seq) if !matches!(seq.kind, SeqKind::Generator | SeqKind::View(_)) => {
            let places = places(seq.items.len())?;
            budget.room(places.len() * size_of::<Value>())?;
            let kept = places.into_iter().map(|at| seq.items[at].clone());
            budget.seq(seq.kind, kept.collect())
        }
        Value::Dict(_) => Err(Fault::new("a dict has no slices")),
        _ => Ok(Value::Undefined),
    }
}

/// The key by which something is sorted or compared: texts in small letters unless `case` counts.
pub(super) fn key(budget: &Budget<'_>, value: &Value, case: bool) -> Result<Value> {
    match value.as_str().filter(|_| !case) {
        Some(text) => budget.text(text.to_lowercase()),
        None => Ok(value.clone()),
    }
}

/// Sorts by keys, and keeps the order of what is equal.
pub(super) fn sort<T>(
    budget: &Budget<'_>,
    mut items: Vec<(Value, T)>,
    reverse: bool,
) -> Result<Vec<T>> {
    // By merging: the comparison can fail, and need not be an order at all.
    budget.room(2 * items.len() * size_of::<(Value, T)>())?;
    let mut width = 1;
    while width < items.len() {
        let mut merged = Vec::with_capacity(items.len());
        let mut rest = items.into_iter();
        loop {
            let mut left = rest
                .by_ref()
                .take(width)
                .collect::<Vec<_>>()
                .into_iter()
                .peekable();
            let mut right = rest
                .by_ref()
                .take(width)
                .collect::<Vec<_>>()
                .into_iter()
                .peekable();
            if left.peek().is_none() {
                break;
            }
            while let (Some((a, _)), Some((b, _))) = (left.peek(), right.peek()) {
                let order = operators::order(budget, a, b)?;
                let right_first = match reverse {
                    true => order == Ordering::Less,
                    false => order == Ordering::Greater,
                };
                merged.extend(if right_first {
                    right.next()
                } else {
                    left.next()
                });
            }
            merged.extend(left);
            merged.extend(right);
        }
        items = merged;
        width *= 2;
    }
    Ok(items.into_iter().map(|(_, item)| item).collect())
}

/// `list` of what a lazy filter gives.
pub(super) fn generator(budget: &Budget<'_>, items: Vec<Value>) -> Result<Value> {
    budget.seq(SeqKind::Generator, items)
}

/// The letters of a text in reverse, or the items of a list.
pub(super) fn reversed(budget: &Budget<'_>, value: &Value) -> Result<Value> {
    match value {
        Value::Str(text) => {
            let text: String = text.text.chars().rev().collect();
            budget.text(text)
        }
        other => {
            let mut items = items(budget, other)?;
            items.reverse();
            generator(budget, items)
        }
    }
}

/// Whether both are the same object.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Undefined, Value::Undefined) | (Value::None, Value::None) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Str(a), Value::Str(b)) => Rc::ptr_eq(a, b),
        (Value::Seq(a), Value::Seq(b)) => Rc::ptr_eq(a, b),
        (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
        (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
        _ => false,
    }
}
