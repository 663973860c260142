//! What cannot be followed is refused in time.

use super::{ask, constrained, random, session};
use dram_core::{Constraint, Error};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[test]
fn what_cannot_be_followed_is_refused_in_time() {
    let model = random(None);
    let mut session = session(&model);
    let schema = Constraint::json_schema;
    let deep = |open: &str, close: &str, n: usize| format!("{}{}", open.repeat(n), close.repeat(n));
    let nested = format!("{}{{}}{}", r#"{"items":"#.repeat(5000), "}".repeat(5000));
    let chain: String = (0..1700)
        .map(|i| format!(r##""d{i}":{{"$ref":"#/$defs/d{}"}},"##, i + 1))
        .collect();
    let chain =
        format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{chain}"d1700":{{"type":"null"}}}}}}"##);
    let anys: Vec<Value> = (0..24).map(|i| json!({ "anyOf": [{ "required": [format!("a{i}")] }, { "required": [format!("b{i}")] }] })).collect();
    let bounds = json!({ "type": "array", "minItems": 4_000_000_000u64, "items": { "type": "string", "minLength": 4_000_000_000u64 } });
    let cases: Vec<(&str, Constraint)> = vec![
        ("no JSON", schema("{\"type\":")),
        ("no object", schema("[1]")),
        ("no such type", schema(r#"{"type":"complex"}"#)),
        (
            "nothing valid",
            schema(r#"{"type":"integer","minimum":3,"maximum":2}"#),
        ),
        ("false", schema(r#"{"not":{}}"#)),
        (
            "a bad pattern",
            schema(r#"{"type":"string","pattern":"[a"}"#),
        ),
        ("no such reference", schema(r##"{"$ref":"#/$defs/none"}"##)),
        ("a reference to itself", schema(r##"{"$ref":"#"}"##)),
        (
            "elsewhere",
            schema(r#"{"$ref":"https://example.com/schema"}"#),
        ),
        ("nested", schema(&nested)),
        ("a chain of references", schema(&chain)),
        (
            "alternatives multiplied",
            schema(&json!({ "allOf": anys }).to_string()),
        ),
        ("endless bounds", schema(&bounds.to_string())),
        (
            "large",
            schema(&format!("{{\"title\":\"{}\"}}", "a".repeat(300_000))),
        ),
        ("an open class", Constraint::regex("[a-")),
        ("an empty expression", Constraint::regex("")),
        ("look-ahead", Constraint::regex("a(?=b)")),
        ("nested groups", Constraint::regex(&deep("(", ")", 30_000))),
        (
            "repetitions multiplied",
            Constraint::regex("((((a{1,999}){1,999}){1,999}){1,999}b){1,999}"),
        ),
        ("no start", Constraint::lark("begin: \"a\"")),
        ("no such rule", Constraint::lark("start: other")),
        ("no such token", Constraint::lark("start: <|nothing|>")),
        (
            "no token of that number",
            Constraint::lark("start: <[999999]>"),
        ),
        (
            "left recursion without end",
            Constraint::lark("start: start"),
        ),
        (
            "nested brackets",
            Constraint::lark(&format!("start: {}", deep("(", ")", 30_000))),
        ),
        ("text", Constraint::lark("}{")),
        ("nothing", Constraint::lark("")),
        ("zero bytes", Constraint::lark("\0\0")),
    ];
    for (name, constraint) in cases {
        let start = Instant::now();
        let mut request = constrained("hostile", constraint);
        request.max_tokens = 20;
        let result = ask(&mut session, &request);
        let time = start.elapsed();
        assert!(time < Duration::from_secs(10), "{name}: {time:?}");
        match result {
            Err(Error::Constraint { what, .. }) => println!("{name}: {what:.100} ({time:.1?})"),
            // What is only long is begun.
            Ok(done) => {
                println!("{name}: {} ({time:.1?})", done.text);
                assert!(
                    [
                        "endless bounds",
                        "a chain of references",
                        "alternatives multiplied"
                    ]
                    .contains(&name),
                    "{name}"
                );
            }
            Err(other) => panic!("{name}: {other}"),
        }
    }
    // The session is as it was.
    let fine = constrained("fine", Constraint::regex("fine"));
    assert_eq!(ask(&mut session, &fine).unwrap().text, "fine");
}

/// What keeps the engine busy.
fn busy() -> Vec<(&'static str, Constraint)> {
    let regex = |text: &str| Constraint::regex(text);
    let words = "\"a\" | (((/\\d/){1,3} | (%regex {\"substring_words\":\"a quick fox\"})*))?";
    let multiple = |n: u64| {
        Constraint::json_schema(&json!({ "type": "integer", "multipleOf": n }).to_string())
    };
    let both = json!({ "allOf": [{ "pattern": "(a|b)*a(a|b){40}" }, { "pattern": "(a|b)*b(a|b){41}" }], "type": "string" });
    vec![
        ("a large divisor", multiple(999_983)),
        ("the largest divisor", multiple(4_294_967_291)),
        ("a long forced text", regex("((\\x{10ffff}){100000}){3}")),
        ("a longer forced text", regex("(ab){4000000}")),
        (
            "alternatives repeated",
            Constraint::lark(&format!("start: r0\nr0: ({words}){{0,1000}}")),
        ),
        (
            "optional parts repeated",
            Constraint::lark("start: ((\"a\"? \"b\"?){0,300} \"c\"?){0,300}"),
        ),
        ("states without number", regex("(a|b)*a(a|b){24}c")),
        (
            "patterns at the same time",
            Constraint::json_schema(&both.to_string()),
        ),
        (
            "a grammar with many short parts",
            Constraint::gbnf("root ::= (root? ([a-z] | [b-y] root?)? root?){0,9}"),
        ),
    ]
}

#[test]
fn what_keeps_the_engine_busy_ends_and_is_cancelled() {
    let model = random(None);
    let mut session = session(&model);
    for (name, constraint) in busy() {
        let mut request = constrained("busy", constraint);
        request.max_tokens = 200;
        let start = Instant::now();
        let result = ask(&mut session, &request).map(|done| done.finish);
        println!("{name}: {result:.200?} ({:.1?})", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(20), "{name}");
        assert!(
            matches!(result, Ok(_) | Err(Error::Constraint { .. })),
            "{name}: {result:?}"
        );

        let token = session.cancel_token();
        let cancel = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            token.cancel();
            Instant::now()
        });
        let result = ask(&mut session, &request);
        let late = cancel.join().unwrap().elapsed();
        assert!(
            late < Duration::from_secs(1),
            "{name}: {late:?} after the cancel"
        );
        assert!(
            matches!(result, Ok(_) | Err(Error::Constraint { .. })),
            "{name}: {result:?}"
        );
    }
    let fine = constrained("fine", Constraint::regex("fine"));
    assert_eq!(ask(&mut session, &fine).unwrap().text, "fine");
}
