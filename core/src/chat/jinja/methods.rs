//! Methods of Python's texts, maps and lists, as far as they change nothing.

use super::super::limits::Out;
use super::calls::{Called, given, int, size, text};
use super::eval::Vm;
use super::lexer::is_space;
use super::value::{SeqKind, Value};
use super::{Fault, Result, format, operators, sequences};

pub(in super::super) struct Method {
    pub(super) name: &'static str,
    pub(super) run: fn(&Vm<'_>, &Value, &Called) -> Result<Value>,
}

/// Methods of maps that a sandbox does not give: their names are undefined, even where a map has such a key.
pub(super) const CHANGING: &[&str] = &[
    "clear",
    "pop",
    "popitem",
    "setdefault",
    "update",
    "fromkeys",
];

/// The methods of a value.
pub(super) fn of(value: &Value) -> &'static [Method] {
    match value {
        Value::Str(_) => STR,
        Value::Dict(_) => DICT,
        Value::Seq(seq) if matches!(seq.kind, SeqKind::List | SeqKind::Tuple) => LIST,
        _ => &[],
    }
}

macro_rules! methods {
    ($($name:literal => $run:expr,)*) => {
        &[$(Method { name: $name, run: $run }),*]
    };
}

fn str_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A text made of the text alone.
fn mapped(vm: &Vm<'_>, of: &Value, called: &Called, run: fn(&str) -> String) -> Result<Value> {
    called.nothing()?;
    let of = str_of(of);
    vm.budget.room(3 * of.len())?; // a letter's other case may be longer
    vm.budget.read(8 * of.len())?;
    vm.budget.text(run(of))
}

/// Whether all letters, of which there must be some, are of a kind.
fn all(vm: &Vm<'_>, of: &Value, called: &Called, run: fn(char) -> bool) -> Result<Value> {
    called.nothing()?;
    vm.budget.read(str_of(of).len())?;
    Ok(Value::Bool(
        !str_of(of).is_empty() && str_of(of).chars().all(run),
    ))
}

/// `strip` and its sisters, of the letters in `chars` or of blanks.
pub(super) fn strip<'t>(of: &'t str, chars: Option<&str>, start: bool, end: bool) -> &'t str {
    let goes = |c: char| match chars {
        Some(chars) => chars.contains(c),
        None => is_space(c),
    };
    let of = if start {
        of.trim_start_matches(goes)
    } else {
        of
    };
    if end { of.trim_end_matches(goes) } else { of }
}

fn stripped(vm: &Vm<'_>, of: &Value, called: &Called, start: bool, end: bool) -> Result<Value> {
    let [chars] = called.bind(["chars"])?;
    let chars = chars.filter(|chars| !matches!(chars, Value::None));
    let chars = chars.as_ref().map(|_| text(&chars, "")).transpose()?;
    let text = str_of(of);
    vm.budget.read(
        text.len()
            .saturating_mul(chars.map_or(1, |chars| 1 + chars.len() / 8)),
    )?;
    let safe = matches!(of, Value::Str(text) if text.safe);
    vm.budget.marked(strip(text, chars, start, end), safe)
}

/// `split` and `rsplit`.
fn split(vm: &Vm<'_>, of: &Value, called: &Called, from_end: bool) -> Result<Value> {
    let [by, most] = called.bind(["sep", "maxsplit"])?;
    let by = by.filter(|by| !matches!(by, Value::None));
    let most = int(&most, -1)?;
    let most = if most < 0 { usize::MAX } else { size(most) };
    let text_of = str_of(of);
    vm.budget.read(4 * text_of.len())?;
    let mut parts: Vec<&str> = Vec::new();
    // As many as letters at most.
    vm.budget.room(text_of.len() * size_of::<&str>())?;
    match &by {
        None => {
            let mut rest = strip(text_of, None, !from_end, from_end);
            while !rest.is_empty() {
                let cut = match from_end {
                    _ if parts.len() >= most => None,
                    false => rest.find(is_space),
                    true => {
                        let last = rest.char_indices().rev().find(|(_, c)| is_space(*c));
                        last.map(|(at, c)| at + c.len_utf8())
                    }
                };
                let Some(cut) = cut else {
                    parts.push(rest);
                    break;
                };
                let (left, right) = rest.split_at(cut);
                let (part, next) = if from_end {
                    (right, left)
                } else {
                    (left, right)
                };
                parts.push(part);
                rest = strip(next, None, !from_end, from_end);
            }
        }
        Some(_) => {
            let by = text(&by, "")?;
            let most = most.saturating_add(1);
            match (by.is_empty(), from_end) {
                (true, _) => return Err(Fault::new("split: an empty separator")),
                (_, false) => parts.extend(text_of.splitn(most, by)),
                (_, true) => parts.extend(text_of.rsplitn(most, by)),
            }
        }
    }
    if from_end {
        parts.reverse();
    }
    let parts = parts.into_iter().map(|part| vm.budget.text(part));
    vm.budget.list(parts.collect::<Result<_>>()?)
}

/// `find`, `index`, `rfind` and `rindex`, counted in letters.
fn found(vm: &Vm<'_>, of: &Value, called: &Called, last: bool) -> Result<Option<usize>> {
    let [part, from, to] = called.bind(["sub", "start", "end"])?;
    let bounds = [from, to, None];
    let of = match bounds.iter().any(Option::is_some) {
        true => sequences::slice(vm.budget, of, &bounds)?,
        false => of.clone(),
    };
    let offset = match &bounds[0] {
        Some(_) => usize::try_from(int(&bounds[0], 0)?)
            .map_err(|_| Fault::new("expected a start of 0 or more"))?,
        None => 0,
    };
    let part = given(part)?;
    let (of, part) = (str_of(&of), str_of(&part));
    vm.budget.read(of.len() + part.len())?;
    let at = if last { of.rfind(part) } else { of.find(part) };
    Ok(at.map(|at| offset + of[..at].chars().count()))
}

/// Whether a text begins or ends with a text, or with one of several.
fn edge(vm: &Vm<'_>, called: &Called, is: &dyn Fn(&str) -> bool) -> Result<Value> {
    let [parts] = called.bind(["prefix"])?;
    let parts = match given(parts)? {
        Value::Seq(seq) if seq.kind == SeqKind::Tuple => seq.items.clone(),
        one => vec![one],
    };
    for part in parts {
        let part = Some(part);
        let part = text(&part, "")?;
        vm.budget.spend(1 + part.len() as u64 / 32)?;
        if is(part) {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

/// `text.replace(old, new)`, `most` times at most.
pub(super) fn replaced(vm: &Vm<'_>, of: &str, old: &str, new: &str, most: usize) -> Result<Value> {
    vm.budget.read(of.len())?;
    let mut out = Out::new(vm.budget)?;
    let mut end = 0;
    // Where `old` is empty it is before every letter and at the end, as in Python.
    for (at, part) in of.match_indices(old).take(most) {
        out.push_str(&of[end..at])?;
        out.push_str(new)?;
        end = at + part.len();
    }
    out.push_str(&of[end..])?;
    vm.budget.text(out.finish())
}

/// `text` in the middle or at an edge of `width` letters.
pub(super) fn padded(
    vm: &Vm<'_>,
    of: &str,
    width: usize,
    fill: &str,
    place: char,
) -> Result<Value> {
    let length = of.chars().count();
    let missing = width.saturating_sub(length);
    let before = match place {
        '<' => 0,
        '>' => missing,
        _ => missing / 2 + (missing & width & 1),
    };
    let mut out = Out::new(vm.budget)?;
    out.repeat(fill, before)?;
    out.push_str(of)?;
    out.repeat(fill, missing - before)?;
    vm.budget.text(out.finish())
}

fn justified(vm: &Vm<'_>, of: &Value, called: &Called, place: char) -> Result<Value> {
    let [width, fill] = called.bind(["width", "fillchar"])?;
    let width = size(int(&Some(given(width)?), 0)?);
    let fill = text(&fill, " ")?;
    if fill.chars().count() != 1 {
        return Err(Fault::new("expected one letter to fill with"));
    }
    padded(vm, str_of(of), width, fill, place)
}

/// `partition` and `rpartition`.
fn partition(vm: &Vm<'_>, of: &Value, called: &Called, last: bool) -> Result<Value> {
    let [by] = called.bind(["sep"])?;
    let by = Some(given(by)?);
    let (of, by) = (str_of(of), text(&by, "")?);
    if by.is_empty() {
        return Err(Fault::new("partition: an empty separator"));
    }
    vm.budget.read(of.len())?;
    let cut = if last {
        of.rsplit_once(by)
    } else {
        of.split_once(by)
    };
    let parts = match cut {
        Some((before, after)) => [before, by, after],
        None if last => ["", "", of],
        None => [of, "", ""],
    };
    let parts = parts.into_iter().map(|part| vm.budget.text(part));
    vm.budget.seq(SeqKind::Tuple, parts.collect::<Result<_>>()?)
}

/// The lines of a text, as Python separates them, without their ends.
pub(super) fn lines(text: &str) -> Vec<&str> {
    let ends = |c: char| "\n\r\x0b\x0c\x1c\x1d\x1e\u{85}\u{2028}\u{2029}".contains(c);
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some(at) = rest.find(ends) else {
            lines.push(rest);
            break;
        };
        let (line, end) = rest.split_at(at);
        lines.push(line);
        let length = end.chars().next().map_or(1, char::len_utf8);
        rest = end.strip_prefix("\r\n").unwrap_or(&end[length..]);
    }
    lines
}

/// The first letter large, the others small.
pub(super) fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars.as_str().to_lowercase().chars()).collect()
}

/// `text.title()`: letters that follow no letter large, the others small.
fn titled(text: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in text.chars() {
        match inside {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        inside = c.is_alphabetic();
    }
    out
}

fn swapped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c.is_uppercase() {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
    }
    out
}

/// `text.join(parts)`.
pub(super) fn joined(vm: &Vm<'_>, by: &str, parts: &[Value]) -> Result<Value> {
    let mut out = Out::new(vm.budget)?;
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            out.push_str(by)?;
        }
        super::print::write(&mut out, part)?;
        vm.budget.spend(1)?;
    }
    vm.budget.text(out.finish())
}

static STR: &[Method] = methods! {
    "strip" => |vm, of, called| stripped(vm, of, called, true, true),
    "lstrip" => |vm, of, called| stripped(vm, of, called, true, false),
    "rstrip" => |vm, of, called| stripped(vm, of, called, false, true),
    "split" => |vm, of, called| split(vm, of, called, false),
    "rsplit" => |vm, of, called| split(vm, of, called, true),
    "splitlines" => |vm, of, called| {
        called.nothing()?;
        vm.budget.room(str_of(of).len() * size_of::<&str>())?;
        vm.budget.read(16 * str_of(of).len())?;
        let lines = lines(str_of(of)).into_iter().map(|line| vm.budget.text(line));
        vm.budget.list(lines.collect::<Result<_>>()?)
    },
    "startswith" => |vm, of, called| edge(vm, called, &|part| str_of(of).starts_with(part)),
    "endswith" => |vm, of, called| edge(vm, called, &|part| str_of(of).ends_with(part)),
    "replace" => |vm, of, called| {
        let [old, new, count] = called.bind(["old", "new", "count"])?;
        let (old, new) = (Some(given(old)?), Some(given(new)?));
        let most = match int(&count, -1)? {
            ..0 => usize::MAX,
            count => size(count),
        };
        replaced(vm, str_of(of), text(&old, "")?, text(&new, "")?, most)
    },
    "format" => |vm, of, called| format::braces(vm, str_of(of), called),
    "join" => |vm, of, called| {
        let [parts] = called.bind(["iterable"])?;
        let parts = sequences::items(vm.budget, &given(parts)?)?;
        match parts.iter().find(|part| part.as_str().is_none()) {
            Some(part) => Err(Fault::new(format!("join: a {} among the texts", part.kind()))),
            None => joined(vm, str_of(of), &parts),
        }
    },
    "find" => |vm, of, called| {
        let at = found(vm, of, called, false)?;
        Ok(Value::Int(at.map_or(-1, |at| at as i128)))
    },
    "rfind" => |vm, of, called| {
        let at = found(vm, of, called, true)?;
        Ok(Value::Int(at.map_or(-1, |at| at as i128)))
    },
    "index" => |vm, of, called| match found(vm, of, called, false)? {
        Some(at) => Ok(Value::Int(at as i128)),
        None => Err(Fault::new("index: not found")),
    },
    "rindex" => |vm, of, called| match found(vm, of, called, true)? {
        Some(at) => Ok(Value::Int(at as i128)),
        None => Err(Fault::new("rindex: not found")),
    },
    "count" => |vm, of, called| {
        let [part] = called.bind(["sub"])?;
        let part = Some(given(part)?);
        vm.budget.read(str_of(of).len())?;
        let count = str_of(of).matches(text(&part, "")?).count();
        Ok(Value::Int(count as i128))
    },
    "lower" => |vm, of, called| mapped(vm, of, called, str::to_lowercase),
    "casefold" => |vm, of, called| mapped(vm, of, called, |text| text.replace('ß', "ss").to_lowercase()),
    "upper" => |vm, of, called| mapped(vm, of, called, str::to_uppercase),
    "capitalize" => |vm, of, called| mapped(vm, of, called, capitalized),
    "title" => |vm, of, called| mapped(vm, of, called, titled),
    "swapcase" => |vm, of, called| mapped(vm, of, called, swapped),
    "removeprefix" => |vm, of, called| {
        let [prefix] = called.bind(["prefix"])?;
        let prefix = Some(given(prefix)?);
        let of = str_of(of);
        vm.budget.text(of.strip_prefix(text(&prefix, "")?).unwrap_or(of))
    },
    "removesuffix" => |vm, of, called| {
        let [suffix] = called.bind(["suffix"])?;
        let suffix = Some(given(suffix)?);
        let of = str_of(of);
        vm.budget.text(of.strip_suffix(text(&suffix, "")?).unwrap_or(of))
    },
    "partition" => |vm, of, called| partition(vm, of, called, false),
    "rpartition" => |vm, of, called| partition(vm, of, called, true),
    "ljust" => |vm, of, called| justified(vm, of, called, '<'),
    "rjust" => |vm, of, called| justified(vm, of, called, '>'),
    "center" => |vm, of, called| justified(vm, of, called, '^'),
    "zfill" => |vm, of, called| {
        let [width] = called.bind(["width"])?;
        let width = size(int(&Some(given(width)?), 0)?);
        let digits = str_of(of).trim_start_matches(['+', '-']);
        let sign = &str_of(of)[..(str_of(of).len() - digits.len()).min(1)];
        let body = &str_of(of)[sign.len()..];
        let padded = padded(vm, body, width.saturating_sub(sign.len()), "0", '>')?;
        operators::concat(vm.budget, &[vm.budget.text(sign)?, padded])
    },
    "isdigit" => |vm, of, called| all(vm, of, called, char::is_numeric),
    "isdecimal" => |vm, of, called| all(vm, of, called, |c| c.is_ascii_digit()),
    "isnumeric" => |vm, of, called| all(vm, of, called, char::is_numeric),
    "isalpha" => |vm, of, called| all(vm, of, called, char::is_alphabetic),
    "isalnum" => |vm, of, called| all(vm, of, called, char::is_alphanumeric),
    "isspace" => |vm, of, called| all(vm, of, called, is_space),
    "isascii" => |_, of, called| called.nothing().map(|()| Value::Bool(str_of(of).is_ascii())),
    "islower" => |_, of, called| {
        let (any, other) = (str_of(of).contains(char::is_lowercase), str_of(of).contains(char::is_uppercase));
        called.nothing().map(|()| Value::Bool(any && !other))
    },
    "isupper" => |_, of, called| {
        let (any, other) = (str_of(of).contains(char::is_uppercase), str_of(of).contains(char::is_lowercase));
        called.nothing().map(|()| Value::Bool(any && !other))
    },
};

fn entries(of: &Value) -> &[(Value, Value)] {
    match of {
        Value::Dict(dict) => &dict.entries,
        _ => &[],
    }
}

/// The entries of a map as pairs.
pub(super) fn pairs(vm: &Vm<'_>, of: &Value) -> Result<Vec<Value>> {
    let pair = |(key, value): &(Value, Value)| {
        vm.budget
            .seq(SeqKind::Tuple, vec![key.clone(), value.clone()])
    };
    entries(of).iter().map(pair).collect()
}

static DICT: &[Method] = methods! {
    "get" => |vm, of, called| {
        let [key, default] = called.bind(["key", "default"])?;
        let key = given(key)?;
        if matches!(key, Value::Dict(_)) || key.kind() == "list" {
            return Err(Fault::new(format!("a {} as a key", key.kind())));
        }
        match of {
            Value::Dict(dict) => {
                let found = dict.get(vm.budget, &key)?.cloned();
                Ok(found.or(default).unwrap_or(Value::None))
            }
            _ => Ok(Value::None),
        }
    },
    "items" => |vm, of, called| {
        called.nothing()?;
        vm.budget.seq(SeqKind::View("dict_items"), pairs(vm, of)?)
    },
    "keys" => |vm, of, called| {
        called.nothing()?;
        let keys = sequences::items(vm.budget, of)?;
        vm.budget.seq(SeqKind::View("dict_keys"), keys)
    },
    "values" => |vm, of, called| {
        called.nothing()?;
        vm.budget.spend(entries(of).len() as u64 / 4)?;
        let values = entries(of).iter().map(|(_, value)| value.clone()).collect();
        vm.budget.seq(SeqKind::View("dict_values"), values)
    },
    "copy" => |_, of, called| called.nothing().map(|()| of.clone()),
};

static LIST: &[Method] = methods! {
    "index" => |vm, of, called| {
        let [wanted] = called.bind(["value"])?;
        let wanted = given(wanted)?;
        for (at, item) in sequences::items(vm.budget, of)?.iter().enumerate() {
            if operators::equal(vm.budget, item, &wanted)? {
                return Ok(Value::Int(at as i128));
            }
        }
        Err(Fault::new("index: not found"))
    },
    "count" => |vm, of, called| {
        let [wanted] = called.bind(["value"])?;
        let wanted = given(wanted)?;
        let mut count = 0;
        for item in sequences::items(vm.budget, of)? {
            count += i128::from(operators::equal(vm.budget, &item, &wanted)?);
        }
        Ok(Value::Int(count))
    },
    "copy" => |_, of, called| called.nothing().map(|()| of.clone()),
};

/// Methods of the variable `loop`.
pub(super) static LOOP: &[Method] = methods! {
    "cycle" => |_, of, called| match (of, called.positional.len()) {
        (Value::Loop(state), 1..) => {
            Ok(called.positional[state.index() % called.positional.len()].clone())
        }
        _ => Err(Fault::new("loop.cycle of nothing")),
    },
    "changed" => |vm, of, called| match (of, &*called.positional) {
        (Value::Loop(state), [value]) => state.changed(vm.budget, value.clone()).map(Value::Bool),
        _ => Err(Fault::new("loop.changed: expected one value")),
    },
};
