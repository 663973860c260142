//! The formats with small integers against the gguf package and GGML itself (`golden/make_blocks.py`), and against anything a file may hold.

use dram_core::kernels::{self, Activations, Weight};
use dram_core::quant::{FORMATS, Format, activation, format_by_name};
use dram_core::threads::Pool;

const GOLDEN: &[u8] = include_bytes!("golden/blocks.bin");
/// make_blocks.py's order.
const NAMES: [&str; 13] = [
    "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "tq1_0",
    "tq2_0", "mxfp4",
];
const VALUES: usize = 512;
const ROWS: usize = 8;
const COLS: usize = 256;

fn floats(bytes: &[u8]) -> Vec<f32> {
    let values = bytes.as_chunks::<4>().0.iter();
    values.map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (head, tail) = rest.split_at(count);
    *rest = tail;
    head
}

/// Blocks of a format, and what they read as.
struct Case {
    format: &'static Format,
    blocks: &'static [u8],
    values: Vec<f32>,
}

/// The blocks of each format, and what follows them.
fn golden() -> ([Case; 13], &'static [u8]) {
    let mut rest = GOLDEN;
    let cases = NAMES.map(|name| {
        let format = format_by_name(name).unwrap();
        Case {
            format,
            blocks: take(&mut rest, format.bytes(VALUES).unwrap()),
            values: floats(take(&mut rest, VALUES * 4)),
        }
    });
    (cases, rest)
}

#[test]
fn blocks_read_as_in_the_gguf_package() {
    for case in golden().0 {
        let Case {
            format,
            blocks,
            values: expected,
        } = case;
        for kernels in kernels::every() {
            let mut values = vec![0.0; VALUES];
            kernels.dequantize(format, blocks, &mut values);
            for (index, (got, expected)) in values.iter().zip(&expected).enumerate() {
                assert!(
                    got == expected,
                    "{} on {}: value {index}: expected {expected:e}, got {got:e}",
                    format.name,
                    kernels.name()
                );
            }
        }
    }
}

#[test]
fn products_are_those_of_the_values() {
    let mut activations = activation::Buffer::new(VALUES);
    let x: Vec<f32> = (0..VALUES).map(|i| (i as f32 * 0.7).sin()).collect();
    dram_core::kernels::quantize_activations(&x, activations.view_mut(VALUES));
    let int8 = activations.view(VALUES);
    let mut x = vec![0.0; VALUES];
    activation::dequantize(int8, &mut x);
    let pool = Pool::new(Some(1)).unwrap();
    for case in golden().0 {
        let terms = case.values.iter().zip(&x);
        let terms = terms.map(|(w, x)| f64::from(*w) * f64::from(*x));
        let expected: f64 = terms.clone().sum();
        let size: f64 = terms.map(f64::abs).sum();
        let weight = Weight {
            format: case.format,
            bytes: case.blocks,
            rows: 1,
            cols: VALUES,
        };
        let x = Activations {
            tokens: 1,
            float: &[],
            int8,
        };
        for kernels in kernels::every() {
            let mut out = [f32::NAN];
            kernels.product(&pool, x, weight, &mut out);
            assert!(
                (f64::from(out[0]) - expected).abs() < 1e-6 * size,
                "{} on {}: expected {expected}, got {}",
                case.format.name,
                kernels.name(),
                out[0]
            );
        }
    }
}

/// √(Σ w (x − y)² / Σ w x²), with `w` by column.
fn error(x: &[f32], y: &[f32], weights: &[f32]) -> f64 {
    let (mut above, mut below) = (0.0, 0.0);
    for (index, (x, y)) in x.iter().zip(y).enumerate() {
        let (x, y) = (f64::from(*x), f64::from(*y));
        let weight = f64::from(weights[index % COLS]);
        above += weight * (x - y).powi(2);
        below += weight * x.powi(2);
    }
    (above / below).sqrt()
}

#[test]
fn rounding_is_as_good_as_ggmls() {
    let mut rest = golden().1;
    let inputs = floats(take(&mut rest, ROWS * COLS * 4)); // [ROWS, COLS]
    let importance = floats(take(&mut rest, COLS * 4));
    let errors = floats(rest);
    let names = NAMES.iter().chain(&["q4_0"]);
    assert_eq!(errors.len(), names.clone().count() * 2);
    for (name, theirs) in names.zip(errors.chunks(2)) {
        let format = format_by_name(name).unwrap();
        let mut blocks = vec![0; format.bytes(inputs.len()).unwrap()];
        let mut values = vec![0.0; inputs.len()];
        format.quantize(&inputs, &mut blocks);
        format.dequantize(&blocks, &mut values);
        let plain = error(&inputs, &values, &[1.0; COLS]);
        let unweighted = error(&inputs, &values, &importance);
        format.quantize_with_importance(&inputs, &importance, &mut blocks);
        format.dequantize(&blocks, &mut values);
        let weighted = error(&inputs, &values, &importance);
        println!(
            "{name:>6}: {plain:.5} (GGML {:.5}); with importance {weighted:.5} (GGML {:.5}, without {unweighted:.5})",
            theirs[0], theirs[1]
        );
        assert!(plain < f64::from(theirs[0]) * 1.02, "{name}: {plain}");
        assert!(weighted < f64::from(theirs[1]) * 1.02, "{name}: {weighted}");
        assert!(weighted <= unweighted, "{name}: {weighted}, {unweighted}");
    }
}

#[test]
fn any_bytes_can_be_read_and_any_values_rounded() {
    let mut state = 1u64;
    let mut random = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    };
    for format in FORMATS {
        let mut blocks = vec![0u8; format.bytes(8192).unwrap()];
        for fill in [None, Some(0u8), Some(0x7f), Some(0x80), Some(0xff)] {
            blocks
                .iter_mut()
                .for_each(|byte| *byte = fill.unwrap_or_else(|| random() as u8));
            let mut values = vec![0.0; 8192];
            format.dequantize(&blocks, &mut values);
            let importance: Vec<f32> = (0..256).map(|_| f32::from_bits(random())).collect();
            let any: Vec<f32> = (0..8192).map(|_| f32::from_bits(random())).collect();
            for source in [&values, &any] {
                format.quantize(source, &mut blocks);
                format.quantize_with_importance(source, &importance, &mut blocks);
                format.quantize_with_importance(source, &[0.0; 256], &mut blocks);
                let mut rounded = vec![0.0; 8192];
                format.quantize_dequantize(source, &mut rounded);
            }
        }
    }
}
