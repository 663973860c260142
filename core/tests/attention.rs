//! Attention's kernels: every instruction set against the scalar code, bit for bit, and that against the definition.

mod bits;

use bits::{Random, assert_same, others, scalar};
use dram_core::kernels::{KEYS, Kernels, Scores, WeightedSum};
use half::f16;

#[test]
fn attention_over_q8_0_equals_the_scalar_code() {
    let mut random = Random(5);
    let format = dram_core::quant::format_by_name("q8_0").unwrap();
    for (head_dim, blocks, count) in [
        (32, 1, 1),
        (64, 3, 4),
        (96, 2, 3),
        (128, 5, 7),
        (64, 0, 2),
        (32, 2, 0),
        (96, 9, 1),
        (160, 5, 2),
        (512, 2, 5),
    ] {
        let (positions, units) = (blocks * KEYS, head_dim / 32);
        let filled = positions.saturating_sub(3); // the last block of keys may not be full
        let (query_stride, out_stride, mixed_stride) = (head_dim + 3, positions + 5, head_dim + 1);
        let queries = random.values(count * query_stride);
        let weights = random.values(count * out_stride);
        let source = random.values(positions * head_dim);
        let mut values = vec![0; positions * units * 34];
        scalar().quantize(format, &source, &mut values);
        let mut rounded = vec![0.0; source.len()];
        scalar().dequantize(format, &values, &mut rounded);
        // Woven: of each sixteen positions and each block of the head the scales, then the bytes.
        let mut keys = Vec::new();
        for block in 0..blocks {
            for unit in 0..units {
                let place = |lane: usize| ((block * KEYS + lane) * units + unit) * 34;
                (0..KEYS).for_each(|lane| keys.extend(&values[place(lane)..][..2]));
                (0..32 * KEYS).for_each(|i| keys.push(values[place(i % KEYS) + 2 + i / KEYS]));
            }
        }
        let run = |kernels: &Kernels| {
            let mut scores = vec![-1.0; count * out_stride];
            let mut mixed = vec![-1.0; count * mixed_stride];
            kernels.scores_q8_0(Scores {
                queries: &queries,
                query_stride,
                count,
                head_dim,
                keys: &keys,
                scale: 0.125,
                out: &mut scores,
                out_stride,
            });
            kernels.weighted_sum_q8_0(WeightedSum {
                weights: &weights,
                weight_stride: out_stride,
                count,
                positions: filled,
                head_dim,
                values: &values[..filled * units * 34],
                out: &mut mixed,
                out_stride: mixed_stride,
            });
            (scores, mixed)
        };
        let (scores, mixed) = run(scalar());
        // Against the definition over what the blocks read as, in f64.
        let rows: Vec<&[f32]> = rounded.chunks_exact(head_dim).collect();
        for query in 0..count {
            let near = |got: f32, exact: f64| {
                assert!(
                    (f64::from(got) - exact).abs() < 1e-4,
                    "{got}, exactly {exact}"
                )
            };
            let dot = |row: &[f32]| -> f64 {
                let query = &queries[query * query_stride..];
                row.iter()
                    .zip(query)
                    .map(|(a, b)| f64::from(*a) * f64::from(*b))
                    .sum()
            };
            for (position, row) in rows.iter().enumerate() {
                near(scores[query * out_stride + position], dot(row) / 8.0);
            }
            for at in 0..head_dim {
                let weights = &weights[query * out_stride..];
                let exact = rows[..filled]
                    .iter()
                    .zip(weights)
                    .map(|(row, weight)| f64::from(row[at]) * f64::from(*weight))
                    .sum();
                near(mixed[query * mixed_stride + at], exact);
            }
        }
        for kernels in others() {
            let (got_scores, got_mixed) = run(kernels);
            let what = format!("{count} heads of {head_dim}");
            assert_same(
                kernels.name(),
                &format!("scores over q8_0, {what}"),
                &got_scores,
                &scores,
            );
            assert_same(
                kernels.name(),
                &format!("weighted_sum over q8_0, {what}"),
                &got_mixed,
                &mixed,
            );
        }
    }
}

#[test]
fn attention_equals_the_scalar_code() {
    let mut random = Random(3);
    for (head_dim, blocks, count) in [
        (16, 1, 1),
        (64, 9, 2),
        (80, 6, 3),
        (7, 3, 4),
        (128, 5, 7),
        (512, 2, 5),
        (40, 0, 5),
        (32, 2, 0),
    ] {
        let positions = blocks * KEYS;
        let (query_stride, out_stride, mixed_stride) = (head_dim + 3, positions + 5, head_dim + 1);
        let queries = random.values(count * query_stride);
        let source = random.values(positions * head_dim);
        let mut cache = vec![f16::ZERO; source.len()];
        scalar().narrow(&source, &mut cache);
        let weights = random.values(count * out_stride);
        let run = |kernels: &Kernels| {
            let (mut scores, mut mixed) = (
                vec![-1.0; count * out_stride],
                vec![-1.0; count * mixed_stride],
            );
            kernels.scores(Scores {
                queries: &queries,
                query_stride,
                count,
                head_dim,
                keys: &cache,
                scale: 0.125,
                out: &mut scores,
                out_stride,
            });
            kernels.weighted_sum(WeightedSum {
                weights: &weights,
                weight_stride: out_stride,
                count,
                positions,
                head_dim,
                values: &cache,
                out: &mut mixed,
                out_stride: mixed_stride,
            });
            (scores, mixed)
        };
        let (scores, mixed) = run(scalar());
        // Against the definition, in f64.
        for query in 0..count {
            for position in 0..positions {
                let block = &source[position / KEYS * KEYS * head_dim..][..KEYS * head_dim];
                let exact: f64 = (0..head_dim)
                    .map(|at| {
                        f64::from(block[at * KEYS + position % KEYS])
                            * f64::from(queries[query * query_stride + at])
                    })
                    .sum();
                let got = f64::from(scores[query * out_stride + position]);
                assert!(
                    (got - exact * 0.125).abs() < 0.01 * (head_dim as f64).sqrt(),
                    "score {got}, exactly {exact} / 8"
                );
            }
        }
        for kernels in others() {
            let mut narrow = vec![f16::ZERO; source.len()];
            kernels.narrow(&source, &mut narrow);
            assert!(narrow == cache, "{}: narrow", kernels.name());
            let (got_scores, got_mixed) = run(kernels);
            assert_same(
                kernels.name(),
                &format!("scores, {count} heads of {head_dim}"),
                &got_scores,
                &scores,
            );
            assert_same(
                kernels.name(),
                &format!("weighted_sum, {count} heads of {head_dim}"),
                &got_mixed,
                &mixed,
            );
        }
    }
}
