//! What can stand behind `|`.

use super::super::limits::Out;
use super::calls::{Called, given, int, size, text};
use super::eval::Vm;
use super::methods::{self, capitalized, joined, lines, padded, replaced, strip};
use super::operators::{self, escape};
use super::print::{JsonStyle, write_repr};
use super::sequences::{generator, items, key, reversed, sort};
use super::value::{SeqKind, Value};
use super::{Fault, Result, format, tests};
use std::cmp::Ordering;

pub(in super::super) struct Filter {
    pub(super) name: &'static str,
    pub(super) run: fn(&Vm<'_>, &Value, &Called) -> Result<Value>,
}

/// The filter of this name.
pub(super) fn find(name: &str) -> Option<&'static Filter> {
    FILTERS.iter().find(|filter| filter.name == name)
}

macro_rules! filters {
    ($($name:literal => $run:expr,)*) => {
        &[$(Filter { name: $name, run: $run }),*]
    };
}

fn flag(value: &Option<Value>) -> bool {
    value.as_ref().is_some_and(Value::is_true)
}

/// What is not `none`, as parameters with that default have it.
fn some(value: Option<Value>) -> Option<Value> {
    value.filter(|value| !matches!(value, Value::None))
}

/// A text made of the value as a text.
fn mapped(vm: &Vm<'_>, of: &Value, called: &Called, run: fn(&str) -> String) -> Result<Value> {
    called.nothing()?;
    let of = vm.string(of)?;
    vm.budget.room(3 * of.len())?;
    vm.budget.read(8 * of.len())?;
    vm.budget.text(run(&of))
}

/// The filter `tojson`, as Hugging Face's templates have it: `json.dumps` with `ensure_ascii` off, and without Jinja's escapes for HTML.
fn to_json(vm: &Vm<'_>, of: &Value, called: &Called) -> Result<Value> {
    let [ascii, indent, separators, sort_keys] =
        called.bind(["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let indent = match some(indent) {
        None => None,
        Some(Value::Str(text)) => Some(text.text.to_string()),
        number => Some(" ".repeat(size(int(&number, 0)?).min(64))),
    };
    let (item, key) = match some(separators) {
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
        Some(pair) => match &*items(vm.budget, &pair)? {
            [Value::Str(item), Value::Str(key)] => (item.text.to_string(), key.text.to_string()),
            _ => return Err(Fault::new("tojson: separators: expected two texts")),
        },
    };
    let style = JsonStyle {
        item,
        key,
        indent,
        sort_keys: flag(&sort_keys),
        ascii: flag(&ascii),
    };
    let mut out = Out::new(vm.budget)?;
    style.write(&mut out, of, 0)?;
    vm.budget.text(out.finish())
}

/// An attribute by a path with dots; whole numbers are places in lists.
fn path(vm: &Vm<'_>, of: &Value, path: &Value, default: Option<&Value>) -> Result<Value> {
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
fn attribute(vm: &Vm<'_>, of: &Value, name: &Option<Value>) -> Result<Value> {
    match name {
        Some(name) => path(vm, of, name, None),
        None => Ok(of.clone()),
    }
}

/// Items with what they are sorted or compared by.
fn keyed(vm: &Vm<'_>, of: &Value, by: &Option<Value>, case: bool) -> Result<Vec<(Value, Value)>> {
    let pair = |item: Value| {
        let value = attribute(vm, &item, by)?;
        Ok((key(vm.budget, &value, case)?, item))
    };
    items(vm.budget, of)?.into_iter().map(pair).collect()
}

/// `select` and its sisters: items of which a test, on an attribute or on themselves, is as `wanted`.
fn selected(
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

fn map(vm: &Vm<'_>, of: &Value, called: &Called) -> Result<Value> {
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
fn extreme(vm: &Vm<'_>, of: &Value, called: &Called, wanted: Ordering) -> Result<Value> {
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

fn indent(vm: &Vm<'_>, of: &Value, called: &Called) -> Result<Value> {
    let [width, first, blank] = called.bind(["width", "first", "blank"])?;
    let mut unit = Out::new(vm.budget)?;
    match &width {
        Some(Value::Str(text)) => unit.push_str(&text.text)?,
        width => unit.repeat(" ", size(int(width, 4)?))?,
    }
    let unit = unit.finish();
    let of = match of.as_str() {
        Some(text) => format!("{text}\n"),
        None => return Err(Fault::new(format!("indent of a {}", of.kind()))),
    };
    vm.budget.room(of.len() * size_of::<&str>())?;
    let mut out = Out::new(vm.budget)?;
    for (i, line) in lines(&of).into_iter().enumerate() {
        if i > 0 {
            out.push('\n')?;
        }
        let indented = if i == 0 {
            flag(&first)
        } else {
            flag(&blank) || !line.is_empty()
        };
        out.push_str(if indented { &unit } else { "" })?;
        out.push_str(line)?;
    }
    vm.budget.text(out.finish())
}

fn truncate(vm: &Vm<'_>, of: &Value, called: &Called) -> Result<Value> {
    let [length, kill, end, leeway] = called.bind(["length", "killwords", "end", "leeway"])?;
    let (length, leeway) = (size(int(&length, 255)?), size(int(&some(leeway), 5)?));
    let end = text(&end, "...")?;
    let (of, dots) = (vm.string(of)?, end.chars().count());
    if length < dots {
        return Err(Fault::new(format!(
            "truncate: expected a length of {dots} or more"
        )));
    }
    if of.chars().count() <= length.saturating_add(leeway) {
        return vm.budget.text(of);
    }
    let kept: String = of.chars().take(length - dots).collect();
    let kept = match kept.rsplit_once(' ') {
        Some((words, _)) if !flag(&kill) => words,
        _ => &kept,
    };
    vm.budget.text([kept, end].concat())
}

fn round(_: &Vm<'_>, of: &Value, called: &Called) -> Result<Value> {
    let [precision, method] = called.bind(["precision", "method"])?;
    let precision = int(&precision, 0)?.clamp(-300, 300) as i32;
    let x = of.as_float();
    let x = x.ok_or_else(|| Fault::new(format!("round of a {}", of.kind())))?;
    let scale = 10f64.powi(precision);
    let rounded = match text(&method, "common")? {
        "common" if precision >= 0 && x.is_finite() => {
            if let Some(n) = of.as_int() {
                return Ok(Value::Int(n));
            }
            let text = format!("{x:.*}", precision as usize);
            text.parse().unwrap_or(x)
        }
        "common" => {
            let rounded = (x * scale).round_ties_even() / scale;
            if of.as_int().is_some() {
                return Ok(Value::Int(rounded as i128));
            }
            rounded
        }
        "ceil" => (x * scale).ceil() / scale,
        "floor" => (x * scale).floor() / scale,
        _ => return Err(Fault::new("round: expected common, ceil or floor")),
    };
    Ok(Value::Float(rounded))
}

/// `int`: what is no number is the default.
fn whole(_: &Vm<'_>, of: &Value, called: &Called) -> Result<Value> {
    let [default, base] = called.bind(["default", "base"])?;
    let base = int(&base, 10)?;
    let base = u32::try_from(base)
        .ok()
        .filter(|base| (2..=36).contains(base));
    let base = base.ok_or_else(|| Fault::new("int: expected a base from 2 to 36"))?;
    let number = match of {
        Value::Str(text) => {
            let text = text.text.trim().replace('_', "");
            let digits = match base {
                16 => text.trim_start_matches("0x").trim_start_matches("0X"),
                8 => text.trim_start_matches("0o").trim_start_matches("0O"),
                2 => text.trim_start_matches("0b").trim_start_matches("0B"),
                _ => &*text,
            };
            let whole = i128::from_str_radix(digits, base).ok();
            whole.or_else(|| truncated(text.parse().ok()))
        }
        Value::Float(x) => truncated(Some(*x)),
        other => other.as_int(),
    };
    Ok(number.map_or(default.unwrap_or(Value::Int(0)), Value::Int))
}

fn truncated(x: Option<f64>) -> Option<i128> {
    x.filter(|x| x.abs() < 1e38).map(|x| x as i128)
}

/// `batch`, in rows of `count`, or `slice`, in `count` columns.
fn rows(vm: &Vm<'_>, of: &Value, called: &Called, columns: bool) -> Result<Value> {
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

fn group_by(vm: &Vm<'_>, of: &Value, called: &Called) -> Result<Value> {
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

fn dict_sort(vm: &Vm<'_>, of: &Value, called: &Called) -> Result<Value> {
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

fn url_encode(vm: &Vm<'_>, of: &Value, called: &Called) -> Result<Value> {
    called.nothing()?;
    let of = vm.string(of)?;
    let mut out = Out::new(vm.budget)?;
    for byte in of.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' | b'/' => {
                out.push(byte as char)?;
            }
            byte => out.push_str(&format!("%{byte:02X}"))?,
        }
    }
    vm.budget.text(out.finish())
}

/// Words with a large first letter, the rest small.
fn titled(text: &str) -> String {
    let parts = text.split_inclusive(|c: char| c.is_whitespace() || "-({[<".contains(c));
    parts.map(capitalized).collect()
}

fn default(vm: &Vm<'_>, of: &Value, called: &Called) -> Result<Value> {
    let [default, boolean] = called.bind(["default_value", "boolean"])?;
    match of {
        Value::Undefined => {}
        other if flag(&boolean) && !other.is_true() => {}
        other => return Ok(other.clone()),
    }
    match default {
        Some(default) => Ok(default),
        None => vm.budget.text(""),
    }
}

fn length(vm: &Vm<'_>, of: &Value, called: &Called) -> Result<Value> {
    called.nothing()?;
    vm.budget.read(of.as_str().map_or(0, str::len))?;
    Ok(Value::Int(of.len()? as i128))
}

fn escaped(vm: &Vm<'_>, of: &Value, called: &Called) -> Result<Value> {
    called.nothing()?;
    if matches!(of, Value::Str(text) if text.safe) {
        return Ok(of.clone());
    }
    let of = vm.string(of)?;
    let mut out = Out::new(vm.budget)?;
    escape(&mut out, &of)?;
    vm.budget.marked(out.finish(), true)
}

pub(super) static FILTERS: &[Filter] = filters! {
    "tojson" => to_json,
    "default" => default,
    "d" => default,
    "length" => length,
    "count" => length,
    "trim" => |vm, of, called| {
        let [chars] = called.bind(["chars"])?;
        let chars = some(chars);
        let chars = chars.as_ref().map(|_| text(&chars, "")).transpose()?;
        let safe = matches!(of, Value::Str(text) if text.safe);
        let of = vm.string(of)?;
        vm.budget.read(of.len().saturating_mul(chars.map_or(1, |chars| 1 + chars.len() / 8)))?;
        vm.budget.marked(strip(&of, chars, true, true), safe)
    },
    "string" => |vm, of, called| {
        called.nothing()?;
        match of {
            Value::Str(_) => Ok(of.clone()),
            other => vm.budget.text(vm.string(other)?),
        }
    },
    "safe" => |vm, of, called| {
        called.nothing()?;
        vm.budget.marked(vm.string(of)?, true)
    },
    "escape" => escaped,
    "e" => escaped,
    "join" => |vm, of, called| {
        let [by, attribute] = called.bind(["d", "attribute"])?;
        let by = by.map_or(Ok(String::new()), |by| vm.string(&by))?;
        let mut parts = items(vm.budget, of)?;
        if let Some(attribute) = some(attribute) {
            for part in &mut parts {
                *part = path(vm, part, &attribute, None)?;
            }
        }
        joined(vm, &by, &parts)
    },
    "replace" => |vm, of, called| {
        let [old, new, count] = called.bind(["old", "new", "count"])?;
        let (old, new) = (vm.string(&given(old)?)?, vm.string(&given(new)?)?);
        let most = match int(&some(count), -1)? {
            ..0 => usize::MAX,
            count => size(count),
        };
        replaced(vm, &vm.string(of)?, &old, &new, most)
    },
    "upper" => |vm, of, called| mapped(vm, of, called, str::to_uppercase),
    "lower" => |vm, of, called| mapped(vm, of, called, str::to_lowercase),
    "capitalize" => |vm, of, called| mapped(vm, of, called, capitalized),
    "title" => |vm, of, called| mapped(vm, of, called, titled),
    "indent" => indent,
    "items" => |vm, of, called| {
        called.nothing()?;
        match of {
            Value::Undefined => generator(vm.budget, Vec::new()),
            Value::Dict(_) => generator(vm.budget, methods::pairs(vm, of)?),
            other => Err(Fault::new(format!("items of a {}", other.kind()))),
        }
    },
    "dictsort" => dict_sort,
    "list" => |vm, of, called| {
        called.nothing()?;
        vm.budget.list(items(vm.budget, of)?)
    },
    "first" => |vm, of, called| {
        called.nothing()?;
        Ok(items(vm.budget, of)?.into_iter().next().unwrap_or(Value::Undefined))
    },
    "last" => |vm, of, called| {
        called.nothing()?;
        Ok(items(vm.budget, of)?.pop().unwrap_or(Value::Undefined))
    },
    "reverse" => |vm, of, called| {
        called.nothing()?;
        reversed(vm.budget, of)
    },
    "sort" => |vm, of, called| {
        let [reverse, case, by] = called.bind(["reverse", "case_sensitive", "attribute"])?;
        let keyed = keyed(vm, of, &some(by), flag(&case))?;
        vm.budget.list(sort(vm.budget, keyed, flag(&reverse))?)
    },
    "unique" => |vm, of, called| {
        let [case, by] = called.bind(["case_sensitive", "attribute"])?;
        let mut seen: Vec<Value> = Vec::new();
        let mut kept = Vec::new();
        'items: for (key, item) in keyed(vm, of, &some(by), flag(&case))? {
            for known in &seen {
                if operators::equal(vm.budget, known, &key)? {
                    continue 'items;
                }
            }
            seen.push(key);
            kept.push(item);
        }
        generator(vm.budget, kept)
    },
    "min" => |vm, of, called| extreme(vm, of, called, Ordering::Less),
    "max" => |vm, of, called| extreme(vm, of, called, Ordering::Greater),
    "sum" => |vm, of, called| {
        let [by, start] = called.bind(["attribute", "start"])?;
        let (by, mut sum) = (some(by), start.unwrap_or(Value::Int(0)));
        for item in items(vm.budget, of)? {
            let value = attribute(vm, &item, &by)?;
            sum = operators::binary(vm.budget, super::ast::Operator::Add, &sum, &value)?;
        }
        Ok(sum)
    },
    "map" => map,
    "select" => |vm, of, called| selected(vm, of, called, false, true),
    "reject" => |vm, of, called| selected(vm, of, called, false, false),
    "selectattr" => |vm, of, called| selected(vm, of, called, true, true),
    "rejectattr" => |vm, of, called| selected(vm, of, called, true, false),
    "groupby" => group_by,
    "batch" => |vm, of, called| rows(vm, of, called, false),
    "slice" => |vm, of, called| rows(vm, of, called, true),
    "attr" => |vm, of, called| {
        let [name] = called.bind(["name"])?;
        let name = Some(given(name)?);
        match of {
            Value::Dict(_) => Ok(Value::Undefined),
            other => vm.attribute(other, &text(&name, "")?.into()),
        }
    },
    "abs" => |_, of, called| {
        called.nothing()?;
        match (of.as_int(), of) {
            (Some(0..), _) => Ok(of.clone()),
            (Some(_), _) => operators::negative(of),
            (None, Value::Float(x)) => Ok(Value::Float(x.abs())),
            _ => Err(Fault::new(format!("abs of a {}", of.kind()))),
        }
    },
    "int" => whole,
    "float" => |_, of, called| {
        let [default] = called.bind(["default"])?;
        let number = match of {
            Value::Str(text) => text.text.trim().parse().ok(),
            other => other.as_float(),
        };
        Ok(number.map_or(default.unwrap_or(Value::Float(0.0)), Value::Float))
    },
    "round" => round,
    "format" => |vm, of, called| {
        let args = match &*called.named {
            [] => vm.budget.seq(SeqKind::Tuple, called.positional.clone())?,
            named => {
                let pair = |(name, value): &(std::rc::Rc<str>, Value)| {
                    Ok((vm.budget.text(&**name)?, value.clone()))
                };
                vm.budget.dict_of(named.iter().map(pair).collect::<Result<Vec<_>>>()?)?
            }
        };
        format::percent(vm.budget, &vm.budget.text(vm.string(of)?)?, &args)
    },
    "truncate" => truncate,
    "center" => |vm, of, called| {
        let [width] = called.bind(["width"])?;
        padded(vm, &vm.string(of)?, size(int(&width, 80)?), " ", '^')
    },
    "wordcount" => |vm, of, called| {
        called.nothing()?;
        let of = vm.string(of)?;
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let words = of.split(|c| !word(c)).filter(|part| !part.is_empty());
        Ok(Value::Int(words.count() as i128))
    },
    "pprint" => |vm, of, called| {
        called.nothing()?;
        let mut out = Out::new(vm.budget)?;
        write_repr(&mut out, of)?;
        vm.budget.text(out.finish())
    },
    "urlencode" => url_encode,
};
