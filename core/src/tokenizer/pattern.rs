//! The part of regular expressions that pre-tokenizers are written in, matched where it stands.
//!
//! Sets of characters (`[^\s\p{L}]`, without `\p{Han}` by `&&`), greedy quantifiers after them, alternatives, `(?:…)`, `(?i:…)`, one `?`
//! after a group, and looking ahead. No group repeats but [`WORDS`], so a match recurses no deeper than the expression is long, and the only
//! loops run over sets. The expressions
//! are constants of this crate: one that is not understood is a mistake of ours and panics, which a test over all of them excludes.

use std::str::Chars;
use unicode_general_category::{GeneralCategory as Category, get_general_category};

/// A compiled expression.
pub(super) struct Pattern {
    program: Vec<Step>,
}

enum Step {
    /// From `min` to `max` characters of the set, as many as possible.
    Run {
        set: Set,
        min: u32,
        max: u32,
    },
    /// What follows, or else the steps from here.
    OrElse(usize),
    Jump(usize),
    /// [`WORDS`].
    Words,
    /// What follows must (or must not) match up to its `Done`; matching goes on at `next` without having moved.
    Look {
        wanted: bool,
        next: usize,
    },
    Done,
}

/// Words with single spaces between them. Wherever it stands, what it could give back would not let the rest match.
pub(super) const WORDS: &str = r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+";

/// The script Han (Unicode 17's Scripts.txt).
const HAN: [(char, char); 21] = [
    ('\u{2e80}', '\u{2e99}'),
    ('\u{2e9b}', '\u{2ef3}'),
    ('\u{2f00}', '\u{2fd5}'),
    ('\u{3005}', '\u{3005}'),
    ('\u{3007}', '\u{3007}'),
    ('\u{3021}', '\u{3029}'),
    ('\u{3038}', '\u{303b}'),
    ('\u{3400}', '\u{4dbf}'),
    ('\u{4e00}', '\u{9fff}'),
    ('\u{f900}', '\u{fa6d}'),
    ('\u{fa70}', '\u{fad9}'),
    ('\u{16fe2}', '\u{16fe3}'),
    ('\u{16ff0}', '\u{16ff6}'),
    ('\u{20000}', '\u{2a6df}'),
    ('\u{2a700}', '\u{2b81d}'),
    ('\u{2b820}', '\u{2cead}'),
    ('\u{2ceb0}', '\u{2ebe0}'),
    ('\u{2ebf0}', '\u{2ee5d}'),
    ('\u{2f800}', '\u{2fa1d}'),
    ('\u{30000}', '\u{3134a}'),
    ('\u{31350}', '\u{33479}'),
];

impl Pattern {
    pub(super) fn new(expression: &str) -> Pattern {
        let mut parser = Parser {
            rest: expression.chars(),
            any_case: false,
            program: Vec::new(),
        };
        parser.alternatives();
        assert!(parser.rest.as_str().is_empty(), "unbalanced: {expression}");
        parser.program.push(Step::Done);
        Pattern {
            program: parser.program,
        }
    }

    /// Calls `piece` with the matches in `text` and with what lies between them, in order; together they are the text.
    pub(super) fn split<'a>(&self, text: &'a str, piece: &mut dyn FnMut(&'a str)) {
        let (mut between, mut at) = (0, 0);
        while at < text.len() {
            match self.matches(0, text, at) {
                Some(end) if end > at => {
                    if between < at {
                        piece(&text[between..at]);
                    }
                    piece(&text[at..end]);
                    (between, at) = (end, end);
                }
                _ => at += text[at..].chars().next().map_or(1, char::len_utf8),
            }
        }
        if between < text.len() {
            piece(&text[between..]);
        }
    }

    /// The end of the match of the steps from `step` that begins at `at`.
    fn matches(&self, mut step: usize, text: &str, mut at: usize) -> Option<usize> {
        loop {
            count_step();
            match &self.program[step] {
                Step::Done => return Some(at),
                Step::Jump(next) => step = *next,
                Step::Words => {
                    at += words(&text[at..])?;
                    step += 1;
                }
                Step::OrElse(other) => {
                    if let Some(end) = self.matches(step + 1, text, at) {
                        return Some(end);
                    }
                    step = *other;
                }
                Step::Look { wanted, next } => {
                    if self.matches(step + 1, text, at).is_some() != *wanted {
                        return None;
                    }
                    step = *next;
                }
                Step::Run { set, min, max } => {
                    let (mut count, mut end) = (0, at);
                    for c in text[at..].chars() {
                        if count == *max || !set.contains(c) {
                            break;
                        }
                        count_step();
                        count += 1;
                        end += c.len_utf8();
                    }
                    if count < *min {
                        return None;
                    }
                    step += 1;
                    while count > *min && !matches!(self.program[step], Step::Done) {
                        if let Some(end) = self.matches(step, text, end) {
                            return Some(end);
                        }
                        count -= 1;
                        end -= text[at..end].chars().next_back().map_or(0, char::len_utf8);
                    }
                    at = end;
                }
            }
        }
    }
}

#[cfg(test)]
thread_local! {
    /// Steps that this thread's matches took.
    pub(super) static STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

#[inline(always)]
fn count_step() {
    #[cfg(test)]
    STEPS.with(|steps| steps.set(steps.get() + 1));
}

/// The length of [`WORDS`] at the beginning of `text`.
fn words(text: &str) -> Option<usize> {
    let first = |c: char| category(c) & categories("L") != 0;
    let inside = |c: char| category(c) & (categories("L") | categories("M")) != 0;
    let mut end = text.chars().next().filter(|&c| first(c))?.len_utf8();
    loop {
        count_step();
        let mut next = text[end..].chars();
        match (next.next(), next.next()) {
            (Some(c), _) if inside(c) => end += c.len_utf8(),
            (Some(' '), Some(c)) if first(c) => end += 1,
            _ => return Some(end),
        }
    }
}

fn category(c: char) -> u32 {
    1 << get_general_category(c) as u32
}

/// A set of characters.
#[derive(Clone, Default)]
struct Set {
    /// Bit c: the ASCII character c is in the set, `negated` being worked in.
    ascii: u128,
    /// Bit `category as u32`.
    categories: u32,
    white_space: bool,
    ranges: Vec<(char, char)>,
    negated: bool,
    /// `&&[^\p{Han}]`
    no_han: bool,
}

impl Set {
    fn contains(&self, c: char) -> bool {
        if c.is_ascii() {
            self.ascii >> u32::from(c) & 1 == 1
        } else {
            self.holds(c) != self.negated && !(self.no_han && is_within(&HAN, c))
        }
    }

    fn holds(&self, c: char) -> bool {
        (self.categories != 0 && self.categories & category(c) != 0)
            || (self.white_space && c.is_whitespace())
            || is_within(&self.ranges, c)
    }

    fn add(&mut self, first: char, last: char, any_case: bool) {
        self.ranges.push((first, last));
        if any_case {
            assert!(first == last, "no range is without case here");
            self.ranges
                .push((first.to_ascii_uppercase(), first.to_ascii_uppercase()));
            if first == 's' {
                self.ranges.push(('ſ', 'ſ')); // which folds to s (Unicode's CaseFolding.txt)
            }
        }
    }

    fn finish(mut self) -> Set {
        for c in '\0'..='\x7f' {
            if self.holds(c) != self.negated {
                self.ascii |= 1 << u32::from(c);
            }
        }
        self
    }
}

fn is_within(ranges: &[(char, char)], c: char) -> bool {
    ranges
        .iter()
        .any(|&(first, last)| (first..=last).contains(&c))
}

/// `\p{name}`: the categories whose abbreviation begins with `name`.
fn categories(name: &str) -> u32 {
    use Category::*;
    const ALL: [Category; 30] = [
        ClosePunctuation,
        ConnectorPunctuation,
        Control,
        CurrencySymbol,
        DashPunctuation,
        DecimalNumber,
        EnclosingMark,
        FinalPunctuation,
        Format,
        InitialPunctuation,
        LetterNumber,
        LineSeparator,
        LowercaseLetter,
        MathSymbol,
        ModifierLetter,
        ModifierSymbol,
        NonspacingMark,
        OpenPunctuation,
        OtherLetter,
        OtherNumber,
        OtherPunctuation,
        OtherSymbol,
        ParagraphSeparator,
        PrivateUse,
        SpaceSeparator,
        SpacingMark,
        Surrogate,
        TitlecaseLetter,
        Unassigned,
        UppercaseLetter,
    ];
    ALL.into_iter()
        .filter(|category| category.abbreviation().starts_with(name))
        .fold(0, |bits, category| bits | 1 << category as u32)
}

struct Parser<'a> {
    rest: Chars<'a>,
    any_case: bool,
    program: Vec<Step>,
}

impl Parser<'_> {
    fn eat(&mut self, text: &str) -> bool {
        let found = self.rest.as_str().strip_prefix(text);
        if let Some(rest) = found {
            self.rest = rest.chars();
        }
        found.is_some()
    }

    fn next(&mut self) -> char {
        self.rest.next().expect("an expression that ends too early")
    }

    /// Up to the end or a closing parenthesis, which stays.
    fn alternatives(&mut self) {
        let mut jumps = Vec::new();
        loop {
            let choice = self.program.len();
            self.program.push(Step::OrElse(0));
            while !self.rest.as_str().is_empty() && !self.rest.as_str().starts_with(['|', ')']) {
                self.part();
            }
            if !self.eat("|") {
                // The last one: its choice is none.
                self.program[choice] = Step::Jump(choice + 1);
                break;
            }
            jumps.push(self.program.len());
            self.program.push(Step::Jump(0));
            self.program[choice] = Step::OrElse(self.program.len());
        }
        for jump in jumps {
            self.program[jump] = Step::Jump(self.program.len());
        }
    }

    fn part(&mut self) {
        let start = self.program.len();
        if self.eat(WORDS) {
            self.program.push(Step::Words);
            return;
        }
        let wanted = self.eat("(?=");
        if wanted || self.eat("(?!") {
            self.program.push(Step::Look { wanted, next: 0 });
            self.alternatives();
            assert!(self.eat(")"), "an open group");
            self.program.push(Step::Done);
            let next = self.program.len();
            self.program[start] = Step::Look { wanted, next };
            return;
        }
        if self.eat("(") {
            self.any_case = self.eat("?i:");
            if !self.any_case {
                self.eat("?:");
            }
            self.program.push(Step::Jump(start + 1));
            self.alternatives();
            assert!(self.eat(")"), "an open group");
            self.any_case = false;
            if self.eat("?") {
                self.program[start] = Step::OrElse(self.program.len());
            }
            return;
        }
        let set = self.set();
        let (min, max) = self.quantifier();
        self.program.push(Step::Run { set, min, max });
    }

    fn quantifier(&mut self) -> (u32, u32) {
        if self.eat("?") {
            return (0, 1);
        } else if self.eat("*") {
            return (0, u32::MAX);
        } else if self.eat("+") {
            return (1, u32::MAX);
        } else if !self.eat("{") {
            return (1, 1);
        }
        let (inside, rest) = self.rest.as_str().split_once('}').expect("a closing brace");
        self.rest = rest.chars();
        let (min, max) = inside.split_once(',').unwrap_or((inside, inside));
        let number = |text: &str| text.parse().expect("a number in braces");
        (number(min), number(max))
    }

    fn set(&mut self) -> Set {
        let mut set = Set::default();
        if !self.eat("[") {
            self.member(&mut set);
            return set.finish();
        }
        set.negated = self.eat("^");
        while !self.eat("]") {
            if self.eat(r"&&[^\p{Han}]") {
                set.no_han = true;
            } else {
                self.member(&mut set);
            }
        }
        set.finish()
    }

    /// One character, a range of them, or an escaped class.
    fn member(&mut self, set: &mut Set) {
        let mut first = self.next();
        if first == '\\' {
            first = match self.next() {
                'p' => {
                    assert!(self.eat("{"), "a name in braces");
                    let (name, rest) = self.rest.as_str().split_once('}').expect("a brace");
                    if name == "Han" {
                        set.ranges.extend(HAN);
                    } else {
                        set.categories |= categories(name);
                    }
                    self.rest = rest.chars();
                    return;
                }
                's' => return set.white_space = true,
                'S' => {
                    (set.white_space, set.negated) = (true, true);
                    return;
                }
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                escaped => escaped,
            };
        }
        let last = if self.rest.as_str().starts_with('-') && !self.rest.as_str().starts_with("-]") {
            self.next();
            self.next()
        } else {
            first
        };
        set.add(first, last, self.any_case);
    }
}
