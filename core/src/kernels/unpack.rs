//! How the formats of small integers unpack with one row per lane: [`crate::quant::blocks::Block::unpack`] for many rows at once.
//!
//! The same layouts as in `quant/`, whose code is the specification. A format that has nothing here unpacks by that code, row by row.

use super::block_product::Packed;
use super::kinds::{self, PartKind};
#[allow(unused_imports, reason = "named by the documentation")]
use super::product::{Rows, Unpack};
use super::row_lanes::RowLanes;
use crate::quant::{self, iq4_nl, mxfp4};

/// Where a block's parts go.
pub(super) trait Sink<V: RowLanes> {
    /// The scales of a part's halves.
    ///
    /// # Safety
    /// The processor has the instructions, and there is such a part; so for the others.
    unsafe fn scales(&mut self, part: usize, scales: [V::Floats; 2]);
    /// The minimums of a part's halves.
    ///
    /// # Safety
    /// As for the scales.
    unsafe fn minimums(&mut self, part: usize, minimums: [V::Floats; 2]);
    /// A part's 32 values: register `g` holds values `4g .. 4g + 4`; signed ones as [`RowLanes::signed`] gives them.
    ///
    /// # Safety
    /// As for the scales.
    unsafe fn values(&mut self, part: usize, values: [V::Bytes; 8]);
}

/// A format that unpacks with one row per lane.
pub(super) trait Lanewise {
    /// Parts of a block.
    const PARTS: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// What the parts have in common.
    type Kind: PartKind;
    /// Unpacks the block at which `rows` stand.
    ///
    /// # Safety
    /// Of [`Unpack`].
    unsafe fn block<V: RowLanes, S: Sink<V>>(rows: Rows, sink: &mut S);
}

/// Unpacks blocks to `parts` parts.
#[inline(always)]
pub(super) unsafe fn blocks<F: Lanewise, V: RowLanes, S: Sink<V>>(
    rows: Rows,
    parts: usize,
    sink: &mut S,
) {
    for block in 0..parts / F::PARTS {
        let rows = rows.at(block * F::BYTES);
        if F::PARTS == 1 {
            ask_ahead::<V>(rows, F::BYTES);
        }
        let first = block * F::PARTS;
        // SAFETY: the caller's.
        unsafe { F::block::<V, _>(rows, &mut From { sink, first }) };
    }
}

/// The parts from `first` of another sink.
struct From<'a, S> {
    sink: &'a mut S,
    first: usize,
}

impl<V: RowLanes, S: Sink<V>> Sink<V> for From<'_, S> {
    #[inline(always)]
    unsafe fn scales(&mut self, part: usize, scales: [V::Floats; 2]) {
        // SAFETY: the caller's; so for the others.
        unsafe { self.sink.scales(self.first + part, scales) }
    }
    #[inline(always)]
    unsafe fn minimums(&mut self, part: usize, minimums: [V::Floats; 2]) {
        // SAFETY: as above.
        unsafe { self.sink.minimums(self.first + part, minimums) }
    }
    #[inline(always)]
    unsafe fn values(&mut self, part: usize, values: [V::Bytes; 8]) {
        // SAFETY: as above.
        unsafe { self.sink.values(self.first + part, values) }
    }
}

/// An [`Unpack`] for [`Packed<V>`].
#[inline(always)]
pub(super) unsafe fn unpack<F: Lanewise, V: RowLanes>(rows: Rows, parts: usize, packed: *mut ()) {
    // SAFETY: the caller's.
    unsafe { blocks::<F, V, _>(rows, parts, &mut *packed.cast::<Packed<V>>()) }
}

// SAFETY (every block below): the caller's, as `Lanewise::block` says; what is read lies inside a block.
macro_rules! lanewise {
    ($(#[$doc:meta])* $name:ident, $module:ident, $parts:literal, $kind:ident, |$rows:ident, $sink:ident| $body:block) => {
        $(#[$doc])*
        pub(super) struct $name;
        #[allow(clippy::undocumented_unsafe_blocks, reason = "one reason for all, above")]
        impl Lanewise for $name {
            const PARTS: usize = $parts;
            const BYTES: usize = quant::$module::BYTES;
            type Kind = kinds::$kind;
            #[inline(always)]
            unsafe fn block<V: RowLanes, S: Sink<V>>($rows: Rows, $sink: &mut S) {
                unsafe { $body }
            }
        }
    };
}

/// Eight registers, each made by an expression. A closure would not be inlined: it is compiled without the instruction set's features.
macro_rules! eight {
    (|$g:ident| $value:expr) => {{
        let mut all = [V::none(); 8];
        for $g in 0..8 {
            all[$g] = $value;
        }
        all
    }};
}

/// Asks for as much of what is wanted next as `bytes` bytes of each row are: in the order of memory, and a few lines at a time, so that the
/// processor never has to wait for a free fill buffer.
#[inline(always)]
pub(super) fn ask_ahead<V: RowLanes>(rows: Rows, bytes: usize) {
    const LINE: usize = 64; // of the cache
    let done = rows.at * V::LANES;
    let mut line = 0;
    while line < bytes * V::LANES {
        V::prefetch(rows.next.wrapping_add(done + line));
        line += LINE;
    }
}

/// Sixteen bytes of each row.
#[inline(always)]
unsafe fn bytes16<V: RowLanes>(rows: Rows) -> [V::Bytes; 4] {
    ask_ahead::<V>(rows, 16);
    // SAFETY: the caller's: the bytes are there.
    unsafe { V::bytes16(rows) }
}

/// 32 bytes of each row.
#[inline(always)]
unsafe fn bytes32<V: RowLanes>(rows: Rows) -> [V::Bytes; 8] {
    ask_ahead::<V>(rows, 32);
    // SAFETY: the caller's: the bytes are there.
    let ([a, b, c, d], [e, f, g, h]) = unsafe { (V::bytes16(rows), V::bytes16(rows.at(16))) };
    [a, b, c, d, e, f, g, h]
}

/// Four registers' nibbles: those below, then those above.
#[inline(always)]
unsafe fn nibbles<V: RowLanes>(bytes: [V::Bytes; 4]) -> [V::Bytes; 8] {
    // SAFETY: the caller's.
    unsafe { eight!(|g| V::and(V::right(bytes[g % 4], g as u32 / 4 * 4), 15)) }
}

/// Bits `shift ..` of every byte that are in `mask`.
#[inline(always)]
unsafe fn bits<V: RowLanes>(bytes: &[V::Bytes; 8], shift: u32, mask: u8) -> [V::Bytes; 8] {
    // SAFETY: the caller's.
    unsafe { eight!(|g| V::and(V::right(bytes[g], shift), mask)) }
}

/// The codes of which `low` has the lower bits; the others are bits `from ..` of `high`, and come to where `mask` is.
#[inline(always)]
unsafe fn combine<V: RowLanes>(
    low: [V::Bytes; 8],
    high: &[V::Bytes; 8],
    from: u32,
    mask: u8,
) -> [V::Bytes; 8] {
    let to = mask.trailing_zeros();
    // SAFETY: the caller's.
    unsafe {
        if from < to {
            eight!(|g| V::or(low[g], V::and(V::left(high[g], to - from), mask)))
        } else {
            eight!(|g| V::or(low[g], V::and(V::right(high[g], from - to), mask)))
        }
    }
}

/// Codes less `offset`.
#[inline(always)]
unsafe fn signed<V: RowLanes, K: PartKind>(codes: [V::Bytes; 8], offset: u8) -> [V::Bytes; 8] {
    // SAFETY: the caller's.
    unsafe { eight!(|g| V::signed::<K>(codes[g], offset)) }
}

/// The table's entries at the nibbles.
#[inline(always)]
unsafe fn look_up<V: RowLanes>(table: &[i8; 16], bytes: [V::Bytes; 4]) -> [V::Bytes; 8] {
    // SAFETY: the caller's.
    unsafe {
        let codes = nibbles::<V>(bytes);
        eight!(|g| V::look_up(table, codes[g]))
    }
}

#[inline(always)]
unsafe fn negative<V: RowLanes>(value: V::Floats) -> V::Floats {
    // SAFETY: the caller's.
    unsafe { V::mul(value, V::splat(-1.0)) }
}

/// Nibbles with five bits: the fifth bits of 32 values lie in a lane of `fifth`.
#[inline(always)]
unsafe fn five_bits<V: RowLanes>(fifth: V::Bytes, bytes: [V::Bytes; 4]) -> [V::Bytes; 8] {
    // SAFETY: the caller's.
    unsafe {
        let low = nibbles::<V>(bytes);
        eight!(|g| V::or(low[g], V::spread(fifth, 4 * g as u32, 16)))
    }
}

/// The two highest bits of each byte, as bits 4 and 5.
#[inline(always)]
unsafe fn highest<V: RowLanes>(bytes: V::Bytes) -> V::Bytes {
    // SAFETY: the caller's.
    unsafe { V::and(V::right(bytes, 2), 0x30) }
}

/// Scales and minimums of Q4_K's and Q5_K's eight parts, whose first sixteen bytes are `head`.
#[inline(always)]
unsafe fn scales_and_minimums<V: RowLanes, S: Sink<V>>(head: [V::Bytes; 4], sink: &mut S) {
    // SAFETY: the caller's.
    unsafe {
        let [scale, minimum] = V::halves(head[0]);
        let minimum = negative::<V>(minimum);
        let [_, scales, minimums, both] = head;
        let by_four = [
            [V::and(scales, 63), V::and(minimums, 63)],
            [
                V::or(V::and(both, 15), highest::<V>(scales)),
                V::or(V::and(V::right(both, 4), 15), highest::<V>(minimums)),
            ],
        ];
        for part in 0..8 {
            let [scales, minimums] = by_four[part / 4];
            sink.scales(part, [V::mul(scale, V::whole(scales, part % 4, 0)); 2]);
            sink.minimums(part, [V::mul(minimum, V::whole(minimums, part % 4, 0)); 2]);
        }
    }
}

/// A format whose superblocks' scales can be had without their values.
pub(super) trait Scaled {
    /// The scales and minimums of the superblock at which `rows` stand.
    ///
    /// # Safety
    /// Of [`Unpack`].
    unsafe fn scales<V: RowLanes, S: Sink<V>>(rows: Rows, sink: &mut S);
}

impl Scaled for Q4K {
    #[inline(always)]
    unsafe fn scales<V: RowLanes, S: Sink<V>>(rows: Rows, sink: &mut S) {
        // SAFETY: the caller's; a superblock begins with them.
        unsafe { scales_and_minimums::<V, S>(V::bytes16(rows), sink) }
    }
}

impl Scaled for Q5K {
    #[inline(always)]
    unsafe fn scales<V: RowLanes, S: Sink<V>>(rows: Rows, sink: &mut S) {
        // SAFETY: the caller's; a superblock begins with them.
        unsafe { scales_and_minimums::<V, S>(V::bytes16(rows), sink) }
    }
}

impl Scaled for Q6K {
    #[inline(always)]
    unsafe fn scales<V: RowLanes, S: Sink<V>>(rows: Rows, sink: &mut S) {
        // SAFETY: the caller's; a superblock's last eighteen bytes are its scales and their scale.
        unsafe {
            let [_, scale] = V::halves(V::bytes4(rows.at(206)));
            let scales = V::bytes16(rows.at(192));
            for part in 0..8 {
                let (register, byte) = (scales[part / 2], part % 2 * 2);
                let scales = [
                    V::mul(scale, V::signed_whole(register, byte)),
                    V::mul(scale, V::signed_whole(register, byte + 1)),
                ];
                sink.scales(part, scales);
            }
        }
    }
}

lanewise!(Q4K, q4_k, 8, Minimums, |rows, sink| {
    ask_ahead::<V>(rows, 16);
    Q4K::scales::<V, S>(rows, sink);
    for pair in 0..4 {
        let bytes = bytes32::<V>(rows.at(16 + pair * 32));
        sink.values(pair * 2, bits::<V>(&bytes, 0, 15));
        sink.values(pair * 2 + 1, bits::<V>(&bytes, 4, 15));
    }
});

lanewise!(Q5K, q5_k, 8, Minimums, |rows, sink| {
    ask_ahead::<V>(rows, 16);
    Q5K::scales::<V, S>(rows, sink);
    let fifth = bytes32::<V>(rows.at(16));
    for pair in 0..4 {
        let bytes = bytes32::<V>(rows.at(48 + pair * 32));
        for above in 0..2 {
            let part = pair * 2 + above;
            let low = bits::<V>(&bytes, above as u32 * 4, 15);
            sink.values(part, combine::<V>(low, &fifth, part as u32, 1 << 4));
        }
    }
});

lanewise!(Q6K, q6_k, 8, Halves, |rows, sink| {
    ask_ahead::<V>(rows.at(192), 16);
    Q6K::scales::<V, S>(rows, sink);
    for eighth in 0..2 {
        let high = bytes32::<V>(rows.at(128 + eighth * 32));
        for side in 0..2 {
            let bytes = bytes32::<V>(rows.at(eighth * 64 + side * 32));
            for above in 0..2 {
                let quarter = above * 2 + side;
                let low = bits::<V>(&bytes, above as u32 * 4, 15);
                let codes = combine::<V>(low, &high, quarter as u32 * 2, 3 << 4);
                sink.values(eighth * 4 + quarter, signed::<V, kinds::Halves>(codes, 32));
            }
        }
    }
});

/// Part `part`'s two-bit codes in 64 bytes.
#[inline(always)]
unsafe fn two_bits<V: RowLanes>(bytes: &[[V::Bytes; 8]; 2], part: usize) -> [V::Bytes; 8] {
    // SAFETY: the caller's.
    unsafe { bits::<V>(&bytes[part / 4], part as u32 % 4 * 2, 3) }
}

lanewise!(Q2K, q2_k, 8, HalvesMinimums, |rows, sink| {
    let [scale, minimum] = V::halves(V::bytes4(rows.at(80)));
    let minimum = negative::<V>(minimum);
    let head = bytes16::<V>(rows);
    for part in 0..8 {
        let (register, byte) = (head[part / 2], part % 2 * 2);
        let (scales, minimums) = (V::and(register, 15), V::and(V::right(register, 4), 15));
        let (first, second) = (V::whole(scales, byte, 0), V::whole(scales, byte + 1, 0));
        sink.scales(part, [V::mul(scale, first), V::mul(scale, second)]);
        let (first, second) = (V::whole(minimums, byte, 0), V::whole(minimums, byte + 1, 0));
        sink.minimums(part, [V::mul(minimum, first), V::mul(minimum, second)]);
    }
    let codes = [bytes32::<V>(rows.at(16)), bytes32::<V>(rows.at(48))];
    for part in 0..8 {
        sink.values(part, two_bits::<V>(&codes, part));
    }
});

lanewise!(Q3K, q3_k, 8, Halves, |rows, sink| {
    // The last sixteen bytes: two of codes, twelve of scales, the scale of scales.
    let tail = bytes16::<V>(rows.at(94));
    let [_, scale] = V::halves(tail[3]);
    let mut scales = [V::none(); 3]; // the scales' bytes, four to a lane
    for at in 0..3 {
        scales[at] = V::or(V::right(tail[at], 16), V::left(tail[at + 1], 16));
    }
    for group in 0..4 {
        // Scales 4 group .. 4 group + 4.
        let low = V::and(V::right(scales[group % 2], group as u32 / 2 * 4), 15);
        let high = V::and(V::right(scales[2], group as u32 * 2), 3);
        let codes = V::or(low, V::left(high, 4));
        for pair in 0..2 {
            let (first, second) = (
                V::whole(codes, pair * 2, 32),
                V::whole(codes, pair * 2 + 1, 32),
            );
            sink.scales(
                group * 2 + pair,
                [V::mul(scale, first), V::mul(scale, second)],
            );
        }
    }
    let mask = bytes32::<V>(rows);
    let low = [bytes32::<V>(rows.at(32)), bytes32::<V>(rows.at(64))];
    for part in 0..8 {
        let codes = combine::<V>(two_bits::<V>(&low, part), &mask, part as u32, 1 << 2);
        sink.values(part, signed::<V, kinds::Halves>(codes, 4));
    }
});

lanewise!(Iq4Xs, iq4_xs, 8, Wide, |rows, sink| {
    let head = bytes16::<V>(rows);
    let [scale, _] = V::halves(head[0]);
    for part in 0..8 {
        let low = V::and(V::right(head[1], part as u32 * 4), 15);
        let high = V::and(V::right(head[0], 16 + part as u32 * 2), 3);
        let whole = V::whole(V::or(low, V::left(high, 4)), 0, 32);
        sink.scales(part, [V::mul(scale, whole); 2]);
        let bytes = bytes16::<V>(rows.at(8 + part * 16));
        sink.values(
            part,
            signed::<V, kinds::Wide>(look_up::<V>(&iq4_nl::TABLE, bytes), 0),
        );
    }
});

lanewise!(Tq2_0, tq2_0, 8, Narrow, |rows, sink| {
    let [_, scale] = V::halves(V::bytes4(rows.at(62)));
    let codes = [bytes32::<V>(rows), bytes32::<V>(rows.at(32))];
    for part in 0..8 {
        sink.scales(part, [scale; 2]);
        sink.values(
            part,
            signed::<V, kinds::Narrow>(two_bits::<V>(&codes, part), 1),
        );
    }
});

/// Ternary digits less one: the highest of each byte.
#[inline(always)]
unsafe fn ternary<V: RowLanes>(bytes: [V::Bytes; 8]) -> [V::Bytes; 8] {
    // SAFETY: the caller's.
    unsafe { eight!(|g| V::signed::<kinds::Narrow>(V::carried(bytes[g]), 1)) }
}

lanewise!(Tq1_0, tq1_0, 8, Narrow, |rows, sink| {
    let [scale, _] = V::halves(V::bytes4(rows.at(52)));
    for part in 0..8 {
        sink.scales(part, [scale; 2]);
    }
    // A digit lower with every tripling. Five of 32 bytes, then of sixteen, whose fifth fills half a part; then four of four.
    let mut bytes = bytes32::<V>(rows);
    for part in 0..5 {
        sink.values(part, ternary::<V>(bytes));
        bytes = eight!(|g| V::triple(bytes[g]));
    }
    let mut bytes = bytes16::<V>(rows.at(32));
    let mut last = V::bytes4(rows.at(48));
    for part in 5..8 {
        let mut both = [V::none(); 8];
        for half in 0..2 {
            for at in 0..4 {
                if part == 7 && half == 1 {
                    both[half * 4 + at] = last;
                    last = V::triple(last);
                } else {
                    both[half * 4 + at] = bytes[at];
                    bytes[at] = V::triple(bytes[at]);
                }
            }
        }
        sink.values(part, ternary::<V>(both));
    }
});

lanewise!(Q4_0, q4_0, 1, Narrow, |rows, sink| {
    let codes = nibbles::<V>(V::bytes16(rows.at(2)));
    sink.values(0, signed::<V, kinds::Narrow>(codes, 8));
    sink.scales(0, [V::half(rows); 2]);
});

lanewise!(Q8_0, q8_0, 1, Wide, |rows, sink| {
    let ([a, b, c, d], [e, f, g, h]) = (V::bytes16(rows.at(2)), V::bytes16(rows.at(18)));
    sink.values(0, signed::<V, kinds::Wide>([a, b, c, d, e, f, g, h], 0));
    sink.scales(0, [V::half(rows); 2]);
});

lanewise!(Q4_1, q4_1, 1, Minimums, |rows, sink| {
    let [scale, minimum] = V::halves(V::bytes4(rows));
    sink.scales(0, [scale; 2]);
    sink.minimums(0, [minimum; 2]);
    sink.values(0, nibbles::<V>(V::bytes16(rows.at(4))));
});

lanewise!(Q5_0, q5_0, 1, Plain, |rows, sink| {
    let [head, next] = V::bytes8(rows);
    sink.scales(0, [V::halves(head)[0]; 2]);
    let fifth = V::or(V::right(head, 16), V::left(next, 16));
    let codes = five_bits::<V>(fifth, V::bytes16(rows.at(6)));
    sink.values(0, signed::<V, kinds::Plain>(codes, 16));
});

lanewise!(Q5_1, q5_1, 1, Minimums, |rows, sink| {
    let [head, fifth] = V::bytes8(rows);
    let [scale, minimum] = V::halves(head);
    sink.scales(0, [scale; 2]);
    sink.minimums(0, [minimum; 2]);
    sink.values(0, five_bits::<V>(fifth, V::bytes16(rows.at(8))));
});

lanewise!(Iq4Nl, iq4_nl, 1, Wide, |rows, sink| {
    sink.scales(0, [V::half(rows); 2]);
    let values = look_up::<V>(&iq4_nl::TABLE, V::bytes16(rows.at(2)));
    sink.values(0, signed::<V, kinds::Wide>(values, 0));
});

lanewise!(Mxfp4, mxfp4, 1, Plain, |rows, sink| {
    let mut scales = [0.0; 16];
    for (r, scale) in scales[..V::LANES].iter_mut().enumerate() {
        *scale = mxfp4::scale(*rows.row(r));
    }
    sink.scales(0, [V::load(scales.as_ptr()); 2]);
    let values = look_up::<V>(&mxfp4::TABLE, V::bytes16(rows.at(1)));
    sink.values(0, signed::<V, kinds::Plain>(values, 0));
});
