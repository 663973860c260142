//! The inner loops on Arm without an Arm machine: llvm-mca's static throughput of Dram's loops beside llama.cpp's, loads from the first-level cache.
//!
//! What lies around the innermost loops is left out on both sides. LLVM has no model of Cortex-A76 but Cortex-A57's; Neoverse N1 is the same core
//! for servers. Its model of Apple's M1 is that of an older core, so that column says least.

mod assembly;

use crate::{arm, bindings, markdown, peers, sh};
use anyhow::{Context, Result, bail};
use assembly::{Function, Loop};
use clap::{Arg, Command as Cli, value_parser};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGES: &[&str] = &[
    "llvm-22",
    "clang-22",
    "gcc-aarch64-linux-gnu",
    "libc6-dev-arm64-cross",
    "libstdc++-12-dev-arm64-cross",
];

/// LLVM's name of a processor, how the table calls it, and the instruction sets it has.
const PROCESSORS: &[(&str, &str, &[&str])] = &[
    ("neoverse-n1", "Cortex-A76", &["neon", "dotprod"]),
    ("cortex-x2", "Cortex-X2", &["neon", "dotprod", "i8mm"]),
    ("apple-m1", "Apple M1", &["neon", "dotprod"]),
];

/// What llama.cpp is compiled for, by Dram's name of the instruction set.
const MARCH: &[(&str, &str)] = &[
    ("neon", "armv8-a"),
    ("dotprod", "armv8.2-a+dotprod+fp16"),
    ("i8mm", "armv8.6-a+dotprod+i8mm+fp16"),
];

/// One loop of both.
struct Row {
    name: &'static str,
    isa: &'static str,
    /// The module of the function that Dram calls there, mostly an instruction set's.
    of: &'static str,
    /// Dram's loop comes from functions whose names have these parts.
    ours: &'static [&'static str],
    theirs: &'static str,
}

const fn row(
    name: &'static str,
    isa: &'static str,
    of: &'static str,
    ours: &'static [&'static str],
    theirs: &'static str,
) -> Row {
    Row {
        name,
        isa,
        of,
        ours,
        theirs,
    }
}

const ROWS: &[Row] = &[
    row(
        "Q4_0, one token",
        "neon",
        "neon",
        &["single_parts<", "Q4_0"],
        "ggml_vec_dot_q4_0_q8_0",
    ),
    row(
        "Q8_0, one token",
        "neon",
        "neon",
        &["single_parts<", "Q8_0"],
        "ggml_vec_dot_q8_0_q8_0",
    ),
    row(
        "Q4_K, one token",
        "neon",
        "neon",
        &["superblocks<", "Q4K"],
        "ggml_vec_dot_q4_K_q8_K",
    ),
    row(
        "Q4_0, many tokens",
        "neon",
        "neon",
        &["some_tokens<", "kinds::Narrow"],
        "ggml_vec_dot_q4_0_q8_0",
    ),
    row(
        "Q8_0, many tokens",
        "neon",
        "neon",
        &["some_tokens<", "kinds::Wide"],
        "ggml_vec_dot_q8_0_q8_0",
    ),
    row(
        "Q4_K, many tokens",
        "neon",
        "neon",
        &["some_tokens<", "kinds::Minimums"],
        "ggml_vec_dot_q4_K_q8_K",
    ),
    row(
        "Q4_0, one token",
        "dotprod",
        "dotprod",
        &["one_token<", "Q4_0"],
        "ggml_gemv_q4_0_4x4_q8_0",
    ),
    row(
        "Q8_0, one token",
        "dotprod",
        "dotprod",
        &["one_token<", "Q8_0"],
        "ggml_gemv_q8_0_4x4_q8_0",
    ),
    row(
        "Q4_K, one token",
        "dotprod",
        "superblocks",
        &["one_token<", "Q4K"],
        "ggml_gemv_q4_K_8x4_q8_K",
    ),
    row(
        "Q4_0, many tokens",
        "dotprod",
        "dotprod",
        &["some_tokens<", "kinds::Narrow"],
        "ggml_gemm_q4_0_4x4_q8_0",
    ),
    row(
        "Q8_0, many tokens",
        "dotprod",
        "dotprod",
        &["some_tokens<", "kinds::Wide"],
        "ggml_gemm_q8_0_4x4_q8_0",
    ),
    row(
        "Q4_K, many tokens",
        "dotprod",
        "dotprod",
        &["some_tokens<", "kinds::Minimums"],
        "ggml_gemm_q4_K_8x4_q8_K",
    ),
    row(
        "Q4_0, one token",
        "i8mm",
        "dotprod",
        &["one_token<", "Q4_0"],
        "ggml_gemv_q4_0_4x8_q8_0",
    ),
    row(
        "Q8_0, one token",
        "i8mm",
        "dotprod",
        &["one_token<", "Q8_0"],
        "ggml_gemv_q8_0_4x8_q8_0",
    ),
    row(
        "Q4_K, one token",
        "i8mm",
        "superblocks",
        &["one_token<", "Q4K"],
        "ggml_gemv_q4_K_8x8_q8_K",
    ),
    row(
        "Q4_0, many tokens",
        "i8mm",
        "i8mm",
        &["some_tokens<", "kinds::Narrow"],
        "ggml_gemm_q4_0_4x8_q8_0",
    ),
    row(
        "Q8_0, many tokens",
        "i8mm",
        "i8mm",
        &["some_tokens<", "kinds::Wide"],
        "ggml_gemm_q8_0_4x8_q8_0",
    ),
    row(
        "Q4_K, many tokens",
        "i8mm",
        "i8mm",
        &["some_tokens<", "kinds::Minimums"],
        "ggml_gemm_q4_K_8x8_q8_K",
    ),
    row(
        "attention, scores",
        "neon",
        "neon",
        &["scores<", "score"],
        "ggml_vec_dot_f16",
    ),
    row(
        "attention, mix",
        "neon",
        "neon",
        &["mix<", "mix_tile<"],
        "mad",
    ),
    row(
        "attention, scores",
        "dotprod",
        "dotprod",
        &["scores<", "score"],
        "ggml_vec_dot_f16",
    ),
    row(
        "attention, mix",
        "dotprod",
        "dotprod",
        &["mix<", "mix_tile<"],
        "mad",
    ),
];

/// llama.cpp's function for attention's sums is inline; this makes one of it.
const MAD: &str = "#include \"vec.h\"\nextern \"C\" void mad(int n, float * y, const ggml_fp16_t * x, float v) { ggml_vec_mad_f16(n, (ggml_fp16_t *) y, x, v); }\n";

/// Compiles both, finds the loops, and writes the table.
pub(crate) fn run(rest: &[String]) -> Result<()> {
    let path = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_parser(value_parser!(PathBuf))
            .help(help)
    };
    let matches = Cli::new("mca")
        .no_binary_name(true)
        .arg(path(
            "llama-cpp",
            "llama.cpp's source [default: the one in the sdist that `peers` takes]",
        ))
        .arg(path(
            "out",
            "A Markdown file: the table goes between its comments there",
        ))
        .try_get_matches_from(rest)?;
    sh::apt_install(PACKAGES)?;
    let source = matches.get_one::<PathBuf>("llama-cpp").cloned();
    let source = source.map_or_else(peers::llama_source, Ok)?;
    let folder = bindings::target_dir().join("mca");
    std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;

    let ours = ours(&folder)?;
    let theirs: Vec<(&str, Vec<Function>)> = MARCH
        .iter()
        .map(|&(isa, march)| Ok((isa, theirs(&folder, &source.join("ggml"), march)?)))
        .collect::<Result<_>>()?;
    let mut table = String::from("| loop | instructions |");
    for processor in PROCESSORS {
        let _ = write!(table, " {}: Dram | llama.cpp | ratio |", processor.1);
    }
    let _ = writeln!(
        table,
        "\n| --- | --- |{}",
        " ---: | ---: | ---: |".repeat(PROCESSORS.len())
    );
    for row in ROWS {
        let line =
            line(row, &ours, &theirs).with_context(|| format!("{}, {}", row.name, row.isa))?;
        println!("{line}");
        let _ = writeln!(table, "{line}");
    }
    println!("\n{table}");
    match matches.get_one::<PathBuf>("out") {
        Some(out) => markdown::put(out, "mca", &table),
        None => Ok(()),
    }
}

/// A row of the table: cycles for 1,000 multiply-adds.
fn line(row: &Row, ours: &[Function], theirs: &[(&str, Vec<Function>)]) -> Result<String> {
    let of = format!("aarch64::{}::", row.of);
    let mine = ours.iter().filter(|function| function.name.contains(&of));
    let mine = mine.flat_map(|function| &function.loops).filter(|one| {
        let known = |part: &&str| one.frames.iter().any(|frame| frame.contains(*part));
        row.ours.iter().all(known)
    });
    let mine = assembly::widest(mine).context("Dram has no such loop: were functions renamed?")?;
    let compiled = theirs.iter().find(|(isa, _)| *isa == row.isa);
    let compiled = compiled.into_iter().flat_map(|(_, functions)| functions);
    let other = compiled.filter(|function| function.name.starts_with(row.theirs));
    let other = other.flat_map(|function| &function.loops);
    let other =
        assembly::widest(other).with_context(|| format!("llama.cpp has no {}", row.theirs))?;
    let mut line = format!("| {} | {} |", row.name, row.isa);
    for (processor, _, sets) in PROCESSORS {
        if sets.contains(&row.isa) {
            let (mine, other) = (cycles(mine, processor)?, cycles(other, processor)?);
            let _ = write!(line, " {mine:.0} | {other:.0} | {:.2} |", other / mine);
        } else {
            line.push_str(" – | – | – |");
        }
    }
    Ok(line)
}

/// Cycles for 1,000 multiply-adds on a processor.
fn cycles(one: &Loop, processor: &str) -> Result<f64> {
    const ITERATIONS: usize = 200;
    let output = assembly::pipe(
        Command::new(assembly::tool("llvm-mca"))
            .args(["-mtriple=aarch64", "-mattr=+dotprod,+i8mm,+fullfp16"])
            .args([
                format!("-mcpu={processor}"),
                format!("--iterations={ITERATIONS}"),
            ])
            .args(["--instruction-info=0", "--resource-pressure=0"]),
        &one.text(),
    )?;
    let total = output
        .lines()
        .find_map(|line| line.strip_prefix("Total Cycles:"));
    let total = total.and_then(|total| total.trim().parse::<f64>().ok());
    let total = total.with_context(|| format!("llvm-mca says no cycles of\n{}", one.text()))?;
    Ok(total / ITERATIONS as f64 * 1000.0 / one.multiply_adds as f64)
}

/// The loops of core's kernels, compiled as an app's library is: in one unit.
fn ours(folder: &Path) -> Result<Vec<Function>> {
    let object = folder.join("dram_core.o");
    let linked = folder.join("dram_core.so");
    let mut build = arm::cargo(&["rustc", "--release", "--package", "dram-core", "--lib"])?;
    build.args([
        "--target",
        arm::TARGET,
        "--",
        "-Csymbol-mangling-version=v0",
        "-Ccodegen-units=1",
    ]);
    sh::run(build.arg(format!("--emit=link,obj={}", object.display())))?;
    // Gives every function an address of its own.
    sh::run(
        Command::new("aarch64-linux-gnu-ld")
            .args([
                "-shared",
                "-znotext",
                "--unresolved-symbols=ignore-all",
                "-o",
            ])
            .arg(&linked)
            .arg(&object),
    )?;
    assembly::functions(&linked, |name| name.contains("kernels::aarch64::"), true)
}

/// The loops of llama.cpp's, compiled for `march` as its own build does.
fn theirs(folder: &Path, ggml: &Path, march: &str) -> Result<Vec<Function>> {
    let mad = folder.join("mad.cpp");
    std::fs::write(&mad, MAD).with_context(|| format!("{}", mad.display()))?;
    let cpu = ggml.join("src/ggml-cpu");
    let mut all = Vec::new();
    for source in [
        cpu.join("arch/arm/quants.c"),
        cpu.join("arch/arm/repack.cpp"),
        cpu.join("vec.cpp"),
        mad,
    ] {
        if !source.is_file() {
            bail!(
                "{} is no source of llama.cpp: there is no {}",
                ggml.display(),
                source.display()
            );
        }
        let object = folder.join("theirs.o");
        sh::run(
            Command::new(assembly::tool("clang"))
                .args([
                    "--target=aarch64-linux-gnu",
                    "-O3",
                    "-DNDEBUG",
                    "-D_GNU_SOURCE",
                    "-c",
                ])
                .arg(format!("-march={march}"))
                .arg("-I")
                .arg(ggml.join("include"))
                .arg("-I")
                .arg(ggml.join("src"))
                .arg("-I")
                .arg(&cpu)
                .arg(&source)
                .arg("-o")
                .arg(&object),
        )?;
        all.extend(assembly::functions(&object, |_| true, false)?);
    }
    Ok(all)
}
