//! JSON schemas: what is generated is accepted, and ends.

use super::{ask, constrained, hot, random, session};
use dram_core::{Constraint, Finish, Limit, Sampling};
use dram_tests::toy::splitmix;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Random schemas: what people write, nested at most three deep.
struct Schemas(u64, u64);

impl Schemas {
    fn below(&mut self, n: u64) -> u64 {
        self.1 += 1;
        splitmix(self.0, self.1) % n
    }

    fn any(&mut self, depth: u64) -> Value {
        match self.below(if depth == 0 { 7 } else { 11 }) {
            0 => json!({ "type": "boolean" }),
            1 => json!({ "type": (["null", "boolean", "integer"][self.below(3) as usize]) }),
            2 => self.integer(),
            3 => self.number(),
            4 => self.string(),
            5 => self.choice(),
            6 => json!({ "const": (["a\"b", "ß", "x y"][self.below(3) as usize]) }),
            7 => self.array(depth - 1),
            8 => json!({ "anyOf": [self.any(depth - 1), self.any(depth - 1), { "type": "null" }] }),
            _ => self.object(depth - 1),
        }
    }

    fn integer(&mut self) -> Value {
        let low = self.below(2000) as i64 - 1000;
        let high = low + self.below(500) as i64;
        match self.below(4) {
            0 => json!({ "type": "integer", "minimum": low, "maximum": high }),
            1 => json!({ "type": "integer", "exclusiveMinimum": low, "maximum": high + 1 }),
            2 => json!({ "type": "integer", "minimum": 0, "maximum": 99, "multipleOf": 7 }),
            _ => json!({ "type": "integer" }),
        }
    }

    fn number(&mut self) -> Value {
        let low = self.below(400) as f64 / 16.0 - 10.0;
        match self.below(4) {
            0 => json!({ "type": "number", "minimum": low, "maximum": low + 2.5 }),
            1 => {
                json!({ "type": "number", "exclusiveMinimum": low, "exclusiveMaximum": low + 0.75 })
            }
            2 => {
                json!({ "type": "number", "minimum": -low.abs() - 0.5, "exclusiveMaximum": -low.abs().floor() })
            }
            _ => json!({ "type": "number" }),
        }
    }

    fn string(&mut self) -> Value {
        let least = self.below(4);
        match self.below(5) {
            0 => json!({ "type": "string" }),
            1 => json!({ "type": "string", "pattern": "^[a-f]{2,5}-[0-9]+$", "maxLength": 12 }),
            2 => json!({ "type": "string", "format": "date" }),
            3 => json!({ "type": "string", "pattern": "^(uno|dos|tres)$" }),
            _ => {
                json!({ "type": "string", "minLength": least, "maxLength": least + self.below(9) })
            }
        }
    }

    fn choice(&mut self) -> Value {
        let all = [
            json!("red"),
            json!("redder"),
            json!(7),
            json!(null),
            json!(false),
            json!([1]),
            json!({"a": 2}),
        ];
        let from = self.below(5) as usize;
        json!({ "enum": all[from..from + 2] })
    }

    fn array(&mut self, depth: u64) -> Value {
        let least = self.below(3);
        json!({ "type": "array", "items": self.any(depth), "minItems": least, "maxItems": least + self.below(3) })
    }

    fn object(&mut self, depth: u64) -> Value {
        let names = ["name", "na", "größe", "x y", "n\"q"];
        let count = self.below(5) as usize;
        let (mut properties, mut required) = (json!({}), Vec::new());
        for name in &names[..count] {
            properties[name] = self.any(depth);
            if self.below(2) == 0 {
                required.push(*name);
            }
        }
        json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
    }
}

#[test]
fn outputs_for_random_schemas_are_valid() {
    let (model, start) = (random(None), Instant::now());
    let mut session = session(&model);
    let tokenizer = model.tokenizer();
    // A random model would rarely end a string or a number that has no bound.
    let ends: Vec<(u32, f32)> = ["\"", "}", "]", ","]
        .map(|text| (tokenizer.encode(text, false)[0], 2.0))
        .into();
    let (mut schemas, mut finished, mut tokens, mut forced) = (Schemas(77, 0), 0, 0, 0);
    for seed in 0..500 {
        let schema = schemas.any(3);
        let mut request = constrained("json", Constraint::json_schema(&schema.to_string()));
        request.sampling = Sampling {
            logit_bias: ends.clone(),
            ..hot(seed)
        };
        let done = ask(&mut session, &request).unwrap_or_else(|error| panic!("{schema}: {error}"));
        match done.finish {
            Finish::EndOfText => {}
            Finish::Unfinished(Limit::MaxTokens) => continue,
            other => panic!("{schema}: {other:?}"),
        }
        finished += 1;
        tokens += done.tokens.len();
        forced += done.forced_tokens;
        let value: Value = serde_json::from_str(&done.text)
            .unwrap_or_else(|error| panic!("{schema}: {error} in {}", done.text));
        let valid = jsonschema::validator_for(&schema).unwrap().is_valid(&value);
        assert!(valid, "{schema}: {}", done.text);
    }
    println!(
        "{finished} of 500 finished; {tokens} tokens, {forced} of them forced, {:.1} s",
        start.elapsed().as_secs_f64()
    );
    assert!(finished >= 480 && forced > tokens / 10);
    assert!(start.elapsed() < Duration::from_secs(60));
}

/// A text that `schema` allows, of a model that never wants to end it.
fn endless(schema: &Value, seed: u64) -> (String, Finish) {
    let model = random(None);
    let mut session = session(&model);
    let mut request = constrained("json", Constraint::json_schema(&schema.to_string()));
    request.sampling = Sampling {
        logit_bias: vec![(model.tokenizer().eos().unwrap(), f32::NEG_INFINITY)],
        ..hot(seed)
    };
    let done = ask(&mut session, &request).unwrap_or_else(|error| panic!("{schema}: {error}"));
    (done.text, done.finish)
}

#[test]
fn numbers_end_and_have_64_bits() {
    for schema in [
        json!({ "type": "number" }),
        json!({ "type": "integer" }),
        json!({ "type": "number", "minimum": 2.5 }),
        json!({ "type": "number", "maximum": 1e300 }),
        json!({ "type": "number", "exclusiveMaximum": 0 }),
        json!({ "type": "integer", "maximum": -5 }),
        json!({ "type": "integer", "minimum": i64::MIN, "maximum": i64::MAX }),
        json!({ "type": "integer", "exclusiveMinimum": 5_000_000_000_000_000_000i64 }),
        json!({ "type": "integer", "minimum": (1i64 << 53) + 1, "maximum": (1i64 << 53) + 4001 }),
        json!({ "type": ["integer", "null"], "x-guidance": { "whitespace_flexible": true } }),
        json!({ "minimum": 7, "type": "number", "x-guidance": {} }),
        json!({ "type": "number", "minimum": 1e-12, "maximum": 2e-12 }),
        json!({ "type": "integer", "exclusiveMinimum": true, "minimum": 6, "maximum": 7 }),
    ] {
        for seed in 0..12 {
            let (text, finish) = endless(&schema, seed);
            assert_eq!(finish, Finish::EndOfText, "{schema}: {text}");
            let value: Value = serde_json::from_str(&text).unwrap();
            let is_right = match schema["type"] == "integer" {
                true => value.as_i64().is_some(),
                false => value.is_null() || value.as_f64().is_some_and(f64::is_finite),
            };
            // Draft 4's `true` means something else to the crate.
            let valid = schema["exclusiveMinimum"] == true && value == 7
                || jsonschema::is_valid(&schema, &value);
            assert!(is_right && valid, "{schema}: {text}");
        }
    }
}

#[test]
fn objects_have_the_listed_properties_only() {
    let base = json!({ "type": "object", "properties": { "a": { "type": "boolean" } }, "required": ["a"] });
    let child = json!({ "properties": { "b": { "type": "null" } }, "required": ["b"] });
    for (schema, keys) in [
        (base.clone(), &["a"][..]),
        (json!({ "allOf": [base, child] }), &["a", "b"]),
        (
            json!({ "$ref": "#/$defs/base", "properties": { "b": { "type": "null" } }, "required": ["b"], "$defs": { "base": base } }),
            &["a", "b"],
        ),
        (
            json!({ "anyOf": [{ "$ref": "#/$defs/base" }], "$defs": { "base": base } }),
            &["a"],
        ),
        (
            json!({ "type": "object", "properties": { "a": { "const": 1 } }, "required": ["a"], "oneOf": [child, { "properties": { "c": { "const": 2 } }, "required": ["c"] }] }),
            &["a", "b", "c"],
        ),
        (
            json!({ "properties": { "a": { "$ref": "#/$defs/base" } }, "type": "object", "required": ["a"], "$defs": { "base": { "type": "object", "properties": {} } } }),
            &["a"],
        ),
        (
            json!({ "type": "object", "properties": { "x1": { "const": 1 } }, "patternProperties": { "^x[0-9]$": { "type": "integer", "maximum": 9, "minimum": 0 } } }),
            &["x"],
        ),
    ] {
        for seed in 0..10 {
            let (text, finish) = endless(&schema, seed);
            if finish != Finish::EndOfText {
                assert_eq!(
                    finish,
                    Finish::Unfinished(Limit::MaxTokens),
                    "{schema}: {text}"
                );
                continue;
            }
            let value: Value = serde_json::from_str(&text).unwrap();
            let known = |name: &String| keys.iter().any(|key| name.starts_with(key));
            assert!(
                value.as_object().unwrap().keys().all(known),
                "{schema}: {text}"
            );
            assert!(jsonschema::is_valid(&schema, &value), "{schema}: {text}");
        }
    }
    // One that says otherwise.
    let open = json!({ "type": "object", "properties": { "a": { "const": 1 } }, "additionalProperties": { "const": 2 } });
    let others = (0..40).filter(|&seed| {
        endless(&open, seed).0.contains(": 2") || endless(&open, seed).0.contains(":2")
    });
    assert!(others.count() > 0);
}

#[test]
fn what_the_engine_lacks_is_checked_at_the_end() {
    let bit = json!({ "type": "integer", "minimum": 0, "maximum": 2 });
    let bits = |key: &str, value: Value| json!({ "type": "array", "items": bit, "minItems": 2, "maxItems": 3, key: value });
    let names = json!({ "a": bit, "b": bit });
    let object =
        |key: &str, value: Value| json!({ "type": "object", "properties": names, key: value });
    let one = json!({ "const": 1 });
    let (mut good, mut broken) = (0, 0);
    for schema in [
        bits("uniqueItems", json!(true)),
        bits("contains", one.clone()),
        json!({ "type": "array", "items": bit, "minItems": 2, "maxItems": 3, "contains": one, "maxContains": 1, "minContains": 0 }),
        bits("not", json!({ "prefixItems": [one] })),
        bits(
            "oneOf",
            json!([{ "prefixItems": [one] }, { "maxItems": 2 }]),
        ),
        object("dependentRequired", json!({ "a": ["b"] })),
        object("dependentSchemas", json!({ "a": { "required": ["b"] } })),
        json!({ "$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": names, "dependencies": { "b": ["a"] } }),
        object("propertyNames", json!({ "pattern": "^[a]$" })),
        object("minProperties", json!(1)),
        object("maxProperties", json!(1)),
        object("unevaluatedProperties", json!(false)),
        json!({ "properties": names, "type": "object", "if": { "required": ["a"] }, "then": { "properties": { "a": one } }, "else": { "required": ["b"] } }),
        json!({ "type": "object", "properties": { "v": { "$ref": "#/$defs/v" } }, "required": ["v"], "$defs": { "v": { "anyOf": [{ "not": one, "type": "integer", "minimum": 0, "maximum": 1 }, { "const": 3 }] } } }),
        json!({ "type": "integer", "minimum": 9000, "maximum": 40000, "multipleOf": 9973 }),
    ] {
        let validator = jsonschema::validator_for(&schema).unwrap();
        for seed in 0..30 {
            let (text, finish) = endless(&schema, seed);
            let valid = serde_json::from_str(&text).is_ok_and(|value| validator.is_valid(&value));
            match finish {
                Finish::EndOfText => assert!(valid, "{schema}: {text}"),
                Finish::Invalid(what) => {
                    assert!(
                        !valid && what.contains("schema: /"),
                        "{schema}: {text}: {what}"
                    );
                    broken += 1;
                }
                other => panic!("{schema}: {text}: {other:?}"),
            }
            good += usize::from(valid);
        }
    }
    println!("{good} good, {broken} broken");
    assert!(good > 100 && broken > 100);
    // Whoever wants no such check says so.
    let lenient = json!({ "type": "array", "items": one, "minItems": 2, "maxItems": 2, "uniqueItems": true, "x-guidance": { "lenient": true } });
    assert_eq!(endless(&lenient, 0).1, Finish::EndOfText);
}
