//! Filters over lists and maps.

use super::calls::{Called, flag, given, int, size, some, text};
use super::filters::find;
use super::sequences::{generator, items, key, sort};
use super::value::{SeqKind, Value};
use super::vm::Vm;
use super::{Fault, Result, methods, operators, tests};
use std::cmp::Ordering;

/// An attribute by a path with dots; whole numbers are places in lists.
pub(super) fn path(
    vm: &Vm<'_>,
    of: &Value,
    path: &Value,
    default: Option<&Value>,
) -> Result<Value> {
    let Some(path) = path.as_str() else {
        let found = super::sequences::item(vm.budget, of, path)?;
        return Ok(found.or(default.cloned()).unwrap_or(Value::Undefined));
    };
    let mut value = of.clone();
    for part in path.split('.') {
        let name = match part.parse() {
            Ok(index) => Value::Int(index),
            Err(_) => vm.budget.text(part)?,
        };
        value = vm.item(&value, &name)?;
        if let (Value::Undefined, Some(default)) = (&value, default) {
            value = default.clone();
        }
    }
    Ok(value)
}

/// What a named attribute of an item is, or the item itself.
pub(super) fn attribute(vm: &Vm<'_>, of: &Value, name: &Option<Value>) -> Result<Value> {
    match name {
        Some(name) => path(vm, of, name, None),
        None => Ok(of.clone()),
    }
}

/// Items with what they are sorted or compared by.
pub(super) fn keyed(
    vm: &Vm<'_>,
    of: &Value,
    by: &Option<Value>,
    case: bool,
) -> Result<Vec<(Value, Value)>> {
    let pair = |item: Value| {
        let value = attribute(vm, &item, by)?;
        Ok((key(vm.budget, &value, case)?, item))
    };
    items(vm.budget, of)?.into_iter().map(pair).collect()
}

/// `select` and its sisters: items of which a test, on an attribute or on themselves, is as `wanted`.
pub(super) fn selected(
    vm: &Vm<'_>,
    of: &Value,
    called: &Called,
    by_attribute: bool,
    wanted: bool,
) -> Result<Value> {
    let (by, rest) = match (by_attribute, &*called.positional) {
        (false, rest) => (None, rest),
        (true, [by, rest @ ..]) => (Some(by.clone()), rest),
        (true, []) => return Err(Fault::new("expected an attribute's name")),
    };
    let (test, args) = match rest {
        [] => (None, rest),
        [name, args @ ..] => {
            let name = name.as_str().unwrap_or_default();
            let test = tests::find(name);
            let test = test.ok_or_else(|| Fault::new(format!("no test named `{name}`")))?;
            (Some(test), args)
        }
    };
    let mut kept = Vec::new();
    for item in items(vm.budget, of)? {
        let value = attribute(vm, &item, &by)?;
        let is = match test {
            Some(test) => (test.run)(vm, &value, args)?,
            None => value.is_true(),
        };
        vm.budget.spend(1)?;
        if is == wanted {
            kept.push(item);
        }
    }
    generator(vm.budget, kept)
}

pub(super) fn map(vm: &Vm<'_>, of: &Value, called: &Called) -> Result<Value> {
    let named = |name: &str| {
        let found = called.named.iter().find(|(known, _)| **known == *name);
        found.map(|(_, value)| value.clone())
    };
    let mut out = Vec::new();
    if let Some(by) = named("attribute") {
        let default = named("default");
        for item in items(vm.budget, of)? {
            out.push(path(vm, &item, &by, default.as_ref())?);
        }
        return generator(vm.budget, out);
    }
    let [name, args @ ..] = &*called.positional else {
        return Err(Fault::new("map: expected a filter"));
    };
    let name = name.as_str().unwrap_or_default();
    let filter = find(name).ok_or_else(|| Fault::new(format!("no filter named `{name}`")))?;
    let args = Called {
        positional: args.to_vec(),
        named: called.named.clone(),
    };
    for item in items(vm.budget, of)? {
        vm.budget.spend(1)?;
        out.push(vm.budget.deeper(|| (filter.run)(vm, &item, &args))?);
    }
    generator(vm.budget, out)
}

/// The least or the greatest item.
pub(super) fn extreme(vm: &Vm<'_>, of: &Value, called: &Called, wanted: Ordering) -> Result<Value> {
    let [case, by] = called.bind(["case_sensitive", "attribute"])?;
    let mut best: Option<(Value, Value)> = None;
    for (key, item) in keyed(vm, of, &some(by), flag(&case))? {
        let better = match &best {
            Some((known, _)) => operators::order(vm.budget, &key, known)? == wanted,
            None => true,
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or(Value::Undefined, |(_, item)| item))
}

/// `batch`, in rows of `count`, or `slice`, in `count` columns.
pub(super) fn rows(vm: &Vm<'_>, of: &Value, called: &Called, columns: bool) -> Result<Value> {
    let [count, fill] = called.bind(["count", "fill_with"])?;
    let count = size(int(&Some(given(count)?), 0)?);
    let (all, fill) = (items(vm.budget, of)?, some(fill));
    if count == 0 {
        return Err(Fault::new("expected a count of at least 1"));
    }
    let mut out = Vec::new();
    if columns {
        let (each, more) = (all.len() / count, all.len() % count);
        vm.budget.room(count.saturating_mul(64))?;
        vm.budget.spend(count as u64)?;
        let mut rest = all.into_iter();
        for i in 0..count {
            let mut row: Vec<Value> = rest.by_ref().take(each + usize::from(i < more)).collect();
            row.extend(fill.clone().filter(|_| more > 0 && i >= more));
            out.push(vm.budget.list(row)?);
        }
    } else {
        for row in all.chunks(count) {
            let mut row = row.to_vec();
            if let Some(fill) = &fill {
                let missing = count - row.len();
                vm.budget.room(missing.saturating_mul(size_of::<Value>()))?;
                row.extend(std::iter::repeat_n(fill.clone(), missing));
            }
            out.push(vm.budget.list(row)?);
        }
    }
    generator(vm.budget, out)
}

pub(super) fn group_by(vm: &Vm<'_>, of: &Value, called: &Called) -> Result<Value> {
    let [by, default, case] = called.bind(["attribute", "default", "case_sensitive"])?;
    let by = given(by)?;
    let mut keyed = Vec::new();
    for item in items(vm.budget, of)? {
        let value = path(vm, &item, &by, default.as_ref())?;
        let key = key(vm.budget, &value, flag(&case))?;
        keyed.push((key.clone(), (key, value, item)));
    }
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for (key, value, item) in sort(vm.budget, keyed, false)? {
        match groups.last_mut() {
            Some((last, _, group)) if operators::equal(vm.budget, last, &key)? => group.push(item),
            _ => groups.push((key, value, vec![item])),
        }
    }
    let group = |(_, value, items): (Value, Value, Vec<Value>)| {
        vm.budget
            .seq(SeqKind::Tuple, vec![value, vm.budget.list(items)?])
    };
    vm.budget
        .list(groups.into_iter().map(group).collect::<Result<_>>()?)
}

pub(super) fn dict_sort(vm: &Vm<'_>, of: &Value, called: &Called) -> Result<Value> {
    let [case, by, reverse] = called.bind(["case_sensitive", "by", "reverse"])?;
    let place = match text(&by, "key")? {
        "key" => 0,
        "value" => 1,
        _ => return Err(Fault::new("dictsort: expected key or value")),
    };
    if !matches!(of, Value::Dict(_)) {
        return Err(Fault::new(format!("dictsort of a {}", of.kind())));
    }
    let mut keyed = Vec::new();
    for pair in methods::pairs(vm, of)? {
        let by = super::sequences::item(vm.budget, &pair, &Value::Int(place))?;
        keyed.push((
            key(vm.budget, &by.unwrap_or(Value::None), flag(&case))?,
            pair,
        ));
    }
    vm.budget.list(sort(vm.budget, keyed, flag(&reverse))?)
}
