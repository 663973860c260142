//! Everything that must hold before a change lands.

use crate::{Leg, rooms, sh};
use anyhow::{Result, bail};
use std::time::Instant;

/// Runs the legs of CI, or only those named, and ends with one table of times. Later legs run although an earlier
/// one failed, so that one run tells everything.
pub(crate) fn run(legs: &[Leg], only: &[String]) -> Result<()> {
    if let Some(unknown) = only
        .iter()
        .find(|name| legs.iter().all(|leg| leg.name != name.as_str()))
    {
        let known: Vec<_> = legs.iter().map(|leg| leg.name).collect();
        bail!("no leg is called {unknown:?}; there are {known:?}");
    }
    let chosen = legs.iter().filter(|leg| {
        if only.is_empty() {
            leg.in_ci
        } else {
            only.iter().any(|o| o == leg.name)
        }
    });
    let mut table = Vec::new();
    for leg in chosen {
        println!("\n=== {}: {}", leg.name, leg.about);
        let start = Instant::now();
        let result = (leg.run)(&[]);
        let seconds = start.elapsed().as_secs_f64();
        match &result {
            Ok(()) => println!("=== {} passed in {seconds:.0} s", leg.name),
            Err(error) => println!("=== {} FAILED after {seconds:.0} s: {error:#}", leg.name),
        }
        table.push((leg.name, seconds, result.is_ok()));
    }
    println!("\nleg          seconds");
    for (name, seconds, ok) in &table {
        println!(
            "{name:<12} {seconds:>7.0}  {}",
            if *ok { "passed" } else { "FAILED" }
        );
    }
    let failed = table.iter().filter(|(_, _, ok)| !ok).count();
    println!("{} passed, {failed} failed", table.len() - failed);
    if failed > 0 {
        bail!("{failed} of {} legs failed", table.len());
    }
    Ok(())
}

/// The README's test command. On CI the vocabularies of `../shared` must be there, elsewhere their test may say that they are not.
pub(crate) fn tests(_: &[String]) -> Result<()> {
    let mut command = sh::cargo(&["test", "--release", "--workspace"]);
    if std::env::var_os("CI").is_some() {
        command.env("DRAM_REQUIRE_SHARED", "1");
    }
    sh::run(&mut command)
}

/// Formatting, house rules and lints. Clippy shares the release profile with the tests, so build scripts and macros are built once.
pub(crate) fn lint(_: &[String]) -> Result<()> {
    sh::run(&mut sh::cargo(&["fmt", "--all", "--check"]))?;
    rooms::check()?;
    sh::run(&mut sh::cargo(&[
        "clippy",
        "--release",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]))
}
