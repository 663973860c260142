//! What becomes of a text under a constraint: forced tokens, ends, memory.

use super::{REQUESTS, ask, chat, constrained, hot, random, session, student, student_path};
use dram_core::{
    Constraint, Error, Event, Finish, Limit, MemoryQuery, Model, OpenOptions, Sampling,
    SessionOptions,
};
use serde_json::json;
use std::ops::ControlFlow;

const CALL: &str = r#"{
    "type": "object",
    "properties": { "name": { "type": "string", "pattern": "^[a-z_]+$" }, "arguments": { "type": "object" } },
    "required": ["name", "arguments"], "additionalProperties": false
}"#;

#[test]
fn a_student_says_within_its_own_schema_what_it_says_anyway() {
    let model = student();
    let mut session = session(&model);
    for text in REQUESTS {
        let free = ask(&mut session, &chat(text)).unwrap();
        let mut request = chat(text);
        request.constraint = Some(Constraint::json_schema(CALL));
        let held = ask(&mut session, &request).unwrap();
        assert_eq!((held.text, held.finish), (free.text, Finish::EndOfText));
        assert!(free.forced_tokens == 0 && free.decode_steps == free.tokens.len());
    }
}

#[test]
fn forced_tokens_are_evaluated_together_and_change_nothing() {
    let model = student();
    let mut session = session(&model);
    let schema = json!({
        "type": "object",
        "properties": { "unforeseen_name": { "const": "a long text that must stand there" }, "count": { "type": "integer", "minimum": 1, "maximum": 99 } },
        "required": ["unforeseen_name", "count"], "additionalProperties": false,
        "x-guidance": { "whitespace_flexible": false },
    });
    for (seed, text) in (0..).zip(REQUESTS) {
        let mut request = chat(text);
        request.constraint = Some(Constraint::json_schema(&schema.to_string()));
        request.sampling = hot(seed);
        let together = ask(&mut session, &request).unwrap();
        // Probabilities are wanted of each token: one step each.
        request.logprobs = Some(0);
        let single = ask(&mut session, &request).unwrap();
        assert_eq!(
            (&together.text, &together.tokens, together.forced_tokens),
            (&single.text, &single.tokens, single.forced_tokens)
        );
        let tokens = single.tokens.len();
        assert_eq!(single.logprobs.unwrap().len(), tokens);
        assert!(together.forced_tokens > tokens / 2, "{together:?}");
        assert!(tokens - 1 <= single.decode_steps && together.decode_steps < tokens / 2);

        // Every shorter limit cuts the same text, and says that it is not finished.
        request.logprobs = None;
        for most in 0..tokens {
            request.max_tokens = most;
            let cut = ask(&mut session, &request).unwrap();
            assert_eq!(cut.tokens, together.tokens[..most]);
            assert_eq!(cut.finish, Finish::Unfinished(Limit::MaxTokens));
        }
    }
}

#[test]
fn a_full_context_a_stop_string_and_a_cancel_end_it() {
    let model = random(None);
    let options = SessionOptions {
        context: Some(40),
        threads: Some(1),
        ..SessionOptions::default()
    };
    let mut session = model.session(options).unwrap();
    let long = format!("({}|b)", "a".repeat(100));
    let full = ask(
        &mut session,
        &constrained("full", Constraint::regex(&long[..])),
    )
    .unwrap();
    if full.text.len() > 1 {
        assert_eq!(full.finish, Finish::Unfinished(Limit::Context));
        assert_eq!(session.position(), 40);
    }
    // Of what may go on for ever, every beginning is enough.
    let mut request = constrained("full", Constraint::regex("a+"));
    request.sampling.logit_bias = vec![(model.tokenizer().eos().unwrap(), f32::NEG_INFINITY)];
    assert_eq!(
        ask(&mut session, &request).unwrap().finish,
        Finish::ContextFull
    );
    request.max_tokens = 5;
    assert_eq!(
        ask(&mut session, &request).unwrap().finish,
        Finish::MaxTokens
    );
    request.max_tokens = 100;
    request.context_policy = dram_core::ContextPolicy::Slide { keep_first: 4 };
    let slid = ask(&mut session, &request).unwrap();
    assert_eq!((slid.finish, slid.tokens.len()), (Finish::MaxTokens, 100));

    let mut request = constrained("stop", Constraint::regex("one, two, three"));
    request.stop = vec![", th".into()];
    let stopped = ask(&mut session, &request).unwrap();
    assert_eq!(
        (stopped.text.as_str(), stopped.finish),
        ("one, two", Finish::StopString(", th".into()))
    );
    let cancelled = session.generate(&request, &mut |event| match event {
        Event::Piece { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert_eq!(cancelled.unwrap().finish, Finish::Cancelled);
    // With penalties, bias and everything else, still only what is allowed.
    request.stop.clear();
    request.sampling = Sampling {
        penalties: dram_core::sampling::Penalties {
            repetition: 1.5,
            ..Default::default()
        },
        dry: dram_core::sampling::Dry {
            multiplier: 1.0,
            ..Default::default()
        },
        ..hot(1)
    };
    assert_eq!(ask(&mut session, &request).unwrap().text, "one, two, three");
}

#[test]
fn what_constraints_share_is_counted() {
    let fine = constrained("x", Constraint::regex("fine"));
    let model = student();
    let options = session(&model).options();
    let all = MemoryQuery {
        constraints: true,
        ..options.into()
    };
    let (before, own) = (model.memory(options), model.memory(all).constraint);
    assert_eq!(before.constraint, 0);
    assert!(own > 1 << 20);
    ask(&mut session(&model), &fine).unwrap();
    let after = model.memory(options);
    assert_eq!(
        (after.constraint, after.anonymous() - before.anonymous()),
        (own, own)
    );
    // A limit that leaves room for the session alone.
    let limited = |memory_limit| {
        let options = OpenOptions {
            memory_limit: Some(memory_limit),
            ..OpenOptions::default()
        };
        let model = Model::open_with(student_path(), &options).unwrap();
        ask(&mut session(&model), &fine)
    };
    let error = limited(before.total() + own - 1).unwrap_err();
    assert!(
        matches!(error, Error::MemoryLimit { constraint, .. } if constraint == own),
        "{error}"
    );
    assert_eq!(limited(before.total() + own).unwrap().text, "fine");
}
