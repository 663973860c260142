//! Types, strings and arrays.

use super::{FORMATS, Planner, Role, TYPES, at, value_role, wrong};
use llguidance::derivre::RegexBuilder;
use llguidance::regex_to_lark;
use serde_json::{Map, Value};

impl<'a> Planner<'a> {
    pub(super) fn strings(
        &mut self,
        map: &Map<String, Value>,
        out: &mut Map<String, Value>,
        path: &str,
    ) -> Result<(), String> {
        counts(map, out, path, &["minLength", "maxLength"])?;
        if let Some(pattern) = map.get("pattern") {
            let path = at(path, "pattern");
            let Some(text) = pattern.as_str() else {
                return Err(wrong(&path, "a string", pattern));
            };
            let parsed = RegexBuilder::new().mk_regex_for_serach(&regex_to_lark(text, "dw"));
            parsed.map_err(|error| format!("{path}: {error}"))?;
            out.insert("pattern".into(), pattern.clone());
        }
        match map.get("format") {
            Some(Value::String(format)) if FORMATS.contains(&format.as_str()) => {
                out.insert("format".into(), format.as_str().into());
            }
            Some(Value::String(_)) | None => {}
            Some(other) => return Err(wrong(&at(path, "format"), "a string", other)),
        }
        Ok(())
    }

    pub(super) fn arrays(
        &mut self,
        map: &'a Map<String, Value>,
        out: &mut Map<String, Value>,
        path: &str,
        inner: &Role,
    ) -> Result<(), String> {
        counts(map, out, path, &["minItems", "maxItems"])?;
        self.is_partial |= map.get("uniqueItems") == Some(&Value::Bool(true));
        let role = value_role(inner, "[]");
        let (first, rest) = match (map.get("items"), map.get("prefixItems")) {
            (Some(Value::Array(_)), _) => ("items", "additionalItems"),
            _ => ("prefixItems", "items"),
        };
        if let Some(parts) = map.get(first) {
            let parts = self.list(parts, &at(path, first), &role)?;
            out.insert("prefixItems".into(), parts.into());
        }
        if let Some(rest_of) = map.get(rest) {
            let rest_of = self.node(rest_of, &at(path, rest), &role)?;
            out.insert("items".into(), rest_of);
        }
        Ok(())
    }
}

/// Copies numbers of things, which may be written as `3.0`.
pub(super) fn counts(
    map: &Map<String, Value>,
    out: &mut Map<String, Value>,
    path: &str,
    keys: &[&str],
) -> Result<(), String> {
    for &key in keys {
        let Some(value) = map.get(key) else { continue };
        let whole = value
            .as_f64()
            .filter(|x| x.fract() == 0.0 && (0.0..=u32::MAX as f64).contains(x));
        let Some(whole) = value
            .as_u64()
            .filter(|&n| n <= u64::from(u32::MAX))
            .or(whole.map(|x| x as u64))
        else {
            return Err(wrong(
                &at(path, key),
                "a whole number from 0 to 4294967295",
                value,
            ));
        };
        out.insert(key.into(), whole.into());
    }
    Ok(())
}

pub(super) fn types(map: &Map<String, Value>, path: &str) -> Result<Option<Vec<String>>, String> {
    let Some(value) = map.get("type") else {
        return Ok(None);
    };
    let all = match value {
        Value::Array(all) if !all.is_empty() => &all[..],
        one => std::slice::from_ref(one),
    };
    let known = |one: &Value| {
        one.as_str()
            .filter(|one| TYPES.contains(one))
            .map(str::to_owned)
    };
    let all: Option<Vec<String>> = all.iter().map(known).collect();
    let expected = format!("one or a list of {}", TYPES.join(", "));
    all.map(Some)
        .ok_or_else(|| wrong(&at(path, "type"), &expected, value))
}
