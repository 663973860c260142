//! Developer chores, `cargo xtask NAME`. Each is a row of [`LEGS`] and one file; `ci` runs the rows that CI runs.

mod android;
mod arm;
mod bindings;
mod ci;
mod compare;
mod fuzz;
mod golden;
mod ios;
mod kotlin;
mod licences;
mod loom;
mod markdown;
mod mca;
mod peers;
mod perplexity;
mod rooms;
mod sh;
mod size;
mod swift;
mod x86;

use anyhow::Result;
use clap::{Arg, Command};
use std::process::ExitCode;

/// One chore.
struct Leg {
    name: &'static str,
    about: &'static str,
    /// Whether `cargo xtask ci` (and so `.ci/run`) runs it, in the table's order.
    in_ci: bool,
    run: fn(&[String]) -> Result<()>,
}

/// Every chore, cheap ones first so that a broken tree fails soon.
const LEGS: &[Leg] = &[
    Leg {
        name: "tests",
        about: "The README's test command: cargo test --release --workspace",
        in_ci: true,
        run: ci::tests,
    },
    Leg {
        name: "lint",
        about: "rustfmt, clippy and the house rules of rooms and lengths; warnings are errors",
        in_ci: true,
        run: ci::lint,
    },
    Leg {
        name: "licences",
        about: "Dependency licences and bans against deny.toml",
        in_ci: true,
        run: licences::run,
    },
    Leg {
        name: "loom",
        about: "The thread pool in every order of its threads' steps, by loom's model checker",
        in_ci: true,
        run: loom::run,
    },
    Leg {
        name: "x86",
        about: "core's tests on each instruction set of this x86-64 processor, and under emulation on AVX-512",
        in_ci: true,
        run: x86::run,
    },
    Leg {
        name: "arm",
        about: "core's tests on aarch64 under emulation: i8mm, dotprod, plain NEON",
        in_ci: true,
        run: arm::run,
    },
    Leg {
        name: "peers",
        about: "Logits and greedy text against llama.cpp",
        in_ci: true,
        run: peers::run,
    },
    Leg {
        name: "kotlin",
        about: "The Kotlin wrapper's tests on the JVM, against the native library",
        in_ci: true,
        run: kotlin::run,
    },
    Leg {
        name: "swift",
        about: "The Swift wrapper's tests on Linux, against the native library",
        in_ci: true,
        run: swift::run,
    },
    Leg {
        name: "android",
        about: "Type check for Android; --build makes the Gradle module's libraries (needs an NDK)",
        in_ci: true,
        run: android::run,
    },
    Leg {
        name: "ios",
        about: "Type check for iOS; --build makes the XCFramework (needs a Mac)",
        in_ci: true,
        run: ios::run,
    },
    Leg {
        name: "size",
        about: "Size of the library that an app ships, against its limits and docs/size.md",
        in_ci: true,
        run: size::run,
    },
    Leg {
        name: "fuzz",
        about: "Every fuzz target for some seconds, with its executions: fuzz [--seconds N] [TARGET...]",
        in_ci: true,
        run: fuzz::run,
    },
    Leg {
        name: "bindings",
        about: "Generate the Kotlin and Swift bindings into the packages",
        in_ci: false,
        run: bindings::run,
    },
    Leg {
        name: "compare",
        about: "Speed, start and memory beside llama.cpp, in turns: compare MODEL.gguf...",
        in_ci: false,
        run: compare::run,
    },
    Leg {
        name: "perplexity",
        about: "Perplexity of a text beside llama.cpp's: perplexity --text FILE MODEL.gguf...",
        in_ci: false,
        run: perplexity::run,
    },
    Leg {
        name: "mca",
        about: "The inner loops on Arm beside llama.cpp's, by llvm-mca",
        in_ci: false,
        run: mca::run,
    },
    Leg {
        name: "golden",
        about: "Remake tests/golden with Hugging Face transformers (needs torch; not in CI)",
        in_ci: false,
        run: golden::run,
    },
];

fn main() -> ExitCode {
    let rest = Arg::new("rest")
        .num_args(0..)
        .trailing_var_arg(true)
        .allow_hyphen_values(true)
        .help("Handed on to the chore");
    let command = Command::new("xtask")
        .about("Developer chores of Dram")
        .subcommand_required(true)
        .subcommands(
            LEGS.iter()
                .map(|leg| Command::new(leg.name).about(leg.about).arg(rest.clone())),
        )
        .subcommand(
            Command::new("ci")
                .about("Everything .ci/run does, in order, with the time of each leg")
                .arg(Arg::new("legs").num_args(0..).help("Only these legs")),
        );
    let matches = command.get_matches();
    let (name, sub) = matches.subcommand().expect("clap requires a subcommand");
    let words = |id: &str| {
        sub.get_many::<String>(id)
            .unwrap_or_default()
            .cloned()
            .collect::<Vec<_>>()
    };
    let result = match LEGS.iter().find(|leg| leg.name == name) {
        Some(leg) => (leg.run)(&words("rest")),
        None => ci::run(LEGS, &words("legs")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
