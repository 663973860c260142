//! Cuts a text into the words that byte-level BPE merges inside of.

use super::families::{Cut, FAMILIES, Family, Numbers};
use super::pattern::Pattern;
use unicode_general_category::{GeneralCategory, get_general_category};

/// One of the known ways to cut a text, which a GGUF file names in `tokenizer.ggml.pre`.
pub struct Pretokenizer {
    pub(super) family: &'static Family,
    cuts: Vec<Ready>,
}

enum Ready {
    At(Pattern),
    SpaceAtEnd,
    BeforeThrees,
    ThreesFromRight(Numbers),
}

impl Pretokenizer {
    /// The one that `tokenizer.ggml.pre` names.
    #[must_use]
    pub fn named(name: &str) -> Option<Pretokenizer> {
        let family = FAMILIES.iter().find(|f| f.names.contains(&name))?;
        Some(Pretokenizer::of(family))
    }

    /// Each that cuts in another way than the others.
    pub fn all() -> impl Iterator<Item = Pretokenizer> {
        FAMILIES.iter().map(Pretokenizer::of)
    }

    fn of(family: &'static Family) -> Pretokenizer {
        let ready = |cut: &Cut| match *cut {
            Cut::At(expression) => Ready::At(Pattern::new(expression)),
            Cut::SpaceAtEnd => Ready::SpaceAtEnd,
            Cut::BeforeThrees => Ready::BeforeThrees,
            Cut::ThreesFromRight(numbers) => Ready::ThreesFromRight(numbers),
        };
        Pretokenizer {
            family,
            cuts: family.cuts.iter().map(ready).collect(),
        }
    }

    /// The names of all.
    #[must_use]
    pub fn known() -> Vec<&'static str> {
        FAMILIES.iter().flat_map(|f| f.names).copied().collect()
    }

    /// Its names.
    #[must_use]
    pub fn names(&self) -> &'static [&'static str] {
        self.family.names
    }

    /// Whether a word that is a token is taken whole, whatever the merges say.
    #[must_use]
    pub fn takes_whole_words(&self) -> bool {
        self.family.whole_words
    }

    /// Whether tokens are written as they are, with U+2581 for a space, instead of in GPT-2's byte alphabet.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.family.plain
    }

    /// Regular expressions for other engines: each cuts the pieces that the one before it left, at its matches and between them.
    #[must_use]
    pub fn expressions(&self) -> Vec<&'static str> {
        let expression = |cut: &Cut| match cut {
            Cut::At(expression) => expression,
            Cut::SpaceAtEnd => r"\s+$",
            Cut::ThreesFromRight(Numbers::All) => r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
            // `\b` with Oniguruma's letters of words: engines differ on them.
            Cut::ThreesFromRight(Numbers::AtWordEnd) => {
                r"\d{1,3}(?=(?:\d{3})*(?![\p{Alphabetic}\p{M}\p{N}\p{Pc}]))"
            }
            Cut::BeforeThrees => r"(?=(\d{3})+(?!\d))",
        };
        self.family.cuts.iter().map(expression).collect()
    }

    /// Calls `word` with each word of `text`, in order; together they are the text.
    pub fn split<'a>(&self, text: &'a str, word: &mut dyn FnMut(&'a str)) {
        cut(&self.cuts, text, word);
    }
}

fn cut<'a>(cuts: &[Ready], text: &'a str, word: &mut dyn FnMut(&'a str)) {
    let Some((first, rest)) = cuts.split_first() else {
        return word(text);
    };
    let mut piece = |piece: &'a str| cut(rest, piece, word);
    match first {
        Ready::At(pattern) => pattern.split(text, &mut piece),
        Ready::SpaceAtEnd => {
            let (before, space) = text.split_at(text.trim_end().len());
            for part in [before, space].into_iter().filter(|part| !part.is_empty()) {
                piece(part);
            }
        }
        Ready::BeforeThrees => before_threes(text, &mut piece),
        Ready::ThreesFromRight(numbers) => threes_from_right(text, *numbers, &mut piece),
    }
}

fn before_threes<'a>(text: &'a str, piece: &mut dyn FnMut(&'a str)) {
    let (mut digits, mut starts) = (0, Vec::new());
    for (at, c) in text.char_indices().rev() {
        if get_general_category(c) == GeneralCategory::DecimalNumber {
            digits += 1;
        } else {
            digits = 0;
        }
        if digits > 0 && digits % 3 == 0 && at > 0 {
            starts.push(at);
        }
    }
    let mut from = 0;
    for start in starts.into_iter().rev() {
        piece(&text[from..start]);
        from = start;
    }
    piece(&text[from..]);
}

fn threes_from_right<'a>(text: &'a str, numbers: Numbers, piece: &mut dyn FnMut(&'a str)) {
    let wanted = |c: char| match numbers {
        Numbers::All => c.is_numeric(),
        Numbers::AtWordEnd => get_general_category(c) == GeneralCategory::DecimalNumber,
    };
    let (mut between, mut at) = (0, 0);
    while let Some(found) = text[at..].find(wanted) {
        let start = at + found;
        let run = &text[start..];
        at = start + run.find(|c| !wanted(c)).unwrap_or(run.len());
        if numbers == Numbers::AtWordEnd && text[at..].starts_with(is_word) {
            continue;
        }
        if between < start {
            piece(&text[between..start]);
        }
        between = at;
        let digits = text[start..at].chars().count();
        let mut group = start;
        for (i, (offset, _)) in text[start..at].char_indices().enumerate().skip(1) {
            if (digits - i).is_multiple_of(3) {
                piece(&text[group..start + offset]);
                group = start + offset;
            }
        }
        piece(&text[group..at]);
    }
    if between < text.len() {
        piece(&text[between..]);
    }
}

/// `\w`, as Oniguruma has it.
fn is_word(c: char) -> bool {
    use GeneralCategory::{ConnectorPunctuation, EnclosingMark, NonspacingMark, SpacingMark};
    c.is_alphanumeric()
        || matches!(
            get_general_category(c),
            ConnectorPunctuation | EnclosingMark | NonspacingMark | SpacingMark
        )
}

#[cfg(test)]
mod tests {
    use super::super::pattern::STEPS;
    use super::*;

    /// `tests/golden/make_splits.py`, which states the expressions on its own, ran them with the Python package `regex`.
    #[test]
    fn every_family_cuts_as_its_expressions() {
        let mut lines = include_str!("../../../tests/golden/splits.txt")
            .lines()
            .peekable();
        let mut texts = Vec::new();
        while let Some(line) = lines.next_if(|line| *line != "default") {
            texts.push(line.replace(r"\n", "\n").replace(r"\r", "\r"));
        }
        let mut families = 0;
        while let Some(name) = lines.next() {
            families += 1;
            let pretokenizer = Pretokenizer::named(name).unwrap();
            for (text, expected) in texts.iter().zip(&mut lines) {
                let mut words = Vec::new();
                pretokenizer.split(text, &mut |word| words.push(word));
                assert_eq!(words.concat(), *text, "{name}");
                let lengths: Vec<String> = words
                    .iter()
                    .map(|word| word.chars().count().to_string())
                    .collect();
                assert_eq!(lengths.join(" "), expected, "{name}: {words:?}");
            }
        }
        assert_eq!(families, 29);
    }

    #[test]
    fn every_expression_is_understood_and_no_name_stands_twice() {
        let mut names = Pretokenizer::known();
        assert!(names.iter().all(|name| Pretokenizer::named(name).is_some()));
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    /// Four times the text takes about four times the steps, whatever it repeats: sixteen times would be quadratic.
    #[test]
    fn steps_grow_as_the_text_does() {
        const SYMBOLS: [&str; 15] = [
            "a", "A", "s", "中", "\u{2b0}", "\u{301}", "7", "½", " ", "\u{3000}", "\n", "\r", "'",
            "/", "\u{200d}",
        ];
        let mut units: Vec<String> = SYMBOLS.map(String::from).into();
        for a in SYMBOLS {
            units.extend(SYMBOLS.map(|b| format!("{a}{b}")));
            units.extend(SYMBOLS.map(|b| format!("{a}{b}{b}{a}s")));
        }
        for family in FAMILIES {
            let pretokenizer = Pretokenizer::named(family.names[0]).unwrap();
            let steps = |text: &str| {
                STEPS.set(0);
                pretokenizer.split(text, &mut |_| ());
                STEPS.get()
            };
            for unit in &units {
                for end in ["", "x", "\n"] {
                    let [few, many] = [50, 200].map(|n| steps(&(unit.repeat(n) + end)));
                    assert!(
                        many <= 7 * few + 100,
                        "{:?}: {unit:?}, {end:?}: {few}, {many}",
                        family.names
                    );
                }
            }
        }
    }

    /// Quadratic time would take minutes.
    #[test]
    fn long_monotony_takes_linear_time() {
        for text in ["a", "A", " ", "\n", "7", "'", "\u{1f600}", "中"] {
            let text = text.repeat(100_000) + "x";
            for family in FAMILIES {
                let mut length = 0;
                let pretokenizer = Pretokenizer::named(family.names[0]).unwrap();
                pretokenizer.split(&text, &mut |word| length += word.len());
                assert_eq!(length, text.len(), "{:?}", family.names);
            }
        }
    }
}
