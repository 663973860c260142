//! What templates expect of Python: its way to write JSON, and its clock.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};
use serde_json::Value as Json;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// JSON as a template's value. A number that is no 64-bit integer is a float, as in Python's arithmetic.
pub(super) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(is) => Value::from(*is),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(n), _) => Value::from(n),
            (None, Some(n)) => Value::from(n),
            (None, None) => Value::from(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(value).collect::<Vec<_>>().into(),
        Json::Object(map) => {
            Value::from_pairs(map.iter().map(|(key, json)| (key.as_str(), value(json))))
        }
    }
}

/// The filter `tojson`, as Hugging Face's templates have it: `json.dumps` with `ensure_ascii` off, and without Jinja's escapes for HTML.
pub(super) fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.as_str(), key.as_str()),
        Some(_) => {
            let what = "tojson: separators: expected two texts";
            return Err(Error::new(ErrorKind::InvalidOperation, what));
        }
        None if indent.is_some() => (",", ": "),
        None => (", ", ": "),
    };
    let style = Style {
        item,
        key,
        indent: indent.map(|n| n.min(16)),
        sort_keys: sort_keys.unwrap_or(false),
    };
    let mut out = String::new();
    style.write(&mut out, value, 0)?;
    Ok(out)
}

struct Style<'a> {
    item: &'a str,
    key: &'a str,
    indent: Option<usize>,
    sort_keys: bool,
}

/// How deep values may be nested: a template cannot make deeper ones of what it is given.
const DEEPEST: usize = 160;

impl Style<'_> {
    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEEPEST {
            let what = format!("tojson: expected values nested at most {DEEPEST} deep");
            return Err(Error::new(ErrorKind::InvalidOperation, what));
        }
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => number(out, value),
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                let empty = keys.is_empty();
                out.push('{');
                for (i, key) in keys.iter().enumerate() {
                    self.next(out, i, depth + 1);
                    string(out, &key.to_string());
                    out.push_str(self.key);
                    self.write(out, &value.get_item(key)?, depth + 1)?;
                }
                self.close(out, '}', empty, depth);
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let mut empty = true;
                out.push('[');
                for (i, item) in value.try_iter()?.enumerate() {
                    empty = false;
                    self.next(out, i, depth + 1);
                    self.write(out, &item, depth + 1)?;
                }
                self.close(out, ']', empty, depth);
            }
            _ => string(out, &value.to_string()),
        }
        Ok(())
    }

    fn next(&self, out: &mut String, index: usize, depth: usize) {
        if index > 0 {
            out.push_str(self.item);
        }
        self.line(out, depth);
    }

    fn close(&self, out: &mut String, bracket: char, empty: bool, depth: usize) {
        if !empty {
            self.line(out, depth);
        }
        out.push(bracket);
    }

    fn line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }
}

/// Python writes an exponent with its sign and at least two digits.
fn number(out: &mut String, value: &Value) {
    let text = match f64::try_from(value.clone()) {
        Ok(float) if !value.is_integer() => Json::from(float).to_string(),
        _ => value.to_string(),
    };
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, power) = match exponent.strip_prefix('-') {
                Some(power) => ('-', power),
                None => ('+', exponent.trim_start_matches('+')),
            };
            let _ = write!(out, "{digits}e{sign}{power:0>2}");
        }
        None => out.push_str(&text),
    }
}

fn string(out: &mut String, text: &str) {
    out.push_str(&Json::from(text).to_string());
}

/// `strftime_now(format)`: the time now, UTC, for what templates use of the format: `%Y %m %d %H %M %S %y %j %b %B %a %A %-d %%`.
pub(super) fn strftime_now(format: &str) -> Result<String, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    strftime(format, now.map_or(0, |now| now.as_secs()))
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

/// `seconds` after 1970 began, as `format` says.
fn strftime(format: &str, seconds: u64) -> Result<String, Error> {
    let days = seconds / 86_400;
    let (year, month, day) = date(days);
    let (name, weekday) = (MONTHS[month as usize - 1], DAYS[(days % 7) as usize]);
    let of_year = days - days_before(year) + 1;
    let [hour, minute, second] = [seconds / 3600 % 24, seconds / 60 % 60, seconds % 60];
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut code = rest.next();
        let plain = code == Some('-');
        if plain {
            code = rest.next();
        }
        let width = if plain { 1 } else { 2 };
        let _ = match code {
            Some('Y') => write!(out, "{year}"),
            Some('y') => write!(out, "{:0width$}", year % 100),
            Some('m') => write!(out, "{month:0width$}"),
            Some('d') => write!(out, "{day:0width$}"),
            Some('H') => write!(out, "{hour:0width$}"),
            Some('M') => write!(out, "{minute:0width$}"),
            Some('S') => write!(out, "{second:0width$}"),
            Some('j') if plain => write!(out, "{of_year}"),
            Some('j') => write!(out, "{of_year:03}"),
            Some('B') => write!(out, "{name}"),
            Some('b') => write!(out, "{}", &name[..3]),
            Some('A') => write!(out, "{weekday}"),
            Some('a') => write!(out, "{}", &weekday[..3]),
            Some('%') => write!(out, "%"),
            _ => {
                let what = format!("strftime_now: unknown code in `{format}`");
                return Err(Error::new(ErrorKind::InvalidOperation, what));
            }
        };
    }
    Ok(out)
}

/// Days from 1970 to the first of January of `year`.
fn days_before(year: u64) -> u64 {
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leaps(year - 1) - leaps(1969)
}

/// Year, month and day of the month, `days` after 1970 began.
fn date(days: u64) -> (u64, u64, u64) {
    let mut year = 1970 + days / 366; // never after the right one
    while days_before(year + 1) <= days {
        year += 1;
    }
    let leap =
        u64::from(year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut left = days - days_before(year);
    for (month, length) in (1..).zip([31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
        if left < length {
            return (year, month, left + 1);
        }
        left -= length;
    }
    (year, 12, 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // From `date -u -d @SECONDS`.
        for (seconds, expected) in [
            (0, "Thu 01 Jan 1970 001 00:00:00"),
            (951_782_400, "Tue 29 Feb 2000 060 00:00:00"),
            (1_735_689_599, "Tue 31 Dec 2024 366 23:59:59"),
            (4_107_542_400, "Mon 01 Mar 2100 060 00:00:00"),
        ] {
            let text = strftime("%a %d %b %Y %j %H:%M:%S", seconds).unwrap();
            assert_eq!(text, expected);
        }
        assert_eq!(
            strftime("%-d. %B %y, 100%%", 0).unwrap(),
            "1. January 70, 100%"
        );
        assert!(strftime("%Q", 0).is_err());
    }
}
