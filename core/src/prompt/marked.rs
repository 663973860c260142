//! A rendered text that tells what of it was said.

use std::ops::Range;

/// A rendered text, and the marked places in it: no reserved token begins at one, or lies across one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarkedText {
    text: String,
    /// Bytes before each, ascending; none is the text's end.
    places: Vec<usize>,
}

impl MarkedText {
    /// A text with a `mark` at each place.
    pub(super) fn cut(text: &str, mark: char) -> MarkedText {
        let mut out = MarkedText {
            text: String::with_capacity(text.len()),
            places: Vec::new(),
        };
        for piece in text.split(mark) {
            out.text.push_str(piece);
            out.places.push(out.text.len());
        }
        out.places.dedup();
        // Behind the last piece there is nothing to mark.
        out.places.pop();
        out
    }

    /// Without its marks.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// A part of the text, by bytes.
    ///
    /// # Panics
    /// As a slice of [`MarkedText::as_str`] does.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> MarkedText {
        MarkedText {
            text: self.text[range.clone()].to_owned(),
            places: self.places[self.between(&range)]
                .iter()
                .map(|place| place - range.start)
                .collect(),
        }
    }

    /// What follows on `start`, if the text and its marks begin so.
    #[must_use]
    pub fn strip_prefix(&self, start: &MarkedText) -> Option<MarkedText> {
        let (length, end) = (start.text.len(), self.text.len());
        let same = self.text.starts_with(&start.text)
            && self.places[self.between(&(0..length))] == start.places;
        same.then(|| self.slice(length..end))
    }

    /// Appends `more`.
    pub fn push(&mut self, more: &MarkedText) {
        let before = self.text.len();
        self.text.push_str(&more.text);
        self.places
            .extend(more.places.iter().map(|place| before + place));
    }

    /// Whether a place in `range` is marked.
    pub(super) fn is_marked(&self, range: Range<usize>) -> bool {
        !self.between(&range).is_empty()
    }

    /// The indices of the places in `range`.
    fn between(&self, range: &Range<usize>) -> Range<usize> {
        let at = |byte| self.places.partition_point(|&place| place < byte);
        at(range.start)..at(range.end)
    }
}

/// The template's own text: nothing in it is marked.
impl From<String> for MarkedText {
    fn from(text: String) -> Self {
        MarkedText {
            text,
            places: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_keep_their_marks() {
        let text = MarkedText::cut("a~b~~c~", '~');
        assert_eq!((text.as_str(), &text.places[..]), ("abc", &[1, 2][..]));
        let (start, rest) = (text.slice(0..1), text.slice(1..3));
        assert_eq!(
            (&start.places[..], &rest.places[..]),
            (&[][..], &[0, 1][..])
        );
        assert_eq!(text.strip_prefix(&start).as_ref(), Some(&rest));
        assert_eq!(text.strip_prefix(&"ab".to_owned().into()), None);
        let mut whole = start;
        whole.push(&rest);
        assert_eq!(whole, text);
        assert!(text.is_marked(0..2) && !text.is_marked(0..1) && !text.is_marked(3..9));
    }
}
