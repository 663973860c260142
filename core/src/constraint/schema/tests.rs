//! What the engine is given.

use super::plan;
use serde_json::{Value, json};

fn planned(schema: Value) -> Value {
    let mut planned = plan(&schema)
        .unwrap_or_else(|error| panic!("{schema}: {error}"))
        .schema;
    let map = planned.as_object_mut().unwrap();
    map.remove("x-guidance");
    map.remove("$defs");
    planned
}

#[test]
fn what_has_no_bound_gets_one() {
    let any = json!({ "$ref": "#/$defs/any8" });
    let most = 1e18;
    for (schema, expected) in [
        (
            json!({ "type": "string" }),
            json!({ "type": ["string"], "maxLength": 4096 }),
        ),
        (
            json!({ "type": "string", "minLength": 5000 }),
            json!({ "type": ["string"], "minLength": 5000, "maxLength": 5000 }),
        ),
        (
            json!({ "type": "string", "maxLength": 7 }),
            json!({ "type": ["string"], "maxLength": 7 }),
        ),
        (
            json!({ "type": "integer" }),
            json!({ "type": ["integer"], "minimum": -most, "maximum": most }),
        ),
        (
            json!({ "type": "integer", "minimum": 3 }),
            json!({ "type": ["integer"], "minimum": 3, "maximum": most }),
        ),
        (
            json!({ "type": "number" }),
            json!({ "type": ["number"], "minimum": -most, "maximum": most, "multipleOf": 1e-8 }),
        ),
        (
            json!({ "type": "number", "multipleOf": 0.5, "minimum": 0 }),
            json!({ "type": ["number"], "minimum": 0.0, "multipleOf": 0.5, "maximum": most }),
        ),
        (
            json!({ "type": "array", "prefixItems": [{ "type": "string" }], "items": false }),
            json!({ "type": ["array"], "prefixItems": [{ "type": ["string"], "maxLength": 4096 }], "items": false, "maxItems": 1024 }),
        ),
        (
            json!({ "type": "array" }),
            json!({ "type": ["array"], "maxItems": 1024, "items": any }),
        ),
        (json!({}), any.clone()),
        (json!({ "title": "anything" }), any.clone()),
        (json!({ "enum": [1, "a"] }), json!({ "enum": [1, "a"] })),
        (
            json!({ "type": "object" }),
            json!({ "type": ["object"], "patternProperties": { "^(?s:.{0,128})$": any }, "additionalProperties": false, "maxProperties": 1024 }),
        ),
    ] {
        assert_eq!(planned(schema.clone()), expected, "{schema}");
    }
    for options in [
        json!({}),
        json!({ "whitespace_flexible": true }),
        json!({ "whitespace_pattern": "[ \\n]*" }),
    ] {
        let schema = plan(&json!({ "type": "null", "x-guidance": options }))
            .unwrap()
            .schema;
        let pattern = schema["x-guidance"]["whitespace_pattern"].as_str().unwrap();
        assert!(
            pattern.contains("{0,40}") && !pattern.contains('*'),
            "{pattern}"
        );
    }
}

#[test]
fn objects_are_closed_around_all_of_their_parts() {
    let names = |schema: &Value| -> Vec<String> {
        let mut names: Vec<String> = schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        names.sort();
        names
    };
    let closed = planned(
        json!({ "type": "object", "properties": { "a": { "type": "null" } }, "required": ["b"] }),
    );
    assert_eq!(
        (&closed["additionalProperties"], names(&closed)),
        (&json!(false), vec!["a".into(), "b".into()])
    );
    // Parts stay open, the whole is closed.
    let parts = planned(json!({
        "allOf": [{ "$ref": "#/$defs/base" }, { "properties": { "b": { "type": "null" } } }],
        "$defs": { "base": { "type": "object", "properties": { "a": { "type": "null" } } } },
    }));
    assert_eq!(
        (&parts["additionalProperties"], names(&parts)),
        (&json!(false), vec!["a".into(), "b".into()])
    );
    assert_eq!(parts["allOf"][1].get("additionalProperties"), None);
    // Each choice is closed around its own.
    let choice = planned(
        json!({ "type": "object", "properties": { "a": true }, "anyOf": [{ "properties": { "b": true } }, { "required": ["a"] }] }),
    );
    assert_eq!(choice.get("additionalProperties"), None);
    assert_eq!(
        (names(&choice["anyOf"][0]), names(&choice["anyOf"][1])),
        (vec!["a".into(), "b".into()], vec!["a".into()])
    );
    // Whoever says otherwise is believed.
    let open = planned(
        json!({ "type": "object", "properties": { "a": true }, "additionalProperties": { "type": "null" } }),
    );
    assert_eq!(open["additionalProperties"], json!({ "type": ["null"] }));
    let open = planned(
        json!({ "allOf": [{ "properties": { "a": true }, "additionalProperties": true }] }),
    );
    assert_eq!(open.get("additionalProperties"), None);
    // What only a condition speaks of is possible.
    let condition = planned(
        json!({ "properties": { "a": true }, "if": { "required": ["a"] }, "then": { "properties": { "b": { "type": "null" } } } }),
    );
    assert_eq!(
        condition["properties"]["b"],
        json!({ "anyOf": [{ "type": ["null"] }] })
    );
}

#[test]
fn errors_name_the_place() {
    for (schema, part) in [
        (
            json!({ "properties": { "a/b": { "type": "odd" } } }),
            "/properties/a~1b/type: expected one or a list of null",
        ),
        (
            json!({ "type": "integer", "minimum": 1e300 }),
            "/minimum: expected at most 9.22",
        ),
        (
            json!({ "type": "integer", "exclusiveMinimum": i64::MAX }),
            "/exclusiveMinimum: expected at most",
        ),
        (
            json!({ "type": "number", "maximum": -1e300 }),
            "/maximum: expected at least",
        ),
        (
            json!({ "items": { "type": "integer", "minimum": (1i64 << 53) + 1, "maximum": (1i64 << 53) + 3 } }),
            "/items: expected bounds",
        ),
        (
            json!({ "const": [(1i64 << 53) + 1] }),
            "/const/0: expected a whole number of at most 53 bits",
        ),
        (
            json!({ "multipleOf": 0 }),
            "/multipleOf: expected a number above 0",
        ),
        (json!({ "$ref": "#" }), "it refers to itself"),
        (
            json!({ "$ref": "#/$defs/none" }),
            "/$ref: expected the place of a part",
        ),
        (
            json!({ "allOf": [{ "$ref": "https://example.com/a" }] }),
            "/allOf/0/$ref: expected a reference within",
        ),
        (json!({ "$dynamicRef": "#a" }), "got $dynamicRef"),
        (json!({ "items": { "maxLength": -1 } }), "/items/maxLength"),
        (
            json!({ "required": "a" }),
            "/required: expected a list of names",
        ),
        (
            json!({ "properties": { "a": { "pattern": "[a" } } }),
            "/properties/a/pattern: regex parse error",
        ),
        (json!([1]), "expected an object"),
    ] {
        let error = plan(&schema)
            .err()
            .unwrap_or_else(|| panic!("{schema}: no error"));
        assert!(error.contains(part), "{schema}: {error}");
    }
    // References by anchors, escapes, and in circles through values.
    for schema in [
        json!({ "$ref": "#here", "$defs": { "a": { "$anchor": "here", "type": "null" } } }),
        json!({ "$ref": "#/$defs/a~1b%20c", "$defs": { "a/b c": { "type": "null" } } }),
        json!({ "type": "object", "properties": { "child": { "$ref": "#" } } }),
    ] {
        assert!(plan(&schema).is_ok(), "{schema}");
    }
}
