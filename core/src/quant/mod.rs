//! Block formats: how weights lie in a file, and how f32 values become those bytes and come back.
//!
//! [`FORMATS`] is the table; each row's file holds the layout and the scalar code that specifies it. The methods of [`Format`] run on
//! the instruction set that [`crate::kernels::selected`] chose, bit for bit equal to the scalar code.

pub mod activation;
pub(crate) mod blocks;
pub(crate) mod float16;
pub(crate) mod floats;
pub(crate) mod iq4_nl;
pub(crate) mod iq4_xs;
pub(crate) mod mxfp4;
pub(crate) mod q2_k;
pub(crate) mod q3_k;
pub(crate) mod q4_0;
pub(crate) mod q4_1;
pub(crate) mod q4_k;
pub(crate) mod q5_0;
pub(crate) mod q5_1;
pub(crate) mod q5_k;
pub(crate) mod q6_k;
pub(crate) mod q8_0;
mod search;
mod superblock;
pub(crate) mod tq1_0;
pub(crate) mod tq2_0;
mod unread;

/// One block format: a row of [`FORMATS`].
#[derive(Debug)]
pub struct Format {
    /// Lower case, as people write it: `q4_0`.
    pub name: &'static str,
    /// GGML's number for it, which GGUF files carry.
    pub ggml_id: u32,
    /// Values per block. A row's length is a multiple of it.
    pub block: usize,
    /// Bytes per block.
    pub block_bytes: usize,
    /// The scalar conversions, which are the specification.
    pub(crate) codec: Codec,
    /// Rounds one row, given the importance of its values; absent where that would change nothing.
    pub(crate) weighted: Option<Weighted>,
    /// The scalar product of one row with one token's activations, which is the specification.
    pub(crate) dot: Dot,
}

/// Conversions of whole rows, compiled for one instruction set: to call one is safe where the processor has it. Lengths have been checked
/// by the caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Codec {
    /// f32 values to blocks.
    pub(crate) quantize: unsafe fn(&[f32], &mut [u8]),
    /// Blocks to f32 values.
    pub(crate) dequantize: unsafe fn(&[u8], &mut [f32]),
    /// What [`Codec::quantize`] then [`Codec::dequantize`] would give, without the bytes between.
    pub(crate) quantize_dequantize: unsafe fn(&[f32], &mut [f32]),
}

/// `(source, importance, blocks)` of one row. Lengths have been checked by the caller.
pub(crate) type Weighted = fn(&[f32], &[f32], &mut [u8]);

/// The product of one row of weights with the activations of one token, by the kind of activations it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dot {
    /// Weights in floating point: `(row bytes, activations [cols])`.
    Float(fn(&[u8], &[f32]) -> f32),
    /// Weights in small integers that unpack to parts; [`blocks::dot`] multiplies them.
    Parts(blocks::Parts),
}

/// Every format that the runtime reads.
pub static FORMATS: &[Format] = &[
    floats::F32_FORMAT,
    floats::F16_FORMAT,
    floats::BF16_FORMAT,
    q8_0::FORMAT,
    q4_0::FORMAT,
    q4_1::FORMAT,
    q5_0::FORMAT,
    q5_1::FORMAT,
    q2_k::FORMAT,
    q3_k::FORMAT,
    q4_k::FORMAT,
    q5_k::FORMAT,
    q6_k::FORMAT,
    iq4_nl::FORMAT,
    iq4_xs::FORMAT,
    tq1_0::FORMAT,
    tq2_0::FORMAT,
    mxfp4::FORMAT,
];

/// The format with this name, upper or lower case.
#[must_use]
pub fn format_by_name(name: &str) -> Option<&'static Format> {
    FORMATS
        .iter()
        .find(|format| format.name.eq_ignore_ascii_case(name))
}

/// The format with this GGML number.
#[must_use]
pub fn format_by_id(ggml_id: u32) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.ggml_id == ggml_id)
}

/// The names of [`FORMATS`], for errors.
pub(crate) fn names() -> String {
    FORMATS
        .iter()
        .map(|format| format.name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The format with this GGML number, if its name and size are known at all; see [`Format::is_read`].
pub(crate) fn known_by_id(ggml_id: u32) -> Option<&'static Format> {
    format_by_id(ggml_id).or_else(|| unread::UNREAD.iter().find(|f| f.ggml_id == ggml_id))
}

impl Format {
    /// Whether this runtime reads the format. A few are known by name and size only, so that files that hold them can be listed; their
    /// values read as NaN, and [`crate::Model`] refuses them.
    #[must_use]
    pub fn is_read(&self) -> bool {
        format_by_id(self.ggml_id).is_some()
    }

    /// Bytes of `values` consecutive values, or `None` when these are no whole number of blocks or too many for this machine.
    #[must_use]
    pub fn bytes(&self, values: usize) -> Option<usize> {
        if !values.is_multiple_of(self.block) {
            return None;
        }
        (values / self.block).checked_mul(self.block_bytes)
    }

    /// Whether products take activations rounded to int8 ([`activation`]) rather than f32.
    #[must_use]
    pub fn takes_int8(&self) -> bool {
        matches!(self.dot, Dot::Parts(_))
    }
}

/// The greatest magnitude in a block; a NaN counts as greater than infinity, so that it is not lost.
#[inline(always)]
pub(crate) fn max_magnitude(block: &[f32; 32]) -> f32 {
    let most = block
        .iter()
        .fold(0, |most, value| (value.to_bits() & 0x7fff_ffff).max(most));
    f32::from_bits(most)
}

/// What values are multiplied with before they are rounded: 1 / scale, or 0 where that is infinite.
#[inline(always)]
pub(crate) fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.abs() < f32::INFINITY {
        inverse
    } else {
        0.0
    }
}

/// 1.5 · 2²³. Added to a value below 2²², it leaves the nearest whole number (ties to even) in the low bits, as two's complement; subtracted
/// again, it leaves that number. NaN gives 0 in the low bits.
pub(crate) const TO_WHOLE: f32 = 12_582_912.0;

/// The product of a row of floating-point weights with f32 activations, in the order that every instruction set keeps:
/// sixteen running sums (value `i` goes to sum `i mod 16`, fused multiply-add), then [`sum16`].
#[inline(always)]
pub(crate) fn float_dot<W>(row: &[W], x: &[f32], widen: impl Fn(&W) -> f32) -> f32 {
    let mut sums = [0f32; 16];
    for (row, x) in row.chunks(16).zip(x.chunks(16)) {
        for ((sum, weight), x) in sums.iter_mut().zip(row).zip(x) {
            *sum = widen(weight).mul_add(*x, *sum);
        }
    }
    sum16(&sums)
}

/// Adds sixteen running sums by halves, as vector registers do: lane `i` with `i + 8`, then `i + 4`, `i + 2`, `i + 1`.
#[inline(always)]
pub(crate) fn sum16(sums: &[f32; 16]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| sums[i] + sums[i + 8]);
    let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}
