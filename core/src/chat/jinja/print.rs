//! Values as text: Python's `str` and `repr`, and its JSON.

use super::super::limits::{Budget, Out};
use super::value::{Code, Seq, SeqKind, Value};
use super::{Fault, Result};
use unicode_general_category::{GeneralCategory as Category, get_general_category};

/// As `str` writes it.
pub(super) fn write(out: &mut Out<'_, '_>, value: &Value) -> Result<()> {
    match value {
        Value::Undefined => Ok(()),
        Value::Str(text) => out.push_str(&text.text),
        other => write_repr(out, other),
    }
}

/// As `str` gives it.
pub(super) fn string(budget: &Budget<'_>, value: &Value) -> Result<String> {
    let mut out = Out::new(budget)?;
    write(&mut out, value)?;
    Ok(out.finish())
}

/// As `repr` writes it.
pub(super) fn write_repr(out: &mut Out<'_, '_>, value: &Value) -> Result<()> {
    let budget = out.budget();
    budget.spend(1)?;
    match value {
        Value::Undefined => out.push_str("Undefined"),
        Value::None => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Int(n) => out.push_str(&n.to_string()),
        Value::Float(x) => out.push_str(&float(*x)),
        Value::Str(text) if text.safe => {
            out.push_str("Markup(")?;
            quoted(out, &text.text)?;
            out.push(')')
        }
        Value::Str(text) => quoted(out, &text.text),
        Value::Seq(seq) => budget.deeper(|| sequence(out, seq)),
        Value::Dict(dict) => budget.deeper(|| {
            let pairs = dict.entries.iter().map(|(key, value)| (key, value));
            map(out, pairs)
        }),
        Value::Namespace(space) => budget.deeper(|| {
            // A copy: writing may not look into a borrowed namespace.
            let entries = space.entries.borrow().clone();
            let name = |name: &std::rc::Rc<str>| budget.text(&**name);
            let keys = entries.iter().map(|(key, _)| name(key));
            let keys = keys.collect::<Result<Vec<_>>>()?;
            out.push_str("<Namespace ")?;
            map(out, keys.iter().zip(entries.iter().map(|(_, value)| value)))?;
            out.push('>')
        }),
        Value::Callable(callable) => match &callable.what {
            Code::Macro(body, _) => {
                out.push_str("<Macro ")?;
                quoted(out, &body.name)?;
                out.push('>')
            }
            Code::Function(function) => out.push_str(&format!("<function {}>", function.name)),
            Code::Method(_, method) => out.push_str(&format!("<method {}>", method.name)),
        },
        Value::Loop(_) => out.push_str("<LoopContext>"),
    }
}

fn sequence(out: &mut Out<'_, '_>, seq: &Seq) -> Result<()> {
    let (open, close) = match seq.kind {
        SeqKind::List => ("[", "]"),
        SeqKind::Tuple if seq.items.len() == 1 => ("(", ",)"),
        SeqKind::Tuple => ("(", ")"),
        SeqKind::Range => {
            let (first, last) = (seq.items.first(), seq.items.last());
            let [first, last] = [first, last].map(|n| n.and_then(Value::as_int));
            let (first, end) = (first.unwrap_or(0), last.map_or(0, |n| n + 1));
            return out.push_str(&format!("range({first}, {end})"));
        }
        SeqKind::Generator => return out.push_str("<generator>"),
        SeqKind::View(name) => {
            out.push_str(name)?;
            ("([", "])")
        }
    };
    out.push_str(open)?;
    for (i, item) in seq.items.iter().enumerate() {
        out.push_str(if i > 0 { ", " } else { "" })?;
        write_repr(out, item)?;
    }
    out.push_str(close)
}

fn map<'v>(
    out: &mut Out<'_, '_>,
    entries: impl Iterator<Item = (&'v Value, &'v Value)>,
) -> Result<()> {
    out.push('{')?;
    for (i, (key, value)) in entries.enumerate() {
        out.push_str(if i > 0 { ", " } else { "" })?;
        write_repr(out, key)?;
        out.push_str(": ")?;
        write_repr(out, value)?;
    }
    out.push('}')
}

fn quoted(out: &mut Out<'_, '_>, text: &str) -> Result<()> {
    let quote = match text.contains('\'') && !text.contains('"') {
        true => '"',
        false => '\'',
    };
    out.push(quote)?;
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n")?,
            '\r' => out.push_str("\\r")?,
            '\t' => out.push_str("\\t")?,
            '\\' => out.push_str("\\\\")?,
            c if c == quote => {
                out.push('\\')?;
                out.push(c)?;
            }
            ' '..='~' => out.push(c)?,
            c if is_printable(c) => out.push(c)?,
            c => {
                let code = c as u32;
                out.push_str(&match code {
                    0..=0xff => format!("\\x{code:02x}"),
                    0x100..=0xffff => format!("\\u{code:04x}"),
                    _ => format!("\\U{code:08x}"),
                })?;
            }
        }
    }
    out.push(quote)
}

/// Python's `str.isprintable`.
fn is_printable(c: char) -> bool {
    !matches!(
        get_general_category(c),
        Category::Control
            | Category::Format
            | Category::Surrogate
            | Category::PrivateUse
            | Category::Unassigned
            | Category::LineSeparator
            | Category::ParagraphSeparator
            | Category::SpaceSeparator
    )
}

/// The shortest digits that give `x` again, as Python's `repr` sets them.
pub(super) fn float(x: f64) -> String {
    if x.is_nan() {
        return "nan".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf" } else { "-inf" }.into();
    }
    let text = format!("{x:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        -4..16 => {
            let text = x.to_string();
            if text.contains('.') {
                text
            } else {
                text + ".0"
            }
        }
        power => {
            let sign = if power < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", power.abs())
        }
    }
}

/// `json.dumps`, with its options.
pub(super) struct JsonStyle {
    pub(super) item: String,
    pub(super) key: String,
    pub(super) indent: Option<String>,
    pub(super) sort_keys: bool,
    pub(super) ascii: bool,
}

impl JsonStyle {
    pub(super) fn write(&self, out: &mut Out<'_, '_>, value: &Value, depth: usize) -> Result<()> {
        let budget = out.budget();
        budget.spend(1)?;
        match value {
            Value::None => out.push_str("null"),
            Value::Bool(is) => out.push_str(if *is { "true" } else { "false" }),
            Value::Int(n) => out.push_str(&n.to_string()),
            Value::Float(x) => out.push_str(&json_float(*x)),
            Value::Str(text) => self.string(out, &text.text),
            Value::Dict(dict) => budget.deeper(|| {
                let mut keys = Vec::with_capacity(dict.entries.len());
                for (key, value) in &dict.entries {
                    keys.push((json_key(key)?, value));
                }
                if self.sort_keys {
                    keys.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                out.push('{')?;
                for (i, (key, value)) in keys.iter().enumerate() {
                    self.next(out, i, depth + 1)?;
                    self.string(out, key)?;
                    out.push_str(&self.key)?;
                    self.write(out, value, depth + 1)?;
                }
                self.close(out, '}', keys.is_empty(), depth)
            }),
            Value::Seq(seq) if matches!(seq.kind, SeqKind::List | SeqKind::Tuple) => {
                budget.deeper(|| {
                    out.push('[')?;
                    for (i, item) in seq.items.iter().enumerate() {
                        self.next(out, i, depth + 1)?;
                        self.write(out, item, depth + 1)?;
                    }
                    self.close(out, ']', seq.items.is_empty(), depth)
                })
            }
            other => Err(Fault::new(format!("tojson of a {}", other.kind()))),
        }
    }

    fn next(&self, out: &mut Out<'_, '_>, index: usize, depth: usize) -> Result<()> {
        if index > 0 {
            out.push_str(&self.item)?;
        }
        self.line(out, depth)
    }

    fn close(&self, out: &mut Out<'_, '_>, bracket: char, empty: bool, depth: usize) -> Result<()> {
        if !empty {
            self.line(out, depth)?;
        }
        out.push(bracket)
    }

    fn line(&self, out: &mut Out<'_, '_>, depth: usize) -> Result<()> {
        match &self.indent {
            Some(indent) => {
                out.push('\n')?;
                out.repeat(indent, depth)
            }
            None => Ok(()),
        }
    }

    fn string(&self, out: &mut Out<'_, '_>, text: &str) -> Result<()> {
        out.push('"')?;
        let mut plain = 0; // what is before it has been written
        for (at, c) in text.char_indices() {
            let escape = match c {
                '"' => "\\\"",
                '\\' => "\\\\",
                '\n' => "\\n",
                '\r' => "\\r",
                '\t' => "\\t",
                '\x08' => "\\b",
                '\x0c' => "\\f",
                c if c < ' ' || self.ascii && c > '~' => "",
                _ => continue,
            };
            out.push_str(&text[plain..at])?;
            plain = at + c.len_utf8();
            out.push_str(escape)?;
            if escape.is_empty() {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"))?;
                }
            }
        }
        out.push_str(&text[plain..])?;
        out.push('"')
    }
}

fn json_float(x: f64) -> String {
    match x {
        x if x.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        x => float(x),
    }
}

fn json_key(key: &Value) -> Result<String> {
    match key {
        Value::Str(text) => Ok(text.text.to_string()),
        Value::None => Ok("null".into()),
        Value::Bool(is) => Ok(is.to_string()),
        Value::Int(n) => Ok(n.to_string()),
        Value::Float(x) => Ok(json_float(*x)),
        other => Err(Fault::new(format!("tojson: a {} as a key", other.kind()))),
    }
}
