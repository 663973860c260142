//! English spelling helpers.

const ONES: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = [
    "", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
];

/// 0..=199 in words, without hyphens as speech recognisers write them.
pub(crate) fn number_words(n: usize) -> String {
    match n {
        0..20 => ONES[n].into(),
        20..100 if n.is_multiple_of(10) => TENS[n / 10].into(),
        20..100 => format!("{} {}", TENS[n / 10], ONES[n % 10]),
        100 => "one hundred".into(),
        _ => format!("one hundred {}", number_words(n - 100)),
    }
}

/// Day of the month 1..=31 as ("third", "3rd").
pub(crate) fn ordinal(n: usize) -> (String, String) {
    const WORDS: [&str; 20] = [
        "",
        "first",
        "second",
        "third",
        "fourth",
        "fifth",
        "sixth",
        "seventh",
        "eighth",
        "ninth",
        "tenth",
        "eleventh",
        "twelfth",
        "thirteenth",
        "fourteenth",
        "fifteenth",
        "sixteenth",
        "seventeenth",
        "eighteenth",
        "nineteenth",
    ];
    let word = match n {
        0..20 => WORDS[n].to_string(),
        20 => "twentieth".into(),
        30 => "thirtieth".into(),
        _ => format!("{} {}", TENS[n / 10], WORDS[n % 10]),
    };
    let suffix = match (n / 10, n % 10) {
        (1, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    (word, format!("{n}{suffix}"))
}

pub(crate) fn capitalise(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// Capitals on every word.
pub(crate) fn title_case(text: &str) -> String {
    text.split(' ')
        .map(capitalise)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The pronoun as it is written in prose: "i'm" becomes "I'm".
pub(crate) fn capital_i(text: &str) -> String {
    let words = text.split(' ').map(|w| match w {
        "i" | "im" | "ill" | "ive" | "id" => capitalise(w),
        _ if w.starts_with("i'") => capitalise(w),
        _ => w.to_string(),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ordinals() {
        assert_eq!(number_words(0), "zero");
        assert_eq!(number_words(40), "forty");
        assert_eq!(number_words(57), "fifty seven");
        assert_eq!(number_words(100), "one hundred");
        assert_eq!(ordinal(3), ("third".into(), "3rd".into()));
        assert_eq!(ordinal(12).1, "12th");
        assert_eq!(ordinal(20).0, "twentieth");
        assert_eq!(ordinal(31), ("thirty first".into(), "31st".into()));
        assert_eq!(capital_i("i'm in if i can"), "I'm in if I can");
    }
}
