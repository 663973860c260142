//! Matrix products of operands rounded to bf16 (nearest, ties to even), summed in f32.
//!
//! With AVX512-BF16 one instruction multiplies and adds 32 pairs, twice what f32 does. Operands are packed into panels as in Goto and
//! van de Geijn, "Anatomy of high-performance matrix multiplication" (2008), with neighbouring `k` paired in one 32-bit lane. Elsewhere the
//! operands are rounded and go through the f32 product: the same numbers up to the order of additions.

use std::cell::RefCell;

use super::gemm::{View, product_f32};
use super::per_isa;

/// Rows of a register tile.
const MR: usize = 12;
/// Columns of a register tile: two registers.
const NR: usize = 32;
/// Pairs of `k` per pass: a right panel of 256 · 32 lanes is 32 KiB.
const KC: usize = 256;
/// Rows of the left side packed at a time, a multiple of `MR`.
const MC: usize = 384;
/// Columns of the right side packed at a time, a multiple of `NR`.
const NC: usize = 1024;

thread_local! {
    /// Packed left and right sides, reused.
    static PACKED: RefCell<(Vec<u32>, Vec<u32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Whether the processor multiplies bf16 itself.
pub fn native() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512bf16") && super::isa() == super::Isa::Avx512
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// `dst [m, n] (+)= lhs [m, k] · rhs [k, n]`; lengths have been checked.
pub(super) fn product(dst: &mut [f32], lhs: View, rhs: View, [m, n, k]: [usize; 3], add: bool) {
    PACKED.with_borrow_mut(|(left, right)| {
        if native() {
            blocks(dst, lhs, rhs, [m, n, k], add, left, right);
        } else {
            let (left, right) = (rounded(lhs.data, left), rounded(rhs.data, right));
            product_f32(
                dst,
                View { data: left, ..lhs },
                View { data: right, ..rhs },
                [m, n, k],
                add,
            );
        }
    });
}

/// A rounded copy, in memory that is reused.
fn rounded<'a>(x: &[f32], buffer: &'a mut Vec<u32>) -> &'a [f32] {
    buffer.clear();
    buffer.extend(x.iter().map(|x| u32::from(bits(*x)) << 16));
    // SAFETY: u32 and f32 have the same size and alignment, and every bit pattern is an f32.
    unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), buffer.len()) }
}

/// The nearest bf16, ties to even.
#[inline(always)]
pub(crate) fn bits(x: f32) -> u16 {
    let b = x.to_bits();
    (b.wrapping_add(0x7fff + ((b >> 16) & 1)) >> 16) as u16
}

#[inline(always)]
fn pair(low: f32, high: f32) -> u32 {
    let (l, h) = (low.to_bits(), high.to_bits());
    let l = l.wrapping_add(0x7fff + ((l >> 16) & 1)) >> 16;
    let h = h.wrapping_add(0x7fff + ((h >> 16) & 1)) & 0xffff_0000;
    l | h
}

fn blocks(
    dst: &mut [f32],
    lhs: View,
    rhs: View,
    [m, n, k]: [usize; 3],
    add: bool,
    left: &mut Vec<u32>,
    right: &mut Vec<u32>,
) {
    if k == 0 && !add {
        dst.fill(0.0);
    }
    for j in (0..n).step_by(NC) {
        let columns = NC.min(n - j);
        for p in (0..k).step_by(2 * KC) {
            let depth = (2 * KC).min(k - p);
            let pairs = depth.div_ceil(2);
            // The right side by columns, the left by rows: both are "lines" of `depth` values.
            let lines = Lines {
                data: &rhs.data[p * rhs.row_stride + j * rhs.col_stride..],
                line: rhs.col_stride,
                step: rhs.row_stride,
            };
            pack::<NR>(right, lines, columns, depth);
            for i in (0..m).step_by(MC) {
                let rows = MC.min(m - i);
                let lines = Lines {
                    data: &lhs.data[i * lhs.row_stride + p * lhs.col_stride..],
                    line: lhs.row_stride,
                    step: lhs.col_stride,
                };
                let along = lines.step == 1;
                if along {
                    pack_rows(left, lines, rows, depth)
                } else {
                    pack::<MR>(left, lines, rows, depth)
                }
                let dst = &mut dst[i * n + j..];
                for (c, right) in right.chunks_exact(pairs * NR).enumerate() {
                    for (r, left) in left.chunks_exact(pairs * MR).enumerate() {
                        let size = [MR.min(rows - r * MR), NR.min(columns - c * NR)];
                        tile(
                            &mut dst[r * MR * n + c * NR..],
                            n,
                            left,
                            along,
                            right,
                            size,
                            add || p > 0,
                        );
                    }
                }
            }
        }
    }
}

/// Lines of values to be packed: value `s` of line `l` is `data[l · line + s · step]`.
#[derive(Clone, Copy)]
struct Lines<'a> {
    data: &'a [f32],
    line: usize,
    step: usize,
}

/// Packs `count` lines of `depth` values into panels of `W` lines: `[panels, pairs, W]` lanes, zeros in the padding.
fn pack<const W: usize>(to: &mut Vec<u32>, lines: Lines, count: usize, depth: usize) {
    let pairs = depth.div_ceil(2);
    to.resize(count.div_ceil(W) * pairs * W, 0);
    for (panel, to) in to.chunks_exact_mut(pairs * W).enumerate() {
        let first = panel * W;
        let width = W.min(count - first);
        let lines = Lines {
            data: &lines.data[first * lines.line..],
            ..lines
        };
        if lines.step == 1 {
            pack_along(to, lines, width, depth);
        } else if W == MR {
            pack_across_12(to, lines, width, depth);
        } else {
            pack_across_32(to, lines, width, depth);
        }
    }
}

per_isa! {
    fn pack_across_12(to: &mut [u32], lines: Lines, width: usize, depth: usize) {
        pack_across::<MR>(to, lines, width, depth);
    }
}
per_isa! {
    fn pack_across_32(to: &mut [u32], lines: Lines, width: usize, depth: usize) {
        pack_across::<NR>(to, lines, width, depth);
    }
}

/// Contiguous lines as the left side: no transposition, each line's pairs stay together: `[panels, MR, pairs]`.
fn pack_rows(to: &mut Vec<u32>, lines: Lines, count: usize, depth: usize) {
    let pairs = depth.div_ceil(2);
    to.resize(count.next_multiple_of(MR) * pairs, 0);
    for (l, to) in to.chunks_exact_mut(pairs).enumerate() {
        match lines.data.get(l * lines.line..).filter(|_| l < count) {
            Some(line) => pack_line(to, &line[..depth]),
            None => to.fill(0),
        }
    }
}

per_isa! {
    fn pack_line(to: &mut [u32], line: &[f32]) {
        let (whole, rest) = line.as_chunks::<2>();
        for (to, x) in to.iter_mut().zip(whole) {
            *to = pair(x[0], x[1]);
        }
        if let (Some(to), Some(x)) = (to.last_mut(), rest.first()) {
            *to = pair(*x, 0.0);
        }
    }
}

per_isa! {
    /// Contiguous lines as the right side: a transposition, 16 pairs at a time.
    fn pack_along(to: &mut [u32], lines: Lines, width: usize, depth: usize) {
        const STEP: usize = 16;
        for (block, to) in to.chunks_mut(STEP * NR).enumerate() {
            let from = block * STEP * 2;
            let mut lanes = [[0u32; STEP]; NR];
            for (l, lanes) in lanes.iter_mut().enumerate().take(width) {
                let line = &lines.data[l * lines.line..][from..depth.min(from + STEP * 2)];
                if let Ok(line) = <&[f32; STEP * 2]>::try_from(line) {
                    for (lane, x) in lanes.iter_mut().zip(line.as_chunks::<2>().0) {
                        *lane = pair(x[0], x[1]);
                    }
                } else {
                    for (lane, x) in lanes.iter_mut().zip(line.chunks(2)) {
                        *lane = pair(x[0], x.get(1).copied().unwrap_or(0.0));
                    }
                }
            }
            if let Ok(to) = <&mut [u32; STEP * NR]>::try_from(&mut *to) {
                transpose(to, &lanes);
            } else {
                for (s, to) in to.chunks_exact_mut(NR).enumerate() {
                    for (to, lanes) in to.iter_mut().zip(&lanes) {
                        *to = lanes[s];
                    }
                }
            }
        }
    }
}

/// `to[s][l] = from[l][s]`, as four rounds of interleaving, which compile to shuffles of whole registers.
#[inline(always)]
fn transpose(to: &mut [u32; 16 * NR], from: &[[u32; 16]; NR]) {
    for half in 0..NR / 16 {
        let mut rows = [[0u32; 16]; 16];
        rows.copy_from_slice(&from[half * 16..][..16]);
        // Each round interleaves line i with line i + 8; after four, lines and places have changed roles.
        for _ in 0..4 {
            let mut next = [[0u32; 16]; 16];
            for i in 0..8 {
                for l in 0..8 {
                    next[2 * i][2 * l] = rows[i][l];
                    next[2 * i][2 * l + 1] = rows[i + 8][l];
                    next[2 * i + 1][2 * l] = rows[i][l + 8];
                    next[2 * i + 1][2 * l + 1] = rows[i + 8][l + 8];
                }
            }
            rows = next;
        }
        for (s, row) in rows.iter().enumerate() {
            to[s * NR + half * 16..][..16].copy_from_slice(row);
        }
    }
}

/// Neighbouring lines are contiguous.
#[inline(always)]
fn pack_across<const W: usize>(to: &mut [u32], lines: Lines, width: usize, depth: usize) {
    for (s, to) in to.chunks_exact_mut(W).enumerate() {
        let low = &lines.data[2 * s * lines.step..];
        let high = if 2 * s + 1 < depth {
            &lines.data[(2 * s + 1) * lines.step..]
        } else {
            &[]
        };
        match (low.first_chunk::<W>(), high.first_chunk::<W>()) {
            (Some(low), Some(high)) if lines.line == 1 && width == W => {
                for l in 0..W {
                    to[l] = pair(low[l], high[l]);
                }
            }
            _ => {
                to.fill(0);
                for (l, to) in to.iter_mut().enumerate().take(width) {
                    *to = pair(
                        low[l * lines.line],
                        high.get(l * lines.line).copied().unwrap_or(0.0),
                    );
                }
            }
        }
    }
}

/// `dst[..rows, ..columns] (+)= left · right` of one pair of panels.
#[cfg(target_arch = "x86_64")]
fn tile(
    dst: &mut [f32],
    stride: usize,
    left: &[u32],
    along: bool,
    right: &[u32],
    [rows, columns]: [usize; 2],
    add: bool,
) {
    // SAFETY: only reached through `native`, which detected AVX-512 F and BF16.
    let run = |sums: &mut [f32], stride, add| unsafe {
        if along {
            tile_rows(sums, stride, left, right, add);
        } else {
            tile_lanes(sums, stride, left, right, add);
        }
    };
    if rows == MR && columns == NR {
        return run(dst, stride, add);
    }
    let mut sums = [0f32; MR * NR];
    run(&mut sums, NR, false);
    for (dst, sums) in dst.chunks_mut(stride).zip(sums.chunks(NR)).take(rows) {
        let (dst, sums) = (&mut dst[..columns], &sums[..columns]);
        if add {
            dst.iter_mut().zip(sums).for_each(|(d, s)| *d += s);
        } else {
            dst.copy_from_slice(sums);
        }
    }
}

/// Left panel `[pairs, MR]`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn tile_lanes(dst: &mut [f32], stride: usize, left: &[u32], right: &[u32], add: bool) {
    tile_sums(dst, stride, left, [1, MR], right, add);
}

/// Left panel `[MR, pairs]`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn tile_rows(dst: &mut [f32], stride: usize, left: &[u32], right: &[u32], add: bool) {
    tile_sums(dst, stride, left, [left.len() / MR, 1], right, add);
}

/// Lane of row `r` and pair `p` of the left panel: `left[r · row + p · step]`.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn tile_sums(
    dst: &mut [f32],
    stride: usize,
    left: &[u32],
    [row, step]: [usize; 2],
    right: &[u32],
    add: bool,
) {
    use std::arch::x86_64::{
        __m512, __m512bh, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
        _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
    };
    // SAFETY: both types are 512 bits, any pattern is valid.
    let bf = |x| unsafe { std::mem::transmute::<_, __m512bh>(x) };
    let mut acc: [[__m512; NR / 16]; MR] = [[_mm512_setzero_ps(); NR / 16]; MR];
    let right = right.as_chunks::<NR>().0;
    assert_eq!(left.len(), right.len() * MR, "panels of the same depth");
    for (p, b) in right.iter().enumerate() {
        // SAFETY: `b` holds 32 lanes of 32 bits: two whole registers.
        let (b0, b1) = unsafe {
            (
                bf(_mm512_loadu_si512(b.as_ptr().cast())),
                bf(_mm512_loadu_si512(b.as_ptr().add(16).cast())),
            )
        };
        for (r, acc) in acc.iter_mut().enumerate() {
            // SAFETY: r < MR and p < pairs, in either order of strides inside the MR · pairs lanes of `left`.
            let a = bf(_mm512_set1_epi32(
                unsafe { *left.get_unchecked(r * row + p * step) } as i32,
            ));
            acc[0] = _mm512_dpbf16_ps(acc[0], a, b0);
            acc[1] = _mm512_dpbf16_ps(acc[1], a, b1);
        }
    }
    for (dst, acc) in dst.chunks_mut(stride).zip(acc) {
        let dst = &mut dst[..NR];
        for (dst, acc) in dst.as_chunks_mut::<16>().0.iter_mut().zip(acc) {
            // SAFETY: `dst` is one register long.
            unsafe {
                let sum = if add {
                    _mm512_add_ps(_mm512_loadu_ps(dst.as_ptr()), acc)
                } else {
                    acc
                };
                _mm512_storeu_ps(dst.as_mut_ptr(), sum);
            }
        }
    }
}

/// Never reached: `native` is false elsewhere.
#[cfg(not(target_arch = "x86_64"))]
fn tile(_: &mut [f32], _: usize, _: &[u32], _: bool, _: &[u32], _: [usize; 2], _: bool) {}

#[cfg(test)]
mod tests {
    use super::super::gemm::Products;
    use crate::student::fill_normal;
    use dram_files::Rng;

    #[test]
    fn equals_the_f32_product_of_rounded_operands() {
        println!(
            "bf16 products: {}",
            if super::native() {
                "AVX512-BF16"
            } else {
                "rounded f32"
            }
        );
        let round = |x: &[f32]| {
            x.iter()
                .map(|x| f32::from_bits(u32::from(super::bits(*x)) << 16))
                .collect::<Vec<_>>()
        };
        for (i, [n, out, input]) in [
            [1, 1, 1],
            [5, 33, 7],
            [12, 32, 64],
            [13, 40, 513],
            [100, 1100, 37],
            [390, 70, 1030],
        ]
        .into_iter()
        .enumerate()
        {
            let random = |len: usize, key: u64| {
                let mut v = vec![0f32; len];
                fill_normal(&mut v, 1.0, &mut Rng::new(&[i as u64, key]));
                v
            };
            let (x, w, dy, start) = (
                random(n * input, 1),
                random(out * input, 2),
                random(n * out, 3),
                random(n.max(out) * out.max(input), 4),
            );
            let run = |p: Products, x: &[f32], w: &[f32], dy: &[f32]| {
                let (mut y, mut dx, mut dw) = (
                    start[..n * out].to_vec(),
                    start[..n * input].to_vec(),
                    start[..out * input].to_vec(),
                );
                p.linear(&mut y, x, w, [n, out, input], true);
                p.linear_input_gradient(&mut dx, dy, w, [n, out, input], false);
                p.linear_weight_gradient(&mut dw, dy, x, [n, out, input]);
                [y, dx, dw]
            };
            let got = run(Products::Bf16, &x, &w, &dy);
            let want = run(Products::F32, &round(&x), &round(&w), &round(&dy));
            for (got, want) in got.iter().zip(&want) {
                for (g, w) in got.iter().zip(want) {
                    assert!(
                        (g - w).abs() < 1e-5 * (n.max(out).max(input) as f32).sqrt() * 4.0,
                        "{n} {out} {input}: {g} expected {w}"
                    );
                }
            }
        }
        assert_eq!(super::bits(1.0), 0x3f80);
        assert_eq!(
            super::bits(f32::from_bits(0x3f80_8000)),
            0x3f80,
            "ties go to even"
        );
        assert_eq!(super::bits(f32::from_bits(0x3f81_8000)), 0x3f82);
        assert!(f32::from_bits(u32::from(super::bits(f32::NAN)) << 16).is_nan());
    }
}
