//! From a template to a request as a speech recogniser would write it, and to its call.

use dram_files::Rng;
use serde_json::json;

use super::grammar::{Node, Template};
use super::spelling::capital_i;
use super::values::{Argument, Draw, Style, opening};
use super::{Sample, Split};

/// Fillers before anything: (train, held out).
const FILLERS: [&[&str]; 2] = [
    &[
        "hey",
        "hi",
        "hello",
        "okay",
        "ok",
        "um",
        "so",
        "well",
        "alright",
        "hey there",
        "oh",
        "okay so",
        "hey phone",
        "uh",
        "right",
        "listen",
        "excuse me",
        "one more thing",
        "sorry",
        "good morning",
        "yes",
        "and now",
        "now",
    ],
    &[
        "hello there",
        "um okay",
        "oh hey",
        "right so",
        "alright then",
        "one thing",
        "hey sorry",
        "well now",
        "yes okay",
    ],
];

/// What may stand before an imperative.
const OPENERS: [&[&str]; 2] = [
    &[
        "please",
        "can you",
        "could you",
        "can you please",
        "could you please",
        "would you",
        "would you please",
        "will you",
        "i want you to",
        "i need you to",
        "i'd like you to",
        "you should",
        "go ahead and",
        "just",
        "quickly",
        "kindly",
        "please just",
        "can you quickly",
        "it would be great if you could",
        "i was wondering if you could",
        "are you able to",
        "do me a favor and",
        "try to",
        "i would like you to",
        "it's time to",
        "i was hoping you would",
        "i'd love it if you could",
        "can i ask you to",
        "may i ask you to",
        "you need to",
        "be nice and",
    ],
    &[
        "could you quickly",
        "can you just",
        "please go ahead and",
        "would you be able to",
        "i'd love you to",
        "would it be okay to",
        "i was hoping you could",
        "you can",
        "could i ask you to",
        "please try to",
        "will you please",
        "it would be nice if you would",
        "i need you to please",
    ],
];

/// What may stand after an imperative whose last words are not dictated.
const CLOSERS: [&[&str]; 2] = [
    &[
        "please",
        "thanks",
        "thank you",
        "for me",
        "for me please",
        "if you can",
        "would you",
        "will you",
        "okay",
        "if that's okay",
        "if you don't mind",
        "thank you so much",
        "as soon as you can",
        "if possible",
    ],
    &[
        "please and thank you",
        "if you would",
        "thanks a lot",
        "for me thanks",
        "if that's possible",
    ],
];

/// What may stand after a whole sentence.
const THANKS: [&[&str]; 2] = [
    &["please", "thanks", "thank you", "thank you so much"],
    &["please and thank you", "thanks a lot"],
];

/// A run of the request: carrier words, or a value that must stay as it is.
enum Run {
    Carrier(String),
    Value(String),
}

/// Writes one sample.
pub(crate) fn render(
    function: &'static str,
    order: &'static [&'static str],
    template: &Template,
    split: Split,
    rng: &mut Rng,
) -> Sample {
    let sentence = rng.chance(40);
    let style = Style {
        sentence,
        apostrophes: sentence || rng.chance(75),
        digits: *rng.pick(&[0, 50, 100]),
    };
    let mut runs = Vec::new();
    let mut phrasing = String::new();
    let mut arguments: Vec<(&'static str, Argument)> = Vec::new();
    let mut dictated = false;
    template.walk(rng, &mut |rng, node| match node {
        Node::Text(text) => {
            phrasing.push_str(text);
            runs.push(Run::Carrier((*text).to_string()));
            dictated &= text.trim().is_empty();
        }
        Node::Slot { key, kind } => {
            let value = Draw { split, style, rng }.value(kind);
            phrasing.push_str(&format!("<{key}>"));
            runs.push(Run::Value(value.spoken));
            arguments.push((key, value.argument));
            dictated = matches!(*kind, "text" | "clause" | "tail" | "note" | "fact" | "task");
        }
        Node::Constant { key, value } => {
            let argument = value
                .parse()
                .map_or_else(|_| Argument::Text((*value).into()), Argument::Number);
            arguments.push((key, argument));
        }
        Node::Choice(_) => {}
    });
    if order.is_empty() {
        arguments.clear();
    }
    arguments.sort_by_key(|(key, _)| order.iter().position(|k| k == key));

    let question = !template.imperative && starts_with_question(&phrasing);
    let mut asks = question;
    if template.imperative && rng.chance(55) {
        let opener = *rng.pick(OPENERS[split as usize]);
        asks = opener
            .split(' ')
            .next()
            .is_some_and(|w| ["can", "could", "would", "will", "are", "may"].contains(&w));
        runs.insert(0, Run::Carrier(format!("{opener} ")));
    }
    if rng.chance(25) {
        let filler = *rng.pick(FILLERS[split as usize]);
        let comma = if style.sentence && rng.chance(60) {
            ","
        } else {
            ""
        };
        runs.insert(0, Run::Carrier(format!("{filler}{comma} ")));
    }
    let (closers, chance) = if template.imperative {
        (CLOSERS, 25)
    } else {
        (THANKS, 8)
    };
    if !dictated && rng.chance(chance) {
        let closer = *rng.pick(closers[split as usize]);
        let comma = if style.sentence && rng.chance(60) {
            ","
        } else {
            ""
        };
        runs.push(Run::Carrier(format!("{comma} {closer}")));
    }
    let request = assemble(&runs, style, asks, rng);
    let call = call_json(function, &arguments);
    let phrasing = phrasing.split_whitespace().collect::<Vec<_>>().join(" ");
    Sample {
        request,
        call,
        function,
        phrasing,
        arguments,
    }
}

fn starts_with_question(phrasing: &str) -> bool {
    const WORDS: [&str; 24] = [
        "what", "what's", "how", "how's", "who", "where", "where's", "which", "why", "when", "is",
        "are", "will", "does", "do", "did", "can", "could", "should", "would", "may", "am", "has",
        "have",
    ];
    phrasing
        .split(' ')
        .next()
        .is_some_and(|w| WORDS.contains(&w))
}

fn assemble(runs: &[Run], style: Style, asks: bool, rng: &mut Rng) -> String {
    let slip = rng.chance(12); // a spelling slip in one request of eight
    let words: usize = runs
        .iter()
        .map(|r| match r {
            Run::Carrier(c) => c.split(' ').filter(|w| slippable(w)).count(),
            Run::Value(_) => 0,
        })
        .sum();
    let mut countdown = if slip && words > 0 {
        Some(rng.below(words))
    } else {
        None
    };
    let mut text = String::new();
    for (at, run) in runs.iter().enumerate() {
        match run {
            Run::Value(value) => text.push_str(value),
            Run::Carrier(carrier) => {
                // a possessive keeps its apostrophe, or the name would seem to end in an s
                let keep = at > 0 && carrier.starts_with('\'');
                let mut carrier = carrier.clone();
                if !style.apostrophes && !keep {
                    carrier = carrier.replace('\'', "");
                }
                if style.sentence {
                    carrier = capital_i(&carrier);
                }
                let mut words = Vec::new();
                for word in carrier.split(' ') {
                    if slippable(word) {
                        match countdown {
                            Some(0) => {
                                countdown = None;
                                words.push(slipped(word, rng));
                                continue;
                            }
                            Some(n) => countdown = Some(n - 1),
                            None => {}
                        }
                    }
                    words.push(word.to_string());
                }
                text.push_str(&words.join(" "));
            }
        }
    }
    let text = text
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace(" ,", ",");
    if !style.sentence {
        return text;
    }
    let starts_with_value = matches!(runs.first(), Some(Run::Value(_)));
    let text = if starts_with_value {
        text
    } else {
        opening(&text, style)
    };
    let mark = match () {
        _ if rng.chance(20) || text.ends_with('.') => "",
        _ if asks => "?",
        _ => ".",
    };
    text + mark
}

/// Long enough to be understood with a letter wrong.
fn slippable(word: &str) -> bool {
    word.len() >= 5 && word.bytes().all(|b| b.is_ascii_lowercase())
}

/// Two letters exchanged, or one dropped or doubled; the first stays.
fn slipped(word: &str, rng: &mut Rng) -> String {
    let mut letters: Vec<char> = word.chars().collect();
    let at = 1 + rng.below(letters.len() - 2);
    match rng.below(3) {
        0 => letters.swap(at, at + 1),
        1 => {
            letters.remove(at);
        }
        _ => letters.insert(at, letters[at]),
    }
    letters.into_iter().collect()
}

fn call_json(name: &str, arguments: &[(&'static str, Argument)]) -> String {
    let mut out = format!("{{\"name\":{},\"arguments\":{{", json!(name));
    for (i, (key, value)) in arguments.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        let value = match value {
            Argument::Text(text) => json!(text),
            Argument::Number(number) => json!(number),
        };
        out.push_str(&format!("{}:{value}", json!(key)));
    }
    out + "}}"
}

#[cfg(test)]
pub(crate) fn wrapper_words(split: Split) -> std::collections::HashSet<&'static str> {
    let lists = [FILLERS, OPENERS, CLOSERS, THANKS].map(|lists| lists[split as usize]);
    lists
        .iter()
        .copied()
        .flatten()
        .flat_map(|p| p.split(' '))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_keep_the_first_letter_and_change_little() {
        let mut rng = Rng::new(&[1]);
        for _ in 0..200 {
            let word = slipped("brightness", &mut rng);
            assert!(
                word.starts_with('b') && word.len().abs_diff(10) <= 1,
                "{word}"
            );
        }
    }
}
