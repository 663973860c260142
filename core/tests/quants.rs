//! The quantisers against an independent restatement of GGML's (`golden/make_quants.py`), on every instruction set.

use dram_core::kernels;
use dram_core::quant::{activation, format_by_name};

const GOLDEN: &[u8] = include_bytes!("golden/quants.bin");
const VALUES: usize = 1024;
const BLOCKS: usize = VALUES / 32;

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect()
}

#[test]
fn blocks_equal_the_reference() {
    let (inputs, rest) = GOLDEN.split_at(VALUES * 4);
    let (q8_0, rest) = rest.split_at(BLOCKS * 34);
    let (q4_0, rest) = rest.split_at(BLOCKS * 18);
    let (scales, values) = rest.split_at(BLOCKS * 4);
    assert_eq!(values.len(), VALUES);
    let inputs = floats(inputs);
    for kernels in kernels::every() {
        for (name, expected) in [("q8_0", q8_0), ("q4_0", q4_0)] {
            let format = format_by_name(name).unwrap();
            let mut bytes = vec![0; expected.len()];
            kernels.quantize(format, &inputs, &mut bytes);
            for (index, (got, expected)) in bytes
                .chunks(format.block_bytes)
                .zip(expected.chunks(format.block_bytes))
                .enumerate()
            {
                // GGML's scale of a block of zeros is −0, the restatement's is −0 or +0 by the first value's sign.
                assert!(
                    got[2..] == expected[2..] && (got[..2] == expected[..2] || index == 3),
                    "{}: {name} block {index}: expected {expected:x?}, got {got:x?}",
                    kernels.name()
                );
            }
        }
        let mut buffer = activation::Buffer::new(VALUES);
        kernels.quantize_activations(&inputs, buffer.view_mut(VALUES));
        let got = buffer.view(VALUES);
        assert_eq!(
            got.scales,
            floats(scales),
            "{}: activation scales",
            kernels.name()
        );
        assert!(
            got.values
                .iter()
                .zip(values)
                .all(|(got, expected)| *got == *expected as i8),
            "{}: activations",
            kernels.name()
        );
        for (sum, block) in got.sums.iter().zip(got.values.chunks(32)) {
            assert_eq!(
                *sum,
                block.iter().map(|value| i32::from(*value)).sum::<i32>()
            );
        }
    }
}
