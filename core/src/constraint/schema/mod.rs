//! What the engine is given of a user's schema.
//!
//! References are resolved, keywords that the engine lacks are left out (the finished text is checked against the user's own schema, see [`super::check`]),
//! values without bounds get some, and objects that list their properties are closed. Where several parts (`allOf`, `$ref` with siblings, `anyOf` beside
//! other keywords) describe one value, bounds and the closing are put around all of them.

mod numbers;
mod objects;
mod places;
mod survey;
mod values;

use objects::any_value;
use places::wrong;
pub(super) use places::{at, place, resolve};
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use survey::Survey;
use values::types;

/// Code points of a string whose schema gives no `maxLength`, at most.
pub(super) const MAX_LENGTH: u64 = 4096;
/// Items of an array, and entries of an object without listed properties, whose schema gives no maximum, at most.
pub(super) const MAX_ITEMS: u64 = 1024;
/// Code points of a property's name where any is allowed, at most.
const MAX_NAME: u64 = 128;
/// Arrays and objects within each other where any value is allowed, at most.
const MAX_DEPTH: usize = 8;
/// Parts of a schema, references followed, at most.
const MAX_PARTS: usize = 20_000;

/// What the engine is to follow.
pub(super) struct Planned {
    pub(super) schema: Value,
    /// Whether a keyword was left out, so that the finished text has to be checked.
    pub(super) is_partial: bool,
    /// The engine's name of a part, and its place in the user's schema.
    pub(super) places: Vec<(String, String)>,
}

/// How much of a value a part of the schema describes.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Role {
    /// All of it.
    Whole,
    /// Beside other parts, which describe these properties too.
    Part(Rc<BTreeSet<String>>),
    /// Beside other parts that nothing is known of.
    Loose,
}

/// Keywords that say something of a value. All others are annotations.
const CONSTRAINING: &[&str] = &[
    "$ref",
    "$dynamicRef",
    "$recursiveRef",
    "type",
    "enum",
    "const",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "properties",
    "required",
    "patternProperties",
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "items",
    "prefixItems",
    "additionalItems",
    "unevaluatedItems",
    "contains",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];

/// Keywords that are checked on the finished text alone.
const CHECKED: &[&str] = &[
    "if",
    "propertyNames",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "contains",
    "unevaluatedItems",
];

/// The formats that the engine knows. Others are annotations.
const FORMATS: &[&str] = &[
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "uri",
];

const TYPES: &[&str] = &[
    "null", "boolean", "integer", "number", "string", "array", "object",
];

/// # Errors
/// What is wrong, with its place in the schema.
pub(super) fn plan(root: &Value) -> Result<Planned, String> {
    let options = root.get("x-guidance");
    let is_set = |key| options.and_then(|options| options.get(key)) == Some(&Value::Bool(true));
    let mut planner = Planner {
        root,
        lenient: is_set("lenient"),
        coerce: is_set("coerce_one_of") || is_set("lenient"),
        names: HashMap::new(),
        places: Vec::new(),
        queue: VecDeque::new(),
        parts: 0,
        is_partial: false,
        any: false,
    };
    let mut schema = match planner.node(root, "", &Role::Whole)? {
        Value::Object(map) => map,
        _ => return Err("it accepts no value".into()),
    };
    let mut defs = Map::new();
    while let Some((name, part, path, role)) = planner.queue.pop_front() {
        let part = planner.node(part, &path, &role)?;
        defs.insert(name, part);
    }
    if planner.any {
        any_value(&mut defs);
    }
    if !defs.is_empty() {
        schema.insert("$defs".into(), defs.into());
    }
    schema.insert("x-guidance".into(), guidance(options)?);
    Ok(Planned {
        schema: schema.into(),
        is_partial: planner.is_partial && !planner.lenient,
        places: planner.places,
    })
}

struct Planner<'a> {
    root: &'a Value,
    lenient: bool,
    /// `oneOf` is as good as `anyOf`.
    coerce: bool,
    /// Of parts that are referred to.
    names: HashMap<(String, Role), String>,
    places: Vec<(String, String)>,
    queue: VecDeque<(String, &'a Value, String, Role)>,
    parts: usize,
    is_partial: bool,
    /// Whether somewhere any value is allowed.
    any: bool,
}

impl<'a> Planner<'a> {
    /// `schema`, which stands at `path`, as the engine is given it.
    fn node(&mut self, schema: &'a Value, path: &str, role: &Role) -> Result<Value, String> {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(format!("expected at most {MAX_PARTS} parts, got more"));
        }
        match schema {
            Value::Bool(false) => Ok(false.into()),
            Value::Bool(true) => Ok(self.any(role)),
            Value::Object(map) if !constrains(map) => Ok(self.any(role)),
            Value::Object(map) => self.object(map, path, role),
            other => Err(wrong(path, "an object, true or false", other)),
        }
    }

    fn any(&mut self, role: &Role) -> Value {
        if *role != Role::Whole {
            return true.into();
        }
        self.any = true;
        json!({ "$ref": format!("#/$defs/any{MAX_DEPTH}") })
    }

    fn object(
        &mut self,
        map: &'a Map<String, Value>,
        path: &str,
        role: &Role,
    ) -> Result<Value, String> {
        for key in ["$dynamicRef", "$recursiveRef"] {
            if map.contains_key(key) {
                return Err(format!("{}: expected $ref, got {key}", place(path)));
            }
        }
        let others = map
            .keys()
            .filter(|key| CONSTRAINING.contains(&key.as_str()) && *key != "$ref");
        if let Some(reference) = map.get("$ref")
            && others.count() == 0
        {
            return self.reference(reference, path, role);
        }
        if let Some(never) = map.get("not") {
            if *never == Value::Bool(true)
                || never.as_object().is_some_and(|never| !constrains(never))
            {
                return Ok(false.into());
            }
            self.is_partial = true;
        }
        self.is_partial |= CHECKED.iter().any(|key| map.contains_key(*key));

        // A choice and nothing else: each of its parts is on its own.
        let unions: Vec<&str> = ["anyOf", "oneOf"]
            .into_iter()
            .filter(|key| map.contains_key(*key))
            .collect();
        let only = map
            .keys()
            .filter(|key| CONSTRAINING.contains(&key.as_str()))
            .count()
            == 1;
        if let (true, &[union]) = (only, &unions[..]) {
            let branches = self.list(&map[union], &at(path, union), role)?;
            self.is_partial |= union == "oneOf" && !self.coerce && branches.len() > 1;
            return Ok(json!({ "anyOf": branches }));
        }

        let types = types(map, path)?;
        let common = self.survey(map, path, false);
        let inner = match role {
            Role::Whole => Role::Part(Rc::new(self.survey(map, path, true).shared())),
            part => part.clone(),
        };
        let mut out = Map::new();
        if let Some(types) = &types {
            out.insert("type".into(), json!(types));
        }
        for key in ["const", "enum"] {
            if let Some(value) = map.get(key) {
                numbers::literal(value, &at(path, key))?;
                out.insert(key.into(), value.clone());
            }
        }
        let is_literal = map.contains_key("const") || map.contains_key("enum");
        self.is_partial |= numbers::numbers(map, &mut out, path)?;
        self.strings(map, &mut out, path)?;
        self.arrays(map, &mut out, path, &inner)?;
        self.properties(map, &mut out, path, &inner)?;
        let mut all = Vec::new();
        if let Some(reference) = map.get("$ref") {
            all.push(self.reference(reference, path, &inner)?);
        }
        if let Some(parts) = map.get("allOf") {
            all.extend(self.list(parts, &at(path, "allOf"), &inner)?);
        }
        if !all.is_empty() {
            out.insert("allOf".into(), all.into());
        }
        if *role == Role::Whole && !is_literal && unions.is_empty() {
            self.bound(&mut out, &types, &common)?;
        }
        let mut choices = Vec::new();
        for &union in &unions {
            let branches = self.list(&map[union], &at(path, union), &inner)?;
            self.is_partial |= union == "oneOf" && !self.coerce && branches.len() > 1;
            choices.push(branches);
        }
        let bound = *role == Role::Whole && !is_literal;
        match (&mut choices[..], &unions[..]) {
            ([branches], [union]) => {
                let key = at(path, union);
                for (i, branch) in branches.iter_mut().enumerate().filter(|_| bound) {
                    let own = self.survey_of(&map[*union][i], &at(&key, &i.to_string()));
                    let both = common.with(&own);
                    let mut around = Map::new();
                    around.insert("allOf".into(), vec![branch.take()].into());
                    self.bound(&mut around, &types, &both)?;
                    *branch = around.into();
                }
                out.insert("anyOf".into(), std::mem::take(branches).into());
            }
            ([], _) => {}
            (several, _) => {
                let all = out.entry("allOf").or_insert_with(|| json!([]));
                let Some(all) = all.as_array_mut() else {
                    return Err(wrong(path, "a list as allOf", &json!(null)));
                };
                all.extend(
                    several
                        .iter_mut()
                        .map(|branches| json!({ "anyOf": std::mem::take(branches) })),
                );
                if bound {
                    let every = self.survey(map, path, true);
                    self.bound(&mut out, &types, &every)?;
                }
            }
        }
        Ok(out.into())
    }

    fn list(&mut self, parts: &'a Value, path: &str, role: &Role) -> Result<Vec<Value>, String> {
        let Some(parts) = parts.as_array() else {
            return Err(wrong(path, "a list", parts));
        };
        let numbered = parts.iter().enumerate();
        numbered
            .map(|(i, part)| self.node(part, &at(path, &i.to_string()), role))
            .collect()
    }

    /// A reference to the part that `reference` names, in its role.
    fn reference(
        &mut self,
        reference: &'a Value,
        path: &str,
        role: &Role,
    ) -> Result<Value, String> {
        let path = at(path, "$ref");
        let Some(text) = reference.as_str() else {
            return Err(wrong(&path, "a string", reference));
        };
        // References to references, which could go round in a circle.
        let (mut target, mut pointer) = self.resolve(text, &path)?;
        let mut seen = BTreeSet::new();
        while let Some(next) = only_reference(target) {
            if !seen.insert(pointer.clone()) {
                return Err(format!("{}: it refers to itself", place(&path)));
            }
            (target, pointer) = self.resolve(next, &pointer)?;
        }
        let key = (pointer.clone(), role.clone());
        let name = match self.names.get(&key) {
            Some(name) => name.clone(),
            None => {
                let name = format!("d{}", self.names.len());
                self.names.insert(key, name.clone());
                self.places
                    .push((format!("#/$defs/{name}"), format!("#{pointer}")));
                self.queue
                    .push_back((name.clone(), target, pointer, role.clone()));
                name
            }
        };
        Ok(json!({ "$ref": format!("#/$defs/{name}") }))
    }

    /// The part that a reference names, and its place.
    fn resolve(&self, reference: &str, path: &str) -> Result<(&'a Value, String), String> {
        let missing = |what: &str| format!("{}: expected {what}, got {reference:?}", place(path));
        resolve(self.root, reference).ok_or_else(|| match reference.starts_with('#') {
            true => missing("the place of a part of the schema"),
            false => missing("a reference within the schema (#/…)"),
        })
    }

    /// Adds to `out` what a value of these types must not be without: bounds, and an end of its properties, where none of its parts says otherwise.
    fn bound(
        &mut self,
        out: &mut Map<String, Value>,
        types: &Option<Vec<String>>,
        parts: &Survey<'a>,
    ) -> Result<(), String> {
        let of = |one: &str| {
            types
                .as_ref()
                .is_none_or(|all| all.iter().any(|other| other == one))
        };
        let says = |key: &str| parts.keys.contains(key);
        let only_integers = types
            .as_ref()
            .is_some_and(|all| all.iter().any(|one| one == "integer") && !of("number"));
        if (of("number") || only_integers) && !parts.is_fixed {
            numbers::bound(out, only_integers, parts);
        }
        if of("string") && !says("maxLength") {
            let least = out.get("minLength").and_then(Value::as_u64).unwrap_or(0);
            out.insert("maxLength".into(), MAX_LENGTH.max(least).into());
        }
        if of("array") {
            if !says("maxItems") {
                let least = out.get("minItems").and_then(Value::as_u64).unwrap_or(0);
                out.insert("maxItems".into(), MAX_ITEMS.max(least).into());
            }
            let is_said = says("items") || says("additionalItems");
            if !out.contains_key("items") && (!is_said || out.contains_key("prefixItems")) {
                let any = self.any(&Role::Whole);
                out.insert("items".into(), any);
            }
        }
        if of("object") {
            self.close(out, parts)?;
        }
        // A type that other parts speak of is not allowed by these bounds alone.
        if let Some(types) = types {
            out.entry("type").or_insert_with(|| json!(types));
        }
        Ok(())
    }
}

/// The engine's options, in which white space has an end: without a bound a model may write it for ever.
fn guidance(options: Option<&Value>) -> Result<Value, String> {
    let mut options = match options {
        None => Map::new(),
        Some(Value::Object(options)) => options.clone(),
        Some(other) => return Err(wrong("/x-guidance", "an object", other)),
    };
    for key in ["whitespace_pattern", "item_separator", "key_separator"] {
        if let Some(Value::String(pattern)) = options.get_mut(key) {
            *pattern = super::pattern::bounded(pattern);
        }
    }
    let none = options.get("whitespace_flexible") == Some(&Value::Bool(false));
    if !none && options.get("whitespace_pattern").is_none_or(Value::is_null) {
        options.insert("whitespace_pattern".into(), r" |\n {0,40}".into());
    }
    Ok(options.into())
}

fn constrains(map: &Map<String, Value>) -> bool {
    map.keys().any(|key| CONSTRAINING.contains(&key.as_str()))
}

/// What a schema that is a reference and nothing else refers to.
fn only_reference(schema: &Value) -> Option<&str> {
    let map = schema.as_object()?;
    let mut keys = map
        .keys()
        .filter(|key| CONSTRAINING.contains(&key.as_str()));
    let only = keys.next()? == "$ref" && keys.next().is_none();
    map.get("$ref")?.as_str().filter(|_| only)
}

/// The role of a value inside the one that a part describes.
fn value_role(part: &Role, name: &str) -> Role {
    match part {
        Role::Whole => Role::Whole,
        Role::Part(shared) if !shared.contains(name) => Role::Whole,
        _ => Role::Loose,
    }
}

#[cfg(test)]
mod tests;
