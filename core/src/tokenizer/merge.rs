//! The merge loop that both kinds of BPE share.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A run of the text, and its token where it is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    pub(super) start: u32,
    pub(super) end: u32,
    /// The token, or `u32::MAX` where no token has this text.
    pub(super) id: u32,
}

pub(super) const NO_TOKEN: u32 = u32::MAX;

/// Merges neighbours until no pair can be merged. `pair` gives a pair's rank (the least first, of equal ones the leftmost) and its token.
/// O(n log n) for n symbols.
pub(super) fn merge(
    symbols: &mut Vec<Symbol>,
    pair: impl Fn(Symbol, Symbol) -> Option<(u32, u32)>,
) {
    let n = symbols.len();
    if n < 2 {
        return;
    }
    // Doubly linked: next[i], previous[i] are the living neighbours; a dead symbol has start == end.
    let mut next: Vec<u32> = (1..=n as u32).collect();
    let mut previous: Vec<u32> = (0..n as u32).map(|i| i.wrapping_sub(1)).collect();
    let mut heap = BinaryHeap::with_capacity(n);
    let push = |heap: &mut BinaryHeap<_>, symbols: &[Symbol], left: u32, right: u32| {
        let (a, b) = (symbols[left as usize], symbols[right as usize]);
        if let Some((rank, id)) = pair(a, b) {
            heap.push(Reverse((
                rank,
                left,
                right,
                a.end - a.start,
                b.end - b.start,
                id,
            )));
        }
    };
    for left in 0..n as u32 - 1 {
        push(&mut heap, symbols, left, left + 1);
    }
    while let Some(Reverse((_, left, right, left_length, right_length, id))) = heap.pop() {
        let (a, b) = (symbols[left as usize], symbols[right as usize]);
        if a.end - a.start != left_length || b.end - b.start != right_length {
            continue; // one of them was merged since
        }
        symbols[left as usize] = Symbol {
            start: a.start,
            end: b.end,
            id,
        };
        symbols[right as usize] = Symbol {
            start: b.end,
            end: b.end,
            id: NO_TOKEN,
        };
        let after = next[right as usize];
        next[left as usize] = after;
        if (after as usize) < n {
            previous[after as usize] = left;
            push(&mut heap, symbols, left, after);
        }
        let before = previous[left as usize];
        if before != u32::MAX {
            push(&mut heap, symbols, before, left);
        }
    }
    symbols.retain(|symbol| symbol.start < symbol.end);
}
