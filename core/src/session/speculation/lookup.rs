//! Drafts from the text itself: what followed when the last tokens came up before (Saxena 2023, <https://github.com/apoorvumang/prompt-lookup-decoding>).

/// Agreement beyond this says nothing more.
const LONGEST: usize = 16;

/// An earlier place in a sequence that reads as its end does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Match {
    /// Where it goes on.
    pub(super) next: usize,
    /// How many tokens agree.
    pub(super) length: usize,
}

/// The place where most of the last tokens of `ids`, at least `ngram`, came up before; of several the latest. Linear in the sequence.
pub(super) fn find(ids: &[u32], ngram: usize) -> Option<Match> {
    let last = *ids.last()?;
    let mut best: Option<Match> = None;
    for next in (1..ids.len()).rev().filter(|&next| ids[next - 1] == last) {
        let agree = ids[..next].iter().rev().zip(ids.iter().rev());
        let length = agree.take(LONGEST).take_while(|(a, b)| a == b).count();
        if length >= ngram && best.as_ref().is_none_or(|best| length > best.length) {
            best = Some(Match { next, length });
            if length == LONGEST {
                break;
            }
        }
    }
    best
}

/// How much to hope that a text goes on as it did where `length` tokens agreed.
pub(super) fn hope(length: usize) -> f64 {
    length as f64 / (length + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_agreement_is_found_and_of_equal_ones_the_latest() {
        let at = |ids: &[u32], ngram| find(ids, ngram).map(|found| (found.next, found.length));
        assert_eq!(at(&[], 1), None);
        assert_eq!(at(&[5, 6], 1), None);
        assert_eq!(at(&[1, 2, 3, 1, 2, 9, 2, 1, 2], 1), Some((5, 2)));
        assert_eq!(at(&[7, 1, 2, 3, 1, 2, 9, 7, 1, 2], 1), Some((3, 3)));
        assert_eq!(at(&[7, 1, 2, 3, 7, 1, 2], 4), None);
        // A repetition agrees with itself; agreement ends where the sequence begins.
        assert_eq!(at(&[4, 4, 4], 1), Some((2, 2)));
        assert_eq!(at(&[3; 40], 2), Some((39, LONGEST)));
    }
}
