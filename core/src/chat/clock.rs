//! The clock that templates may read.

use super::jinja::Fault;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// `strftime_now(format)`: the time now, UTC, for what templates use of the format: `%Y %m %d %e %H %I %p %M %S %y %j %b %B %a %A %-d %%`.
pub(super) fn strftime_now(format: &str) -> Result<String, Fault> {
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
fn strftime(format: &str, seconds: u64) -> Result<String, Fault> {
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
            Some('e') => write!(out, "{day:2}"),
            Some('I') => write!(out, "{:0width$}", (hour + 11) % 12 + 1),
            Some('p') => write!(out, "{}", if hour < 12 { "AM" } else { "PM" }),
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
                return Err(Fault::new(what));
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
        assert_eq!(strftime("%e %I %p %-I", 46_800).unwrap(), " 1 01 PM 1");
        assert!(strftime("%Q", 0).is_err());
    }
}
