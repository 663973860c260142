//! Numbers that a reader of 64 bits takes, within the schema's bounds.

use super::survey::Survey;
use super::{at, place, wrong};
use serde_json::{Map, Value, json};

/// Whole numbers whose schema gives no bound are within ± this; the engine takes bounds as f64, which holds it.
const MAX_WHOLE: i128 = 1_000_000_000_000_000_000;
/// The largest f64 below 2⁶³: bounds beyond it cannot be followed.
const MAX_BOUND: i128 = (1 << 63) - 1024;
/// Whole numbers up to here are f64 without loss.
const EXACT: i128 = 1 << 53;
/// Digits after the point at most, where the schema gives no `multipleOf`.
const STEP: f64 = 1e-8;
/// The engine follows a remainder by as many states; of powers of ten it needs few.
const MAX_DIVISOR: f64 = 5000.0;

/// Any number: no exponent, at most eight digits after the point.
pub(super) fn any() -> Value {
    json!({ "type": "number", "minimum": -MAX_WHOLE as i64, "maximum": MAX_WHOLE as i64, "multipleOf": STEP })
}

/// Copies what `map` says of numbers, as the engine takes it. Returns whether something has to be checked afterwards.
pub(super) fn numbers(
    map: &Map<String, Value>,
    out: &mut Map<String, Value>,
    path: &str,
) -> Result<bool, String> {
    let types = map.get("type");
    let is = |name: &str| match types {
        Some(Value::String(one)) => one == name,
        Some(Value::Array(all)) => all.iter().any(|one| one == name),
        _ => false,
    };
    let (low, high) = (
        Bound::read(map, path, Side::Low)?,
        Bound::read(map, path, Side::High)?,
    );
    if is("integer") && !is("number") {
        let low = low.map(|low| low.whole(Side::Low, path)).transpose()?;
        let high = high.map(|high| high.whole(Side::High, path)).transpose()?;
        if let (Some(low), Some(high)) = (low, high)
            && low > high
        {
            return Err(format!(
                "{}: expected bounds with a whole number between them (beyond 53 bits, a multiple of 1024), got none",
                place(path)
            ));
        }
        put(out, "minimum", low);
        put(out, "maximum", high);
    } else {
        let limit = MAX_WHOLE as f64;
        if let Some(low) = low {
            if low.value > limit {
                return Err(low.beyond(path, "at most", limit));
            }
            let clamped = low.value < -limit;
            out.insert(
                low.key(Side::Low, clamped).into(),
                low.value.max(-limit).into(),
            );
        }
        if let Some(high) = high {
            if high.value < -limit {
                return Err(high.beyond(path, "at least", -limit));
            }
            let clamped = high.value > limit;
            out.insert(
                high.key(Side::High, clamped).into(),
                high.value.min(limit).into(),
            );
        }
        sharpen(out);
    }
    let Some(multiple) = map.get("multipleOf") else {
        return Ok(false);
    };
    let Some(step) = multiple.as_f64().filter(|step| *step > 0.0) else {
        return Err(wrong(&at(path, "multipleOf"), "a number above 0", multiple));
    };
    let is_followed = divides(step);
    if is_followed {
        out.insert("multipleOf".into(), multiple.clone());
    }
    Ok(!is_followed)
}

/// Whether the engine can follow a remainder of `step`.
fn divides(step: f64) -> bool {
    let (mut whole, mut digits) = (step, 0);
    while whole.fract() != 0.0 && digits < 9 {
        whole *= 10.0;
        digits += 1;
    }
    let is_ten = (0..=8).any(|n| whole == 10f64.powi(n));
    whole.fract() == 0.0
        && digits <= 8
        && (whole <= MAX_DIVISOR || (is_ten && digits == 0))
        && whole * 10f64.powi(digits) < 1e9
}

/// Adds the bounds that the schema lacks.
pub(super) fn bound(out: &mut Map<String, Value>, is_whole: bool, parts: &Survey<'_>) {
    let says = |key: &str| parts.keys.contains(key);
    let given = |out: &Map<String, Value>, keys: [&str; 2]| {
        keys.iter()
            .find_map(|key| out.get(*key).and_then(Value::as_f64))
    };
    let low = given(out, ["minimum", "exclusiveMinimum"]);
    let high = given(out, ["maximum", "exclusiveMaximum"]);
    let most = MAX_WHOLE as f64;
    if low.is_none() && !says("minimum") && !says("exclusiveMinimum") {
        let low = high
            .map_or(-most, |high| (high - most).min(-most))
            .max(-(MAX_BOUND as f64));
        out.insert("minimum".into(), low.into());
    }
    if high.is_none() && !says("maximum") && !says("exclusiveMaximum") {
        let high = low
            .map_or(most, |low| (low + most).max(most))
            .min(MAX_BOUND as f64);
        out.insert("maximum".into(), high.into());
    }
    if is_whole || says("multipleOf") {
        return;
    }
    match low.zip(high) {
        // Too close for so few digits.
        Some((low, high)) if high - low < 1000.0 * STEP => {
            if out.get("type") == Some(&json!(["number"])) {
                let inside = low + (high - low) / 2.0;
                out.retain(|key, _| key == "type");
                out.insert("enum".into(), json!([inside]));
            }
        }
        _ => {
            out.insert("multipleOf".into(), STEP.into());
        }
    }
}

/// Refuses whole numbers that the engine, which takes them as f64, would change.
pub(super) fn literal(value: &Value, path: &str) -> Result<(), String> {
    match value {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(i, item)| literal(item, &at(path, &i.to_string()))),
        Value::Object(map) => map
            .iter()
            .try_for_each(|(key, item)| literal(item, &at(path, key))),
        Value::Number(number) => {
            let exact = number
                .as_i64()
                .map(i128::from)
                .or(number.as_u64().map(i128::from));
            match exact {
                Some(n) if n.abs() > EXACT && (n as f64) as i128 != n => {
                    let expected = "a whole number of at most 53 bits";
                    Err(format!(
                        "{}: expected {expected}, got {n}: give it as a string",
                        place(path)
                    ))
                }
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn put(out: &mut Map<String, Value>, key: &str, bound: Option<i128>) {
    if let Some(bound) = bound {
        out.insert(key.into(), (bound as i64).into());
    }
}

#[derive(Clone, Copy)]
enum Side {
    Low,
    High,
}

struct Bound {
    value: f64,
    /// The value, where it is a whole number.
    exact: Option<i128>,
    is_exclusive: bool,
    key: &'static str,
}

impl Bound {
    /// The tighter of the inclusive and the exclusive bound; `true` as the exclusive one, of draft 4, makes the other exclusive.
    fn read(map: &Map<String, Value>, path: &str, side: Side) -> Result<Option<Bound>, String> {
        let [plain, exclusive] = match side {
            Side::Low => ["minimum", "exclusiveMinimum"],
            Side::High => ["maximum", "exclusiveMaximum"],
        };
        let one = |key: &'static str, is_exclusive| match map.get(key) {
            None | Some(Value::Bool(_)) if key == exclusive => Ok(None),
            None => Ok(None),
            Some(Value::Number(number)) => Ok(number.as_f64().map(|value| Bound {
                value,
                exact: number
                    .as_i64()
                    .map(i128::from)
                    .or(number.as_u64().map(i128::from)),
                is_exclusive,
                key,
            })),
            Some(other) => Err(wrong(&at(path, key), "a number", other)),
        };
        let mut plain = one(plain, false)?;
        if let (Some(plain), Some(Value::Bool(true))) = (&mut plain, map.get(exclusive)) {
            plain.is_exclusive = true;
        }
        Ok(match (plain, one(exclusive, true)?) {
            (Some(a), Some(b)) => {
                let first = match side {
                    Side::Low => a.value > b.value,
                    Side::High => a.value < b.value,
                };
                Some(if first { a } else { b })
            }
            (a, b) => a.or(b),
        })
    }

    /// The first whole number inside, as an f64 that is inside too.
    fn whole(&self, side: Side, path: &str) -> Result<i128, String> {
        let sign = match side {
            Side::Low => 1,
            Side::High => -1,
        };
        // Seen from the low side.
        let inside = match self.exact {
            Some(n) => n * sign + i128::from(self.is_exclusive),
            None => {
                let value = self.value * sign as f64;
                let up = value.ceil();
                up as i128 + i128::from(self.is_exclusive && up == value)
            }
        };
        if inside > MAX_BOUND {
            let words = if sign > 0 { "at most" } else { "at least" };
            return Err(self.beyond(path, words, MAX_BOUND as f64 * sign as f64));
        }
        let mut inside = inside.max(-MAX_BOUND);
        if inside.abs() > EXACT {
            // Multiples of 1024 are f64 up to 63 bits.
            inside = inside.div_euclid(1024) * 1024
                + if inside.rem_euclid(1024) == 0 {
                    0
                } else {
                    1024
                };
        }
        Ok(inside.min(MAX_BOUND) * sign)
    }

    fn key(&self, side: Side, clamped: bool) -> &'static str {
        match (side, self.is_exclusive && !clamped) {
            (Side::Low, false) => "minimum",
            (Side::Low, true) => "exclusiveMinimum",
            (Side::High, false) => "maximum",
            (Side::High, true) => "exclusiveMaximum",
        }
    }

    fn beyond(&self, path: &str, words: &str, limit: f64) -> String {
        format!(
            "{}: expected {words} {limit:e}, got {:e}",
            at(path, self.key),
            self.value
        )
    }
}

/// An exclusive bound at a whole number, with the other bound before the next one, becomes an inclusive bound a billionth away: llguidance 1.9 takes it
/// for inclusive.
fn sharpen(map: &mut Map<String, Value>) {
    let within = |a: f64, b: f64| a.fract() == 0.0 && a != b && (a - b).abs() < 1.0;
    let step = |x: f64| STEP * x.abs().max(1.0);
    let number = |map: &Map<String, Value>, key: &str| map.get(key).and_then(Value::as_f64);
    let least = number(map, "exclusiveMinimum");
    let most = number(map, "exclusiveMaximum");
    let (ceiling, floor) = (
        most.or(number(map, "maximum")),
        least.or(number(map, "minimum")),
    );
    if let (Some(a), Some(b)) = (least, ceiling)
        && within(a, b)
    {
        map.remove("exclusiveMinimum");
        map.insert("minimum".into(), (a + step(a)).into());
    }
    if let (Some(b), Some(a)) = (most, floor)
        && within(b, a)
    {
        map.remove("exclusiveMaximum");
        map.insert("maximum".into(), (b - step(b)).into());
    }
}
