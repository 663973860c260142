//! The house rules of the source: which of core's rooms may use which, and how long a file may be.

use crate::sh;
use anyhow::{Context, Result, ensure};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// core's rooms, from the ground up: each uses only rooms above it in this list.
const ROOMS: &[&str] = &[
    "error",
    "cancel",
    "hash",
    "stack",
    "files",
    "prefetch",
    "quant",
    "gguf",
    "threads",
    "kernels",
    "tokenizer",
    "model",
    "state",
    "decoder",
    "cpu",
    "sampling",
    "constraint",
    "tools",
    "chat",
    "request",
    "prompt",
    "output",
    "session",
    "encoder",
    "latency",
    "limits",
];

/// Lines that a file may have before its tests.
const MAX_LINES: usize = 400;

/// Longer files, and why.
const LONG: &[(&str, &str)] = &[
    (
        "core/src/constraint/check.rs",
        "one arm for each keyword of JSON Schema",
    ),
    (
        "core/src/constraint/schema/mod.rs",
        "one arm for each kind of schema",
    ),
    ("core/src/kernels/unpack.rs", "one function for each format"),
    (
        "core/src/session/generate.rs",
        "the loop of an answer, step by step",
    ),
    (
        "core/src/session/mod.rs",
        "a session's interface, mostly its documentation",
    ),
    (
        "core/src/tokenizer/mod.rs",
        "a tokenizer's interface, mostly its documentation",
    ),
    (
        "core/src/tokenizer/pattern.rs",
        "a small engine of regular expressions",
    ),
    (
        "core/src/threads/mod.rs",
        "the pool, whose steps are checked together by loom",
    ),
    ("train/src/tasks/actions/values.rs", "a table of values"),
    (
        "train/src/student/ops/attention.rs",
        "forward and backward pass, side by side",
    ),
    (
        "train/src/teacher/families.rs",
        "a table, one row for each family",
    ),
];

/// Checks both rules.
pub(crate) fn check() -> Result<()> {
    let root = sh::root();
    let mut wrong = Vec::new();
    let core = root.join("core/src");
    let names = reexports(&fs::read_to_string(core.join("lib.rs"))?);
    for path in sources(&core)? {
        let inside = path.strip_prefix(&core)?;
        let first = inside.components().next().context("a file has a name")?;
        let room = Path::new(first.as_os_str()).with_extension("");
        let room = room.to_str().context("names are UTF-8")?.to_owned();
        if room == "lib" {
            continue;
        }
        let Some(own) = ROOMS.iter().position(|known| *known == room) else {
            wrong.push(format!(
                "core/src/{room}: not in xtask/src/rooms.rs: say there what it may use"
            ));
            continue;
        };
        for name in used(&before_tests(&fs::read_to_string(&path)?)) {
            let other = names.get(&name).unwrap_or(&name);
            match ROOMS.iter().position(|known| known == other) {
                Some(other) if other > own => wrong.push(format!(
                    "{}: `{room}` uses `{}`, which stands on it",
                    inside.display(),
                    ROOMS[other]
                )),
                _ => {}
            }
        }
    }
    for folder in [
        "core", "files", "train", "ffi", "cli", "bench", "xtask", "fuzz",
    ] {
        for path in sources(&root.join(folder).join("src")).unwrap_or_default() {
            let name = path.strip_prefix(&root)?.to_string_lossy().into_owned();
            let is_test = name.ends_with("tests.rs") || name.contains("/tests/");
            let lines = before_tests(&fs::read_to_string(&path)?).lines().count();
            let known = LONG.iter().any(|(long, _)| *long == name);
            if lines > MAX_LINES && !known && !is_test {
                wrong.push(format!(
                    "{name}: {lines} lines before its tests; expected at most {MAX_LINES}, or a reason in xtask/src/rooms.rs"
                ));
            }
            if lines <= MAX_LINES && known {
                wrong.push(format!(
                    "{name}: {lines} lines: no longer long, take it off the list"
                ));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!(
        "rooms: {} of core's, files of at most {MAX_LINES} lines but {}",
        ROOMS.len(),
        LONG.len()
    );
    Ok(())
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(sources(&path)?);
        } else if path.extension().is_some_and(|end| end == "rs") {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

/// The source up to its tests, without comments.
fn before_tests(source: &str) -> String {
    let source = source.split("#[cfg(test)]\nmod tests {").next();
    let code = source
        .unwrap_or_default()
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    code.fold(String::new(), |all, line| all + line + "\n")
}

/// Which room each name of lib.rs comes from.
fn reexports(lib: &str) -> HashMap<String, String> {
    let mut names = HashMap::new();
    for line in before_tests(lib).replace('\n', " ").split(';') {
        let Some((_, path)) = line.split_once("pub use ") else {
            continue;
        };
        let (room, items) = path.split_once("::").unwrap_or((path, ""));
        for item in items
            .split([',', '{', '}', ' '])
            .filter(|item| !item.is_empty())
        {
            names.insert(item.to_owned(), room.to_owned());
        }
    }
    names
}

/// What stands right after `crate::`.
fn used(code: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (at, marker) in code.match_indices("crate::") {
        let rest = &code[at + marker.len()..];
        if !rest.starts_with('{') {
            all.push(name(rest));
            continue;
        }
        let (mut depth, mut begins) = (0, false);
        for (at, c) in rest.char_indices() {
            match c {
                '{' => (depth, begins) = (depth + 1, depth == 0),
                '}' => depth -= 1,
                ',' if depth == 1 => begins = true,
                c if begins && !c.is_whitespace() => {
                    all.push(name(&rest[at..]));
                    begins = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    all
}

fn name(text: &str) -> String {
    let is_part = |c: &char| c.is_alphanumeric() || *c == '_';
    text.chars().take_while(is_part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_found_in_groups_and_paths() {
        let code = "use crate::{Error, gguf::{self, File},\n    model};\nlet x = crate::hash::of(1); // crate::no";
        let found = used(&before_tests(code));
        assert_eq!(found, ["Error", "gguf", "model", "hash"]);
        let names = reexports("pub use error::{Error, Result};\npub use tokenizer::Tokenizer;");
        assert_eq!(names["Result"], "error");
        assert_eq!(names["Tokenizer"], "tokenizer");
    }
}
