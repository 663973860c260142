//! The pool: hand-over of a region, and a decode-like loop with and without another process on one of the cores.
//!
//! `cargo bench -p dram-bench --bench threads`. The busy neighbour is `taskset -c 0 sh -c 'while :; do :; done'`; where there is no
//! `taskset`, that part says so and is left out.

use criterion::Criterion;
use dram_core::threads::Pool;
use std::hint::black_box;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Parallel regions of one token of a model of about thirty layers.
const REGIONS: usize = 240;
/// Chunks of a region.
const CHUNKS: usize = 16;

/// About `loops` multiply-adds that the compiler cannot shorten.
fn work(loops: usize) -> f32 {
    (0..loops).fold(1.0f32, |sum, i| black_box(sum.mul_add(0.999, i as f32)))
}

/// One token: regions of `loops` per chunk, with a little serial work between them.
fn token(pool: &Pool, loops: usize) {
    for _ in 0..REGIONS {
        pool.run(CHUNKS, &|_, _| {
            black_box(work(loops));
        });
        black_box(work(loops));
    }
}

/// Seconds per token: the median of `count`.
fn median(count: usize, mut token: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..count)
        .map(|_| {
            let start = Instant::now();
            token();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[count / 2]
}

/// Mean seconds per token over `count`.
fn mean(count: usize, mut token: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..count).for_each(|_| token());
    start.elapsed().as_secs_f64() / count as f64
}

/// A process that keeps core 0 busy until it is dropped.
struct Neighbour(Child);

impl Neighbour {
    fn start() -> Option<Neighbour> {
        let mut command = Command::new("taskset");
        command
            .args(["-c", "0", "sh", "-c", "while :; do :; done"])
            .stderr(Stdio::null());
        let neighbour = Neighbour(command.spawn().ok()?);
        std::thread::sleep(Duration::from_millis(200));
        Some(neighbour)
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn contention(threads: usize) {
    let pool = Pool::new(Some(threads)).expect("threads");
    for (name, loops) in [("small", 500), ("medium", 5_000), ("large", 40_000)] {
        let count = (4_000_000 / (loops * CHUNKS)).clamp(12, 100);
        median(5, || token(&pool, loops));
        let (idle_median, idle) = (
            median(count, || token(&pool, loops)),
            mean(count, || token(&pool, loops)),
        );
        let Some(neighbour) = Neighbour::start() else {
            println!("contention: no `taskset` here, left out");
            return;
        };
        let (busy_median, busy) = (
            median(count, || token(&pool, loops)),
            mean(count, || token(&pool, loops)),
        );
        drop(neighbour);
        println!(
            "contention, {threads} threads, {name} regions: idle {:.2} ms (mean {:.2}), one core busy {:.2} ms (mean {:.2}): {:.2}× (mean {:.2}×)",
            idle_median * 1e3,
            idle * 1e3,
            busy_median * 1e3,
            busy * 1e3,
            busy_median / idle_median,
            busy / idle,
        );
    }
}

fn main() {
    let threads = dram_core::threads::default_threads();
    let mut criterion = Criterion::default()
        .configure_from_args()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    for count in [1, threads] {
        let pool = Pool::new(Some(count)).expect("threads");
        criterion.bench_function(&format!("hand-over, {count} threads"), |bencher| {
            bencher.iter(|| {
                pool.run(count, &|chunk, _| {
                    black_box(chunk);
                });
            });
        });
    }
    criterion.final_summary();
    contention(threads.max(2));
}
