//! Dependency licences and bans of deny.toml, checked against `cargo metadata`.

use crate::sh;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;

/// Fails with every dependency whose licence is not allowed, that is banned, or that does not come from the registry.
pub(crate) fn run(_: &[String]) -> Result<()> {
    let deny: toml::Table = std::fs::read_to_string(sh::root().join("deny.toml"))?
        .parse()
        .context("deny.toml")?;
    let list = |section: &str, key: &str| {
        let values = deny
            .get(section)
            .and_then(|s| s.get(key))
            .and_then(|v| v.as_array());
        values.with_context(|| format!("deny.toml: [{section}] {key} must be a list"))
    };
    let allow: Vec<&str> = list("licenses", "allow")?
        .iter()
        .filter_map(|v| v.as_str())
        .collect();
    let banned: Vec<&str> = list("bans", "deny")?
        .iter()
        .filter_map(|v| v.get("crate")?.as_str())
        .collect();

    let out = sh::cargo(&["metadata", "--format-version", "1", "--locked"])
        .output()
        .context("cargo metadata")?;
    if !out.status.success() {
        bail!(
            "cargo metadata --locked failed: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata: no packages")?;

    let mut counts = BTreeMap::<&str, usize>::new();
    let mut wrong = Vec::new();
    for package in packages {
        let field = |key: &str| package[key].as_str().unwrap_or_default();
        let (name, version, licence, source) = (
            field("name"),
            field("version"),
            field("license"),
            field("source"),
        );
        *counts.entry(licence).or_default() += 1;
        if !permitted(licence, &allow) {
            wrong.push(format!(
                "{name} {version}: licence {licence:?} is not on deny.toml's list"
            ));
        }
        if banned.contains(&name) {
            wrong.push(format!("{name} {version}: banned by deny.toml"));
        }
        if !(source.is_empty() || source.starts_with("registry+") || source.starts_with("sparse+"))
        {
            wrong.push(format!(
                "{name} {version}: comes from {source}, not from the registry"
            ));
        }
    }
    for (licence, count) in counts {
        println!("{count:>4}  {licence}");
    }
    if !wrong.is_empty() {
        bail!(
            "{} of {} packages:\n  {}",
            wrong.len(),
            packages.len(),
            wrong.join("\n  ")
        );
    }
    println!("{} packages, every licence allowed", packages.len());
    Ok(())
}

/// Whether an SPDX expression can be satisfied by the allowed licences. `/` is the old spelling of OR; AND binds
/// tighter than OR.
fn permitted(expression: &str, allow: &[&str]) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    either(&words, &mut at, allow) && at == words.len()
}

fn either(words: &[&str], at: &mut usize, allow: &[&str]) -> bool {
    let mut ok = both(words, at, allow);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        ok |= both(words, at, allow);
    }
    ok
}

fn both(words: &[&str], at: &mut usize, allow: &[&str]) -> bool {
    let mut ok = one(words, at, allow);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        ok &= one(words, at, allow);
    }
    ok
}

fn one(words: &[&str], at: &mut usize, allow: &[&str]) -> bool {
    let Some(&word) = words.get(*at) else {
        return false;
    };
    *at += 1;
    if word == "(" {
        let ok = either(words, at, allow);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return ok && closed;
    }
    if words.get(*at) == Some(&"WITH") {
        let exception = words.get(*at + 1).copied().unwrap_or_default();
        *at += 2;
        return allow.contains(&format!("{word} WITH {exception}").as_str());
    }
    allow.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::permitted;

    #[test]
    fn expressions() {
        let allow = ["MIT", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"];
        for (expression, expected) in [
            ("MIT", true),
            ("MIT/Apache-2.0", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0 AND MIT", false),
            ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
            ("MIT AND (GPL-3.0 OR Unicode-3.0", false),
            ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true),
            ("Apache-2.0", false),
            ("", false),
        ] {
            assert_eq!(permitted(expression, &allow), expected, "{expression}");
        }
    }
}
