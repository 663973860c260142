//! Numbers, levels, phone numbers and durations.

use super::super::spelling::number_words;
use super::Split;
use super::{Argument, Draw, Value, owned};
use dram_core::hash::fnv1a;

impl Draw<'_> {
    /// A number 0..=100 as the style writes it.
    pub(super) fn number(&mut self, n: usize) -> String {
        if self.rng.chance(self.style.digits) {
            n.to_string()
        } else {
            number_words(n)
        }
    }

    pub(super) fn small(&mut self) -> Value {
        let n = owned(self.split, self.rng, "small", |r| {
            let n = 2 + r.below(58);
            (n as u64, n)
        });
        Value::copied(self.number(n))
    }

    pub(super) fn code(&mut self) -> String {
        owned(self.split, self.rng, "code", |r| {
            let n = 1000 + r.below(9000);
            (n as u64, n)
        })
        .to_string()
    }

    pub(super) fn level(&mut self) -> Value {
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

    pub(super) fn phone(&mut self) -> Value {
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
            (fnv1a(number.bytes()), number)
        });
        Value::copied(number)
    }

    /// `adjective`: "five minute", to stand before a noun.
    pub(super) fn duration(&mut self, adjective: bool) -> Value {
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
                    fnv1a(units.0.bytes()) ^ (first * 100 + second) as u64,
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
            (fnv1a(unit.bytes()) ^ n as u64, (n, unit))
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

    pub(super) fn delay(&mut self) -> Value {
        let n = owned(self.split, self.rng, "delay", |r| {
            let n = 2 + r.below(29);
            (n as u64, n)
        });
        let number = self.number(n);
        Value::text(format!("{number} seconds"), format!("{n} seconds"))
    }
}
