//! Registers with one row of a matrix per 32-bit lane: what [`super::block_product`] and [`super::unpack`] are written over.

use super::kinds::PartKind;
use super::product::Rows;

impl Rows {
    /// `bytes` further in every row.
    #[inline(always)]
    pub(super) fn at(self, bytes: usize) -> Rows {
        Rows {
            at: self.at + bytes,
            ..self
        }
    }

    #[inline(always)]
    pub(super) fn row(self, index: usize) -> *const u8 {
        self.first
            .wrapping_add(index * self.stride)
            .wrapping_add(self.at)
    }
}

/// Every method may be called only where the processor has the implementor's instructions, from a function that is compiled for them; pointers
/// must be valid for what they say, at any alignment.
pub(super) trait RowLanes {
    /// Rows of a register.
    const LANES: usize;
    /// Whether [`RowLanes::dots`] needs the sums of halves' activations where weights are signed.
    const SUMS: bool;
    /// Four bytes of each row.
    type Bytes: Copy;
    /// An i32 for each row.
    type Sums: Copy;
    /// An f32 for each row.
    type Floats: Copy;

    /// Zeros.
    unsafe fn none() -> Self::Bytes;
    /// Sums of nothing.
    unsafe fn nothing() -> Self::Sums;
    /// Sixteen bytes of each row: register `j` holds bytes `4j .. 4j + 4`.
    unsafe fn bytes16(rows: Rows) -> [Self::Bytes; 4];
    /// Four bytes of each row.
    unsafe fn bytes4(rows: Rows) -> Self::Bytes;
    /// The binary16 that begins each row's sixteen bytes.
    unsafe fn half(rows: Rows) -> Self::Floats;
    /// Eight bytes of each row: the first four, and the others.
    unsafe fn bytes8(rows: Rows) -> [Self::Bytes; 2];
    /// Every byte's bits in `mask`.
    unsafe fn and(bytes: Self::Bytes, mask: u8) -> Self::Bytes;
    unsafe fn or(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Each lane's 32 bits shifted left, the first byte being the lowest.
    unsafe fn left(bytes: Self::Bytes, bits: u32) -> Self::Bytes;
    /// Each lane's 32 bits shifted right.
    unsafe fn right(bytes: Self::Bytes, bits: u32) -> Self::Bytes;
    /// Every byte times three, of which the lowest eight bits stay.
    unsafe fn triple(bytes: Self::Bytes) -> Self::Bytes;
    /// The ninth and tenth bit of every byte's triple.
    unsafe fn carried(bytes: Self::Bytes) -> Self::Bytes;
    /// Bytes less `offset`, in the form in which [`RowLanes::dots`] takes the weights of kind `K`, which has no minimums.
    unsafe fn signed<K: PartKind>(bytes: Self::Bytes, offset: u8) -> Self::Bytes;
    /// The entries that the bytes, each below sixteen, stand for.
    unsafe fn look_up(table: &[i8; 16], bytes: Self::Bytes) -> Self::Bytes;
    /// `value`, at most sixteen, in byte `k` where bit `first + k` of the lane is set, for `k` below four; 0 elsewhere. `first` is a multiple of four.
    unsafe fn spread(bits: Self::Bytes, first: u32, value: u8) -> Self::Bytes;
    /// Byte `index` less `offset`.
    unsafe fn whole(bytes: Self::Bytes, index: usize, offset: i32) -> Self::Floats;
    /// Byte `index`, signed.
    unsafe fn signed_whole(bytes: Self::Bytes, index: usize) -> Self::Floats;
    /// Two binary16, the low one first.
    unsafe fn halves(bytes: Self::Bytes) -> [Self::Floats; 2];
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;

    /// The products of `4 N` weights of each row with as many activations at `x` of each token: all of a part's weights, or half of them where the
    /// kind has halves. `H` registers of rows share the activations. `x_sums` holds the activations' sums, those of halves only where
    /// [`RowLanes::SUMS`] asks for them. What [`RowLanes::add_term`] takes, which need not be the plain integers.
    unsafe fn dots<K: PartKind, const N: usize, const H: usize, const T: usize>(
        weights: [&[Self::Bytes; N]; H],
        x: [*const i8; T],
        x_sums: [i32; T],
    ) -> [[Self::Sums; H]; T];
    unsafe fn splat(value: f32) -> Self::Floats;
    unsafe fn load(from: *const f32) -> Self::Floats;
    unsafe fn store(values: Self::Floats, to: *mut f32);
    /// `total + scale · x_scale · sum`, each step rounded.
    unsafe fn add_term(
        total: Self::Floats,
        scale: Self::Floats,
        x_scale: Self::Floats,
        sum: Self::Sums,
    ) -> Self::Floats;
    /// `total + a · b`, each step rounded.
    unsafe fn add_product(total: Self::Floats, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The sum of the sixteen values at `x`.
    unsafe fn sum16(x: *const i8) -> i32;
    /// Asks for the cache line at `address`, which need not be valid.
    #[inline(always)]
    fn prefetch(_address: *const u8) {}
}
