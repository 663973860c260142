//! How large the library is that an app ships: built as for a phone, for this machine, with each optional feature and with all, against docs/size.md.

use crate::{bindings, sh};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fs;

const DOCUMENT: &str = "docs/size.md";
/// Bytes that the library may have with its default features, and with every feature.
const MAX_DEFAULT: u64 = 4_000_000;
const MAX_WITH_ALL: u64 = 8_000_000;
/// How far a figure of the document may be off.
const TOLERANCE: f64 = 0.03;
/// Features of dram-ffi that are a tool's, not the library's.
const TOOLS: &[&str] = &["default", "bindgen"];

/// A class of Hugging Face's, of which an app's library knows nothing.
const TOOLS_WORD: &[u8] = b"LlamaForCausalLM";

/// Builds, prints the document's table as it should be, and fails where a size is too large or a figure of the document is not true.
pub(crate) fn run(_: &[String]) -> Result<()> {
    let manifest: toml::Table = fs::read_to_string(sh::root().join("ffi/Cargo.toml"))?
        .parse()
        .context("ffi/Cargo.toml")?;
    let features: Vec<String> = manifest["features"]
        .as_table()
        .context("ffi/Cargo.toml: [features] must be a table")?
        .keys()
        .filter(|name| !TOOLS.contains(&name.as_str()))
        .cloned()
        .collect();
    let mut rows = vec![("default".to_owned(), build("")?)];
    for feature in &features {
        rows.push((feature.clone(), build(feature)?));
    }
    if features.len() > 1 {
        let all = features.join(",");
        rows.push((all.clone(), build(&all)?));
    }

    let documented = documented(&fs::read_to_string(sh::root().join(DOCUMENT))?);
    let mut wrong = Vec::new();
    println!("\n| features | bytes |\n| --- | ---: |");
    for (index, (name, bytes)) in rows.iter().enumerate() {
        println!("| {name} | {} |", grouped(*bytes));
        let most = if index == 0 {
            MAX_DEFAULT
        } else {
            MAX_WITH_ALL
        };
        if *bytes > most {
            wrong.push(format!("{name}: expected at most {most} bytes"));
        }
        match documented.get(name) {
            Some(figure) if (*figure as f64 / *bytes as f64 - 1.0).abs() <= TOLERANCE => {}
            Some(figure) => wrong.push(format!("{DOCUMENT} has {figure} for {name}")),
            None => wrong.push(format!("{DOCUMENT} has no row for {name}")),
        }
    }
    if !wrong.is_empty() {
        bail!("{}: the table above is what was built", wrong.join("; "));
    }
    Ok(())
}

/// Bytes of the stripped library with these features, separated by commas.
fn build(features: &str) -> Result<u64> {
    let mut command = sh::cargo(&[
        "rustc",
        "--package",
        "dram-ffi",
        "--lib",
        "--crate-type",
        "cdylib",
        "--profile",
        "mobile",
    ]);
    if !features.is_empty() {
        command.args(["--features", features]);
    }
    sh::run(&mut command)?;
    let library = bindings::target_dir()
        .join("mobile")
        .join(bindings::LIBRARY);
    let bytes = fs::read(&library).with_context(|| library.display().to_string())?;
    ensure!(!bytes.is_empty(), "{} is empty", library.display());
    let tools = bytes.windows(TOOLS_WORD.len()).any(|w| w == TOOLS_WORD);
    ensure!(
        !tools,
        "{}: it holds what only tools need: core's feature `folders`",
        library.display()
    );
    Ok(bytes.len() as u64)
}

/// The rows `| features | bytes |` of the document.
fn documented(text: &str) -> BTreeMap<String, u64> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let name = cells.next()?.to_owned();
        let bytes = cells.next()?.replace(',', "").parse().ok()?;
        Some((name, bytes))
    };
    text.lines().filter_map(row).collect()
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut out = digits[..first].to_owned();
    for at in (first..digits.len()).step_by(3) {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(&digits[at..at + 3]);
    }
    out
}
