//! What the formats share whose blocks hold small integers under scales and, in some, minimums: one unpacked form, and the conversions and
//! the product that follow from it.
//!
//! A format says how a block unpacks and how it is made; the rest is here. Products unpack some rows into [`Part`]s and multiply those, so
//! that one kernel for each instruction set serves every such format.

use super::activation::{self, Quantized};
use super::{Codec, Dot, Format};

/// Values of a [`Part`]: the activations' block.
pub(crate) const PART: usize = activation::BLOCK;

/// 32 values, unpacked: value = scale · integer + minimum, with a scale and a minimum for each half of sixteen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) values: [i8; PART],
    pub(crate) scales: [f32; 2],
    pub(crate) minimums: [f32; 2],
}

impl Part {
    /// Before anything is unpacked into it.
    pub(crate) const ZERO: Part = Part {
        values: [0; PART],
        scales: [0.0; 2],
        minimums: [0.0; 2],
    };
}

/// What a format's parts have in common: which terms a product needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One scale for 32 values, no minimums, integers from −8 to 7.
    Narrow,
    /// As [`Kind::Narrow`], with integers from −16 to 16.
    Plain,
    /// As [`Kind::Narrow`], with integers from −128 to 127.
    Wide,
    /// One scale and one minimum for 32 values, integers from 0 to 32.
    Minimums,
    /// A scale for each sixteen values, no minimums, integers from −32 to 32.
    Halves,
    /// A scale and a minimum for each sixteen values, integers from 0 to 32.
    HalvesMinimums,
}

impl Kind {
    pub(crate) const fn halves(self) -> bool {
        matches!(self, Kind::Halves | Kind::HalvesMinimums)
    }

    pub(crate) const fn minimums(self) -> bool {
        matches!(self, Kind::Minimums | Kind::HalvesMinimums)
    }
}

/// How a product takes a format's blocks apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    pub(crate) kind: Kind,
    /// Unpacks whole blocks to as many parts as they hold: the scalar code, which is the specification.
    pub(crate) unpack: fn(&[u8], &mut [Part]),
}

/// A format with blocks of `VALUES` values in `BYTES` bytes.
pub(crate) trait Block<const VALUES: usize, const BYTES: usize> {
    const KIND: Kind;

    /// Part `index` of a block. Any bytes will do.
    fn unpack(block: &[u8; BYTES], index: usize) -> Part;

    /// Rounds values to a block. With `importance`, how much a squared error of each value weighs, errors are moved to where they weigh least.
    fn quantize(
        source: &[f32; VALUES],
        importance: Option<&[f32; VALUES]>,
        block: &mut [u8; BYTES],
    );
}

/// A format's row of the table.
pub(super) const fn format<F: Block<VALUES, BYTES>, const VALUES: usize, const BYTES: usize>(
    name: &'static str,
    ggml_id: u32,
) -> Format {
    assert!(VALUES.is_multiple_of(PART) && VALUES <= 256);
    Format {
        name,
        ggml_id,
        block: VALUES,
        block_bytes: BYTES,
        codec: Codec {
            quantize: quantize::<F, VALUES, BYTES>,
            dequantize: dequantize::<F, VALUES, BYTES>,
            quantize_dequantize: quantize_dequantize::<F, VALUES, BYTES>,
        },
        weighted: Some(quantize_weighted::<F, VALUES, BYTES>),
        dot: Dot::Parts(Parts {
            kind: F::KIND,
            unpack: unpack::<F, VALUES, BYTES>,
        }),
    }
}

#[inline(always)]
fn unpack<F: Block<VALUES, BYTES>, const VALUES: usize, const BYTES: usize>(
    blocks: &[u8],
    parts: &mut [Part],
) {
    let parts = parts.chunks_exact_mut(VALUES / PART);
    for (block, parts) in blocks.as_chunks::<BYTES>().0.iter().zip(parts) {
        for (index, part) in parts.iter_mut().enumerate() {
            *part = F::unpack(block, index);
        }
    }
}

fn quantize<F: Block<VALUES, BYTES>, const VALUES: usize, const BYTES: usize>(
    source: &[f32],
    blocks: &mut [u8],
) {
    let sources = source.as_chunks::<VALUES>().0.iter();
    for (source, block) in sources.zip(blocks.as_chunks_mut::<BYTES>().0) {
        F::quantize(source, None, block);
    }
}

fn quantize_weighted<F: Block<VALUES, BYTES>, const VALUES: usize, const BYTES: usize>(
    source: &[f32],
    importance: &[f32],
    blocks: &mut [u8],
) {
    let sources = source.as_chunks::<VALUES>().0.iter();
    let weighted = sources.zip(importance.as_chunks::<VALUES>().0);
    for ((source, importance), block) in weighted.zip(blocks.as_chunks_mut::<BYTES>().0) {
        F::quantize(source, Some(importance), block);
    }
}

/// The values of one block.
#[inline(always)]
fn read<F: Block<VALUES, BYTES>, const VALUES: usize, const BYTES: usize>(
    block: &[u8; BYTES],
    values: &mut [f32; VALUES],
) {
    for (index, values) in values.as_chunks_mut::<PART>().0.iter_mut().enumerate() {
        let part = F::unpack(block, index);
        for (at, (value, whole)) in values.iter_mut().zip(part.values).enumerate() {
            let half = at / (PART / 2);
            let scaled = part.scales[half] * whole as f32;
            *value = if F::KIND.minimums() {
                scaled + part.minimums[half]
            } else {
                scaled
            };
        }
    }
}

fn dequantize<F: Block<VALUES, BYTES>, const VALUES: usize, const BYTES: usize>(
    blocks: &[u8],
    values: &mut [f32],
) {
    let blocks = blocks.as_chunks::<BYTES>().0.iter();
    for (block, values) in blocks.zip(values.as_chunks_mut::<VALUES>().0) {
        read::<F, VALUES, BYTES>(block, values);
    }
}

fn quantize_dequantize<F: Block<VALUES, BYTES>, const VALUES: usize, const BYTES: usize>(
    source: &[f32],
    rounded: &mut [f32],
) {
    let sources = source.as_chunks::<VALUES>().0.iter();
    for (source, rounded) in sources.zip(rounded.as_chunks_mut::<VALUES>().0) {
        let mut block = [0; BYTES];
        F::quantize(source, None, &mut block);
        read::<F, VALUES, BYTES>(&block, rounded);
    }
}

/// The product of one row with one token's activations, in the order that every instruction set keeps: part after part, in each part half
/// after half where the halves have their own scales, and the scale's term before the minimum's.
pub(crate) fn dot(parts: Parts, format: &Format, row: &[u8], x: Quantized<'_>) -> f32 {
    let mut unpacked = [Part::ZERO; 8];
    let per_block = format.block / PART;
    let xs = x.values.as_chunks::<PART>().0;
    let mut sum = 0.0;
    let blocks = row.chunks_exact(format.block_bytes);
    let xs = xs
        .chunks(per_block)
        .zip(x.scales.chunks(per_block))
        .zip(x.sums.chunks(per_block));
    for (block, ((xs, x_scales), x_sums)) in blocks.zip(xs) {
        (parts.unpack)(block, &mut unpacked[..per_block]);
        for (((part, x), x_scale), x_sum) in unpacked.iter().zip(xs).zip(x_scales).zip(x_sums) {
            let product = |at: std::ops::Range<usize>| -> i32 {
                let pairs = part.values[at.clone()].iter().zip(&x[at]);
                pairs.map(|(w, x)| *w as i32 * *x as i32).sum()
            };
            let term = |half: usize, product: i32| part.scales[half] * x_scale * product as f32;
            let least = |half: usize, x_sum: i32| part.minimums[half] * (x_scale * x_sum as f32);
            if parts.kind.halves() {
                for half in 0..2 {
                    let at = half * (PART / 2)..(half + 1) * (PART / 2);
                    sum += term(half, product(at.clone()));
                    if parts.kind.minimums() {
                        sum += least(half, x[at].iter().map(|x| *x as i32).sum());
                    }
                }
            } else {
                sum += term(0, product(0..PART));
                if parts.kind.minimums() {
                    sum += least(0, *x_sum);
                }
            }
        }
    }
    sum
}

/// The binary16 at `at`, widened.
#[inline(always)]
pub(super) fn half_at(block: &[u8], at: usize) -> f32 {
    super::float16::f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Writes `value` as binary16 at `at` and returns what can be read there.
#[inline(always)]
pub(super) fn put_half(block: &mut [u8], at: usize, value: f32) -> f32 {
    let bits = super::float16::f32_to_f16(value);
    block[at..at + 2].copy_from_slice(&bits.to_le_bytes());
    super::float16::f16_to_f32(bits)
}

/// 32 nibbles: those below in sixteen bytes, then those above. (Loops of this kind become vector instructions; `map` over the array does not.)
#[inline(always)]
pub(super) fn nibbles(bytes: &[u8]) -> [u8; PART] {
    let mut codes = [0; PART];
    let (low, high) = codes.split_at_mut(PART / 2);
    for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
        *low = byte & 15;
        *high = byte >> 4;
    }
    codes
}

/// The entries of `table` that the codes, each below sixteen, stand for. A tree of choices by the codes' bits, because that becomes vector
/// instructions and indexing does not.
#[inline(always)]
pub(super) fn look_up(table: &[i8; 16], codes: &[u8; PART]) -> [i8; PART] {
    let mut entries = [0; PART];
    for (entry, code) in entries.iter_mut().zip(codes) {
        let set = |bit: u32| 0u8.wrapping_sub((code >> bit) & 1) as i8; // all bits or none
        let choose = |bit: u32, clear: i8, other: i8| clear ^ ((clear ^ other) & set(bit));
        let two = |at: usize| choose(0, table[at], table[at + 1]);
        let four = |at: usize| choose(1, two(at), two(at + 2));
        let eight = |at: usize| choose(2, four(at), four(at + 4));
        *entry = choose(3, eight(0), eight(8));
    }
    entries
}

/// The bytes that [`nibbles`] reads.
#[inline(always)]
pub(super) fn put_nibbles(bytes: &mut [u8], codes: impl Fn(usize) -> u8) {
    for (i, byte) in bytes[..16].iter_mut().enumerate() {
        *byte = (codes(i) & 15) | (codes(i + 16) << 4);
    }
}
