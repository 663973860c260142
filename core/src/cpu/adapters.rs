//! What a session's LoRA adapters add to the model's products.

use super::operations::{Operations, activations};
use super::parallel::{each, rows_per_job};
use crate::kernels::Activations;
use crate::model::Adapter;
use crate::model::adapter::Pair;
use crate::model::weights::Matrix;
use crate::quant::activation::{Buffer, Quantized};

/// The adapters of a session with the room they need. None is the rule, and takes neither room nor time.
#[derive(Default)]
pub(super) struct Adapters {
    list: Vec<(Adapter, f32)>,
    hidden: Vec<f32>, // [tokens, greatest rank]: A·x
    change: Vec<f32>, // [tokens, most rows]: B(A·x); of logits [logit_rows, vocabulary]
    int8: Buffer,     // [tokens, widest]: inputs of quantised A and B
}

/// The number of values in each buffer of [`Adapters`].
fn sizes(list: &[(Adapter, f32)], tokens: usize, logit_rows: usize) -> [usize; 3] {
    let [mut hidden, mut change, mut int8] = [0usize; 3];
    for (adapter, _) in list {
        let head = adapter.pair(adapter.base().weights().output.range.start);
        for pair in adapter.pairs() {
            let is_head = head.is_some_and(|head| std::ptr::eq(head, pair));
            let Pair { a, b } = pair;
            let most = if is_head { logit_rows } else { tokens };
            hidden = hidden.max(most * b.cols);
            change = change.max(most * b.rows);
            for matrix in [a, b].iter().filter(|matrix| matrix.format.takes_int8()) {
                int8 = int8.max(most * matrix.cols);
            }
        }
    }
    [hidden, change, int8]
}

/// Bytes that [`Adapters::new`] allocates.
pub(super) fn bytes(list: &[(Adapter, f32)], tokens: usize, logit_rows: usize) -> u64 {
    let [hidden, change, int8] = sizes(list, tokens, logit_rows);
    ((hidden + change) * size_of::<f32>() + Buffer::bytes(int8)) as u64
}

impl Adapters {
    /// `list`, with room for as many tokens, and rows of logits, as are evaluated together.
    pub(super) fn new(list: &[(Adapter, f32)], tokens: usize, logit_rows: usize) -> Self {
        let [hidden, change, int8] = sizes(list, tokens, logit_rows);
        Adapters {
            list: list.to_vec(),
            hidden: vec![0.0; hidden],
            change: vec![0.0; change],
            int8: Buffer::new(int8),
        }
    }

    pub(super) fn list(&self) -> &[(Adapter, f32)] {
        &self.list
    }

    /// `out` `[tokens, rows]`, the product of `matrix` with `x`, gains what the adapters change of it.
    pub(super) fn apply(
        &mut self,
        o: &Operations<'_>,
        x: Activations<'_>,
        matrix: &Matrix,
        out: &mut [f32],
    ) {
        for (adapter, scale) in &self.list {
            let Some(pair) = adapter.pair(matrix.range.start) else {
                continue;
            };
            let hidden = &mut self.hidden[..x.tokens * pair.a.rows];
            let x = rounded(o, x.float, &pair.a, &mut self.int8);
            o.kernels
                .product(o.pool, x, pair.a.view(adapter.gguf()), hidden);
            o.kernels.scale(hidden, adapter.factor(*scale, pair));
            raise(
                o,
                adapter,
                &pair.b,
                hidden,
                &mut self.change,
                &mut self.int8,
                out,
            );
        }
    }

    /// `x` `[ids, embedding]`, the tokens' rows of the embedding, gains what the adapters change of them.
    pub(super) fn embed(&mut self, o: &Operations<'_>, ids: &[u32], x: &mut [f32]) {
        for (adapter, scale) in &self.list {
            let Some(pair) = adapter.embedding() else {
                continue;
            };
            let (rank, a) = (pair.a.cols, pair.a.view(adapter.gguf()));
            let hidden = &mut self.hidden[..ids.len() * rank];
            for (&id, hidden) in ids.iter().zip(hidden.chunks_exact_mut(rank)) {
                o.kernels.dequantize(a.format, a.row(id as usize), hidden);
            }
            o.kernels.scale(hidden, adapter.factor(*scale, pair));
            raise(
                o,
                adapter,
                &pair.b,
                hidden,
                &mut self.change,
                &mut self.int8,
                x,
            );
        }
    }
}

/// `out` `[tokens, rows]` += B · `hidden` `[tokens, rank]`.
fn raise(
    o: &Operations<'_>,
    adapter: &Adapter,
    b: &Matrix,
    hidden: &[f32],
    change: &mut [f32],
    int8: &mut Buffer,
    out: &mut [f32],
) {
    let hidden = rounded(o, hidden, b, int8);
    let change = &mut change[..hidden.tokens * b.rows];
    o.kernels
        .product(o.pool, hidden, b.view(adapter.gguf()), change);
    let per = b.rows * rows_per_job(o.pool, hidden.tokens, 2 * b.rows * size_of::<f32>());
    let parts = out.chunks_mut(per).zip(change.chunks(per));
    each(o.pool, parts, |_, (out, change)| o.kernels.add(out, change));
}

/// `x` `[tokens, cols]` as `matrix` takes it.
fn rounded<'x>(
    o: &Operations<'_>,
    x: &'x [f32],
    matrix: &Matrix,
    int8: &'x mut Buffer,
) -> Activations<'x> {
    if matrix.format.takes_int8() {
        o.round(x, int8, &[matrix]);
        return activations(x, int8, matrix.cols);
    }
    Activations {
        tokens: x.len() / matrix.cols,
        float: x,
        int8: Quantized::default(),
    }
}
