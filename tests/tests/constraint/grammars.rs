//! Regular expressions and grammars.

use super::{ask, constrained, hot, random, session};
use dram_core::{Constraint, Finish, Limit};
use serde_json::json;

#[test]
fn expressions_and_grammars_are_matched() {
    let model = random(None);
    let mut session = session(&model);
    for expression in [
        "[a-c]{3,5}(x|yz)",
        "[0-9]{4}-[0-9][0-9]",
        "(é|ß|日本){2,4}",
        r"(a/b|\\|[^a-z]){1,3}",
    ] {
        // jsonschema has a matcher of its own.
        let schema = json!({ "pattern": format!("^(?:{expression})$") });
        let matcher = jsonschema::validator_for(&schema).unwrap();
        for seed in 0..20 {
            let mut request = constrained("re", Constraint::regex(expression));
            request.sampling = hot(seed);
            let done = ask(&mut session, &request).unwrap();
            assert_eq!(done.finish, Finish::EndOfText);
            assert!(
                matcher.is_valid(&json!(done.text)),
                "{expression}: {}",
                done.text
            );
        }
    }

    // Balanced brackets, which no regular expression matches, between two special tokens.
    let grammar = "start: <|user|> list <|assistant|>\nlist: \"(\" list{0,2} \")\""
        .replace("list{0,2}", "(list list?)?");
    for seed in 0..20 {
        let mut request = constrained("lark", Constraint::lark(&grammar));
        request.sampling = hot(seed);
        let done = ask(&mut session, &request).unwrap();
        if done.finish == Finish::Unfinished(Limit::MaxTokens) {
            continue;
        }
        let depth = done.text.chars().try_fold(0i32, |depth, c| {
            let depth = depth + if c == '(' { 1 } else { -1 };
            (depth >= 0).then_some(depth)
        });
        assert_eq!(depth, Some(0), "{}", done.text);
        let ends = [done.tokens[0], *done.tokens.last().unwrap()];
        let names =
            ["<|user|>", "<|assistant|>"].map(|name| model.tokenizer().token_id(name).unwrap());
        assert_eq!(ends, names);
    }
}

#[test]
fn gbnf_is_told_apart_and_matched() {
    let model = random(None);
    let mut session = session(&model);
    // Recursive, with what is long beside what is short.
    let grammar = "# pairs\nroot ::= \"(\" item (\", \" item)? \")\"\nitem ::= root | name\nname ::= [a-c]{1,3} \"!\"?\n";
    assert_eq!(Constraint::grammar(grammar), Constraint::gbnf(grammar));
    let lark = "start: \"::=\"";
    assert_eq!(Constraint::grammar(lark), Constraint::lark(lark));
    let mut finished = 0;
    for seed in 0..30 {
        let mut request = constrained("gbnf", Constraint::grammar(grammar));
        request.sampling = hot(seed);
        let done = ask(&mut session, &request).unwrap();
        if done.finish != Finish::EndOfText {
            continue;
        }
        finished += 1;
        let mut rest = done.text.replace("!", "");
        for name in ["abc"; 3] {
            rest = rest.replace(name, "a");
        }
        rest = rest
            .replace(['b', 'c'], "a")
            .replace("aaa", "a")
            .replace("aa", "a");
        while let Some(inner) = ["(a)", "(a, a)"]
            .iter()
            .find(|inner| rest.contains(**inner))
        {
            rest = rest.replace(inner, "a");
        }
        assert_eq!(rest, "a", "{}", done.text);
    }
    assert!(finished > 10, "{finished}");
    let token = ask(
        &mut session,
        &constrained("gbnf", Constraint::gbnf("root ::= <think>")),
    );
    assert!(
        token
            .unwrap_err()
            .to_string()
            .contains("the GBNF grammar cannot be followed: line 1: expected")
    );
}
