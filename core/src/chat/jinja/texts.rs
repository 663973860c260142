//! What Python does with texts: the work of methods and filters.

use super::super::limits::Out;
use super::calls::{Called, flag, given, int, size, some, text};
use super::lexer::is_space;
use super::operators::escape;
use super::value::{SeqKind, Value};
use super::vm::Vm;
use super::{Fault, Result, sequences};

pub(super) fn str_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A text made of the text alone.
pub(super) fn mapped(
    vm: &Vm<'_>,
    of: &Value,
    called: &Called,
    run: fn(&str) -> String,
) -> Result<Value> {
    called.nothing()?;
    let of = str_of(of);
    vm.budget.room(3 * of.len())?; // a letter's other case may be longer
    vm.budget.read(8 * of.len())?;
    vm.budget.text(run(of))
}

/// Whether all letters, of which there must be some, are of a kind.
pub(super) fn all(
    vm: &Vm<'_>,
    of: &Value,
    called: &Called,
    run: fn(char) -> bool,
) -> Result<Value> {
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

pub(super) fn stripped(
    vm: &Vm<'_>,
    of: &Value,
    called: &Called,
    start: bool,
    end: bool,
) -> Result<Value> {
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
pub(super) fn split(vm: &Vm<'_>, of: &Value, called: &Called, from_end: bool) -> Result<Value> {
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
pub(super) fn found(vm: &Vm<'_>, of: &Value, called: &Called, last: bool) -> Result<Option<usize>> {
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
pub(super) fn edge(vm: &Vm<'_>, called: &Called, is: &dyn Fn(&str) -> bool) -> Result<Value> {
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

pub(super) fn justified(vm: &Vm<'_>, of: &Value, called: &Called, place: char) -> Result<Value> {
    let [width, fill] = called.bind(["width", "fillchar"])?;
    let width = size(int(&Some(given(width)?), 0)?);
    let fill = text(&fill, " ")?;
    if fill.chars().count() != 1 {
        return Err(Fault::new("expected one letter to fill with"));
    }
    padded(vm, str_of(of), width, fill, place)
}

/// `partition` and `rpartition`.
pub(super) fn partition(vm: &Vm<'_>, of: &Value, called: &Called, last: bool) -> Result<Value> {
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
pub(super) fn titled(text: &str) -> String {
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

pub(super) fn swapped(text: &str) -> String {
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

pub(super) fn indent(vm: &Vm<'_>, of: &Value, called: &Called) -> Result<Value> {
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

pub(super) fn truncate(vm: &Vm<'_>, of: &Value, called: &Called) -> Result<Value> {
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

pub(super) fn url_encode(vm: &Vm<'_>, of: &Value, called: &Called) -> Result<Value> {
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

pub(super) fn escaped(vm: &Vm<'_>, of: &Value, called: &Called) -> Result<Value> {
    called.nothing()?;
    if matches!(of, Value::Str(text) if text.safe) {
        return Ok(of.clone());
    }
    let of = vm.string(of)?;
    let mut out = Out::new(vm.budget)?;
    escape(&mut out, &of)?;
    vm.budget.marked(out.finish(), true)
}
