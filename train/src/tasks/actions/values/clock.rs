//! Times of day and dates.

use super::super::spelling::{number_words, ordinal};
use super::{Draw, Split, Value, owned};

impl Draw<'_> {
    pub(super) fn time(&mut self) -> Value {
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
    pub(super) fn date(&mut self) -> Value {
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

    pub(super) fn day(&mut self) -> Value {
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
