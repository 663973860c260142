//! Methods of Python's texts, maps and lists, as far as they change nothing.

use super::calls::{Called, given, int, size, text};
use super::lexer::is_space;
use super::texts::{
    all, capitalized, edge, found, joined, justified, lines, mapped, padded, partition, replaced,
    split, str_of, stripped, swapped, titled,
};
use super::value::{SeqKind, Value};
use super::vm::Vm;
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
