//! Matrix products: weights × activations, split by rows over the pool's threads.

use super::Kernels;
use crate::quant::activation::{BLOCK, Quantized};
use crate::quant::{Dot, Format};
use crate::threads::{Pool, share};

/// Rows that one kernel call takes together; ranges of rows start at multiples of it.
pub(crate) const ROWS: usize = 16;

/// A matrix of weights as it lies in a file.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'a> {
    /// How the values are stored.
    pub format: &'static Format,
    /// `[rows, cols]` in blocks of `format`
    pub bytes: &'a [u8],
    /// Outputs.
    pub rows: usize,
    /// Inputs: the length of a row.
    pub cols: usize,
}

impl<'a> Weight<'a> {
    /// Bytes of one row.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.cols / self.format.block * self.format.block_bytes
    }

    /// Row `index`, as stored; an embedding look-up dequantises it.
    ///
    /// # Panics
    /// When there is no such row.
    #[must_use]
    pub fn row(&self, index: usize) -> &'a [u8] {
        let bytes = self.row_bytes();
        &self.bytes[index * bytes..][..bytes]
    }
}

/// What a product takes in. Weights say which form they use: [`Format::takes_int8`].
#[derive(Clone, Copy, Debug)]
pub struct Activations<'a> {
    /// How many tokens.
    pub tokens: usize,
    /// `[tokens, cols]`, for weights in floating point
    pub float: &'a [f32],
    /// `[tokens, cols]` in blocks, for quantised weights; may be left empty where no weight takes it
    pub int8: Quantized<'a>,
}

/// One product: `out[token, row] = Σ weight[row, ·] · x[token, ·]`.
#[derive(Debug)]
pub struct Product<'w, 'o> {
    /// `[rows, cols]`
    pub weight: Weight<'w>,
    /// `[tokens, rows]`, overwritten
    pub out: &'o mut [f32],
}

/// What one kernel call computes: some rows of a product, for all tokens. Lengths have been checked.
pub(crate) struct Tile<'a> {
    pub(crate) format: &'static Format,
    /// `[rows, cols]`
    pub(crate) bytes: &'a [u8],
    pub(crate) row_bytes: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) tokens: usize,
    /// `[tokens, cols]` if the format takes f32, else unspecified
    pub(crate) float: &'a [f32],
    /// `[tokens, cols]` if the format takes int8, else unspecified
    pub(crate) int8: Quantized<'a>,
    /// The first row's output for the first token. `[tokens, stride]`: `rows` values are written for each token
    pub(crate) out: *mut f32,
    pub(crate) stride: usize,
}

impl Tile<'_> {
    /// The tile without its first `rows` rows.
    fn after(&self, rows: usize) -> Tile<'_> {
        Tile {
            bytes: &self.bytes[rows * self.row_bytes..],
            rows: self.rows - rows,
            out: self.out.wrapping_add(rows),
            ..*self
        }
    }
}

/// Computes a tile. Safe to call where the processor has the instructions and the tile has been checked.
pub(crate) type Kernel = unsafe fn(&Tile<'_>);

/// Some rows of weights, from the same byte of each.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    /// Where the first row begins.
    pub(crate) first: *const u8,
    /// Bytes from one row to the next.
    pub(crate) stride: usize,
    /// The byte.
    pub(crate) at: usize,
    /// What is wanted after all of these rows: as many bytes, one after the other.
    pub(crate) next: *const u8,
}

/// Unpacks `parts` parts of a register's rows, from where a block begins, into what the instruction set's product takes them from.
/// To call one is safe where the processor has the instructions, all of the rows are there, and the blocks hold as
/// many parts.
pub(crate) type Unpack = unsafe fn(rows: Rows, parts: usize, packed: *mut ());

/// How an instruction set unpacks a format to parts.
pub(crate) struct Unpacker {
    pub(crate) ggml_id: u32,
    pub(crate) unpack: Unpack,
    /// Rows that are unpacked together.
    pub(crate) lanes: usize,
    /// The product with up to `few` tokens, of as many rows as go into whole registers.
    pub(crate) few_tokens: Kernel,
    pub(crate) few: usize,
}

/// As [`Kernel`], for formats that unpack to parts: by the function given, or else by their own scalar code.
pub(crate) type PartsKernel = unsafe fn(&Tile<'_>, Option<Unpack>);

/// A pointer to outputs of which each chunk of rows writes its own.
#[derive(Clone, Copy)]
struct Shared(*mut f32);
// SAFETY: chunks are disjoint ranges of rows, so no two threads write the same value, and the pool's run ends before the borrow does.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    fn at(self, index: usize) -> *mut f32 {
        // SAFETY: callers stay inside the output's length.
        unsafe { self.0.add(index) }
    }
}

impl Kernels {
    /// One product on the pool's threads. See [`Kernels::products`].
    pub fn product(&self, pool: &Pool, x: Activations<'_>, weight: Weight<'_>, out: &mut [f32]) {
        self.products(pool, x, [Product { weight, out }]);
    }

    /// Several products of the same activations (query, key and value; gate and up) in one parallel region.
    ///
    /// # Panics
    /// When lengths do not agree with the shapes.
    pub fn products<const N: usize>(
        &self,
        pool: &Pool,
        x: Activations<'_>,
        products: [Product<'_, '_>; N],
    ) {
        let shares = products.map(|product| {
            check(&product, &x);
            (product.weight, Shared(product.out.as_mut_ptr()))
        });
        let per_chunk = rows_per_chunk(shares.iter().map(|share| share.0), x.tokens, pool);
        let chunks: [usize; N] = std::array::from_fn(|i| shares[i].0.rows.div_ceil(per_chunk));
        pool.run(chunks.iter().sum(), &|mut chunk, _worker| {
            for (share, count) in shares.iter().zip(chunks) {
                if chunk < count {
                    let first = chunk * per_chunk;
                    self.rows(
                        share.0,
                        first..share.0.rows.min(first + per_chunk),
                        &x,
                        share.1,
                    );
                    return;
                }
                chunk -= count;
            }
        });
    }

    /// Tells the pool's threads what they will read in the region after the next one: the products of `weights` with one token.
    pub(crate) fn prefetch<'w>(
        &self,
        pool: &Pool,
        weights: impl Iterator<Item = Weight<'w>> + Clone,
    ) {
        let per_chunk = rows_per_chunk(weights.clone(), 1, pool);
        let chunks = |weight: &Weight<'_>| weight.rows.div_ceil(per_chunk);
        let all = weights.clone().map(|weight| chunks(&weight)).sum();
        pool.prefetch(|thread| {
            let mut chunk = share(all, pool.threads(), thread).start;
            for weight in weights.clone() {
                if chunk < chunks(&weight) {
                    return &weight.bytes[chunk * per_chunk * weight.row_bytes()..];
                }
                chunk -= chunks(&weight);
            }
            &[]
        });
    }

    /// Rows `rows` of a product. `out` points to the whole output, `[tokens, weight.rows]`.
    fn rows(
        &self,
        weight: Weight<'_>,
        rows: std::ops::Range<usize>,
        x: &Activations<'_>,
        out: Shared,
    ) {
        let row_bytes = weight.row_bytes();
        let tile = Tile {
            format: weight.format,
            bytes: &weight.bytes[rows.start * row_bytes..rows.end * row_bytes],
            row_bytes,
            rows: rows.len(),
            cols: weight.cols,
            tokens: x.tokens,
            float: x.float,
            int8: x.int8,
            out: out.at(rows.start),
            stride: weight.rows,
        };
        let id = weight.format.ggml_id;
        // SAFETY: the processor has this table's instructions, `check` compared all lengths with the shapes, and no other chunk has these rows.
        unsafe {
            if let Some((_, kernel)) = self.products.iter().find(|row| row.0 == id) {
                kernel(&tile);
            } else if let Dot::Parts(parts) = weight.format.dot {
                let unpacker = self.unpackers.iter().find(|row| row.ggml_id == id);
                let product = self.parts[parts.kind as usize];
                match unpacker {
                    Some(unpacker) if tile.tokens <= unpacker.few => {
                        let own = self.one_token.iter().find(|row| row.0 == id);
                        let own = own.filter(|_| tile.tokens == 1);
                        own.map_or(unpacker.few_tokens, |row| row.1)(&tile);
                        let done = tile.rows / unpacker.lanes * unpacker.lanes;
                        if done < tile.rows {
                            product(&tile.after(done), None);
                        }
                    }
                    _ => product(&tile, unpacker.map(|row| row.unpack)),
                }
            } else {
                super::scalar::product(&tile);
            }
        }
    }
}

fn check(product: &Product<'_, '_>, x: &Activations<'_>) {
    let Weight {
        format,
        bytes,
        rows,
        cols,
    } = product.weight;
    let values = rows.checked_mul(cols);
    assert!(
        cols.is_multiple_of(format.block),
        "{}: rows of {cols} values",
        format.name
    );
    assert_eq!(
        values.and_then(|values| format.bytes(values)),
        Some(bytes.len()),
        "{}: bytes of a [{rows}, {cols}] weight",
        format.name
    );
    assert_eq!(
        x.tokens.checked_mul(rows),
        Some(product.out.len()),
        "output [{}, {rows}]",
        x.tokens
    );
    let inputs = x.tokens.checked_mul(cols);
    if format.takes_int8() {
        assert_eq!(
            inputs,
            Some(x.int8.values.len()),
            "{}: int8 activations [{}, {cols}]",
            format.name,
            x.tokens
        );
        assert!(
            x.int8.scales.len() * BLOCK == x.int8.values.len()
                && x.int8.sums.len() == x.int8.scales.len(),
            "a scale and a sum per block"
        );
    } else {
        assert_eq!(
            inputs,
            Some(x.float.len()),
            "{}: f32 activations [{}, {cols}]",
            format.name,
            x.tokens
        );
    }
}

/// How many rows of `weights` a chunk takes: enough that claiming it costs nothing beside the work, few enough that no thread waits long for the last.
fn rows_per_chunk<'w>(
    weights: impl Iterator<Item = Weight<'w>>,
    tokens: usize,
    pool: &Pool,
) -> usize {
    /// Weight bytes × tokens that are not worth splitting: about a microsecond of one core.
    const MIN_WORK: usize = 32 << 10;
    /// Chunks for each thread, so that one which loses its core leaves little behind.
    const PER_THREAD: usize = 8;
    let (rows, bytes) = weights.fold((0, 0), |(rows, bytes), weight| {
        (rows + weight.rows, bytes + weight.bytes.len())
    });
    if pool.threads() == 1 {
        return rows.max(1);
    }
    let chunks = (bytes.saturating_mul(tokens) / MIN_WORK).clamp(1, pool.threads() * PER_THREAD);
    // Kernels take up to twice `ROWS` rows together.
    rows.div_ceil(chunks).max(1).next_multiple_of(2 * ROWS)
}
