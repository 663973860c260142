//! Shows the built-in task: samples of every set, token lengths, and what padding costs.
//!
//! `cargo run --release -p dram-train --example actions_preview [seed] [samples per set]`

use std::sync::Arc;

use dram_train::data::{Batches, Examples, Grouped};
use dram_train::tasks::actions::{self, ActionExamples, Set};

fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|a| a.parse::<u64>());
    let seed = numbers.next().transpose()?.unwrap_or(1);
    let count = numbers.next().transpose()?.unwrap_or(25);
    for set in [Set::Train, Set::HeldOut, Set::NoFunction] {
        println!("\n{set:?}");
        for i in 0..count {
            let s = actions::sample(set, seed, i);
            println!("  {}\n      {}", s.request, s.call);
        }
    }

    let start = std::time::Instant::now();
    let tokenizer = Arc::new(actions::tokenizer(2048)?);
    println!(
        "\ntokenizer: {} tokens, trained in {:.1} s",
        tokenizer.len(),
        start.elapsed().as_secs_f64()
    );
    for set in [Set::Train, Set::HeldOut, Set::NoFunction] {
        let examples = Arc::new(ActionExamples::new(tokenizer.clone(), set, seed)?);
        let n = 5_000;
        let (mut request, mut call, mut total) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..n {
            let e = examples.get(i);
            call.push(e.targets());
            request.push(e.ids.len() - e.targets());
            total.push(e.ids.len());
        }
        for (name, mut lengths) in [("request", request), ("call", call), ("both", total)] {
            lengths.sort_unstable();
            let mean = lengths.iter().sum::<usize>() as f64 / n as f64;
            let at = |p: usize| lengths[(lengths.len() - 1) * p / 100];
            println!(
                "{set:?} {name}: mean {mean:.1}, p5 {}, median {}, p95 {}, longest {}",
                at(5),
                at(50),
                at(95),
                at(100)
            );
        }
        if set == Set::Train {
            for batch in [32, 64] {
                let batches = Grouped::new(examples.clone(), batch, 16, seed)?;
                let start = std::time::Instant::now();
                let (mut places, mut fed, mut targets) = (0, 0, 0);
                for step in 0..64 {
                    let b = batches.batch(step);
                    places += b.ids.len();
                    targets += b.targets.len();
                    fed += (0..batch as u64)
                        .map(|i| examples.get(step * batch as u64 + i).ids.len() - 1)
                        .sum::<usize>();
                }
                println!(
                    "batch {batch}: {:.1} % padding, {:.0} % of positions count, {:.2} ms a batch",
                    100.0 * (1.0 - fed as f64 / places as f64),
                    100.0 * targets as f64 / places as f64,
                    start.elapsed().as_secs_f64() * 1e3 / 64.0 / 2.0,
                );
            }
        }
    }
    Ok(())
}
