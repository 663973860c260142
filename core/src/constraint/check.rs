//! What the engine cannot follow, checked on the finished text: does a schema accept a value?
//!
//! JSON Schema, draft 2020-12 and older; `format` is an annotation. Patterns are matched by the engine that also follows them.

use super::schema::{at, place, resolve};
use llguidance::derivre::{Regex, RegexBuilder};
use llguidance::regex_to_lark;
use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Steps at most: a schema may refer to its parts more often than anyone can follow.
const MAX_STEPS: usize = 1_000_000;
/// References and values within each other at most.
const DEEPEST: usize = 500;
/// Work at most to prepare a pattern.
const PATTERN_FUEL: u64 = 1_000_000;

/// Where `value` is against `root`, if it is.
///
/// # Errors
/// Why that cannot be said.
pub(super) fn violation(root: &Value, value: &Value) -> Result<Option<String>, String> {
    let mut checker = Checker {
        root,
        patterns: HashMap::new(),
        steps: 0,
        depth: 0,
    };
    match checker.check(root, value, "", "") {
        Ok(_) => Ok(None),
        Err(Failure::Violation(what)) => Ok(Some(what)),
        Err(Failure::Unknown(why)) => Err(why),
    }
}

enum Failure {
    Violation(String),
    Unknown(String),
}

/// What a schema has looked at: names of properties, or numbers of items.
#[derive(Default)]
struct Seen {
    all: bool,
    some: BTreeSet<String>,
}

impl Seen {
    fn add(&mut self, other: Seen) {
        self.all |= other.all;
        self.some.extend(other.some);
    }
}

type Checked = Result<Seen, Failure>;

struct Checker<'a> {
    root: &'a Value,
    patterns: HashMap<&'a str, Regex>,
    steps: usize,
    depth: usize,
}

impl<'a> Checker<'a> {
    /// Checks `value`, which stands at `here`, with `schema`, which stands at `path`.
    fn check(&mut self, schema: &'a Value, value: &Value, here: &str, path: &str) -> Checked {
        self.steps += 1;
        self.depth += 1;
        let result = if self.steps > MAX_STEPS || self.depth > DEEPEST {
            Err(Failure::Unknown(
                "the schema is too complex to be checked".into(),
            ))
        } else {
            match schema {
                Value::Bool(false) => Err(violated(here, path, "nothing is allowed")),
                Value::Object(map) => self.check_object(map, value, here, path),
                _ => Ok(Seen::default()),
            }
        };
        self.depth -= 1;
        result
    }

    fn check_object(
        &mut self,
        map: &'a Map<String, Value>,
        value: &Value,
        here: &str,
        path: &str,
    ) -> Checked {
        let mut seen = Seen::default();
        if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
            let Some((target, pointer)) = resolve(self.root, reference) else {
                return Err(Failure::Unknown(format!(
                    "{}: no part {reference}",
                    place(path)
                )));
            };
            seen.add(self.check(target, value, here, &pointer)?);
        }
        simple(map, value, here, path)?;
        if let (Some(pattern), Some(text)) =
            (map.get("pattern").and_then(Value::as_str), value.as_str())
            && !self.matches(pattern, text)?
        {
            return Err(violated(
                here,
                &at(path, "pattern"),
                &format!("expected a text with {pattern}"),
            ));
        }
        self.combinations(map, value, here, path, &mut seen)?;
        match value {
            Value::Array(items) => self.items(map, items, here, path, &mut seen)?,
            Value::Object(entries) => self.entries(map, entries, here, path, &mut seen)?,
            _ => {}
        }
        Ok(seen)
    }

    /// As [`Checker::check`], with a violation as `None`.
    fn accepts(
        &mut self,
        schema: &'a Value,
        value: &Value,
        here: &str,
        path: &str,
    ) -> Result<Option<Seen>, Failure> {
        match self.check(schema, value, here, path) {
            Ok(seen) => Ok(Some(seen)),
            Err(Failure::Violation(_)) => Ok(None),
            Err(unknown) => Err(unknown),
        }
    }

    fn combinations(
        &mut self,
        map: &'a Map<String, Value>,
        value: &Value,
        here: &str,
        path: &str,
        seen: &mut Seen,
    ) -> Result<(), Failure> {
        for (i, part) in list(map, "allOf").enumerate() {
            seen.add(self.check(part, value, here, &at(&at(path, "allOf"), &i.to_string()))?);
        }
        for key in ["anyOf", "oneOf"]
            .into_iter()
            .filter(|key| map.contains_key(*key))
        {
            let place = at(path, key);
            let mut accepting = 0;
            for (i, part) in list(map, key).enumerate() {
                if let Some(more) = self.accepts(part, value, here, &at(&place, &i.to_string()))? {
                    accepting += 1;
                    seen.add(more);
                }
            }
            if accepting == 0 || (key == "oneOf" && accepting > 1) {
                let expected = if key == "anyOf" {
                    "one at least"
                } else {
                    "exactly one"
                };
                return Err(violated(
                    here,
                    &place,
                    &format!("expected {expected} of the parts to accept it, got {accepting}"),
                ));
            }
        }
        if let Some(part) = map.get("not")
            && self.accepts(part, value, here, &at(path, "not"))?.is_some()
        {
            return Err(violated(
                here,
                &at(path, "not"),
                "expected what it does not accept",
            ));
        }
        if let Some(condition) = map.get("if") {
            let met = self.accepts(condition, value, here, &at(path, "if"))?;
            let key = if met.is_some() { "then" } else { "else" };
            seen.add(met.unwrap_or_default());
            if let Some(part) = map.get(key) {
                seen.add(self.check(part, value, here, &at(path, key))?);
            }
        }
        Ok(())
    }

    fn items(
        &mut self,
        map: &'a Map<String, Value>,
        items: &[Value],
        here: &str,
        path: &str,
        seen: &mut Seen,
    ) -> Result<(), Failure> {
        let (first, rest) = match map.get("items") {
            Some(Value::Array(_)) => ("items", "additionalItems"),
            _ => ("prefixItems", "items"),
        };
        let number = |i: usize| i.to_string();
        let mut listed = 0;
        for (i, (part, item)) in list(map, first).zip(items).enumerate() {
            self.check(
                part,
                item,
                &at(here, &number(i)),
                &at(&at(path, first), &number(i)),
            )?;
            seen.some.insert(number(i));
            listed = i + 1;
        }
        if let Some(part) = map.get(rest) {
            for (i, item) in items.iter().enumerate().skip(listed) {
                self.check(part, item, &at(here, &number(i)), &at(path, rest))?;
            }
            seen.all = true;
        }
        if let Some(part) = map.get("contains") {
            let mut found = 0;
            for (i, item) in items.iter().enumerate() {
                if self
                    .accepts(part, item, &at(here, &number(i)), &at(path, "contains"))?
                    .is_some()
                {
                    found += 1;
                    seen.some.insert(number(i));
                }
            }
            let least = count(map, "minContains").unwrap_or(1);
            let most = count(map, "maxContains").unwrap_or(u64::MAX);
            if found < least || found > most {
                return Err(violated(
                    here,
                    &at(path, "contains"),
                    &format!("expected another number of such items, got {found}"),
                ));
            }
        }
        if map.get("uniqueItems") == Some(&Value::Bool(true)) {
            let mut known = HashSet::new();
            if let Some(twice) = items.iter().position(|item| !known.insert(canonical(item))) {
                let what = format!(
                    "expected items that differ, got {} twice",
                    short(&items[twice])
                );
                return Err(violated(here, &at(path, "uniqueItems"), &what));
            }
        }
        if let Some(part) = map.get("unevaluatedItems") {
            for (i, item) in items.iter().enumerate() {
                if !seen.all && !seen.some.contains(&number(i)) {
                    self.check(
                        part,
                        item,
                        &at(here, &number(i)),
                        &at(path, "unevaluatedItems"),
                    )?;
                }
            }
            seen.all = true;
        }
        Ok(())
    }

    fn entries(
        &mut self,
        map: &'a Map<String, Value>,
        entries: &Map<String, Value>,
        here: &str,
        path: &str,
        seen: &mut Seen,
    ) -> Result<(), Failure> {
        for (name, value) in entries {
            let (inside, mut is_known) = (at(here, name), false);
            if let Some(part) = map.get("properties").and_then(|all| all.get(name)) {
                self.check(part, value, &inside, &at(&at(path, "properties"), name))?;
                is_known = true;
            }
            for (pattern, part) in object(map, "patternProperties") {
                if self.matches(pattern, name)? {
                    self.check(
                        part,
                        value,
                        &inside,
                        &at(&at(path, "patternProperties"), pattern),
                    )?;
                    is_known = true;
                }
            }
            if let (Some(part), false) = (map.get("additionalProperties"), is_known) {
                self.check(part, value, &inside, &at(path, "additionalProperties"))?;
                is_known = true;
            }
            if is_known {
                seen.some.insert(name.clone());
            }
            if let Some(part) = map.get("propertyNames") {
                self.check(
                    part,
                    &Value::from(name.as_str()),
                    &inside,
                    &at(path, "propertyNames"),
                )?;
            }
        }
        for key in ["dependentRequired", "dependencies", "dependentSchemas"] {
            let place = at(path, key);
            for (name, part) in object(map, key).filter(|(name, _)| entries.contains_key(*name)) {
                match part {
                    Value::Array(names) => {
                        let missing = names
                            .iter()
                            .filter_map(Value::as_str)
                            .find(|other| !entries.contains_key(*other));
                        if let Some(missing) = missing {
                            return Err(violated(
                                here,
                                &at(&place, name),
                                &format!("expected {missing:?} beside {name:?}, got none"),
                            ));
                        }
                    }
                    part => seen.add(self.check(
                        part,
                        &Value::Object(entries.clone()),
                        here,
                        &at(&place, name),
                    )?),
                }
            }
        }
        if let Some(part) = map.get("unevaluatedProperties") {
            for (name, value) in entries {
                if !seen.all && !seen.some.contains(name) {
                    self.check(
                        part,
                        value,
                        &at(here, name),
                        &at(path, "unevaluatedProperties"),
                    )?;
                }
            }
            seen.all = true;
        }
        Ok(())
    }

    fn matches(&mut self, pattern: &'a str, text: &str) -> Result<bool, Failure> {
        self.steps += text.len();
        if !self.patterns.contains_key(pattern) {
            let mut builder = RegexBuilder::new();
            let made = builder
                .mk_regex_for_serach(&regex_to_lark(pattern, "dw"))
                .and_then(|regex| builder.to_regex_limited(regex, PATTERN_FUEL))
                .map_err(|_| {
                    Failure::Unknown(format!(
                        "the pattern {pattern:?} is too complex to be checked"
                    ))
                })?;
            self.patterns.insert(pattern, made);
        }
        Ok(self
            .patterns
            .get_mut(pattern)
            .is_some_and(|regex| regex.is_match(text)))
    }
}

/// The keywords that look at nothing inside of a value but its size.
fn simple(map: &Map<String, Value>, value: &Value, here: &str, path: &str) -> Result<(), Failure> {
    let against = |key: &str, what: String| Err(violated(here, &at(path, key), &what));
    if let Some(types) = map.get("type") {
        let all = types
            .as_array()
            .map_or(std::slice::from_ref(types), Vec::as_slice);
        if !all
            .iter()
            .filter_map(Value::as_str)
            .any(|name| is_of(value, name))
        {
            return against("type", format!("expected {types}, got {}", short(value)));
        }
    }
    if let Some(expected) = map.get("const")
        && canonical(expected) != canonical(value)
    {
        return against(
            "const",
            format!("expected {}, got {}", short(expected), short(value)),
        );
    }
    if map.contains_key("enum") && !list(map, "enum").any(|one| canonical(one) == canonical(value))
    {
        return against(
            "enum",
            format!("expected one of the list, got {}", short(value)),
        );
    }
    if let Some(number) = value.as_f64() {
        let bound = |key: &str| map.get(key).and_then(Value::as_f64);
        let is_true = |key: &str| map.get(key) == Some(&Value::Bool(true));
        let tests = [
            (
                "minimum",
                bound("minimum").is_some_and(|least| number < least),
            ),
            (
                "maximum",
                bound("maximum").is_some_and(|most| number > most),
            ),
            (
                "exclusiveMinimum",
                bound("exclusiveMinimum").is_some_and(|least| number <= least),
            ),
            (
                "exclusiveMaximum",
                bound("exclusiveMaximum").is_some_and(|most| number >= most),
            ),
        ];
        if let Some((key, _)) = tests.into_iter().find(|(_, is_beyond)| *is_beyond) {
            return against(
                key,
                format!("expected a number within it, got {}", short(value)),
            );
        }
        // Draft 4.
        for (key, exclusive) in [
            ("minimum", "exclusiveMinimum"),
            ("maximum", "exclusiveMaximum"),
        ] {
            if is_true(exclusive) && bound(key) == Some(number) {
                return against(
                    exclusive,
                    format!("expected a number within it, got {}", short(value)),
                );
            }
        }
        if map
            .get("multipleOf")
            .is_some_and(|step| !is_multiple(value, step))
        {
            return against(
                "multipleOf",
                format!(
                    "expected a multiple of {}, got {}",
                    map["multipleOf"],
                    short(value)
                ),
            );
        }
    }
    let size = |value: &Value| match value {
        Value::String(text) => Some(("minLength", "maxLength", text.chars().count(), "characters")),
        Value::Array(items) => Some(("minItems", "maxItems", items.len(), "items")),
        Value::Object(entries) => Some((
            "minProperties",
            "maxProperties",
            entries.len(),
            "properties",
        )),
        _ => None,
    };
    if let Some((least, most, size, what)) = size(value) {
        let size = size as u64;
        if let Some(least_of) = count(map, least).filter(|&n| size < n) {
            return against(
                least,
                format!("expected at least {least_of} {what}, got {size}"),
            );
        }
        if let Some(most_of) = count(map, most).filter(|&n| size > n) {
            return against(
                most,
                format!("expected at most {most_of} {what}, got {size}"),
            );
        }
    }
    if let Value::Object(entries) = value
        && let Some(missing) = list(map, "required")
            .filter_map(Value::as_str)
            .find(|name| !entries.contains_key(*name))
    {
        return against("required", format!("expected {missing:?}, got none"));
    }
    Ok(())
}

fn violated(here: &str, path: &str, what: &str) -> Failure {
    let here = if here.is_empty() { "the value" } else { here };
    Failure::Violation(format!(
        "{here}: {what} (schema: {})",
        if path.is_empty() { "/" } else { path }
    ))
}

fn list<'a>(map: &'a Map<String, Value>, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    map.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn object<'a>(
    map: &'a Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
    map.get(key)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

/// A number of things, `3.0` as well.
fn count(map: &Map<String, Value>, key: &str) -> Option<u64> {
    let value = map.get(key)?;
    value.as_u64().or_else(|| value.as_f64().map(|n| n as u64))
}

fn is_of(value: &Value, name: &str) -> bool {
    match (name, value) {
        ("null", Value::Null)
        | ("boolean", Value::Bool(_))
        | ("number", Value::Number(_))
        | ("string", Value::String(_))
        | ("array", Value::Array(_))
        | ("object", Value::Object(_)) => true,
        ("integer", Value::Number(number)) => number.as_f64().is_some_and(|x| x.fract() == 0.0),
        _ => false,
    }
}

fn is_multiple(value: &Value, step: &Value) -> bool {
    if let (Some(value), Some(step)) = (value.as_i64(), step.as_i64()) {
        return step == 0 || value.checked_rem(step).is_none_or(|rest| rest == 0);
    }
    let (Some(value), Some(step)) = (value.as_f64(), step.as_f64()) else {
        return true;
    };
    let times = value / step;
    (times - times.round()).abs() <= 1e-9 * times.abs().max(1.0)
}

/// Equal for equal values: entries in order of their names, `1.0` as `1`.
fn canonical(value: &Value) -> String {
    match value {
        Value::Array(items) => format!(
            "[{}]",
            items.iter().map(canonical).collect::<Vec<_>>().join(",")
        ),
        Value::Object(entries) => {
            let mut parts: Vec<String> = entries
                .iter()
                .map(|(name, value)| format!("{name:?}:{}", canonical(value)))
                .collect();
            parts.sort_unstable();
            format!("{{{}}}", parts.join(","))
        }
        Value::Number(number) => match number.as_f64() {
            Some(x) if x.fract() == 0.0 && x.abs() < 9e15 => format!("{}", x as i64),
            _ => number.to_string(),
        },
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
