//! NEON with the int8 matrix multiply: `smmla` multiplies eight bytes of two rows with eight bytes of two tokens. A single token takes the dot product.

use super::super::instantiate::table;
use super::super::kinds::{Narrow, Wide};
use super::super::product::Tile;
use super::dotprod::DotProduct;
use super::limits::Smmla;
use super::many_tokens_i8mm::{self, Blocks};
use super::neon::V128x4;
use super::row_pairs::{Q4_0, Q8_0};
use super::unpacked_neon::Rows4;
use super::{dotprod, superblocks};
use std::arch::aarch64::*;
use std::arch::asm;

table!("i8mm", "neon,dotprod,i8mm", V128x4, [2, 3], int8: [(8, product_q8_0), (2, product_q4_0)], parts: [Rows4<DotProduct>, by many_tokens_i8mm::product_of_parts], few: 1, one_token: [(12, superblocks::one_token_q4_k), (13, superblocks::one_token_q5_k)], most: [Smmla, 16]);

#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn product_q8_0(tile: &Tile<'_>) {
    // SAFETY: the caller's; a processor that has i8mm was asked for dotprod too.
    unsafe {
        if tile.tokens == 1 {
            dotprod::one_token_q8_0(tile)
        } else {
            many_tokens_i8mm::product::<_, Wide>(tile, &Blocks::<Q8_0>::NEW)
        }
    }
}

#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn product_q4_0(tile: &Tile<'_>) {
    // SAFETY: the caller's; a processor that has i8mm was asked for dotprod too.
    unsafe {
        if tile.tokens == 1 {
            dotprod::one_token_q4_0(tile)
        } else {
            many_tokens_i8mm::product::<_, Narrow>(tile, &Blocks::<Q4_0>::NEW)
        }
    }
}

/// Adds the 2 × 2 products of two rows of eight bytes with two tokens of eight bytes.
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(super) unsafe fn smmla(sum: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: plain arithmetic of an instruction set that the function's feature asks for. (Its intrinsic is not stable.)
    unsafe {
        asm!(
            "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sum, in(vreg) weights, in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}
