//! Argument values: how each kind is spoken in a request and written in the call.
//!
//! Names, places, titles and free text are copied as they stand in the request. Numbers, times, dates and durations are
//! normalised. What may be drawn depends on the split: pools are disjoint, and made-up words, numbers and times are
//! divided by a hash, a fifth of them being kept for the held-out sets.

mod amounts;
mod clock;
mod made_up;

use self::made_up::{FUNCTION_WORDS, HELD_OUT, KNOWN, altered, heard, invented, spliced};
use super::grammar::{Node, Template};
use super::pools::*;
use super::spelling::{capitalise, title_case};
use super::{Split, texts};
use crate::data::Rng;
use dram_core::hash::fnv1a;

/// How this request is written down.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// Capitals at the start and in names, and a closing mark; otherwise all lower case without punctuation.
    pub(crate) sentence: bool,
    /// "i'm" rather than "im".
    pub(crate) apostrophes: bool,
    /// Chance in percent that a number is written in digits.
    pub(crate) digits: usize,
}

/// An argument of a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Argument {
    Text(String),
    Number(u32),
}

/// A value in both its forms.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) spoken: String,
    pub(crate) argument: Argument,
}

impl Value {
    fn copied(text: String) -> Self {
        Value {
            argument: Argument::Text(text.clone()),
            spoken: text,
        }
    }

    fn text(spoken: impl Into<String>, written: impl Into<String>) -> Self {
        Value {
            spoken: spoken.into(),
            argument: Argument::Text(written.into()),
        }
    }
}

/// Whether the value numbered `n` of family `salt` is kept for the held-out sets.
fn reserved(salt: &str, n: u64) -> bool {
    Rng::new(&[fnv1a(salt.bytes()), n]).below(5) == 0
}

/// Draws until the split owns the value.
fn owned<T>(
    split: Split,
    rng: &mut Rng,
    salt: &str,
    mut draw: impl FnMut(&mut Rng) -> (u64, T),
) -> T {
    loop {
        let (n, value) = draw(rng);
        if reserved(salt, n) == (split == Split::HeldOut) {
            return value;
        }
    }
}

/// Draws values of one split and style.
pub(crate) struct Draw<'a> {
    pub(crate) split: Split,
    pub(crate) style: Style,
    pub(crate) rng: &'a mut Rng,
}

impl Draw<'_> {
    /// A value of `kind`. An unknown kind is a programming error, found by the test that draws every slot of every template.
    pub(crate) fn value(&mut self, kind: &str) -> Value {
        match kind {
            "person" => Value::copied(self.person()),
            "contact" => Value::copied(self.full_name()),
            "text" => {
                let statement = self.rng.chance(60);
                Value::copied(self.composed(if statement {
                    &texts::STATEMENTS
                } else {
                    &texts::MESSAGES
                }))
            }
            "clause" => Value::copied(self.composed(&texts::STATEMENTS)),
            "tail" => Value::copied(self.composed(&texts::OPEN_STATEMENTS)),
            "note" => {
                let fact = self.rng.chance(40);
                Value::copied(self.composed(if fact { &texts::FACTS } else { &texts::NOTES }))
            }
            "fact" => Value::copied(self.composed(&texts::FACTS)),
            "noun" => Value::copied(self.word(&SONG_NOUNS, 40)),
            "home" => Value::copied("home".into()),
            "task" => Value::copied(self.entry(&TASKS)),
            "thing" => Value::copied(self.thing()),
            "item" => Value::copied(self.item()),
            "state" => Value::copied(self.entry(&STATES)),
            "place" => Value::copied(self.entry(&PLACES)),
            "destination" => Value::copied(self.destination()),
            "city" => Value::copied(self.city()),
            "song" => Value::copied(self.song()),
            "artist" => Value::copied(self.artist()),
            "genre" => Value::copied(self.entry(&GENRES)),
            "label" => Value::copied(self.label()),
            "title" => Value::copied(self.event()),
            "a_title" => self.event_with_article(),
            "list" => Value::copied(self.entry(&LISTS)),
            "app" => Value::copied(self.app()),
            "duration" => self.duration(false),
            "duration_adjective" => self.duration(true),
            "a_duration" => {
                let Value { spoken, argument } = self.duration(true);
                let vowel = spoken.starts_with(['e', '8'])
                    || matches!(spoken.split(' ').next(), Some("11" | "18"));
                let article = if vowel { "an" } else { "a" };
                Value {
                    spoken: format!("{article} {spoken}"),
                    argument,
                }
            }
            "delay" => self.delay(),
            "time" => self.time(),
            "date" => self.date(),
            "day" => self.day(),
            "level" => self.level(),
            "phone" => self.phone(),
            "code" => Value::copied(self.code()),
            "small" => self.small(),
            "clock" => {
                let hour = 1 + self.rng.below(12);
                Value::copied(self.number(hour))
            }
            "on_off" => self.one_of(&[("on", "on"), ("off", "off")]),
            "enable" => self.one_of(&[
                ("enable", "on"),
                ("disable", "off"),
                ("activate", "on"),
                ("deactivate", "off"),
            ]),
            "enabled" => self.one_of(&[
                ("enabled", "on"),
                ("disabled", "off"),
                ("on", "on"),
                ("off", "off"),
            ]),
            "phone_type" => self.one_of(&[
                ("mobile", "mobile"),
                ("cell", "mobile"),
                ("work", "work"),
                ("home", "home"),
            ]),
            "moving" => self.one_of(&[
                ("walking", "walking"),
                ("driving", "driving"),
                ("cycling", "cycling"),
                ("transit", "transit"),
            ]),
            "by" => self.one_of(&[
                ("by car", "driving"),
                ("on foot", "walking"),
                ("by bike", "cycling"),
                ("by bus", "transit"),
                ("by public transport", "transit"),
                ("by train", "transit"),
            ]),
            other => panic!("no kind of value is called {other}"),
        }
    }

    fn one_of(&mut self, forms: &[(&'static str, &'static str)]) -> Value {
        let (spoken, written) = *self.rng.pick(forms);
        Value::text(spoken, written)
    }

    fn pool(&mut self, pool: &Pool) -> &'static str {
        let words = pool.of(self.split);
        words[self.rng.below(words.len())]
    }

    /// An entry of the pool to be copied. In training its words are often exchanged for any others: a model that knows every list, genre
    /// and errand by heart would not learn to copy the ones it never saw.
    fn entry(&mut self, pool: &Pool) -> String {
        let entry = self.pool(pool);
        if self.split == Split::HeldOut || !self.rng.chance(50) {
            return entry.to_string();
        }
        let words: Vec<String> = entry
            .split(' ')
            .map(|word| {
                if word.len() < 3 || FUNCTION_WORDS.contains(&word) {
                    return word.to_string();
                }
                self.any_word()
            })
            .collect();
        words.join(" ")
    }

    /// Capitals where the style has them.
    fn proper(&self, text: &str) -> String {
        if self.style.sentence {
            title_case(text)
        } else {
            text.to_string()
        }
    }

    /// An entry of the pool; in training more often a made-up word or a slip of an entry, so that copying has to generalise.
    fn word(&mut self, pool: &Pool, made_up: usize) -> String {
        if !self.rng.chance(made_up) {
            return self.pool(pool).to_string();
        }
        loop {
            let held_out = self.split == Split::HeldOut;
            let word = if held_out || self.rng.chance(30) {
                invented(self.rng)
            } else if self.rng.chance(50) {
                spliced(self.rng)
            } else {
                altered(self.pool(pool), self.rng)
            };
            if reserved("word", fnv1a(word.bytes())) == held_out
                && !KNOWN.contains(word.as_str())
                && (held_out || !HELD_OUT.contains(word.as_str()))
            {
                return word;
            }
        }
    }

    /// Percentage of made-up words: `held_out`, and half of all in training.
    fn made_up(&self, held_out: usize) -> usize {
        if self.split == Split::Train {
            50
        } else {
            held_out
        }
    }

    fn first_name(&mut self) -> String {
        let name = self.word(
            &FIRST_NAMES,
            if self.split == Split::Train { 50 } else { 35 },
        );
        self.proper(&name)
    }

    fn last_name(&mut self) -> String {
        let name = self.word(&LAST_NAMES, 40);
        self.proper(&name)
    }

    fn full_name(&mut self) -> String {
        let first = self.first_name();
        if self.rng.chance(50) {
            first
        } else {
            format!("{first} {}", self.last_name())
        }
    }

    fn person(&mut self) -> String {
        match self.rng.below(20) {
            0..12 => self.first_name(),
            12..16 => format!("{} {}", self.first_name(), self.last_name()),
            16..18 => self.entry(&RELATIONS),
            18 => format!("{} {}", self.proper("doctor"), self.last_name()),
            _ => {
                let title = *self.rng.pick(&["aunt", "uncle"]);
                format!("{} {}", self.proper(title), self.first_name())
            }
        }
    }

    fn city(&mut self) -> String {
        let city = self.word(&CITIES, if self.split == Split::Train { 45 } else { 30 });
        self.proper(&city)
    }

    fn thing(&mut self) -> String {
        self.word(&THINGS, self.made_up(20))
    }

    fn item(&mut self) -> String {
        let first = self.thing();
        match self.rng.below(10) {
            0..2 => {
                let second = self.thing();
                format!("{first} and {second}")
            }
            2..4 if first.ends_with('s') && !first.contains(' ') => {
                let count = 2 + self.rng.below(11);
                format!("{} {first}", self.number(count))
            }
            _ => first,
        }
    }

    fn label(&mut self) -> String {
        self.word(&TIMER_LABELS, self.made_up(25))
    }

    fn destination(&mut self) -> String {
        match self.rng.below(10) {
            0..3 => self.entry(&PLACES),
            3..5 => {
                let nearest = *self.rng.pick(&["nearest", "closest", "next"]);
                format!("the {nearest} {}", self.entry(&PLACE_KINDS))
            }
            5..7 => {
                let number = 1 + self.rng.below(199);
                let street = self.last_name();
                let kind = self.pool(&STREET_KINDS);
                format!("{number} {street} {}", self.proper(kind))
            }
            7 => self.city(),
            8 => {
                let kind = self.pool(&VENUE_KINDS);
                format!("{} {}", self.proper(kind), self.last_name())
            }
            _ => {
                let name = self.first_name();
                let what = self.rng.pick(&["house", "place", "office"]);
                format!("{name}{} {what}", self.possessive())
            }
        }
    }

    fn possessive(&self) -> &'static str {
        if self.style.apostrophes { "'s" } else { "s" }
    }

    fn song(&mut self) -> String {
        let noun = self.entry(&SONG_NOUNS);
        let title = match self.rng.below(12) {
            0..3 => format!("{} {noun}", self.entry(&ADJECTIVES)),
            3..5 => format!("the {} {noun}", self.entry(&ADJECTIVES)),
            5 => format!("{noun} of {}", self.entry(&SONG_NOUNS)),
            6 => noun,
            7 => format!("my {} {noun}", self.entry(&ADJECTIVES)),
            8 => self.word(&FIRST_NAMES, 50),
            9 => format!("{noun} {}", self.word(&SONG_NOUNS, 50)),
            _ => self.word(&SONG_NOUNS, 80),
        };
        self.proper(&title)
    }

    fn artist(&mut self) -> String {
        match self.rng.below(8) {
            0..4 => format!("{} {}", self.first_name(), self.last_name()),
            4 => {
                let name = self.word(&LAST_NAMES, 70);
                self.proper(&name)
            }
            5 => {
                let name = format!("{} {}", self.entry(&ADJECTIVES), self.entry(&SONG_NOUNS));
                self.proper(&name)
            }
            _ => {
                let noun = self.word(&SONG_NOUNS, 40);
                self.proper(&format!("the {noun}s"))
            }
        }
    }

    fn event(&mut self) -> String {
        match self.rng.below(10) {
            0..5 => {
                let event = self.entry(&EVENTS);
                self.apostrophe(&event)
            }
            5..8 => format!("{} with {}", self.entry(&EVENT_WITH), self.person()),
            8 => format!("{}{} birthday", self.first_name(), self.possessive()),
            _ => format!("{} class", self.word(&TIMER_LABELS, 90)),
        }
    }

    fn apostrophe(&self, text: &str) -> String {
        if self.style.apostrophes {
            text.to_string()
        } else {
            text.replace('\'', "")
        }
    }

    fn event_with_article(&mut self) -> Value {
        let event = self.entry(&EVENTS);
        let mut title = self.apostrophe(&event);
        if !title.contains(' ') && self.rng.chance(50) {
            title = format!("{title} with {}", self.person());
        }
        let article = if title.starts_with(['a', 'e', 'i', 'o']) {
            "an"
        } else {
            "a"
        };
        Value::text(format!("{article} {title}"), title)
    }

    fn app(&mut self) -> String {
        if self.rng.chance(20) {
            format!("{} {}", self.entry(&ADJECTIVES), self.entry(&SONG_NOUNS))
        } else {
            self.word(&APPS, self.made_up(30))
        }
    }

    /// `words` with some of them exchanged, dropped or added behind the first, so that no grammar tells what comes next: it must be copied.
    fn garbled(&mut self, words: &[&str]) -> Vec<String> {
        let mut out = vec![words[0].to_string()];
        for word in &words[1..] {
            match self.rng.below(10) {
                0 => out.push(self.any_word()),
                1 => {
                    let added = self.any_word();
                    out.extend([(*word).to_string(), added]);
                }
                2 => {}
                _ => out.push((*word).to_string()),
            }
        }
        out
    }

    /// Any word that training reads, or the like of one, that cannot be taken for the end of a value.
    fn any_word(&mut self) -> String {
        loop {
            let known = self.rng.chance(60);
            let word = if known {
                heard(self.rng).to_string()
            } else {
                spliced(self.rng)
            };
            let kept =
                HELD_OUT.contains(word.as_str()) || !known && reserved("word", fnv1a(word.bytes()));
            if !kept && !FUNCTION_WORDS.contains(&word.as_str()) {
                return word;
            }
        }
    }

    /// Free text from a grammar of its own, all of it copied.
    fn composed(&mut self, grammar: &texts::Grammar) -> String {
        let templates = grammar.of(self.split);
        let template: &Template = &templates[self.rng.below(templates.len())];
        let mut rng = self.rng.clone();
        let mut out = String::new();
        let (split, style) = (self.split, self.style);
        template.walk(&mut rng, &mut |rng, node| match node {
            Node::Text(text) => out.push_str(text),
            Node::Slot { kind, .. } => out.push_str(&Draw { split, style, rng }.value(kind).spoken),
            Node::Choice(_) | Node::Constant { .. } => {}
        });
        *self.rng = rng;
        let mut words: Vec<&str> = out.split_whitespace().collect();
        let garbled;
        if self.split == Split::Train && self.rng.chance(35) {
            garbled = self.garbled(&words);
            words = garbled.iter().map(String::as_str).collect();
        }
        let text = self.apostrophe(&words.join(" "));
        if self.style.sentence {
            super::spelling::capital_i(&text)
        } else {
            text
        }
    }
}

/// The first letter, if the style has capitals.
pub(crate) fn opening(text: &str, style: Style) -> String {
    if style.sentence {
        capitalise(text)
    } else {
        text.to_string()
    }
}
