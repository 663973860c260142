//! How fast training is here: tokens/s, GFLOP/s (6 · parameters per token) and where the time goes.
//!
//! "per core" is GFLOP per second of processor time, which holds on a busy machine too.
//!
//! `cargo run --release -p dram-train --example speed [seconds per row]`

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::Result;
use dram_train::data::{Batch, Example, Grouped};
use dram_train::loss::{LossConfig, Losses, Sizes};
use dram_train::optim::AdamW;
use dram_train::student::{Config, Decoder, OutputSpec, Products, Scheme, ops};
use dram_train::trainer::{Settings, TeacherQuery, Trainer};

struct Row {
    name: &'static str,
    student: Config,
    /// Length, and how many of the tokens count.
    tokens: (usize, usize),
    batch: usize,
    quantised: bool,
    taught: bool,
    products: Products,
}

fn main() -> Result<()> {
    let seconds: f64 = std::env::args().nth(1).map_or(Ok(4.0), |s| s.parse())?;
    let threads = std::thread::available_parallelism()?.get();
    let small = Config::default();
    let large = Config {
        embedding_length: 256,
        layers: 6,
        heads: 8,
        kv_heads: 8,
        feed_forward_length: 704,
        ..small.clone()
    };
    println!("{threads} threads, training kernels for {:?}", ops::isa());
    println!(
        "{:34} {:>9} {:>9} {:>7} {:>8}   share of shard time, and between",
        "", "tokens/s", "GFLOP/s", "peak %", "ms/step"
    );
    let peak = peak(threads);
    use Products::{Bf16, F32};
    let rows = [
        Row {
            name: "teacher 6x256, half count",
            student: large.clone(),
            tokens: (64, 32),
            batch: 64,
            quantised: false,
            taught: false,
            products: F32,
        },
        Row {
            name: "teacher 6x256, text 256",
            student: large.clone(),
            tokens: (256, 255),
            batch: 16,
            quantised: false,
            taught: false,
            products: F32,
        },
        Row {
            name: "student 4x128, half count",
            student: small.clone(),
            tokens: (64, 32),
            batch: 64,
            quantised: false,
            taught: false,
            products: F32,
        },
        Row {
            name: "student 4x128, QAT",
            student: small.clone(),
            tokens: (64, 32),
            batch: 64,
            quantised: true,
            taught: false,
            products: F32,
        },
        Row {
            name: "student 4x128, QAT + KL to teacher",
            student: small.clone(),
            tokens: (64, 32),
            batch: 64,
            quantised: true,
            taught: true,
            products: F32,
        },
        Row {
            name: "teacher 6x256, half count, bf16",
            student: large.clone(),
            tokens: (64, 32),
            batch: 64,
            quantised: false,
            taught: false,
            products: Bf16,
        },
        Row {
            name: "student 4x128, half count, bf16",
            student: small.clone(),
            tokens: (64, 32),
            batch: 64,
            quantised: false,
            taught: false,
            products: Bf16,
        },
        Row {
            name: "student, QAT + KL, bf16",
            student: small.clone(),
            tokens: (64, 32),
            batch: 64,
            quantised: true,
            taught: true,
            products: Bf16,
        },
        Row {
            name: "student 4x128, text 256",
            student: small,
            tokens: (256, 255),
            batch: 16,
            quantised: false,
            taught: false,
            products: F32,
        },
    ];
    for row in rows {
        measure(&row, &large, threads, seconds, peak)?;
    }
    Ok(())
}

fn measure(row: &Row, teacher: &Config, threads: usize, seconds: f64, peak: f64) -> Result<()> {
    let (length, counts) = row.tokens;
    let example = |i: usize| {
        let ids: Vec<u32> = (0..=length)
            .map(|n| ((i * 31 + n * n * 7) % row.student.vocabulary) as u32)
            .collect();
        Example::prompt_completion(&ids[..=length - counts], &ids[length - counts + 1..])
    };
    let data = Grouped::new(
        Arc::new((0..row.batch * 2).map(example).collect::<Vec<_>>()),
        row.batch,
        1,
        1,
    )?;
    let mut teacher = Decoder::random(teacher.clone(), 2)?;
    let config = LossConfig::new(1.0);
    let sizes = Sizes {
        vocabulary: row.student.vocabulary,
        layers: row.student.layers,
        width: row.student.embedding_length,
        teacher: None,
        has_teacher: row.taught,
    };
    let terms = if row.taught {
        vec![("cross_entropy", &config), ("forward_kl", &config)]
    } else {
        vec![("cross_entropy", &config)]
    };
    let losses = Losses::new(terms, sizes)?;
    let mut student = Decoder::random(row.student.clone(), 1)?;
    student.set_products(row.products);
    teacher.set_products(row.products);
    student.set_scheme(Some(Scheme::by_name("q4_0", "q8_0", "q8_0")?))?;
    let ask: Option<Box<TeacherQuery>> = row.taught.then(|| {
        Box::new(|batch: &Batch, outputs: &OutputSpec| {
            teacher.forward(&batch.ids, batch.length, outputs)
        }) as Box<TeacherQuery>
    });
    let settings = Settings {
        steps: u64::MAX,
        learning_rate: 1e-3,
        warmup: 100,
        final_share: 0.1,
        optimiser: AdamW {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
        },
        clip: 1.0,
        accumulate: 1,
        shards: threads,
        threads,
        quantise_from: row.quantised.then_some(0),
        seed: 1,
    };
    let mut trainer = Trainer::new(student, settings, losses, &data, ask)?;
    trainer.advance()?;
    let before = trainer.times();
    let (start, used, mut tokens) = (Instant::now(), cpu_seconds(), 0);
    let stop = AtomicBool::new(false);
    let mut steps = 0;
    trainer.run(&stop, &mut |_, step| {
        tokens += step.tokens;
        steps += 1;
        stop.store(
            start.elapsed().as_secs_f64() > seconds,
            std::sync::atomic::Ordering::Relaxed,
        );
        Ok(())
    })?;
    let wall = start.elapsed().as_secs_f64();
    let used = cpu_seconds() - used;
    let t = trainer.times();
    let parts = [
        t.teacher - before.teacher,
        t.forward - before.forward,
        t.losses - before.losses,
        t.backward - before.backward,
    ];
    let shard: f64 = parts.iter().map(|p| p.as_secs_f64()).sum();
    let rate = tokens as f64 / wall;
    let flops = rate * 6.0 * row.student.parameters() as f64 / 1e9;
    println!(
        "{:34} {rate:9.0} {flops:9.1} {:6.0}% {:8.1} {:10.1}   teacher {:.0}%, forward {:.0}%, losses {:.0}%, backward {:.0}%; between {:.1}%, idle {:.1}%",
        row.name,
        100.0 * flops / peak,
        1e3 * wall / steps as f64,
        flops * wall / used,
        100.0 * parts[0].as_secs_f64() / shard,
        100.0 * parts[1].as_secs_f64() / shard,
        100.0 * parts[2].as_secs_f64() / shard,
        100.0 * parts[3].as_secs_f64() / shard,
        100.0 * (t.between - before.between).as_secs_f64() / wall,
        100.0 * (1.0 - shard / threads as f64 / wall)
            - 100.0 * (t.between - before.between).as_secs_f64() / wall,
    );
    Ok(())
}

/// Seconds of processor time so far (Linux; elsewhere not a number). GFLOP per such second is fair on a machine that does other things too.
fn cpu_seconds() -> f64 {
    let ticks = |stat: String| -> Option<f64> {
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        Some((fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?) / 100.0)
    };
    std::fs::read_to_string("/proc/self/stat")
        .ok()
        .and_then(ticks)
        .unwrap_or(f64::NAN)
}

/// GFLOP/s of large products on all threads, each on its own.
fn peak(threads: usize) -> f64 {
    let n = 512;
    let run = || {
        let (a, b, mut c) = (vec![0.5f32; n * n], vec![0.25f32; n * n], vec![0f32; n * n]);
        (0..40).for_each(|_| Products::F32.linear(&mut c, &a, &b, [n, n, n], false));
        c[0]
    };
    run();
    let start = Instant::now();
    let sum: f32 = std::thread::scope(|s| {
        let all: Vec<_> = (0..threads).map(|_| s.spawn(run)).collect();
        all.into_iter().map(|t| t.join().unwrap_or(0.0)).sum()
    });
    assert!(sum > 0.0);
    let rate =
        threads as f64 * 40.0 * 2.0 * (n * n * n) as f64 / start.elapsed().as_secs_f64() / 1e9;
    println!("products of 512 x 512 x 512 on every thread: {rate:.0} GFLOP/s together");
    rate
}
