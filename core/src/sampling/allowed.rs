//! The tokens that a constraint allows next.

/// A set of tokens as bits, the lowest bit of the first word being token 0.
#[derive(Clone, Copy)]
pub(crate) struct Allowed<'a>(pub(crate) &'a [u32]);

impl Allowed<'_> {
    pub(super) fn contains(self, id: u32) -> bool {
        let word = self.0.get(id as usize / 32);
        word.is_some_and(|word| word >> (id % 32) & 1 == 1)
    }

    /// Its tokens below `vocabulary` in ascending order: a word without any costs one comparison.
    pub(super) fn ids(self, vocabulary: usize) -> impl Iterator<Item = u32> {
        let words = self.0.iter().take(vocabulary.div_ceil(32)).enumerate();
        let ids = words.flat_map(|(i, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(i as u32 * 32 + bit)
            })
        });
        ids.take_while(move |&id| (id as usize) < vocabulary)
    }

    /// The first of its tokens with the largest logit, passing over what is not a number.
    pub(super) fn likeliest(self, logits: &[f32]) -> Option<u32> {
        let mut best: Option<(u32, f32)> = None;
        for id in self.ids(logits.len()) {
            let logit = logits[id as usize];
            if !logit.is_nan() && best.is_none_or(|(_, most)| logit > most) {
                best = Some((id, logit));
            }
        }
        best.map(|(id, _)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tokens_of_a_set_are_those_it_contains() {
        let words = [0x8000_0001, 0, 0b110, u32::MAX];
        let set = Allowed(&words);
        for vocabulary in [0, 1, 31, 32, 66, 100, 128, 200] {
            let ids: Vec<u32> = set.ids(vocabulary).collect();
            let expected = (0..vocabulary as u32).filter(|&id| set.contains(id));
            assert!(ids.into_iter().eq(expected), "{vocabulary}");
        }
        let mut logits = vec![1.0; 80];
        (logits[2], logits[31], logits[65], logits[66]) = (9.0, f32::NAN, 2.0, 2.0);
        assert_eq!(set.likeliest(&logits), Some(65));
        assert_eq!(Allowed(&[0]).likeliest(&logits), None);
    }
}
