//! Causal grouped-query attention over packed sequences, forward and backward.
//!
//! Sequences of 32 to a few hundred tokens: the score matrix of one head fits the cache, so it is kept for the backward pass. Queries may
//! be a subset of a sequence's positions; the last layer runs only where something is wanted.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::elementwise::{soft_cap, soft_cap_slope};
use super::{dot, exp, max, sum};

/// Heads of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

/// One sequence's share of the packed buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First row of keys and values, and how many.
    pub start: usize,
    pub length: usize,
    /// First row of queries, and how many.
    pub query_start: usize,
    pub queries: usize,
    /// Where its probabilities `[heads, queries, padded(length)]` begin.
    pub probabilities: usize,
}

/// Scores are padded to whole registers.
pub fn padded(length: usize) -> usize {
    length.next_multiple_of(16)
}

/// Reused memory for one head: Kᵀ, Vᵀ and the gradient of the scores.
#[derive(Debug, Default)]
pub struct Scratch {
    transposed: Vec<f32>,
    scores: Vec<f32>,
}

/// `out = softmax(q kᵀ · scale) v` with query `i` seeing positions `0..=at[i]` of its sequence, or the last `window` of these.
///
/// `out`, `q`: [queries, heads · head_dim]; `kv`: [rows, 2 · kv_heads · head_dim], keys first; `at`: [queries]; `p` receives the
/// probabilities, and where scores are bounded `capped`, as long, receives the bounded scores.
pub fn attention(
    out: &mut [f32],
    (p, capped): (&mut [f32], &mut [f32]),
    q: &[f32],
    kv: &[f32],
    at: &[u32],
    layer: Layer,
    scratch: &mut Scratch,
) {
    Arch::new().dispatch(Forward {
        out,
        p,
        capped,
        q,
        kv,
        at,
        layer,
        scratch,
    });
}

/// Gradients of [`attention`]: `gradients` = (dq, dkv) are overwritten. `p` holds the probabilities of the forward pass, `capped` the bounded scores.
pub fn attention_backward(
    gradients: (&mut [f32], &mut [f32]),
    dout: &[f32],
    (p, capped): (&[f32], &[f32]),
    (q, kv): (&[f32], &[f32]),
    at: &[u32],
    layer: Layer,
    scratch: &mut Scratch,
) {
    let (dq, dkv) = gradients;
    Arch::new().dispatch(Backward {
        dq,
        dkv,
        dout,
        p,
        capped,
        q,
        kv,
        at,
        layer,
        scratch,
    });
}

/// Heads and sequences, and what becomes of scores.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    pub heads: Heads,
    pub spans: &'a [Span],
    /// Multiplies the products of queries and keys.
    pub scale: f32,
    /// How many positions a query sees, its own among them; `None`: all before it.
    pub window: Option<usize>,
    /// Bound of the scores: `cap · tanh(score / cap)`.
    pub cap: Option<f32>,
}

impl Layer<'_> {
    /// The positions that a query at `at` sees.
    #[inline(always)]
    fn seen(&self, at: u32) -> Range<usize> {
        let end = at as usize + 1;
        self.window.map_or(0, |window| end.saturating_sub(window))..end
    }
}

struct Forward<'a> {
    out: &'a mut [f32],
    p: &'a mut [f32],
    capped: &'a mut [f32],
    q: &'a [f32],
    kv: &'a [f32],
    at: &'a [u32],
    layer: Layer<'a>,
    scratch: &'a mut Scratch,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Forward {
            out,
            p,
            capped,
            q,
            kv,
            at,
            layer,
            scratch,
        } = self;
        let Heads {
            heads,
            kv_heads,
            head_dim: hd,
        } = layer.heads;
        let (q_stride, kv_stride) = (heads * hd, 2 * kv_heads * hd);
        for s in layer.spans {
            let width = padded(s.length);
            let kv = &kv[s.start * kv_stride..][..s.length * kv_stride];
            let at = &at[s.query_start..][..s.queries];
            for kv_head in 0..kv_heads {
                let kt = transpose(
                    &mut scratch.transposed,
                    &kv[kv_head * hd..],
                    kv_stride,
                    s.length,
                    hd,
                );
                let v = &kv[(kv_heads + kv_head) * hd..];
                for head in kv_head * heads / kv_heads..(kv_head + 1) * heads / kv_heads {
                    let place = s.probabilities + head * s.queries * width;
                    let p = &mut p[place..][..s.queries * width];
                    let first = s.query_start * q_stride + head * hd;
                    for (i, rows) in blocks(s.queries) {
                        let seen = at[i + rows - 1] as usize + 1;
                        let p = &mut p[i * width..][..rows * width];
                        let scores = Rows {
                            data: &mut *p,
                            stride: width,
                        };
                        let q = Left {
                            data: &q[first + i * q_stride..],
                            row: q_stride,
                            col: 1,
                        };
                        product(
                            simd,
                            scores,
                            q,
                            Rows {
                                data: kt,
                                stride: width,
                            },
                            [rows, padded(seen), hd],
                            false,
                        );
                        if let Some(cap) = layer.cap {
                            let kept = &mut capped[place + i * width..][..rows * width];
                            cap_scores(p, kept, layer.scale, cap);
                        }
                        let scale = if layer.cap.is_some() {
                            1.0
                        } else {
                            layer.scale
                        };
                        for (row, &at) in p.chunks_exact_mut(width).zip(&at[i..]) {
                            softmax_row(row, layer.seen(at), scale);
                        }
                        let out = Rows {
                            data: &mut out[first + i * q_stride..],
                            stride: q_stride,
                        };
                        let p = Left {
                            data: p,
                            row: width,
                            col: 1,
                        };
                        product(
                            simd,
                            out,
                            p,
                            Rows {
                                data: v,
                                stride: kv_stride,
                            },
                            [rows, hd, seen],
                            false,
                        );
                    }
                }
            }
        }
    }
}

struct Backward<'a> {
    dq: &'a mut [f32],
    dkv: &'a mut [f32],
    dout: &'a [f32],
    p: &'a [f32],
    capped: &'a [f32],
    q: &'a [f32],
    kv: &'a [f32],
    at: &'a [u32],
    layer: Layer<'a>,
    scratch: &'a mut Scratch,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Backward {
            dq,
            dkv,
            dout,
            p,
            capped,
            q,
            kv,
            at,
            layer,
            scratch,
        } = self;
        let Heads {
            heads,
            kv_heads,
            head_dim: hd,
        } = layer.heads;
        let (q_stride, kv_stride) = (heads * hd, 2 * kv_heads * hd);
        for s in layer.spans {
            let width = padded(s.length);
            let kv = &kv[s.start * kv_stride..][..s.length * kv_stride];
            let dkv = &mut dkv[s.start * kv_stride..][..s.length * kv_stride];
            let at = &at[s.query_start..][..s.queries];
            scratch.scores.resize(s.queries * width, 0.0);
            for kv_head in 0..kv_heads {
                let k = &kv[kv_head * hd..];
                let vt = transpose(
                    &mut scratch.transposed,
                    &kv[(kv_heads + kv_head) * hd..],
                    kv_stride,
                    s.length,
                    hd,
                );
                let group = kv_head * heads / kv_heads..(kv_head + 1) * heads / kv_heads;
                for head in group.clone() {
                    let place = s.probabilities + head * s.queries * width;
                    let p = &p[place..][..s.queries * width];
                    let first = s.query_start * q_stride + head * hd;
                    let scores = &mut scratch.scores[..s.queries * width];
                    for (i, rows) in blocks(s.queries) {
                        let seen = at[i + rows - 1] as usize + 1;
                        let ds = &mut scores[i * width..][..rows * width];
                        let dout = Left {
                            data: &dout[first + i * q_stride..],
                            row: q_stride,
                            col: 1,
                        };
                        let to = Rows {
                            data: &mut *ds,
                            stride: width,
                        };
                        product(
                            simd,
                            to,
                            dout,
                            Rows {
                                data: vt,
                                stride: width,
                            },
                            [rows, padded(seen), hd],
                            false,
                        );
                        let rows_of_p = p[i * width..].chunks_exact(width);
                        for ((ds, p), &at) in
                            ds.chunks_exact_mut(width).zip(rows_of_p).zip(&at[i..])
                        {
                            softmax_row_backward(ds, p, layer.seen(at), layer.scale);
                        }
                        if let Some(cap) = layer.cap {
                            cap_scores_backward(ds, &capped[place + i * width..], cap);
                        }
                        let dq = Rows {
                            data: &mut dq[first + i * q_stride..],
                            stride: q_stride,
                        };
                        let ds = Left {
                            data: ds,
                            row: width,
                            col: 1,
                        };
                        product(
                            simd,
                            dq,
                            ds,
                            Rows {
                                data: k,
                                stride: kv_stride,
                            },
                            [rows, hd, seen],
                            false,
                        );
                    }
                    // Column blocks of P and dS, from the first query that sees any of them.
                    for (j, cols) in blocks(s.length) {
                        let from = at.partition_point(|&at| (at as usize) < j);
                        let rows = s.queries - from;
                        let add = head != group.start;
                        let (outer, columns) = (first + from * q_stride, from * width + j);
                        let dv = Rows {
                            data: &mut dkv[j * kv_stride + (kv_heads + kv_head) * hd..],
                            stride: kv_stride,
                        };
                        let p = Left {
                            data: p.get(columns..).unwrap_or(&[]),
                            row: 1,
                            col: width,
                        };
                        let dout = Rows {
                            data: dout.get(outer..).unwrap_or(&[]),
                            stride: q_stride,
                        };
                        product(simd, dv, p, dout, [cols, hd, rows], add);
                        let dk = Rows {
                            data: &mut dkv[j * kv_stride + kv_head * hd..],
                            stride: kv_stride,
                        };
                        let ds = Left {
                            data: scores.get(columns..).unwrap_or(&[]),
                            row: 1,
                            col: width,
                        };
                        product(
                            simd,
                            dk,
                            ds,
                            Rows {
                                data: q.get(outer..).unwrap_or(&[]),
                                stride: q_stride,
                            },
                            [cols, hd, rows],
                            add,
                        );
                    }
                }
            }
        }
    }
}

/// Rows are taken `ROWS` at a time.
const ROWS: usize = 4;

/// (first, count) of the row blocks of `n` rows.
#[inline(always)]
fn blocks(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).step_by(ROWS).map(move |i| (i, ROWS.min(n - i)))
}

/// In place: `cap · tanh(score · scale / cap)`, and the same to `kept`.
#[inline(always)]
fn cap_scores(scores: &mut [f32], kept: &mut [f32], scale: f32, cap: f32) {
    for (x, kept) in scores.iter_mut().zip(kept) {
        *x = soft_cap(*x * scale, cap);
        *kept = *x;
    }
}

/// In place: from the gradient of the bounded scores to that of the scores.
#[inline(always)]
fn cap_scores_backward(ds: &mut [f32], capped: &[f32], cap: f32) {
    for (ds, c) in ds.iter_mut().zip(capped) {
        *ds *= soft_cap_slope(*c, cap);
    }
}

/// In place: probabilities of the scores that are `seen`, times `scale`, zeros around them.
#[inline(always)]
fn softmax_row(row: &mut [f32], seen: Range<usize>, scale: f32) {
    let (live, rest) = row.split_at_mut(seen.end);
    rest.fill(0.0);
    let (before, live) = live.split_at_mut(seen.start);
    before.fill(0.0);
    let m = max(live) * scale;
    for x in live.iter_mut() {
        *x = exp(x.mul_add(scale, -m));
    }
    let inverse = 1.0 / sum(live);
    for x in live {
        *x *= inverse;
    }
}

/// In place: from dP to dS = P · (dP − Σ P·dP) · scale, zeros around what is `seen`.
#[inline(always)]
fn softmax_row_backward(ds: &mut [f32], p: &[f32], seen: Range<usize>, scale: f32) {
    let (live, rest) = ds.split_at_mut(seen.end);
    rest.fill(0.0);
    let (before, live) = live.split_at_mut(seen.start);
    before.fill(0.0);
    let p = &p[seen];
    let mean = dot(live, p);
    for (x, p) in live.iter_mut().zip(p) {
        *x = p * (*x - mean) * scale;
    }
}

/// `[rows, cols]` with row stride `stride` to `[cols, padded(rows)]`, zeros in the padding.
#[inline(always)]
fn transpose<'a>(
    to: &'a mut Vec<f32>,
    from: &[f32],
    stride: usize,
    rows: usize,
    cols: usize,
) -> &'a [f32] {
    let width = padded(rows);
    to.clear();
    to.resize(cols * width, 0.0);
    for (i, row) in from.chunks(stride).take(rows).enumerate() {
        for (j, &x) in row[..cols].iter().enumerate() {
            to[j * width + i] = x;
        }
    }
    to
}

/// The left side of a product, with any strides: value (i, j) is `data[i · row + j · col]`.
#[derive(Clone, Copy)]
struct Left<'a> {
    data: &'a [f32],
    row: usize,
    col: usize,
}

/// The right side or the destination: contiguous rows, `stride` apart.
#[derive(Clone, Copy)]
struct Rows<T> {
    data: T,
    stride: usize,
}

/// `c [m, n] (+)= a [m, k] · b [k, n]`; `m` is at most [`ROWS`].
#[inline(always)]
fn product<S: Simd>(
    simd: S,
    c: Rows<&mut [f32]>,
    a: Left,
    b: Rows<&[f32]>,
    [m, n, k]: [usize; 3],
    add: bool,
) {
    let mut j = 0;
    while j < n {
        let columns = (2 * S::F32_LANES).min(n - j);
        let c = Rows {
            data: &mut c.data[j..],
            ..c
        };
        let b = Rows {
            data: b.data.get(j..).unwrap_or(&[]),
            ..b
        };
        if m == ROWS {
            tile::<S, ROWS>(simd, c, a, b, columns, k, add);
        } else {
            for i in 0..m {
                let c = Rows {
                    data: &mut c.data[i * c.stride..],
                    ..c
                };
                tile::<S, 1>(
                    simd,
                    c,
                    Left {
                        data: &a.data[i * a.row..],
                        ..a
                    },
                    b,
                    columns,
                    k,
                    add,
                );
            }
        }
        j += columns;
    }
}

/// One register tile: `R` rows of `columns` columns, at most two registers wide.
#[inline(always)]
fn tile<S: Simd, const R: usize>(
    simd: S,
    c: Rows<&mut [f32]>,
    a: Left,
    b: Rows<&[f32]>,
    columns: usize,
    k: usize,
    add: bool,
) {
    let lanes = S::F32_LANES;
    assert!(
        k == 0 || (R - 1) * a.row + (k - 1) * a.col < a.data.len(),
        "attention: left side too short"
    );
    assert!(
        k == 0 || (k - 1) * b.stride + columns <= b.data.len(),
        "attention: right side too short"
    );
    let mut acc = [[simd.splat_f32s(0.0); 2]; R];
    if columns == 2 * lanes {
        for i in 0..k {
            // SAFETY: i < k, and the last row of `b` ends inside the slice (second assertion).
            let b = unsafe { b.data.get_unchecked(i * b.stride..i * b.stride + 2 * lanes) };
            let b = S::as_simd_f32s(b).0;
            let (b0, b1) = (b[0], b[1]);
            for (r, acc) in acc.iter_mut().enumerate() {
                // SAFETY: r < R and i < k, and the largest such index is inside the slice (first assertion).
                let x = simd.splat_f32s(unsafe { *a.data.get_unchecked(r * a.row + i * a.col) });
                acc[0] = simd.mul_add_f32s(x, b0, acc[0]);
                acc[1] = simd.mul_add_f32s(x, b1, acc[1]);
            }
        }
    } else {
        let (first, second) = (columns.min(lanes), columns.saturating_sub(lanes));
        for i in 0..k {
            let b = &b.data[i * b.stride..][..columns];
            let (b0, b1) = (
                simd.partial_load_f32s(&b[..first]),
                simd.partial_load_f32s(&b[first..first + second]),
            );
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = simd.splat_f32s(a.data[r * a.row + i * a.col]);
                acc[0] = simd.mul_add_f32s(x, b0, acc[0]);
                acc[1] = simd.mul_add_f32s(x, b1, acc[1]);
            }
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        let c: &mut [f32] = &mut c.data[r * c.stride..][..columns];
        let (first, second) = c.split_at_mut(columns.min(lanes));
        for (c, mut sum) in [first, second].into_iter().zip(*acc) {
            if add {
                sum = simd.add_f32s(sum, simd.partial_load_f32s(c));
            }
            simd.partial_store_f32s(c, sum);
        }
    }
}
