//! Texts that grammars accept and reject.

use super::to_lark;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities};
use llguidance::{Matcher, ParserFactory};
use std::path::PathBuf;

fn matcher(grammar: &str) -> Matcher {
    let env = ApproximateTokEnv::single_byte_env();
    let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &[]).unwrap();
    factory.quiet();
    let lark = to_lark(grammar).unwrap_or_else(|error| panic!("{grammar}: {error}"));
    let matcher = Matcher::new(factory.create_parser(TopLevelGrammar::from_lark(lark.clone())));
    assert!(!matcher.is_error(), "{lark}: {:?}", matcher.get_error());
    matcher
}

/// How many bytes are taken, and whether the text may end there.
fn accepts(matcher: &Matcher, text: &str) -> (usize, bool) {
    let mut matcher = matcher.deep_clone();
    for (i, byte) in text.bytes().enumerate() {
        // A parser that has nothing left to expect stops.
        if matcher.is_stopped() || matcher.consume_token(byte.into()).is_err() {
            return (i, false);
        }
    }
    let ends = matcher.is_stopped() || matcher.is_accepting().unwrap_or(false);
    (text.len(), ends)
}

fn check(grammar: &str, good: &[&str], bad: &[&str]) {
    let matcher = matcher(grammar);
    for (text, expected) in good
        .iter()
        .map(|text| (text, true))
        .chain(bad.iter().map(|text| (text, false)))
    {
        let (taken, ends) = accepts(&matcher, text);
        assert_eq!(
            ends,
            expected,
            "{text:?}: {taken} bytes taken\n{grammar}\n{}",
            to_lark(grammar).unwrap()
        );
    }
}

#[test]
fn texts_are_those_of_the_grammar() {
    // Characters, escapes, classes, groups, repetitions, comments, lines.
    check(
        "root ::= \"a\\\"\\x41\\u00e9\\U0001F600\\n\" # a comment\n",
        &["a\"Aé😀\n"],
        &["a\"Aé😀", "a"],
    );
    check(
        "root ::= [^a-c\\]-] [-x] [\\[y-]",
        &["d-[", "éx-", "\nxy"],
        &["a-[", "]-[", "--[", "dz["],
    );
    check(
        "root ::= (\n  \"x\" |\n  \"y\" [0-9]{2}\n)+ .?",
        &["x", "xy12x", "y12é"],
        &["", "y1", "xéé"],
    );
    check(
        "root ::= \"ab\"* word{1,2} word{2}\nword ::= \"w\"",
        &["www", "abwwww"],
        &["ww", "aww", "wwwww"],
    );
    check(
        "root ::= | \"a\" root \"b\"",
        &["", "ab", "aabb"],
        &["a", "aab", "ba"],
    );
    // What is long does not hide what is short.
    check(
        "root ::= \"ab\" \"c\" | \"a\" tail\ntail ::= \"bd\" | \"(\" root \")\"",
        &["abc", "abd", "a(abd)"],
        &["ab", "abcd", "a()"],
    );
    check(
        "root ::= word \"=\" root | word \"\\n\"\nword ::= [a-z]+ [ \\n]*",
        &["a\n", "a =b\n\n", "a=b =c \n"],
        &["a", "a=", "=a\n"],
    );
    check(
        "root ::= item (\",\" item)* \",\"\nitem ::= [0-9]+ (\",5\")? | \"[\" root \"]\"",
        &["1,", "1,5,", "1,5,5,", "[1,],2,"],
        &["1", "1,5", "[1],"],
    );
}

#[test]
fn what_is_no_gbnf_is_named() {
    for (grammar, part) in [
        ("", "a rule `root`"),
        ("root ::= other", "a rule `other`"),
        ("root ::= \"a", "a character, got the end"),
        ("root ::= <think> \"a\"", "a token"),
        ("root ::= \"a\"\nroot ::= !<[7]>", "line 2"),
        ("root ::= (\"a\"", "`)`"),
        ("root ::= * \"a\"", "something before"),
        ("root ::= \"a\"{3,2}", "at least 3"),
        ("root ::= \"a\"{9999}", "at most 2000"),
        ("root ::= [b-a]", "a range"),
        ("root ::= \"\\q\"", "an escape"),
        ("root = \"a\"", "`::=`"),
        ("root ::= \"a\"\nroot ::= \"b\"", "got two"),
    ] {
        let error = to_lark(grammar).unwrap_err();
        assert!(error.contains(part), "{grammar}: {error}");
    }
}

/// The grammars that lie beside llama.cpp's source, where that is unpacked.
#[test]
fn the_peers_grammars_are_read() {
    let cache = std::env::var_os("DRAM_CACHE").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/dram"));
    let folders = cache
        .or_else(home)
        .and_then(|cache| std::fs::read_dir(cache).ok());
    let grammars = folders
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("vendor/llama.cpp/grammars"));
    let Some(folder) = grammars.into_iter().find(|folder| folder.is_dir()) else {
        println!("not run: llama.cpp's source is not unpacked");
        return;
    };
    let cases: [(&str, &[&str], &[&str]); 8] = [
        (
            "arithmetic",
            &["a=b\n", "x1+(2 *y) = 3\nz=4\n"],
            &["a=b", "a+=b\n", "=b\n"],
        ),
        (
            "c",
            &[
                "int main(){return 1;}",
                "float f(int x){int y = x*2+1;while(y<3){f (y, x);}//c\n}",
            ],
            &["int main(", "main(){}", "int f(){x = ;}"],
        ),
        (
            "chess",
            &["1. e4 e5\n2. Nf3 Nc6\n"],
            &["1. e4 e5\n", "1. e9 e5\n2. d4 d5\n", "e4"],
        ),
        ("english", &["Hello, world!"], &["", "naïve", "two  spaces"]),
        ("japanese", &["すし、カタカナ 漢字"], &["", "sushi"]),
        (
            "json",
            &[
                "{}",
                r#"{"a": [1, -2.5e3, "x\n\u00e9", {"b":null}] , "c":true}"#,
            ],
            &["[1]", "{\"a\":}", "{\"a\":1,}", "{a:1}"],
        ),
        (
            "json_arr",
            &["[\n]", "[\n1,\n{\"a\": [2,3]}]"],
            &["[1]", "[\n1,2]", "{}"],
        ),
        (
            "list",
            &["- one\n- two, three\n"],
            &["one\n", "- one", "-one\n"],
        ),
    ];
    for (name, good, bad) in cases {
        let text = std::fs::read_to_string(folder.join(format!("{name}.gbnf"))).unwrap();
        check(&text, good, bad);
    }
    let all = std::fs::read_dir(&folder).unwrap().flatten();
    let read = all.filter(|file| {
        file.path()
            .extension()
            .is_some_and(|extension| extension == "gbnf")
    });
    assert_eq!(read.count(), cases.len());
}
