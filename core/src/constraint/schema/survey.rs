//! What all parts of a schema that describe one value say together.

use super::{Planner, at};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, HashSet};

#[derive(Clone, Default)]
pub(super) struct Survey<'a> {
    /// Keywords that are used.
    pub(super) keys: BTreeSet<&'a str>,
    /// Whether there is a `const` or an `enum`.
    pub(super) is_fixed: bool,
    /// Whether properties beside the listed ones are asked for otherwise than by `additionalProperties`.
    pub(super) is_open: bool,
    /// How many parts describe a property at the same time, items as `[]`; 0: it is only named.
    pub(super) counts: BTreeMap<String, u32>,
    names: Vec<String>,
    /// Of properties that only conditions describe: the schemas, with their places.
    pub(super) providers: BTreeMap<String, Vec<(&'a Value, String)>>,
}

impl<'a> Survey<'a> {
    /// Names that more than one part describes.
    pub(super) fn shared(&self) -> BTreeSet<String> {
        let several = self.counts.iter().filter(|(_, count)| **count > 1);
        several.map(|(name, _)| name.clone()).collect()
    }

    /// All names of properties, in the order in which they come up.
    pub(super) fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    /// What both say, at the same time.
    pub(super) fn with(&self, other: &Survey<'a>) -> Survey<'a> {
        let mut both = self.clone();
        both.add(other, |a, b| a + b);
        both
    }

    fn add(&mut self, other: &Survey<'a>, join: impl Fn(u32, u32) -> u32) {
        self.keys.extend(&other.keys);
        self.is_fixed |= other.is_fixed;
        self.is_open |= other.is_open;
        for (name, &count) in &other.counts {
            let own = self.counts.entry(name.clone()).or_insert(0);
            *own = join(*own, count);
        }
        for name in &other.names {
            self.name(name);
        }
        for (name, providers) in &other.providers {
            let own = self.providers.entry(name.clone()).or_default();
            own.extend(providers.iter().cloned());
        }
    }

    fn name(&mut self, name: &str) {
        if !self.names.iter().any(|other| other == name) {
            self.names.push(name.to_owned());
        }
    }
}

impl<'a> Planner<'a> {
    /// What `map` and its parts say; with `unions`, those of `anyOf` and `oneOf` too.
    pub(super) fn survey(
        &self,
        map: &'a Map<String, Value>,
        path: &str,
        unions: bool,
    ) -> Survey<'a> {
        let mut survey = Survey::default();
        self.look(map, path, unions, &mut HashSet::new(), &mut survey);
        survey
    }

    pub(super) fn survey_of(&self, schema: &'a Value, path: &str) -> Survey<'a> {
        let mut survey = Survey::default();
        self.look_at(schema, path, &mut HashSet::new(), &mut survey);
        survey
    }

    fn look_at(
        &self,
        schema: &'a Value,
        path: &str,
        seen: &mut HashSet<String>,
        survey: &mut Survey<'a>,
    ) {
        if let Value::Object(map) = schema {
            self.look(map, path, true, seen, survey);
        }
    }

    fn look(
        &self,
        map: &'a Map<String, Value>,
        path: &str,
        unions: bool,
        seen: &mut HashSet<String>,
        survey: &mut Survey<'a>,
    ) {
        survey.keys.extend(map.keys().map(String::as_str));
        survey.is_fixed |= map.contains_key("const") || map.contains_key("enum");
        survey.is_open |= map
            .get("unevaluatedProperties")
            .is_some_and(|others| *others != Value::Bool(false));
        if let Some(Value::Object(properties)) = map.get("properties") {
            for name in properties.keys() {
                *survey.counts.entry(name.clone()).or_insert(0) += 1;
                survey.name(name);
            }
        }
        if let Some(Value::Array(required)) = map.get("required") {
            required
                .iter()
                .filter_map(Value::as_str)
                .for_each(|name| survey.name(name));
        }
        let groups: [(&[&str], &str); 2] = [
            (&["items", "prefixItems"], "[]"),
            (&["additionalProperties"], "{}"),
        ];
        for (_, name) in groups
            .iter()
            .filter(|(keys, _)| keys.iter().any(|key| map.contains_key(*key)))
        {
            *survey.counts.entry((*name).to_owned()).or_insert(0) += 1;
        }
        if let Some(Value::Array(parts)) = map.get("allOf") {
            for (i, part) in parts.iter().enumerate() {
                self.look_at(part, &at(&at(path, "allOf"), &i.to_string()), seen, survey);
            }
        }
        if let Some(reference) = map.get("$ref").and_then(Value::as_str)
            && let Ok((target, pointer)) = self.resolve(reference, path)
            && seen.insert(pointer.clone())
        {
            self.look_at(target, &pointer, seen, survey);
        }
        for key in ["anyOf", "oneOf"].into_iter().filter(|_| unions) {
            let mut widest = Survey::default();
            for (i, part) in map
                .get(key)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .enumerate()
            {
                let mut one = Survey::default();
                self.look_at(part, &at(&at(path, key), &i.to_string()), seen, &mut one);
                widest.add(&one, u32::max);
            }
            survey.add(&widest, |a, b| a + b);
        }
        self.look_at_conditions(map, path, seen, survey);
    }

    /// Properties that only a condition speaks of are checked afterwards, but must be possible.
    fn look_at_conditions(
        &self,
        map: &'a Map<String, Value>,
        path: &str,
        seen: &mut HashSet<String>,
        survey: &mut Survey<'a>,
    ) {
        let mut parts: Vec<(&'a Value, String)> = Vec::new();
        for key in ["then", "else"]
            .into_iter()
            .filter(|_| map.contains_key("if"))
        {
            parts.extend(map.get(key).map(|part| (part, at(path, key))));
        }
        for key in ["dependentSchemas", "dependencies"] {
            let all = map
                .get(key)
                .and_then(Value::as_object)
                .into_iter()
                .flatten();
            parts.extend(all.map(|(name, part)| (part, at(&at(path, key), name))));
        }
        for (part, path) in parts {
            let mut one = Survey::default();
            self.look_at(part, &path, seen, &mut one);
            for name in &one.names {
                survey.name(name);
                let own = part.get("properties").and_then(|all| all.get(name));
                if let Some(schema) = own {
                    let place = at(&at(&path, "properties"), name);
                    survey
                        .providers
                        .entry(name.clone())
                        .or_default()
                        .push((schema, place));
                }
            }
        }
        for key in ["dependentRequired", "dependencies"] {
            let all = map
                .get(key)
                .and_then(Value::as_object)
                .into_iter()
                .flatten();
            let names = all.filter_map(|(_, names)| names.as_array()).flatten();
            names
                .filter_map(Value::as_str)
                .for_each(|name| survey.name(name));
        }
    }
}
