//! Objects: their properties, and that there are no others.

use super::survey::Survey;
use super::values::counts;
use super::{
    MAX_DEPTH, MAX_ITEMS, MAX_LENGTH, MAX_NAME, Planner, Role, at, numbers, value_role, wrong,
};
use serde_json::{Map, Value, json};

impl<'a> Planner<'a> {
    pub(super) fn properties(
        &mut self,
        map: &'a Map<String, Value>,
        out: &mut Map<String, Value>,
        path: &str,
        inner: &Role,
    ) -> Result<(), String> {
        if let Some(required) = map.get("required") {
            if !required
                .as_array()
                .is_some_and(|all| all.iter().all(Value::is_string))
            {
                return Err(wrong(&at(path, "required"), "a list of names", required));
            }
            out.insert("required".into(), required.clone());
        }
        for key in ["properties", "patternProperties"] {
            let Some(value) = map.get(key) else { continue };
            let path = at(path, key);
            let Some(parts) = value.as_object() else {
                return Err(wrong(&path, "an object", value));
            };
            let mut made = Map::new();
            for (name, part) in parts {
                let role = value_role(inner, name);
                made.insert(name.clone(), self.node(part, &at(&path, name), &role)?);
            }
            out.insert(key.into(), made.into());
        }
        if let Some(others) = map.get("additionalProperties") {
            let role = value_role(inner, "{}");
            let others = self.node(others, &at(path, "additionalProperties"), &role)?;
            out.insert("additionalProperties".into(), others);
        }
        if map
            .get("unevaluatedProperties")
            .is_some_and(|others| *others != Value::Bool(true))
        {
            self.is_partial = true;
        }
        let mut limits = Map::new();
        counts(map, &mut limits, path, &["minProperties", "maxProperties"])?;
        if !limits.is_empty() {
            // The engine counts only entries of objects without optional properties.
            let required = map.get("required").and_then(Value::as_array);
            let is_required = |name: &String| {
                required.is_some_and(|all| all.iter().any(|one| one == name.as_str()))
            };
            let optional = map
                .get("properties")
                .and_then(Value::as_object)
                .is_some_and(|all| !all.keys().all(is_required));
            if optional
                || matches!(inner, Role::Loose)
                || map.contains_key("allOf")
                || map.contains_key("$ref")
            {
                self.is_partial = true;
            } else {
                out.extend(limits);
            }
        }
        Ok(())
    }

    pub(super) fn close(
        &mut self,
        out: &mut Map<String, Value>,
        parts: &Survey<'a>,
    ) -> Result<(), String> {
        let says = |key: &str| parts.keys.contains(key);
        let is_one = !out.contains_key("allOf");
        if says("additionalProperties") || parts.is_open || (says("patternProperties") && !is_one) {
            let others = out
                .get("additionalProperties")
                .filter(|others| **others != false);
            if is_one
                && !says("properties")
                && !says("patternProperties")
                && let Some(others) = others.cloned()
            {
                entries(out, others);
            }
            return Ok(());
        }
        if says("properties") {
            let own = out.get("properties").and_then(Value::as_object);
            let is_new = |name: &String| own.is_none_or(|own| !own.contains_key(name));
            let names: Vec<String> = parts.names().into_iter().filter(is_new).collect();
            let mut more = Map::new();
            for name in names {
                let schema = match parts.providers.get(name.as_str()) {
                    // Another part says what it is.
                    _ if parts.counts.get(name.as_str()).is_some_and(|&n| n > 0) => true.into(),
                    Some(providers) => {
                        let mut any = Vec::new();
                        for (provider, path) in providers {
                            any.push(self.node(provider, path, &Role::Whole)?);
                        }
                        json!({ "anyOf": any })
                    }
                    None => self.any(&Role::Whole),
                };
                more.insert(name, schema);
            }
            let all = out.entry("properties").or_insert_with(|| json!({}));
            all.as_object_mut()
                .into_iter()
                .for_each(|all| all.append(&mut more));
            out.insert("additionalProperties".into(), false.into());
        } else if is_one && !says("patternProperties") {
            let any = self.any(&Role::Whole);
            entries(out, any);
        }
        Ok(())
    }
}

/// Any entries of this kind, but not without end.
fn entries(out: &mut Map<String, Value>, schema: Value) {
    out.insert(
        "patternProperties".into(),
        json!({ name_pattern(): schema }),
    );
    out.insert("additionalProperties".into(), false.into());
    let least = out
        .get("minProperties")
        .and_then(Value::as_u64)
        .unwrap_or(0);
    let required = out
        .get("required")
        .and_then(Value::as_array)
        .map_or(0, Vec::len) as u64;
    out.entry("maxProperties")
        .or_insert_with(|| MAX_ITEMS.max(least).max(required).into());
}

fn name_pattern() -> String {
    format!("^(?s:.{{0,{MAX_NAME}}})$")
}

/// Any value, with arrays and objects nested [`MAX_DEPTH`] deep.
pub(super) fn any_value(defs: &mut Map<String, Value>) {
    let mut scalar = vec![
        json!({ "type": ["null", "boolean"] }),
        json!({ "type": "string", "maxLength": MAX_LENGTH }),
    ];
    scalar.push(numbers::any());
    for depth in 0..=MAX_DEPTH {
        let mut any = scalar.clone();
        if depth > 0 {
            let below = json!({ "$ref": format!("#/$defs/any{}", depth - 1) });
            any.push(json!({ "type": "array", "items": below, "maxItems": MAX_ITEMS }));
            any.push(json!({ "type": "object", "patternProperties": { name_pattern(): below }, "additionalProperties": false, "maxProperties": MAX_ITEMS }));
        }
        defs.insert(format!("any{depth}"), json!({ "anyOf": any }));
    }
}
