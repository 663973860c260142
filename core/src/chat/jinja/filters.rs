//! What can stand behind `|`.

use super::super::limits::Out;
use super::calls::{Called, flag, given, int, size, some, text};
use super::lists::{attribute, dict_sort, extreme, group_by, keyed, map, path, rows, selected};
use super::print::{JsonStyle, write_repr};
use super::sequences::{generator, items, reversed, sort};
use super::texts::{
    capitalized, escaped, indent, joined, padded, replaced, strip, truncate, url_encode,
};
use super::value::{SeqKind, Value};
use super::vm::Vm;
use super::{Fault, Result, format, methods, operators};
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
