//! The kernels, on every instruction set of this machine: products for prefill and decode, attention, conversions.
//!
//! `cargo bench -p dram-bench --bench kernels`. Rates: products in multiply-adds per second (`elem/s`), decode also in bytes of weights per second.

use criterion::{BenchmarkId, Criterion, Throughput};
use dram_core::kernels::{self, Activations, Kernels, Scores, Weight, WeightedSum};
use dram_core::quant::{FORMATS, Format, activation, format_by_name};
use dram_core::threads::Pool;
use half::f16;
use std::time::Duration;

/// Reproducible values between −1 and 1.
fn values(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state as i32 as f32 / 2f32.powi(31)
        })
        .collect()
}

fn weights(format: &'static Format, rows: usize, cols: usize) -> Vec<u8> {
    let mut bytes = vec![0; format.bytes(rows * cols).expect("whole blocks")];
    format.quantize(&values(rows * cols), &mut bytes);
    bytes
}

fn product(
    criterion: &mut Criterion,
    name: &str,
    (rows, cols): (usize, usize),
    tokens: usize,
    throughput: impl Fn(&[u8]) -> Throughput,
) {
    let pool = Pool::new(Some(1)).expect("one thread");
    let mut group = criterion.benchmark_group(format!("{name} [{rows}, {cols}] × {tokens}"));
    let float = values(tokens * cols);
    let mut buffer = activation::Buffer::new(tokens * cols);
    dram_core::kernels::quantize_activations(&float, buffer.view_mut(tokens * cols));
    let x = Activations {
        tokens,
        float: &float,
        int8: buffer.view(tokens * cols),
    };
    for format in FORMATS {
        let bytes = weights(format, rows, cols);
        group.throughput(throughput(&bytes));
        let mut out = vec![0.0; tokens * rows];
        for kernels in simd() {
            group.bench_function(BenchmarkId::new(format.name, kernels.name()), |bencher| {
                bencher.iter(|| {
                    kernels.product(
                        &pool,
                        x,
                        Weight {
                            format,
                            bytes: &bytes,
                            rows,
                            cols,
                        },
                        &mut out,
                    )
                });
            });
        }
    }
}

/// All but the scalar code, which is not there to be fast.
fn simd() -> impl Iterator<Item = &'static Kernels> {
    kernels::every().filter(|kernels| kernels.name() != "scalar" || kernels::available().len() == 1)
}

fn products(criterion: &mut Criterion) {
    product(criterion, "decode, in cache", (768, 256), 1, |_| {
        Throughput::Elements(768 * 256)
    });
    product(
        criterion,
        "decode, from memory",
        (16384, 4096),
        1,
        |bytes| Throughput::Bytes(bytes.len() as u64),
    );
    product(criterion, "prefill", (1024, 1024), 128, |_| {
        Throughput::Elements(1024 * 1024 * 128)
    });
}

fn attention(criterion: &mut Criterion) {
    let (positions, head_dim) = (1024, 64);
    let cache: Vec<f16> = values(positions * head_dim)
        .into_iter()
        .map(f16::from_f32)
        .collect();
    // Keys are woven from the same number of blocks.
    let mut bytes = vec![0; positions * head_dim / 32 * 34];
    let q8_0 = format_by_name("q8_0").expect("is one");
    q8_0.quantize(&values(positions * head_dim), &mut bytes);
    let query = values(head_dim);
    let mut group = criterion.benchmark_group(format!(
        "attention, one head of {head_dim}, {positions} positions"
    ));
    for kernels in simd() {
        let (mut scores, mut out) = (vec![0.0; positions], vec![0.0; head_dim]);
        group.bench_function(BenchmarkId::new("scores", kernels.name()), |bencher| {
            bencher.iter(|| {
                kernels.scores(Scores {
                    queries: &query,
                    query_stride: head_dim,
                    count: 1,
                    head_dim,
                    keys: &cache,
                    scale: 0.125,
                    out: &mut scores,
                    out_stride: positions,
                });
            });
        });
        group.bench_function(BenchmarkId::new("softmax_exp", kernels.name()), |bencher| {
            bencher.iter(|| kernels.softmax_exp(&mut scores))
        });
        group.bench_function(
            BenchmarkId::new("weighted_sum", kernels.name()),
            |bencher| {
                bencher.iter(|| {
                    kernels.weighted_sum(WeightedSum {
                        weights: &scores,
                        weight_stride: positions,
                        count: 1,
                        positions,
                        head_dim,
                        values: &cache,
                        out: &mut out,
                        out_stride: head_dim,
                    });
                });
            },
        );
        group.bench_function(BenchmarkId::new("scores q8_0", kernels.name()), |bencher| {
            bencher.iter(|| {
                kernels.scores_q8_0(Scores {
                    queries: &query,
                    query_stride: head_dim,
                    count: 1,
                    head_dim,
                    keys: &bytes,
                    scale: 0.125,
                    out: &mut scores,
                    out_stride: positions,
                });
            });
        });
        group.bench_function(
            BenchmarkId::new("weighted_sum q8_0", kernels.name()),
            |bencher| {
                bencher.iter(|| {
                    kernels.weighted_sum_q8_0(WeightedSum {
                        weights: &scores,
                        weight_stride: positions,
                        count: 1,
                        positions,
                        head_dim,
                        values: &bytes,
                        out: &mut out,
                        out_stride: head_dim,
                    });
                });
            },
        );
    }
}

fn conversions(criterion: &mut Criterion) {
    let source = values(1 << 16);
    let mut out = vec![0.0; source.len()];
    let mut group = criterion.benchmark_group("conversions");
    group.throughput(Throughput::Elements(source.len() as u64));
    for kernels in simd() {
        for format in ["q8_0", "q4_0", "f16"]
            .into_iter()
            .filter_map(format_by_name)
        {
            group.bench_function(
                BenchmarkId::new(format!("{} there and back", format.name), kernels.name()),
                |bencher| {
                    bencher.iter(|| kernels.quantize_dequantize(format, &source, &mut out));
                },
            );
            let mut bytes = vec![0; format.bytes(source.len()).expect("whole blocks")];
            group.bench_function(
                BenchmarkId::new(format!("{} quantise", format.name), kernels.name()),
                |bencher| {
                    bencher.iter(|| kernels.quantize(format, &source, &mut bytes));
                },
            );
            group.bench_function(
                BenchmarkId::new(format!("{} dequantise", format.name), kernels.name()),
                |bencher| {
                    bencher.iter(|| kernels.dequantize(format, &bytes, &mut out));
                },
            );
        }
        let mut buffer = activation::Buffer::new(source.len());
        group.bench_function(BenchmarkId::new("activations", kernels.name()), |bencher| {
            bencher.iter(|| kernels.quantize_activations(&source, buffer.view_mut(source.len())));
        });
        group.bench_function(
            BenchmarkId::new("activations there and back", kernels.name()),
            |bencher| {
                bencher.iter(|| kernels.round_activations(&source, &mut out));
            },
        );
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .configure_from_args()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500));
    products(&mut criterion);
    attention(&mut criterion);
    conversions(&mut criterion);
    criterion.final_summary();
}
