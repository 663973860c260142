//! Python's ways to format: `'{:>5}'.format(x)` and `'%5s' % x`.

use super::super::limits::{Budget, Out};
use super::calls::Called;
use super::value::{SeqKind, Value};
use super::vm::Vm;
use super::{Fault, Result, print, sequences};
use std::str::Chars;

/// Digits after the point at most.
const PRECISION: usize = 400;

/// How one value is set.
#[derive(Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    commas: bool,
    width: usize,
    precision: Option<usize>,
    kind: Option<char>,
}

fn number(chars: &mut std::iter::Peekable<Chars<'_>>) -> Result<Option<usize>> {
    let mut number = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        let next = number.unwrap_or(0usize).checked_mul(10);
        let next = next.and_then(|n| n.checked_add(digit as usize));
        number = Some(next.ok_or_else(|| Fault::new("format: a width is too large"))?);
    }
    Ok(number)
}

impl Spec {
    /// `[[fill]align][sign][#][0][width][,][.precision][type]`.
    fn read(text: &str) -> Result<Spec> {
        let mut spec = Spec::default();
        let is_align = |c: &char| "<>^=".contains(*c);
        let second = text.chars().nth(1).filter(is_align);
        let mut chars = text.chars().peekable();
        if second.is_some() {
            spec.fill = chars.next();
        }
        spec.align = chars.next_if(is_align);
        spec.sign = chars.next_if(|c| "+- ".contains(*c));
        spec.alternate = chars.next_if_eq(&'#').is_some();
        if chars.next_if_eq(&'0').is_some() {
            spec.fill = spec.fill.or(Some('0'));
            spec.align = spec.align.or(Some('='));
        }
        spec.width = number(&mut chars)?.unwrap_or(0);
        spec.commas = chars.next_if_eq(&',').is_some();
        if chars.next_if_eq(&'.').is_some() {
            spec.precision = number(&mut chars)?;
        }
        spec.kind = chars.next();
        match chars.next() {
            None => Ok(spec),
            Some(_) => Err(Fault::new(format!("format: bad specification `{text}`"))),
        }
    }

    fn write(&self, out: &mut Out<'_, '_>, value: &Value) -> Result<()> {
        if self.precision.is_some_and(|p| p > PRECISION) {
            return Err(Fault::new(format!(
                "format: expected at most {PRECISION} digits"
            )));
        }
        let is_text = !matches!(value, Value::Bool(_) | Value::Int(_) | Value::Float(_))
            || matches!(value, Value::Bool(_)) && self.kind.is_none();
        if is_text {
            if self.kind.is_some_and(|kind| kind != 's') {
                return Err(Fault::new(format!(
                    "format: a {} is no number",
                    value.kind()
                )));
            }
            let text = print::string(out.budget(), value)?;
            let kept = self.precision.unwrap_or(usize::MAX);
            let text: String = text.chars().take(kept).collect();
            return self.pad(out, "", &text, '<');
        }
        let (negative, digits) = self.digits(value)?;
        let sign = match (negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            _ => "",
        };
        self.pad(out, sign, &digits, '>')
    }

    /// Whether a number is negative, and how it is written without its sign.
    fn digits(&self, value: &Value) -> Result<(bool, String)> {
        let kind = self.kind.or(match value {
            Value::Float(_) => None,
            _ => Some('d'),
        });
        let precision = self.precision.unwrap_or(6);
        let whole = |radix: char| -> Result<(bool, String)> {
            let n = match value {
                Value::Float(_) => None,
                other => other.as_int(),
            };
            let n = n.ok_or_else(|| Fault::new("format: expected a whole number"))?;
            let size = n.unsigned_abs();
            let (prefix, digits) = match radix {
                'x' => ("0x", format!("{size:x}")),
                'X' => ("0X", format!("{size:X}")),
                'o' => ("0o", format!("{size:o}")),
                'b' => ("0b", format!("{size:b}")),
                _ => ("", size.to_string()),
            };
            let prefix = if self.alternate { prefix } else { "" };
            Ok((n < 0, format!("{prefix}{digits}")))
        };
        let x = value.as_float().unwrap_or_default();
        let negative = x < 0.0;
        let (negative, digits) = match kind {
            Some(radix @ ('d' | 'n' | 'x' | 'X' | 'o' | 'b')) => whole(radix)?,
            Some('f' | 'F') => (negative, format!("{:.precision$}", x.abs())),
            Some('%') => (negative, format!("{:.precision$}%", x.abs() * 100.0)),
            Some('e' | 'E') => {
                let text = format!("{:.precision$e}", x.abs());
                let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
                let power: i32 = power.parse().unwrap_or(0);
                let sign = if power < 0 { '-' } else { '+' };
                (negative, format!("{digits}e{sign}{:02}", power.abs()))
            }
            None if self.precision.is_none() => (negative, print::float(x.abs())),
            _ => return Err(Fault::new("format: an unknown kind of number")),
        };
        if !self.commas {
            return Ok((negative, digits));
        }
        let end = digits
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(digits.len());
        let mut out = String::new();
        for (i, c) in digits[..end].chars().enumerate() {
            if i > 0 && (end - i) % 3 == 0 {
                out.push(',');
            }
            out.push(c);
        }
        Ok((negative, out + &digits[end..]))
    }

    fn pad(&self, out: &mut Out<'_, '_>, sign: &str, body: &str, align: char) -> Result<()> {
        let length = sign.chars().count() + body.chars().count();
        let missing = self.width.saturating_sub(length);
        let (before, inside, after) = match self.align.unwrap_or(align) {
            '<' => (0, 0, missing),
            '^' => (missing / 2, 0, missing - missing / 2),
            '=' => (0, missing, 0),
            _ => (missing, 0, 0),
        };
        let mut letter = [0; 4];
        let fill = &*self.fill.unwrap_or(' ').encode_utf8(&mut letter);
        out.repeat(fill, before)?;
        out.push_str(sign)?;
        out.repeat(fill, inside)?;
        out.push_str(body)?;
        out.repeat(fill, after)
    }
}

/// `text.format(…)`.
pub(super) fn braces(vm: &Vm<'_>, text: &str, called: &Called) -> Result<Value> {
    let mut out = Out::new(vm.budget)?;
    let mut automatic = 0;
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        out.push_str(before)?;
        let letter = &brace[..1];
        if brace[1..].starts_with(letter) {
            out.push_str(letter)?;
            rest = &brace[2..];
            continue;
        }
        if letter == "}" {
            return Err(Fault::new("format: a single `}`"));
        }
        let end = closing(brace).ok_or_else(|| Fault::new("format: a single `{`"))?;
        let field = &brace[1..end];
        rest = &brace[end + 1..];
        let (name, spec) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = match name.split_once('!') {
            Some((name, conversion)) => (name, Some(conversion)),
            None => (name, None),
        };
        let spec = match spec.contains('{') {
            true => {
                let inner = Called {
                    positional: called
                        .positional
                        .get(automatic + 1..)
                        .unwrap_or(&[])
                        .to_vec(),
                    named: called.named.clone(),
                };
                // A width that is an argument itself. The recursion is one level: a specification has no braces within braces.
                if spec.matches('{').count() != spec.matches('}').count() || spec.contains("{{") {
                    return Err(Fault::new("format: bad specification"));
                }
                let spec = vm.budget.deeper(|| braces(vm, spec, &inner))?;
                Spec::read(spec.as_str().unwrap_or_default())?
            }
            false => Spec::read(spec)?,
        };
        let value = field_value(vm, name, called, &mut automatic)?;
        match conversion {
            None => spec.write(&mut out, &value)?,
            Some("s") => spec.write(&mut out, &vm.budget.text(vm.string(&value)?)?)?,
            Some("r") => {
                let mut repr = Out::new(vm.budget)?;
                print::write_repr(&mut repr, &value)?;
                spec.write(&mut out, &vm.budget.text(repr.finish())?)?;
            }
            Some(other) => return Err(Fault::new(format!("format: unknown `!{other}`"))),
        }
    }
    out.push_str(rest)?;
    vm.budget.text(out.finish())
}

/// Where the brace that `text` begins with is closed.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' if open == 1 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}

/// `0`, `name`, nothing, and attributes and items of these.
fn field_value(vm: &Vm<'_>, field: &str, called: &Called, automatic: &mut usize) -> Result<Value> {
    let end = field.find(['.', '[']).unwrap_or(field.len());
    let (name, mut path) = field.split_at(end);
    let position = match name {
        "" => {
            *automatic += 1;
            Some(*automatic - 1)
        }
        name => name.parse().ok(),
    };
    let found = match position {
        Some(at) => called.positional.get(at).cloned(),
        None => {
            let found = called.named.iter().find(|(known, _)| **known == *name);
            found.map(|(_, value)| value.clone())
        }
    };
    let mut value = found.ok_or_else(|| Fault::new(format!("format: no argument `{name}`")))?;
    while !path.is_empty() {
        if let Some(rest) = path.strip_prefix('.') {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            value = vm.attribute(&value, &rest[..end].into())?;
            path = &rest[end..];
        } else {
            let inner = path.strip_prefix('[').and_then(|rest| rest.split_once(']'));
            let (key, rest) = inner.ok_or_else(|| Fault::new("format: expected `]`"))?;
            let key = match key.parse() {
                Ok(index) => Value::Int(index),
                Err(_) => vm.budget.text(key)?,
            };
            let item = sequences::item(vm.budget, &value, &key)?;
            value = item.ok_or_else(|| Fault::new("format: no such item"))?;
            path = rest;
        }
    }
    Ok(value)
}

/// `text % args`.
pub(super) fn percent(budget: &Budget<'_>, text: &Value, args: &Value) -> Result<Value> {
    let list = match args {
        Value::Seq(seq) if seq.kind == SeqKind::Tuple => seq.items.clone(),
        other => vec![other.clone()],
    };
    let mut list = list.into_iter();
    let mut used = 0;
    let mut out = Out::new(budget)?;
    let text = text.as_str().unwrap_or_default();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c)?;
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%')?;
            continue;
        }
        let mut by_name = None;
        if chars.next_if_eq(&'(').is_some() {
            let name: String = chars.by_ref().take_while(|c| *c != ')').collect();
            let key = budget.text(name)?;
            by_name = sequences::item(budget, args, &key)?;
        }
        let mut spec = Spec {
            align: Some('>'),
            ..Spec::default()
        };
        while let Some(flag) = chars.next_if(|c| "-+ 0#".contains(*c)) {
            match flag {
                '-' => (spec.align, spec.fill) = (Some('<'), None),
                '0' if spec.align != Some('<') => {
                    (spec.align, spec.fill) = (Some('='), Some('0'));
                }
                '#' => spec.alternate = true,
                '0' => {}
                sign => spec.sign = Some(sign),
            }
        }
        spec.width = number(&mut chars)?.unwrap_or(0);
        if chars.next_if_eq(&'.').is_some() {
            spec.precision = Some(number(&mut chars)?.unwrap_or(0));
        }
        let kind = chars.next();
        used += 1;
        let value = by_name.or_else(|| list.next());
        let value = value.ok_or_else(|| Fault::new("%: not enough arguments"))?;
        let value = match kind {
            Some('s') => {
                spec.kind = Some('s');
                budget.text(print::string(budget, &value)?)?
            }
            Some('r') => {
                let mut repr = Out::new(budget)?;
                print::write_repr(&mut repr, &value)?;
                budget.text(repr.finish())?
            }
            Some('d' | 'i' | 'u') => {
                spec.kind = Some('d');
                spec.precision = None;
                match value {
                    Value::Float(x) if x.is_finite() && x.abs() < 1e37 => Value::Int(x as i128),
                    value => value,
                }
            }
            Some(kind @ ('x' | 'X' | 'o' | 'f' | 'F' | 'e' | 'E')) => {
                spec.kind = Some(kind);
                value
            }
            _ => return Err(Fault::new("%: an unknown kind")),
        };
        if spec.kind.is_some_and(|kind| kind != 's') && value.as_float().is_none() {
            return Err(Fault::new(format!("%: a {} is no number", value.kind())));
        }
        spec.write(&mut out, &value)?;
    }
    if list.next().is_some()
        && !(used == 0 && matches!(args, Value::Dict(_) | Value::Seq(_)))
        && !matches!(args, Value::Dict(_))
    {
        return Err(Fault::new("%: not all arguments are used"));
    }
    budget.text(out.finish())
}
