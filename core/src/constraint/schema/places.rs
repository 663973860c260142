//! Places in a schema: references and pointers.

use serde_json::Value;

/// The part of a schema that a reference names, and its place as a pointer.
pub(in crate::constraint) fn resolve<'a>(
    root: &'a Value,
    reference: &str,
) -> Option<(&'a Value, String)> {
    let own = root
        .get("$id")
        .or_else(|| root.get("id"))
        .and_then(Value::as_str);
    let local = own.and_then(|own| reference.strip_prefix(own.trim_end_matches('#')));
    let fragment = local.unwrap_or(reference);
    if fragment.is_empty() || fragment == "#" || fragment == "#/" {
        return Some((root, String::new()));
    }
    let fragment = decoded(fragment.strip_prefix('#')?);
    if fragment.starts_with('/') {
        return Some((root.pointer(&fragment)?, fragment));
    }
    anchor(root, &fragment, String::new())
}

/// The part with this `$anchor`.
fn anchor<'a>(part: &'a Value, name: &str, path: String) -> Option<(&'a Value, String)> {
    if part.get("$anchor").and_then(Value::as_str) == Some(name) {
        return Some((part, path));
    }
    let inner = |(key, part): (String, &'a Value)| anchor(part, name, at(&path, &key));
    match part {
        Value::Object(map) => map
            .iter()
            .map(|(key, part)| (key.clone(), part))
            .find_map(inner),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .map(|(i, part)| (i.to_string(), part))
            .find_map(inner),
        _ => None,
    }
}

/// `%41` as `A`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match hex.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) if *first == b'%' => (bytes.push(byte), rest = &after[2..]),
            _ => (bytes.push(*first), rest = after),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The pointer to `key` of what stands at `path`.
pub(in crate::constraint) fn at(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// A pointer as a person reads it.
pub(in crate::constraint) fn place(path: &str) -> &str {
    if path.is_empty() { "the schema" } else { path }
}

pub(super) fn wrong(path: &str, expected: &str, got: &Value) -> String {
    let got: String = got.to_string().chars().take(80).collect();
    format!("{}: expected {expected}, got {got}", place(path))
}
