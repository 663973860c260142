//! Words that nobody has seen before.

use std::collections::{BTreeSet, HashSet};
use std::sync::LazyLock;

use super::super::pools::*;
use super::super::{PARSED, Split};
use dram_files::Rng;

/// Every word of every pool: made-up words avoid them, whichever split they belong to.
pub(super) static KNOWN: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let pools = [
        &FIRST_NAMES,
        &LAST_NAMES,
        &CITIES,
        &THINGS,
        &TIMER_LABELS,
        &SONG_NOUNS,
        &APPS,
        &ADJECTIVES,
        &GENRES,
    ];
    let words = pools
        .iter()
        .flat_map(|p| p.of(Split::Train).iter().chain(p.of(Split::HeldOut)));
    words
        .flat_map(|entry| entry.split(' ').chain([*entry]))
        .chain(FUNCTION_WORDS)
        .collect()
});

/// Every word of a held-out list, whichever pool it is in.
pub(super) static HELD_OUT: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    ALL.iter()
        .flat_map(|(_, pool)| pool.of(Split::HeldOut))
        .flat_map(|entry| entry.split(' '))
        .collect()
});

/// Short words that would make a request mean something else.
pub(super) const FUNCTION_WORDS: [&str; 24] = [
    "the", "to", "on", "off", "at", "in", "by", "for", "and", "with", "that", "my", "list", "app",
    "please", "now", "thanks", "home", "work", "cell", "mobile", "some", "music", "saying",
];

/// Every word of three letters or more that training reads, in pools and phrasings: what [`spliced`] cuts up.
static HEARD: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let pools = ALL
        .iter()
        .flat_map(|(_, pool)| pool.of(Split::Train))
        .copied();
    let functions = PARSED
        .functions
        .iter()
        .flat_map(|f| &f[Split::Train as usize]);
    let templates = functions.chain(&PARSED.out_of_scope[Split::Train as usize]);
    let words: BTreeSet<&str> = pools
        .chain(templates.flat_map(|t| t.texts()))
        .flat_map(|text| text.split(|c: char| !c.is_ascii_lowercase()))
        .filter(|word| word.len() >= 3)
        .collect();
    words.into_iter().collect()
});

/// One of the words that training reads.
pub(super) fn heard(rng: &mut Rng) -> &'static str {
    HEARD[rng.below(HEARD.len())]
}

/// The beginning of one word and the end of another: its tokens are those of real words, in places where they never stand.
pub(super) fn spliced(rng: &mut Rng) -> String {
    let first = heard(rng);
    let head = &first[..(2 + rng.below(5)).min(first.len())];
    let second = heard(rng);
    let tail = &second[second.len() - (1 + rng.below(6)).min(second.len())..];
    format!("{head}{tail}")
}

/// A made-up word of two or three syllables.
pub(super) fn invented(rng: &mut Rng) -> String {
    const ONSETS: &str = "b c d f g h j k l m n p r s t v w z b d k l m n r s t br ch cl dr fl fr gl gr kr pl qu sh sl st th tr y";
    const VOWELS: &str = "a e i o u a e i o u a e i o u a e i o ai ea ee ie oo ou ia y";
    const CODAS: &str = "- - - - - - n r l s t m k d x nd rt ck sh th ng st ll nn";
    fn part(rng: &mut Rng, parts: &str) -> String {
        let parts: Vec<&str> = parts.split(' ').collect();
        rng.pick(&parts).replace('-', "")
    }
    let mut word = String::new();
    for _ in 0..2 + usize::from(rng.chance(30)) {
        word += &part(rng, ONSETS);
        word += &part(rng, VOWELS);
    }
    word + &part(rng, CODAS)
}

/// `word` with one letter exchanged, dropped, doubled or added.
pub(super) fn altered(word: &str, rng: &mut Rng) -> String {
    let mut letters: Vec<char> = word.chars().collect();
    let at = rng.below(letters.len());
    if letters[at] == ' ' || letters.len() < 4 {
        return invented(rng);
    }
    let any = char::from(b'a' + rng.below(26) as u8);
    match rng.below(4) {
        0 => letters[at] = any,
        1 => {
            letters.remove(at);
        }
        2 => letters.insert(at, any),
        _ => letters.insert(at, letters[at]),
    }
    letters.into_iter().collect()
}
