//! One token's product with Q4_K, Q5_K and Q6_K, sixteen rows at a time, with AVX-512 VNNI.
//!
//! Each row's 256 values are multiplied as they lie, 64 to a register, with activations that stay in registers for all rows. Then the sums are
//! transposed, which are fewer than the weights. What follows has one row per lane and the scalar code's order of additions.

use super::super::block_product::{add_part, rows};
use super::super::few_tokens::Terms;
use super::super::product::{ROWS, Rows, Tile};
use super::super::unpack::{Lanewise, Q4K, Q5K, Q6K, Scaled};
use super::unpacked_avx512::Rows16;
use crate::prefetch::prefetch;
use crate::quant::activation::BLOCK;
use std::arch::x86_64::*;

/// Values of a superblock.
const VALUES: usize = 256;
/// Its blocks of activations.
const PARTS: usize = VALUES / BLOCK;

/// The sums of a superblock's products, `[part, half]`, one row per lane. A format without halves leaves the second ones 0.
type Sums = [[__m512i; 2]; PARTS];

/// A format whose superblocks are multiplied row by row; what is given here is for those whose nibbles lie as Q4_K's.
trait RowWise: Lanewise + Scaled {
    /// The activations as the rows' registers need them, from those that lie at `x`.
    ///
    /// # Safety
    /// The processor has the instructions, and what pointers lead to is there; so for the others.
    #[inline(always)]
    unsafe fn activations(x: *const i8) -> [__m512i; 4] {
        // SAFETY: the caller's.
        unsafe { pairs(x) }
    }
    /// What sums begin with.
    #[inline(always)]
    unsafe fn start(_x: &[__m512i; 4]) -> [__m512i; 4] {
        // SAFETY: the caller's.
        unsafe { [_mm512_setzero_si512(); 4] }
    }
    /// The 256 codes of the superblock at `row`.
    unsafe fn codes(row: *const u8) -> [__m512i; 4];
    /// The sums, from quarters `[register, four rows]` with one row per lane in each 128 bits.
    #[inline(always)]
    unsafe fn sums(quarters: &[[__m512i; 4]; 4]) -> Sums {
        // SAFETY: the caller's.
        unsafe { sums_of_pairs(quarters) }
    }
}

// SAFETY (every block below): the trait's contract.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason for all, above"
)]
impl RowWise for Q4K {
    #[inline(always)]
    unsafe fn codes(row: *const u8) -> [__m512i; 4] {
        unsafe { nibbles(row.add(16)) }
    }
}

// SAFETY (every block below): the trait's contract.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason for all, above"
)]
impl RowWise for Q5K {
    #[inline(always)]
    unsafe fn codes(row: *const u8) -> [__m512i; 4] {
        unsafe {
            // Bit p of a byte is the fifth bit of a value of part p.
            let fifth = _mm512_broadcast_i64x4(_mm256_loadu_si256(row.add(16).cast()));
            let fifths = [
                _mm512_sllv_epi32(fifth, halves(4, 2)),
                _mm512_sllv_epi32(fifth, halves(3, 1)),
                _mm512_srlv_epi32(fifth, halves(0, 2)),
                _mm512_srlv_epi32(fifth, halves(1, 3)),
            ];
            let mut codes = nibbles(row.add(48));
            for (code, fifth) in codes.iter_mut().zip(fifths) {
                *code = _mm512_or_si512(*code, _mm512_and_si512(fifth, _mm512_set1_epi8(16)));
            }
            codes
        }
    }
}

// SAFETY (every block below): the trait's contract.
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason for all, above"
)]
impl RowWise for Q6K {
    #[inline(always)]
    unsafe fn activations(x: *const i8) -> [__m512i; 4] {
        unsafe { std::array::from_fn(|k| _mm512_loadu_si512(x.add(k * 64).cast())) }
    }
    /// Takes the codes' offset of 32 out.
    #[inline(always)]
    unsafe fn start(x: &[__m512i; 4]) -> [__m512i; 4] {
        unsafe {
            let zero = _mm512_setzero_si512();
            x.map(|x| {
                let offset = _mm512_dpbusd_epi32(zero, _mm512_set1_epi8(32), x);
                _mm512_sub_epi32(zero, offset)
            })
        }
    }
    #[inline(always)]
    unsafe fn codes(row: *const u8) -> [__m512i; 4] {
        unsafe {
            let mut codes = [_mm512_setzero_si512(); 4];
            for half in 0..2 {
                let low = _mm512_loadu_si512(row.add(half * 64).cast());
                // Two bits of each of four values in a byte, which go to bits 4 and 5.
                let high = _mm256_loadu_si256(row.add(128 + half * 32).cast());
                let high = _mm512_broadcast_i64x4(high);
                let (first, second) = (
                    _mm512_sllv_epi32(high, halves(4, 2)),
                    _mm512_srlv_epi32(high, halves(0, 2)),
                );
                let (nibble, two) = (_mm512_set1_epi8(15), _mm512_set1_epi8(0x30));
                codes[half * 2] =
                    _mm512_or_si512(_mm512_and_si512(low, nibble), _mm512_and_si512(first, two));
                codes[half * 2 + 1] = _mm512_or_si512(
                    _mm512_and_si512(_mm512_srli_epi16::<4>(low), nibble),
                    _mm512_and_si512(second, two),
                );
            }
            codes
        }
    }
    #[inline(always)]
    unsafe fn sums(quarters: &[[__m512i; 4]; 4]) -> Sums {
        unsafe {
            let mut sums = [[_mm512_setzero_si512(); 2]; PARTS];
            for (k, [a, b, c, d]) in quarters.iter().enumerate() {
                let (ab, cd) = (split(*a, *b), split(*c, *d));
                let (even, odd) = (split(ab[0], cd[0]), split(ab[1], cd[1]));
                sums[k * 2] = [even[0], odd[0]];
                sums[k * 2 + 1] = [even[1], odd[1]];
            }
            sums
        }
    }
}

/// A number in each lane of the lower half, and another in the upper one's.
#[inline(always)]
unsafe fn halves(low: i32, high: i32) -> __m512i {
    // SAFETY: the caller has the instructions.
    unsafe { _mm512_inserti64x4::<1>(_mm512_set1_epi32(low), _mm256_set1_epi32(high)) }
}

/// The quarters 0 and 2 of both registers, and their quarters 1 and 3.
#[inline(always)]
unsafe fn split(a: __m512i, b: __m512i) -> [__m512i; 2] {
    // SAFETY: the caller has the instructions.
    unsafe {
        [
            _mm512_shuffle_i32x4::<0x88>(a, b),
            _mm512_shuffle_i32x4::<0xdd>(a, b),
        ]
    }
}

/// Parts 0 and 2, 1 and 3, 4 and 6, 5 and 7 of 256 activations: the parts whose codes [`nibbles`] puts into one register.
#[inline(always)]
unsafe fn pairs(x: *const i8) -> [__m512i; 4] {
    // SAFETY: the caller's: 256 activations are there.
    unsafe {
        let part = |p: usize| _mm256_loadu_si256(x.add(p * BLOCK).cast());
        [0, 1, 4, 5].map(|p| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(part(p)), part(p + 2)))
    }
}

/// 128 bytes' nibbles: of each 64 those below, then those above.
#[inline(always)]
unsafe fn nibbles(bytes: *const u8) -> [__m512i; 4] {
    // SAFETY: the caller's: 128 bytes are there.
    unsafe {
        let (a, b) = (
            _mm512_loadu_si512(bytes.cast()),
            _mm512_loadu_si512(bytes.add(64).cast()),
        );
        let nibble = _mm512_set1_epi8(15);
        let high = |bytes| _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), nibble);
        [
            _mm512_and_si512(a, nibble),
            high(a),
            _mm512_and_si512(b, nibble),
            high(b),
        ]
    }
}

/// [`RowWise::sums`] where registers hold [`pairs`].
#[inline(always)]
unsafe fn sums_of_pairs(quarters: &[[__m512i; 4]; 4]) -> Sums {
    // SAFETY: the caller has the instructions.
    unsafe {
        let zero = _mm512_setzero_si512();
        let mut sums = [[zero; 2]; PARTS];
        for ([a, b, c, d], first) in quarters.iter().zip([0, 1, 4, 5]) {
            let ([even, odd], [more_even, more_odd]) = (split(*a, *b), split(*c, *d));
            let ab = _mm512_add_epi32(even, odd);
            let cd = _mm512_add_epi32(more_even, more_odd);
            let [one, other] = split(ab, cd);
            sums[first] = [one, zero];
            sums[first + 2] = [other, zero];
        }
        sums
    }
}

/// In each 128 bits the sums of four rows' lanes there, in the order of the rows.
#[inline(always)]
unsafe fn add_lanes([a, b, c, d]: [__m512i; 4]) -> __m512i {
    // SAFETY: the caller has the instructions.
    unsafe {
        let add = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (ab, cd) = (add(a, b), add(c, d));
        _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
    }
}

/// The sums of sixteen rows' superblocks.
#[inline(always)]
unsafe fn multiply<F: RowWise>(rows: Rows, x: *const i8) -> Sums {
    // SAFETY: the caller's: the rows' superblocks and 256 activations are there.
    unsafe {
        let x = F::activations(x);
        let start = F::start(&x);
        let zero = _mm512_setzero_si512();
        let mut quarters = [[zero; 4]; 4]; // [register, four rows]
        let ahead = rows.at * ROWS;
        for quarter in 0..4 {
            for line in (0..4 * F::BYTES).step_by(64) {
                prefetch(
                    rows.next
                        .wrapping_add(ahead + quarter * 4 * F::BYTES + line),
                );
            }
            let mut products = [[zero; 4]; 4]; // [register, row]
            for r in 0..4 {
                let codes = F::codes(rows.row(quarter * 4 + r));
                for k in 0..4 {
                    products[k][r] = _mm512_dpbusd_epi32(start[k], codes[k], x[k]);
                }
            }
            for k in 0..4 {
                quarters[k][quarter] = add_lanes(products[k]);
            }
        }
        F::sums(&quarters)
    }
}

#[inline(always)]
unsafe fn one_token<F: RowWise>(tile: &Tile<'_>) {
    let x = &tile.int8;
    // SAFETY: the caller's: the tile has been checked, and has one token.
    unsafe {
        let mut terms = Terms::<Rows16, F::Kind>::new();
        for row in (0..tile.rows / ROWS * ROWS).step_by(ROWS) {
            let mut total = _mm512_setzero_ps();
            for block in 0..tile.cols / VALUES {
                let rows = rows::<Rows16>(tile, row, 1, block * F::BYTES);
                let first = block * PARTS;
                let values = x.values.as_ptr().add(first * BLOCK);
                terms.begin(values, &x.sums[first..][..PARTS]);
                F::scales::<Rows16, _>(rows, &mut terms);
                terms.sums = multiply::<F>(rows, values);
                for part in 0..PARTS {
                    total = add_part::<Rows16, F::Kind>(
                        total,
                        &terms.scales[part],
                        &terms.minimums[part],
                        terms.sums[part],
                        *x.scales.get_unchecked(first + part),
                        terms.x_sums[part],
                    );
                }
            }
            _mm512_storeu_ps(tile.out.add(row), total);
        }
    }
}

macro_rules! kernel {
    ($name:ident, $format:ident) => {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
        pub(super) unsafe fn $name(tile: &Tile<'_>) {
            // SAFETY: the caller's.
            unsafe { one_token::<$format>(tile) }
        }
    };
}

kernel!(one_token_q4_k, Q4K);
kernel!(one_token_q5_k, Q5K);
kernel!(one_token_q6_k, Q6K);
