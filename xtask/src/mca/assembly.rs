//! Innermost loops in compiled code, by LLVM's tools.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A function's innermost loops that multiply and add.
pub(super) struct Function {
    pub(super) name: String,
    pub(super) loops: Vec<Loop>,
}

/// One of them.
pub(super) struct Loop {
    /// Instructions, the branch back among them
    instructions: Vec<String>,
    /// Where one of its multiplications lies.
    address: u64,
    /// In one round; of int8 where there are any, else of floats.
    pub(super) multiply_adds: usize,
    /// The functions that were inlined to where the multiplication stands, if asked for
    pub(super) frames: Vec<String>,
}

/// A program of LLVM 22.
pub(super) fn tool(name: &str) -> PathBuf {
    Path::new("/usr/lib/llvm-22/bin").join(name)
}

/// The loop that does most in one round; of several the shortest.
pub(super) fn widest<'a>(loops: impl Iterator<Item = &'a Loop>) -> Option<&'a Loop> {
    loops.max_by_key(|one| (one.multiply_adds, std::cmp::Reverse(one.instructions.len())))
}

/// The functions in `object` whose names `wanted` takes; with the inlined functions' names if `inlined`.
pub(super) fn functions(
    object: &Path,
    wanted: impl Fn(&str) -> bool,
    inlined: bool,
) -> Result<Vec<Function>> {
    let text = pipe(
        Command::new(tool("llvm-objdump"))
            .args(["--disassemble", "--demangle", "--no-show-raw-insn"])
            .arg(object),
        "",
    )?;
    let mut all = Vec::new();
    let mut current: Option<(String, Vec<(u64, String)>)> = None;
    for line in text.lines() {
        if let Some(name) = line.strip_suffix(">:") {
            let name = name.split_once('<').map_or(name, |(_, name)| name);
            all.extend(current.replace((name.to_owned(), Vec::new())));
        } else if let (Some((_, code)), Some((address, instruction))) =
            (&mut current, line.split_once(':'))
            && let Ok(address) = u64::from_str_radix(address.trim(), 16)
        {
            let instruction = instruction.split(" // ").next().unwrap_or_default();
            let instruction = instruction.split('<').next().unwrap_or_default();
            code.push((address, instruction.trim().to_owned()));
        }
    }
    all.extend(current);
    let found = all.into_iter().filter(|(name, _)| wanted(name));
    let mut found: Vec<Function> = found
        .map(|(name, code)| Function {
            name,
            loops: innermost(&code),
        })
        .collect();
    if inlined {
        let loops = found.iter_mut().flat_map(|function| &mut function.loops);
        name_frames(object, &mut loops.collect::<Vec<_>>())?;
    }
    Ok(found)
}

/// Loops that have no loop inside, and multiply.
fn innermost(code: &[(u64, String)]) -> Vec<Loop> {
    let index = |address: u64| code.binary_search_by_key(&address, |line| line.0).ok();
    let mut ends = BTreeMap::new(); // of each loop, by its first instruction
    for (at, (_, instruction)) in code.iter().enumerate() {
        if let Some(first) = target(instruction)
            .and_then(index)
            .filter(|&first| first <= at)
        {
            ends.insert(first, at);
        }
    }
    let inside = |first: usize, last: usize| {
        let mut others = ends.range(first + 1..last + 1);
        others.any(|(_, &other)| other <= last)
    };
    let loops = ends.iter().filter(|&(&first, &last)| !inside(first, last));
    loops
        .filter_map(|(&first, &last)| {
            let body = &code[first..=last];
            let sum = |floats| body.iter().map(|line| multiply_adds(&line.1, floats)).sum();
            let (whole, float): (usize, usize) = (sum(false), sum(true));
            let floats = whole == 0;
            let line = body
                .iter()
                .find(|line| multiply_adds(&line.1, floats) > 0)?;
            Some(Loop {
                instructions: body.iter().map(|line| line.1.clone()).collect(),
                address: line.0,
                multiply_adds: if floats { float } else { whole },
                frames: Vec::new(),
            })
        })
        .collect()
}

/// Where a branch goes.
fn target(instruction: &str) -> Option<u64> {
    let (name, operands) = instruction.split_once(char::is_whitespace)?;
    let branches = ["b", "cbz", "cbnz", "tbz", "tbnz"];
    if !branches.contains(&name) && !name.starts_with("b.") {
        return None;
    }
    let last = operands.split([',', ' ']).next_back()?;
    u64::from_str_radix(last.strip_prefix("0x")?, 16).ok()
}

/// How many multiply-adds an instruction is: of int8, or of floats.
fn multiply_adds(instruction: &str, floats: bool) -> usize {
    let (name, operands) = instruction
        .split_once(char::is_whitespace)
        .unwrap_or_default();
    let form = operands
        .trim_start()
        .split([',', '['])
        .next()
        .unwrap_or_default();
    let form = form.split_once('.').map_or("", |(_, form)| form);
    match (name, form, floats) {
        ("sdot" | "udot" | "usdot", "4s", false) => 16,
        ("sdot" | "udot" | "usdot", "2s", false) => 8,
        ("smmla" | "ummla" | "usmmla", _, false) => 32,
        ("smull" | "smull2" | "smlal" | "smlal2" | "umull" | "umull2", "8h", false) => 8,
        ("fmla", "8h", true) => 8,
        ("fmla", "4s", true) => 4,
        _ => 0,
    }
}

impl Loop {
    /// Assembly that llvm-mca reads; all branches lead to its beginning.
    pub(super) fn text(&self) -> String {
        let mut text = String::from("again:\n");
        for instruction in &self.instructions {
            let far = instruction.starts_with("adr") || target(instruction).is_some();
            let line = match instruction.rsplit_once("0x") {
                Some((before, _)) if far => format!("{before}again"),
                _ => instruction.clone(),
            };
            text += &format!("\t{line}\n");
        }
        text
    }
}

/// Asks for the functions that were inlined to each loop's multiplication.
fn name_frames(object: &Path, loops: &mut [&mut Loop]) -> Result<()> {
    let mut command = Command::new(tool("llvm-symbolizer"));
    command.args(["--inlines", "--output-style=JSON"]);
    command.arg(format!("--obj={}", object.display()));
    let addresses = loops.iter().map(|one| format!("{:#x}\n", one.address));
    let answer = pipe(&mut command, &addresses.collect::<String>())?;
    let mut known: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in answer.lines() {
        let value: Value = serde_json::from_str(line).context("llvm-symbolizer")?;
        let frames = value["Symbol"].as_array().into_iter().flatten();
        let names = frames.filter_map(|frame| frame["FunctionName"].as_str());
        let address = value["Address"].as_str().unwrap_or_default().to_owned();
        known.insert(address, names.map(str::to_owned).collect());
    }
    for one in loops {
        let frames = known.remove(&format!("{:#x}", one.address));
        one.frames = frames.with_context(|| format!("no frames at {:#x}", one.address))?;
    }
    Ok(())
}

/// Runs it with `input` and returns what it prints.
pub(super) fn pipe(command: &mut Command, input: &str) -> Result<String> {
    let name = command.get_program().display().to_string();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start {name}"))?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let output = std::thread::scope(|scope| {
        // Beside the reading, or both would wait when much is written.
        let write = scope.spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output();
        (write.join(), output)
    });
    let output = output.1?;
    if !output.status.success() {
        bail!("{name}: {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
