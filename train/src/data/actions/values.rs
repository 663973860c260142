//! Argument values: how each kind is spoken in a request and written in the call.
//!
//! Names, places, titles and free text are copied as they stand in the request. Numbers, times, dates and durations are
//! normalised. What may be drawn depends on the split: pools are disjoint, and made-up words, numbers and times are
//! divided by a hash, a fifth of them being kept for the held-out sets.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::grammar::{Node, Template};
use super::pools::*;
use super::spoken::{capitalise, number_words, ordinal, title_case};
use super::{Split, texts};
use crate::data::Rng;

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
    Rng::new(&[hash(salt), n]).below(5) == 0
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    })
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
            "task" => Value::copied(self.pool(&TASKS).into()),
            "thing" => Value::copied(self.thing()),
            "item" => Value::copied(self.item()),
            "state" => Value::copied(self.pool(&STATES).into()),
            "place" => Value::copied(self.pool(&PLACES).into()),
            "destination" => Value::copied(self.destination()),
            "city" => Value::copied(self.city()),
            "song" => Value::copied(self.song()),
            "artist" => Value::copied(self.artist()),
            "genre" => Value::copied(self.pool(&GENRES).into()),
            "label" => Value::copied(self.label()),
            "title" => Value::copied(self.event()),
            "a_title" => self.event_with_article(),
            "list" => Value::copied(self.pool(&LISTS).into()),
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
            let word = if self.split == Split::Train && self.rng.chance(50) {
                altered(self.pool(pool), self.rng)
            } else {
                invented(self.rng)
            };
            if reserved("word", hash(&word)) == (self.split == Split::HeldOut)
                && !KNOWN.contains(word.as_str())
            {
                return word;
            }
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
            16..18 => self.pool(&RELATIONS).to_string(),
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
        self.word(&THINGS, 20)
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
        self.word(&TIMER_LABELS, 25)
    }

    fn destination(&mut self) -> String {
        match self.rng.below(10) {
            0..3 => self.pool(&PLACES).to_string(),
            3..5 => format!(
                "the {} {}",
                self.rng.pick(&["nearest", "closest", "next"]),
                self.pool(&PLACE_KINDS)
            ),
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
        let noun = self.pool(&SONG_NOUNS);
        let title = match self.rng.below(12) {
            0..3 => format!("{} {noun}", self.pool(&ADJECTIVES)),
            3..5 => format!("the {} {noun}", self.pool(&ADJECTIVES)),
            5 => format!("{noun} of {}", self.pool(&SONG_NOUNS)),
            6 => noun.to_string(),
            7 => format!("my {} {noun}", self.pool(&ADJECTIVES)),
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
                let name = format!("{} {}", self.pool(&ADJECTIVES), self.pool(&SONG_NOUNS));
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
                let event = self.pool(&EVENTS);
                self.apostrophe(event)
            }
            5..8 => format!("{} with {}", self.pool(&EVENT_WITH), self.person()),
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
        let event = self.pool(&EVENTS);
        let mut title = self.apostrophe(event);
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
            format!("{} {}", self.pool(&ADJECTIVES), self.pool(&SONG_NOUNS))
        } else {
            self.word(&APPS, 30)
        }
    }

    /// A number 0..=100 as the style writes it.
    fn number(&mut self, n: usize) -> String {
        if self.rng.chance(self.style.digits) {
            n.to_string()
        } else {
            number_words(n)
        }
    }

    fn small(&mut self) -> Value {
        let n = owned(self.split, self.rng, "small", |r| {
            let n = 2 + r.below(58);
            (n as u64, n)
        });
        Value::copied(self.number(n))
    }

    fn code(&mut self) -> String {
        owned(self.split, self.rng, "code", |r| {
            let n = 1000 + r.below(9000);
            (n as u64, n)
        })
        .to_string()
    }

    fn level(&mut self) -> Value {
        if self.split == Split::Train && self.rng.chance(8) {
            let (spoken, n) = *self.rng.pick(&[
                ("half", 50),
                ("maximum", 100),
                ("max", 100),
                ("the maximum", 100),
                ("full", 100),
                ("minimum", 0),
                ("the minimum", 0),
            ]);
            return Value {
                spoken: spoken.into(),
                argument: Argument::Number(n),
            };
        }
        let split = self.split;
        let n = owned(split, self.rng, "level", |r| {
            let n = if r.chance(50) {
                r.below(21) * 5
            } else {
                r.below(101)
            };
            (n as u64, n)
        });
        let number = self.number(n);
        let digits = number.starts_with(|c: char| c.is_ascii_digit());
        let spoken = match self.rng.below(4) {
            0 | 1 => format!("{number} percent"),
            2 if digits => format!("{number}%"),
            _ => number,
        };
        Value {
            spoken,
            argument: Argument::Number(n as u32),
        }
    }

    fn phone(&mut self) -> Value {
        let (prefix, groups): (&str, &[usize]) = *self.rng.pick(&[
            ("", &[3, 4][..]),
            ("", &[3, 3, 4]),
            ("", &[7]),
            ("0", &[2, 3, 3]),
            ("0", &[3, 4]),
        ]);
        let separator = *self.rng.pick(&[" ", " ", "-"]);
        let number = owned(self.split, self.rng, "phone", |r| {
            let parts: Vec<String> = groups
                .iter()
                .map(|&g| {
                    (0..g)
                        .map(|_| char::from(b'0' + r.below(10) as u8))
                        .collect()
                })
                .collect();
            let number = format!("{prefix}{}", parts.join(separator));
            (hash(&number), number)
        });
        Value::copied(number)
    }

    /// `adjective`: "five minute", to stand before a noun.
    fn duration(&mut self, adjective: bool) -> Value {
        if self.split == Split::Train && !adjective && self.rng.chance(12) {
            let (spoken, written) = *self.rng.pick(&[
                ("half an hour", "30 minutes"),
                ("a half hour", "30 minutes"),
                ("a minute", "1 minute"),
                ("an hour", "1 hour"),
                ("a quarter of an hour", "15 minutes"),
                ("an hour and a half", "90 minutes"),
                ("one and a half hours", "90 minutes"),
            ]);
            return Value::text(spoken, written);
        }
        if !adjective && self.rng.chance(20) {
            let (units, first, second) = owned(self.split, self.rng, "compound", |r| {
                let units = *r.pick(&[("hour", "minute"), ("minute", "second")]);
                let (first, second) = (1 + r.below(9), 5 * (1 + r.below(11)));
                (
                    hash(units.0) ^ (first * 100 + second) as u64,
                    (units, first, second),
                )
            });
            let joint = *self.rng.pick(&[" and ", " "]);
            let (one, two) = (
                self.amount(first, units.0, false),
                self.amount(second, units.1, false),
            );
            return Value::text(
                format!("{}{joint}{}", one.0, two.0),
                format!("{} {}", one.1, two.1),
            );
        }
        let (n, unit) = owned(self.split, self.rng, "duration", |r| {
            let (unit, most) = *r.pick(&[
                ("second", 90),
                ("minute", 90),
                ("minute", 60),
                ("minute", 30),
                ("hour", 24),
            ]);
            let n = 1 + r.below(most);
            (hash(unit) ^ n as u64, (n, unit))
        });
        let (spoken, written) = self.amount(n, unit, adjective);
        Value::text(spoken, written)
    }

    /// (as spoken, as written)
    fn amount(&mut self, n: usize, unit: &str, adjective: bool) -> (String, String) {
        let plural = if n == 1 { "" } else { "s" };
        let short = !adjective && self.rng.chance(6);
        let unit_spoken = match (adjective, short, unit) {
            (true, _, _) => unit.to_string(),
            (false, true, "minute") => "min".into(),
            (false, true, "second") => format!("sec{plural}"),
            _ => format!("{unit}{plural}"),
        };
        (
            format!("{} {unit_spoken}", self.number(n)),
            format!("{n} {unit}{plural}"),
        )
    }

    fn delay(&mut self) -> Value {
        let n = owned(self.split, self.rng, "delay", |r| {
            let n = 2 + r.below(29);
            (n as u64, n)
        });
        let number = self.number(n);
        Value::text(format!("{number} seconds"), format!("{n} seconds"))
    }

    fn time(&mut self) -> Value {
        if self.split == Split::Train && self.rng.chance(3) {
            let (spoken, written) = *self.rng.pick(&[("noon", "12:00"), ("midnight", "00:00")]);
            return Value::text(spoken, written);
        }
        let (hour, minute) = owned(self.split, self.rng, "time", |r| {
            let minute = match r.below(10) {
                0..3 => 0,
                3..8 => 5 * r.below(12),
                _ => r.below(60),
            };
            let hour = r.below(24);
            ((hour * 60 + minute) as u64, (hour, minute))
        });
        Value::text(
            self.time_spoken(hour, minute),
            format!("{hour:02}:{minute:02}"),
        )
    }

    fn time_spoken(&mut self, hour: usize, minute: usize) -> String {
        // Without "pm" or "in the evening" an hour means itself, so hours outside 1..=12 need one or the 24-hour form.
        let bare = (1..=12).contains(&hour);
        let twelve = (hour + 11) % 12 + 1;
        if !bare && self.rng.chance(25) {
            return format!("{hour}:{minute:02}");
        }
        let period = match hour {
            _ if bare && self.rng.chance(50) => "",
            0 => "at night",
            1..4 => "am",
            4..12 => *self.rng.pick(&["am", "am", "a.m.", "in the morning"]),
            12 => "pm",
            13..18 => *self.rng.pick(&["pm", "pm", "p.m.", "in the afternoon"]),
            18..21 => *self.rng.pick(&["pm", "pm", "p.m.", "in the evening"]),
            _ => *self.rng.pick(&["pm", "pm", "p.m.", "at night"]),
        };
        let next = twelve % 12 + 1;
        // "quarter to one pm" crosses noon or midnight: say those another way
        let to = !matches!(twelve, 11 | 12);
        let spoken = match minute {
            0 => match self.rng.below(4) {
                0 => format!("{twelve}:00"),
                1 if !period.ends_with('m') => format!("{} o'clock", self.number(twelve)),
                _ => self.number(twelve),
            },
            15 if self.rng.chance(40) => {
                let start = *self
                    .rng
                    .pick(&["quarter past", "a quarter past", "quarter after"]);
                format!("{start} {}", self.number(twelve))
            }
            30 if self.rng.chance(50) => format!("half past {}", self.number(twelve)),
            45 if to && self.rng.chance(40) => {
                let start = *self.rng.pick(&["quarter to", "a quarter to"]);
                format!("{start} {}", self.number(next))
            }
            5 | 10 | 20 | 25 if self.rng.chance(35) => {
                format!("{} past {}", self.number(minute), self.number(twelve))
            }
            35 | 40 | 50 | 55 if to && self.rng.chance(35) => {
                format!("{} to {}", self.number(60 - minute), self.number(next))
            }
            _ if self.rng.chance(self.style.digits) => match self.rng.below(3) {
                0 if minute >= 10 => format!("{twelve} {minute}"),
                _ => format!("{twelve}:{minute:02}"),
            },
            1..10 => format!("{} oh {}", number_words(twelve), number_words(minute)),
            _ => format!("{} {}", number_words(twelve), number_words(minute)),
        };
        let spoken = self.apostrophe(&spoken);
        if period.is_empty() {
            spoken
        } else {
            format!("{spoken} {period}")
        }
    }

    /// With its preposition: "on friday", "tomorrow", "on the third of may".
    fn date(&mut self) -> Value {
        let calendar = if self.split == Split::Train { 45 } else { 70 };
        if !self.rng.chance(calendar) {
            return self.day();
        }
        let (month, day) = owned(self.split, self.rng, "date", |r| {
            let month = 1 + r.below(12);
            let day = 1 + r.below([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]);
            ((month * 100 + day) as u64, (month, day))
        });
        let name = self.proper(MONTHS[month - 1]);
        let (word, figure) = ordinal(day);
        let ordinal = if self.rng.chance(self.style.digits) {
            figure
        } else {
            word
        };
        let spoken = match self.rng.below(3) {
            0 => format!("on the {ordinal} of {name}"),
            1 => format!("on {name} {day}"),
            _ => format!("on {name} {ordinal}"),
        };
        Value::text(spoken, format!("{month:02}-{day:02}"))
    }

    fn day(&mut self) -> Value {
        let weekday = *self.rng.pick(&WEEKDAYS);
        let name = self.proper(weekday);
        match self.rng.below(10) {
            0..3 => Value::text("tomorrow", "tomorrow"),
            3 => Value::text("today", "today"),
            4..6 => {
                let weekday = self.split_weekday();
                let name = self.proper(weekday);
                Value::text(
                    format!("next {name}"),
                    format!("next {}", name.to_lowercase()),
                )
            }
            6 => Value::text(format!("this {name}"), weekday),
            _ => Value::text(format!("on {name}"), weekday),
        }
    }

    /// "next wednesday" and "next sunday" are only ever held out.
    fn split_weekday(&mut self) -> &'static str {
        let days: &[&'static str] = match self.split {
            Split::Train => &["monday", "tuesday", "thursday", "friday", "saturday"],
            Split::HeldOut => &["wednesday", "sunday"],
        };
        days[self.rng.below(days.len())]
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
        let text = out.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = self.apostrophe(&text);
        if self.style.sentence {
            super::spoken::capital_i(&text)
        } else {
            text
        }
    }
}

const WEEKDAYS: [&str; 7] = [
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// Every word of every pool: made-up words avoid them, whichever split they belong to.
static KNOWN: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
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

/// Short words that would make a request mean something else.
const FUNCTION_WORDS: [&str; 24] = [
    "the", "to", "on", "off", "at", "in", "by", "for", "and", "with", "that", "my", "list", "app",
    "please", "now", "thanks", "home", "work", "cell", "mobile", "some", "music", "saying",
];

/// A made-up word of two or three syllables.
fn invented(rng: &mut Rng) -> String {
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
fn altered(word: &str, rng: &mut Rng) -> String {
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

/// The first letter, if the style has capitals.
pub(crate) fn opening(text: &str, style: Style) -> String {
    if style.sentence {
        capitalise(text)
    } else {
        text.to_string()
    }
}
