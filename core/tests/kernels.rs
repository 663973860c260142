//! Every instruction set against the scalar code, bit for bit, on awkward shapes.

mod bits;

use bits::{Random, assert_same, others, scalar};
use dram_core::kernels::{self, Activations, Kernels, Product, RopeLayout, StateToken, Weight};
use dram_core::quant::{FORMATS, Format, activation};
use dram_core::threads::Pool;
use half::f16;

/// Emulated machines are slow: they get the same kinds of shapes, but fewer.
fn few() -> bool {
    std::env::var_os("DRAM_EMULATED").is_some()
}

#[test]
fn the_machine_has_what_the_run_requires() {
    let available = kernels::available();
    let tested: Vec<_> = available.iter().rev().copied().collect();
    println!("kernels tested: {}", tested.join(", "));
    if let Ok(required) = std::env::var("DRAM_REQUIRE_ISA") {
        for isa in required
            .split(',')
            .map(str::trim)
            .filter(|isa| !isa.is_empty())
        {
            assert!(
                available.contains(&isa),
                "DRAM_REQUIRE_ISA names {isa}; this machine has {}",
                available.join(", ")
            );
        }
    }
    let chosen =
        kernels::check_selected().expect("DRAM_ISA names an instruction set of this machine");
    println!("kernels selected: {}", chosen.name());
}

/// Weights as a file might hold them: half of them rounded from values, half of them any bytes under ordinary scales.
fn weight_bytes(format: &'static Format, rows: usize, cols: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0; format.bytes(rows * cols).unwrap()];
    scalar().quantize(format, &random.values(rows * cols), &mut bytes);
    if format.takes_int8() {
        for (index, block) in bytes
            .chunks_mut(format.block_bytes)
            .enumerate()
            .filter(|(index, _)| index % 2 == 1)
        {
            block[..2].copy_from_slice(&f16::from_f32(random.value()).to_le_bytes());
            block[2..].iter_mut().for_each(|byte| {
                *byte = if index % 4 == 1 {
                    random.next() as u8
                } else {
                    0x80
                }
            });
        }
    }
    bytes
}

#[test]
fn products_equal_the_scalar_code() {
    let pool = Pool::new(Some(1)).unwrap();
    let mut random = Random(1);
    let rows = if few() {
        vec![1, 17, 35]
    } else {
        vec![1, 3, 8, 15, 16, 17, 31, 33, 50]
    };
    let tokens = if few() {
        vec![1, 2, 5, 11]
    } else {
        vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 13]
    };
    for format in FORMATS {
        let cols: &[usize] = match (format.block, few()) {
            (256, false) => &[256, 768],
            (256, true) => &[512],
            (32, false) => &[32, 64, 96, 512, 544, 1088],
            (32, true) => &[32, 96, 544],
            (_, false) => &[1, 7, 16, 33, 100, 256],
            (_, true) => &[1, 33, 64],
        };
        for (&rows, &cols, &tokens) in rows.iter().flat_map(|r| {
            cols.iter()
                .flat_map(|c| tokens.iter().map(move |t| (r, c, t)))
                .collect::<Vec<_>>()
        }) {
            let bytes = weight_bytes(format, rows, cols, &mut random);
            let weight = Weight {
                format,
                bytes: &bytes,
                rows,
                cols,
            };
            let mut float = random.values(tokens * cols);
            if tokens > 1 {
                float[..cols].fill(0.0);
            }
            let mut int8 = activation::Buffer::new(tokens * cols);
            let int8 = if format.takes_int8() {
                scalar().quantize_activations(&float, int8.view_mut(tokens * cols));
                int8.view(tokens * cols)
            } else {
                activation::Quantized::default()
            };
            let x = Activations {
                tokens,
                float: &float,
                int8,
            };
            let mut expected = vec![f32::NAN; tokens * rows];
            scalar().product(&pool, x, weight, &mut expected);
            for kernels in others() {
                let mut got = vec![f32::NAN; tokens * rows];
                kernels.product(&pool, x, weight, &mut got);
                assert_same(
                    kernels.name(),
                    &format!("{} [{rows}, {cols}] × {tokens}", format.name),
                    &got,
                    &expected,
                );
            }
        }
    }
}

#[test]
fn products_do_not_depend_on_threads_or_on_tokens_beside_them() {
    let format = dram_core::quant::format_by_name("q4_0").unwrap();
    let (rows, cols, tokens) = ([700, 64, 17], 256, if few() { 2 } else { 5 });
    let mut random = Random(6);
    let bytes = rows.map(|rows| weight_bytes(format, rows, cols, &mut random));
    let float = random.values(tokens * cols);
    let mut buffer = activation::Buffer::new(tokens * cols);
    scalar().quantize_activations(&float, buffer.view_mut(tokens * cols));
    let int8 = buffer.view(tokens * cols);
    for kernels in kernels::every() {
        let products = |threads: usize, from: usize, to: usize| {
            let blocks = cols / activation::BLOCK;
            let x = Activations {
                tokens: to - from,
                float: &[],
                int8: activation::Quantized {
                    values: &int8.values[from * cols..to * cols],
                    scales: &int8.scales[from * blocks..to * blocks],
                    sums: &int8.sums[from * blocks..to * blocks],
                },
            };
            let mut outs = rows.map(|rows| vec![f32::NAN; (to - from) * rows]);
            let weight = |i: usize| Weight {
                format,
                bytes: &bytes[i],
                rows: rows[i],
                cols,
            };
            let [a, b, c] = &mut outs;
            kernels.products(
                &Pool::new(Some(threads)).unwrap(),
                x,
                [
                    Product {
                        weight: weight(0),
                        out: a,
                    },
                    Product {
                        weight: weight(1),
                        out: b,
                    },
                    Product {
                        weight: weight(2),
                        out: c,
                    },
                ],
            );
            outs
        };
        let all = products(3, 0, tokens);
        for (i, one) in products(1, 0, tokens).iter().enumerate() {
            assert_same(kernels.name(), "one thread and three", one, &all[i]);
        }
        for (i, last) in products(2, tokens - 1, tokens).iter().enumerate() {
            assert_same(
                kernels.name(),
                "a token alone and the last of many",
                last,
                &all[i][(tokens - 1) * rows[i]..],
            );
        }
    }
}

/// Blocks that rounding finds hard: ties of either sign, zeros, the ends of the range, infinities and NaN. A multiple of 256 values.
fn hard_blocks(random: &mut Random) -> Vec<f32> {
    let mut values = random.values(if few() { 64 } else { 4096 });
    for scale in [1e-44f32, 1e-38, 1e-10, 3.0, 1e5, 1e30, f32::MAX] {
        values.extend(random.values(32).iter().map(|value| value * scale));
    }
    let ramp: Vec<f32> = (0..32).map(|i| (i - 16) as f32 / 2.0).collect();
    values.extend(&ramp); // Q4_0 and activations: exact ties
    values.extend(ramp.iter().map(|value| -value));
    values.extend(ramp.iter().map(|value| value * 127.0 / 8.0));
    values.extend([0.0; 32]);
    values.extend([-0.0; 32]);
    for special in [
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MIN_POSITIVE,
    ] {
        let mut block = random.values(32);
        block[random.next() as usize % 32] = special;
        values.extend(block);
    }
    let mut tie = vec![0.25; 32];
    (tie[5], tie[9]) = (-2.0, 2.0);
    values.extend(&tie);
    (tie[5], tie[9]) = (2.0, -2.0);
    values.extend(&tie);
    values.extend(random.values(values.len().next_multiple_of(256) - values.len()));
    values
}

#[test]
fn conversions_equal_the_scalar_code() {
    let values = hard_blocks(&mut Random(2));
    for format in FORMATS {
        let mut expected = vec![0u8; format.bytes(values.len()).unwrap()];
        scalar().quantize(format, &values, &mut expected);
        let mut back = vec![0.0; values.len()];
        scalar().dequantize(format, &expected, &mut back);
        for kernels in kernels::every() {
            let mut bytes = vec![0u8; expected.len()];
            kernels.quantize(format, &values, &mut bytes);
            assert!(
                bytes == expected,
                "{}: {} bytes differ",
                kernels.name(),
                format.name
            );
            let mut got = vec![0.0; values.len()];
            kernels.dequantize(format, &bytes, &mut got);
            assert_same(kernels.name(), format.name, &got, &back);
            kernels.quantize_dequantize(format, &values, &mut got);
            assert_same(
                kernels.name(),
                &format!("{} there and back", format.name),
                &got,
                &back,
            );
        }
    }
    let mut buffer = activation::Buffer::new(values.len());
    scalar().quantize_activations(&values, buffer.view_mut(values.len()));
    let expected = buffer.view(values.len());
    let mut back = vec![0.0; values.len()];
    activation::dequantize(expected, &mut back);
    for kernels in kernels::every() {
        let mut buffer = activation::Buffer::new(values.len());
        kernels.quantize_activations(&values, buffer.view_mut(values.len()));
        let got = buffer.view(values.len());
        assert!(
            got.values == expected.values && got.sums == expected.sums,
            "{}: activations differ",
            kernels.name()
        );
        assert_same(
            kernels.name(),
            "activation scales",
            got.scales,
            expected.scales,
        );
        let mut rounded = vec![0.0; values.len()];
        kernels.round_activations(&values, &mut rounded);
        assert_same(
            kernels.name(),
            "activations there and back",
            &rounded,
            &back,
        );
    }
}

#[test]
fn elementwise_functions_equal_the_scalar_code_and_the_formula() {
    let mut random = Random(4);
    for length in [1, 15, 16, 17, 64, 100, 257] {
        let x: Vec<f32> = random
            .values(length)
            .iter()
            .map(|value| value * 20.0)
            .collect();
        let y = random.values(length);
        let run = |kernels: &Kernels| {
            let mut norm = vec![0.0; length];
            kernels.rms_norm(&x, &y, 1e-5, &mut norm);
            let mut softmax = x.clone();
            let found = kernels.softmax_exp(&mut softmax);
            let mut folded = y.clone();
            let mut state = [3.0, 0.7];
            kernels.softmax_merge(&mut folded, &mut state, &[&softmax[..], &found].concat());
            folded.extend(state);
            softmax.extend(found);
            let mut gate = x.clone();
            kernels.silu_mul(&mut gate, &y);
            let mut sum = x.clone();
            kernels.add(&mut sum, &y);
            let mut in_place = x.clone();
            kernels.rms_norm_in_place(&mut in_place, &y, 1e-5);
            assert_eq!(in_place, norm, "rms_norm in place");
            let mut layer = x.clone();
            kernels.layer_norm(&mut layer, &y, &x, 1e-5);
            let mut gelu_mul = x.clone();
            kernels.gelu_mul(&mut gelu_mul, &y);
            let mut capped = x.clone();
            kernels.soft_cap(&mut capped, 30.0);
            let mut scaled = x.clone();
            kernels.scale(&mut scaled, 0.3);
            let mut silu = x.clone();
            kernels.silu(&mut silu);
            let mut gated = y.clone();
            kernels.sigmoid_mul(&mut gated, &x);
            [
                norm, softmax, folded, gate, sum, layer, gelu_mul, capped, scaled, silu, gated,
            ]
        };
        let expected = run(scalar());
        for kernels in others() {
            let names = [
                "rms_norm",
                "softmax_exp",
                "fold",
                "silu_mul",
                "add",
                "layer_norm",
                "gelu_mul",
                "soft_cap",
                "scale",
                "silu",
                "sigmoid_mul",
            ];
            for (name, (got, expected)) in names.iter().zip(run(kernels).iter().zip(&expected)) {
                assert_same(
                    kernels.name(),
                    &format!("{name} of {length}"),
                    got,
                    expected,
                );
            }
        }
        let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
        let most = f64::from(x.iter().copied().fold(f32::MIN, f32::max));
        let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / length as f64;
        let variance = x
            .iter()
            .map(|x| (f64::from(*x) - mean).powi(2))
            .sum::<f64>()
            / length as f64;
        let root = (2.0 / std::f64::consts::PI).sqrt();
        for i in 0..length {
            let (x, y) = (f64::from(x[i]), f64::from(y[i]));
            let formulas = [
                x / (squares / length as f64 + 1e-5).sqrt() * y,
                (x - most).exp(),
                (x - most.max(3.0)).exp() + y * (3.0 - most.max(3.0)).exp(),
                x / (1.0 + (-x).exp()) * y,
                x + y,
                (x - mean) / (variance + 1e-5).sqrt() * y + x,
                x * (1.0 + (root * (x + 0.044715 * x.powi(3))).tanh()) / 2.0 * y,
                30.0 * (x / 30.0).tanh(),
                0.3 * x,
            ];
            for (function, (formula, got)) in formulas.iter().zip(&expected).enumerate() {
                // Where a mean or 1 is subtracted, what is left has the error of what was there.
                let least = [1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 30.0, 1e-1, 10.0, 1e-3][function];
                let error = (formula - f64::from(got[i])).abs() / formula.abs().max(least);
                assert!(
                    error < 2e-6,
                    "value {i} of {length}: expected {formula:e}, got {:e}",
                    got[i]
                );
            }
        }
    }
}

/// Against the recurrences in f64, `S = decay · S`, `S += k · (beta · (v − Sᵀk))ᵀ`, `out = Sᵀq`, in a state space without Sᵀk, and the scalar code bit for bit.
#[test]
fn linear_attention_equals_the_scalar_code_and_the_formula() {
    let mut random = Random(17);
    let sizes = [(1, 1), (8, 8), (5, 19), (64, 128), (128, 128)];
    for ((rows, cols), is_delta) in sizes.iter().flat_map(|s| [(*s, true), (*s, false)]) {
        let tokens: Vec<_> = (0..3)
            .map(|_| {
                let unit = |x: Vec<f32>| {
                    let length = x.iter().map(|x| x * x).sum::<f32>().sqrt();
                    x.iter().map(|x| x / length).collect::<Vec<f32>>()
                };
                let (query, key) = (unit(random.values(rows)), unit(random.values(rows)));
                (query, key, random.values(cols))
            })
            .collect();
        let before = random.values(rows * cols);
        let run = |kernels: &Kernels| {
            let (mut state, mut all) = (before.clone(), Vec::new());
            for (query, key, value) in &tokens {
                let mut out = vec![f32::NAN; cols];
                let token = StateToken {
                    query,
                    key,
                    value,
                    decay: 0.9,
                    beta: 0.6,
                };
                match is_delta {
                    true => kernels.delta_rule(&mut state, token, &mut out),
                    false => kernels.state_space(&mut state, token, &mut out),
                }
                all.extend(out);
            }
            all.extend(state);
            all
        };
        let mut state: Vec<f64> = before.iter().map(|x| f64::from(*x)).collect();
        let mut exact = Vec::new();
        for (query, key, value) in &tokens {
            state.iter_mut().for_each(|x| *x *= f64::from(0.9f32));
            let read = |state: &[f64], by: &[f32], col: usize| -> f64 {
                (0..rows)
                    .map(|row| state[row * cols + col] * f64::from(by[row]))
                    .sum()
            };
            for col in 0..cols {
                let known = if is_delta {
                    read(&state, key, col)
                } else {
                    0.0
                };
                let change = f64::from(0.6f32) * (f64::from(value[col]) - known);
                for row in 0..rows {
                    state[row * cols + col] += f64::from(key[row]) * change;
                }
                exact.push(read(&state, query, col));
            }
        }
        exact.extend(state);
        let expected = run(scalar());
        for (got, exact) in expected.iter().zip(&exact) {
            assert!((f64::from(*got) - exact).abs() < 1e-5, "{got} for {exact}");
        }
        for kernels in others() {
            let what = format!("linear attention of {rows} by {cols}, delta {is_delta}");
            assert_same(kernels.name(), &what, &run(kernels), &expected);
        }
    }
}

#[test]
fn gelu_equals_the_scalar_code_and_known_values() {
    // x · Φ(x) by Python's math.erfc, for x as f32 holds it.
    let known = [
        (-9.0, -1.015729565358458e-18),
        (-4.0, -0.00012668496733247986),
        (-1.5, -0.10021080190328713),
        (-0.1, -0.04601721689885652),
        (0.0, 0.0),
        (0.3, 0.1853734353867131),
        (1.0, 0.8413447460685429),
        (5.0, 4.99999856674214),
        (40.0, 40.0),
    ];
    let inputs: Vec<f32> = known.iter().map(|known| known.0).collect();
    for kernels in kernels::every() {
        let mut got = inputs.clone();
        kernels.gelu(&mut got);
        for ((x, expected), got) in known.iter().zip(&got) {
            let error = (f64::from(*got) - expected).abs() / f64::max(f64::abs(*expected), 1e-18);
            assert!(
                error < 5e-6,
                "{}: {x}: expected {expected:e}, got {got:e}",
                kernels.name()
            );
        }
    }
    let mut random = Random(9);
    let x: Vec<f32> = random.values(100).iter().map(|x| 9.0 * x).collect();
    let mut expected = x.clone();
    scalar().gelu(&mut expected);
    for kernels in others() {
        let mut got = x.clone();
        kernels.gelu(&mut got);
        assert_same(kernels.name(), "gelu", &got, &expected);
    }
}

#[test]
fn rope_equals_the_scalar_code_and_keeps_lengths() {
    let mut random = Random(5);
    for (heads, head_dim, rotated) in [(1, 2, 2), (3, 64, 64), (2, 80, 20), (4, 6, 0)] {
        let x = random.values(heads * head_dim);
        let angles = random.values(rotated / 2);
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles
            .iter()
            .map(|angle| (angle.cos(), angle.sin()))
            .unzip();
        for layout in [RopeLayout::Interleaved, RopeLayout::Halves] {
            let mut expected = x.clone();
            scalar().rope(&mut expected, head_dim, &cos, &sin, layout);
            let length =
                |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>().sqrt();
            assert!((length(&expected) - length(&x)).abs() < 1e-4);
            for kernels in others() {
                let mut got = x.clone();
                kernels.rope(&mut got, head_dim, &cos, &sin, layout);
                assert_same(kernels.name(), "rope", &got, &expected);
            }
        }
    }
}
