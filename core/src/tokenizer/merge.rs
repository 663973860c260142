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
    if symbols.len() <= FEW {
        merge_few(symbols, pair);
    } else {
        merge_many(symbols, pair);
    }
}

/// So many are faster without a queue: nearly all words.
const FEW: usize = 24;

fn merge_few(symbols: &mut Vec<Symbol>, pair: impl Fn(Symbol, Symbol) -> Option<(u32, u32)>) {
    // What symbol i and the next one give.
    let mut pairs = [None; FEW];
    for (known, both) in pairs.iter_mut().zip(symbols.windows(2)) {
        *known = pair(both[0], both[1]);
    }
    loop {
        let living = &pairs[..symbols.len().saturating_sub(1)];
        let ranked = living.iter().enumerate();
        let best = ranked.filter_map(|(i, pair)| pair.map(|(rank, id)| (rank, i, id)));
        let Some((_, i, id)) = best.min() else {
            return;
        };
        let right = symbols.remove(i + 1);
        pairs.copy_within(i + 1.., i);
        symbols[i].end = right.end;
        symbols[i].id = id;
        for left in i.saturating_sub(1)..=i {
            pairs[left] = symbols
                .get(left + 1)
                .and_then(|&right| pair(symbols[left], right));
        }
    }
}

fn merge_many(symbols: &mut Vec<Symbol>, pair: impl Fn(Symbol, Symbol) -> Option<(u32, u32)>) {
    let n = symbols.len();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Symbols of one letter each; whether two merge, and with which of a few ranks, is arbitrary.
    #[test]
    fn few_and_many_merge_alike() {
        let mut merged = 0;
        for seed in 0..2000_u32 {
            let n = 2 + seed % (FEW as u32 - 1);
            let mix = |x: u32| (x ^ x >> 15).wrapping_mul(0x2c1b_3c6d).rotate_left(13);
            let pair = |a: Symbol, b: Symbol| {
                let id = mix(mix(a.id ^ seed).wrapping_add(b.id)) >> 1;
                (id % 3 > 0).then_some((id % 5, id))
            };
            let symbols = (0..n).map(|start| Symbol {
                start,
                end: start + 1,
                id: mix(seed * 31 + start) % 4,
            });
            let [mut few, mut many] = [symbols.clone().collect(), symbols.collect()];
            merge_few(&mut few, pair);
            merge_many(&mut many, pair);
            let plain = |all: Vec<Symbol>| -> Vec<_> {
                all.iter().map(|s| (s.start, s.end, s.id)).collect()
            };
            merged += n as usize - few.len();
            assert_eq!(plain(few), plain(many), "{seed}");
        }
        assert!(merged > 5000, "{merged}");
    }
}
