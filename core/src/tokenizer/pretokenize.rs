//! Cuts a text into the words that byte-level BPE merges inside of.
//!
//! Models name one of a few regular expressions (`tokenizer.ggml.pre`). They differ in four choices only, so one scanner serves them all;
//! it gives exactly the matches of the expression written beside each row, in linear time and without a regex engine in the app.

use unicode_general_category::{GeneralCategory, get_general_category};

/// How a pre-tokenizer cuts.
pub(super) struct Pretokenizer {
    /// The names in `tokenizer.ggml.pre`.
    pub(super) names: &'static [&'static str],
    contractions: Contractions,
    letters: Prefix,
    numbers: Numbers,
    /// Line breaks stick to punctuation before them, and form words of their own with the space before them.
    lines: bool,
    /// A word that is a token is taken whole, whatever the merges say.
    pub(super) whole_words: bool,
    /// Whether prompts begin with BOS where the file does not say.
    pub(super) adds_bos: bool,
}

/// `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll`, `'d`.
#[derive(Clone, Copy, PartialEq)]
enum Contractions {
    LowerCase,
    AnyCase,
}

/// What may stand before a run of letters as part of the word.
#[derive(Clone, Copy, PartialEq)]
enum Prefix {
    Space,
    /// Anything but a letter, a number or a line break.
    AnyOne,
}

#[derive(Clone, Copy, PartialEq)]
enum Numbers {
    /// ` ?\p{N}+`
    Run,
    /// `\p{N}{1,n}`
    Groups(usize),
    /// Each digit is cut off before anything else, with no space.
    Alone,
}

/// The known ones.
pub(super) const PRETOKENIZERS: &[Pretokenizer] = &[
    // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
    Pretokenizer {
        names: &["gpt-2"],
        contractions: Contractions::LowerCase,
        letters: Prefix::Space,
        numbers: Numbers::Run,
        lines: false,
        whole_words: false,
        adds_bos: false,
    },
    // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
    Pretokenizer {
        names: &["llama-bpe", "llama3", "llama-v3"],
        contractions: Contractions::AnyCase,
        letters: Prefix::AnyOne,
        numbers: Numbers::Groups(3),
        lines: true,
        whole_words: true,
        adds_bos: true,
    },
    // The same with \p{N} alone.
    Pretokenizer {
        names: &["qwen2", "stablelm2"],
        contractions: Contractions::AnyCase,
        letters: Prefix::AnyOne,
        numbers: Numbers::Groups(1),
        lines: true,
        whole_words: false,
        adds_bos: false,
    },
    // \p{N} first, then GPT-2's expression.
    Pretokenizer {
        names: &["smollm", "starcoder", "refact", "command-r"],
        contractions: Contractions::LowerCase,
        letters: Prefix::Space,
        numbers: Numbers::Alone,
        lines: false,
        whole_words: false,
        adds_bos: false,
    },
];

#[derive(Clone, Copy, PartialEq)]
enum Class {
    Letter,
    Number,
    Space,
    Other,
}

fn class(c: char) -> Class {
    if c.is_ascii() {
        return match c {
            'a'..='z' | 'A'..='Z' => Class::Letter,
            '0'..='9' => Class::Number,
            ' ' | '\t'..='\r' => Class::Space,
            _ => Class::Other,
        };
    }
    use GeneralCategory::{
        LowercaseLetter, ModifierLetter, OtherLetter, TitlecaseLetter, UppercaseLetter,
    };
    match get_general_category(c) {
        UppercaseLetter | LowercaseLetter | TitlecaseLetter | ModifierLetter | OtherLetter => {
            Class::Letter
        }
        GeneralCategory::DecimalNumber
        | GeneralCategory::LetterNumber
        | GeneralCategory::OtherNumber => Class::Number,
        _ if c.is_whitespace() => Class::Space,
        _ => Class::Other,
    }
}

fn is_line_break(c: char) -> bool {
    matches!(c, '\r' | '\n')
}

impl Pretokenizer {
    /// Calls `word` with each word of `text`, in order; together they are the text.
    pub(super) fn split(&self, text: &str, word: &mut dyn FnMut(&str)) {
        if self.numbers != Numbers::Alone {
            return self.split_run(text, word);
        }
        let mut rest = text;
        while let Some(at) = rest.find(|c| class(c) == Class::Number) {
            let length = rest[at..].chars().next().map_or(0, char::len_utf8);
            self.split_run(&rest[..at], word);
            word(&rest[at..at + length]);
            rest = &rest[at + length..];
        }
        self.split_run(rest, word);
    }

    fn split_run(&self, text: &str, word: &mut dyn FnMut(&str)) {
        let mut rest = text;
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(self.word_length(rest));
            word(head);
            rest = tail;
        }
    }

    /// Length in bytes of the first word of `text`, which is not empty: at least one character.
    fn word_length(&self, text: &str) -> usize {
        if let Some(length) = self.contraction(text) {
            return length;
        }
        let mut chars = text.chars();
        let Some(first) = chars.next() else { return 0 };
        let (first_class, first_length) = (class(first), first.len_utf8());
        let after = &text[first_length..];
        let second = after.chars().next().map(class);

        // Letters, with what may stand before them.
        if first_class == Class::Letter {
            return run(text, Class::Letter);
        }
        let may_prefix = match self.letters {
            Prefix::Space => first == ' ',
            Prefix::AnyOne => first_class != Class::Number && !is_line_break(first),
        };
        if may_prefix && second == Some(Class::Letter) {
            return first_length + run(after, Class::Letter);
        }
        // Numbers.
        match self.numbers {
            Numbers::Groups(most) if first_class == Class::Number => {
                return text
                    .chars()
                    .take(most)
                    .take_while(|&c| class(c) == Class::Number)
                    .map(char::len_utf8)
                    .sum();
            }
            Numbers::Run if first_class == Class::Number => return run(text, Class::Number),
            Numbers::Run if first == ' ' && second == Some(Class::Number) => {
                return 1 + run(after, Class::Number);
            }
            _ => {}
        }
        // Punctuation, with a space before it and line breaks after it.
        let space = if first == ' ' && second == Some(Class::Other) {
            1
        } else {
            0
        };
        if space == 1 || first_class == Class::Other {
            let end = space + run(&text[space..], Class::Other);
            let breaks = if self.lines {
                text[end..]
                    .chars()
                    .take_while(|&c| is_line_break(c))
                    .count()
            } else {
                0
            };
            return end + breaks;
        }
        // White space: to its last line break, or all but the character before the next word.
        let spaces = run(text, Class::Space);
        if spaces == 0 {
            return first_length; // a number where numbers are cut off beforehand
        }
        if self.lines
            && let Some(at) = text[..spaces].rfind(is_line_break)
        {
            return at + 1;
        }
        let last = text[..spaces].chars().next_back().map_or(0, char::len_utf8);
        if spaces == text.len() || spaces == last {
            spaces
        } else {
            spaces - last
        }
    }

    fn contraction(&self, text: &str) -> Option<usize> {
        let after = text.strip_prefix('\'')?;
        ["s", "t", "re", "ve", "m", "ll", "d"]
            .iter()
            .find_map(|ending| match self.contractions {
                Contractions::LowerCase => after.starts_with(ending).then_some(1 + ending.len()),
                Contractions::AnyCase => {
                    // Unicode's simple case folding: U+017F (long s) folds to s.
                    let mut length = 1;
                    let mut chars = after.chars();
                    for expected in ending.chars() {
                        let c = chars.next()?;
                        if c.to_ascii_lowercase() != expected && !(c == 'ſ' && expected == 's') {
                            return None;
                        }
                        length += c.len_utf8();
                    }
                    Some(length)
                }
            })
    }
}

/// Length in bytes of the run of `wanted` at the beginning of `text`.
fn run(text: &str, wanted: Class) -> usize {
    text.find(|c| class(c) != wanted).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(name: &str, text: &str) -> Vec<String> {
        let pretokenizer = PRETOKENIZERS
            .iter()
            .find(|p| p.names.contains(&name))
            .unwrap();
        let mut words = Vec::new();
        pretokenizer.split(text, &mut |word| words.push(word.to_owned()));
        assert_eq!(words.concat(), text);
        words
    }

    #[test]
    fn gpt2_cuts_as_its_expression() {
        assert_eq!(
            words("gpt-2", "Hello  world's 1234 x!?\n\n y"),
            [
                "Hello", " ", " world", "'s", " 1234", " x", "!?", "\n\n", " y"
            ]
        );
        assert_eq!(words("gpt-2", "a   "), ["a", "   "]);
        assert_eq!(words("gpt-2", "\t x"), ["\t", " x"]);
        assert_eq!(words("gpt-2", "'S"), ["'", "S"]);
    }

    #[test]
    fn llama3_and_qwen2_cut_as_theirs() {
        assert_eq!(
            words("llama-bpe", "HE'LL pay $12345.\n\nOK"),
            ["HE", "'LL", " pay", " $", "123", "45", ".\n\n", "OK"]
        );
        assert_eq!(words("qwen2", "in 1234"), ["in", " ", "1", "2", "3", "4"]);
        assert_eq!(words("llama-bpe", "a \n  b"), ["a", " \n", " ", " b"]);
        assert_eq!(words("llama-bpe", "\tx  \t y"), ["\tx", "  \t", " y"]);
    }

    #[test]
    fn smollm_cuts_digits_off() {
        assert_eq!(words("smollm", "in 12 x"), ["in", " ", "1", "2", " x"]);
    }
}
