//! Completions: text, stop strings, ends, seeds and cancelling.

mod common;

use common::{Random, Shape};
use dram_core::{
    Completion, Error, Event, Finish, Message, Model, OpenOptions, Prompt, Request, Sampling,
    Session, SessionOptions, gguf,
};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

fn model(shape: Shape) -> Model {
    let file = gguf::File::from_bytes("random.gguf", Random::new(shape).to_gguf()).unwrap();
    Model::from_gguf(file, &OpenOptions::default()).unwrap()
}

fn session(model: &Model) -> Session {
    model
        .session(SessionOptions {
            context: None,
            threads: Some(2),
            ..SessionOptions::default()
        })
        .unwrap()
}

fn request(prompt: &str, max_tokens: usize) -> Request {
    Request {
        max_tokens,
        ..Request::new(Prompt::Text(prompt.into()))
    }
}

fn hot(seed: u64) -> Sampling {
    Sampling {
        temperature: 1.5,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed,
        ..Sampling::default()
    }
}

/// The completion, with its pieces checked against it.
fn generate(session: &mut Session, request: &Request) -> Completion {
    let (mut text, mut tokens, mut prefilled) = (String::new(), 0, 0);
    let completion = session
        .generate(request, &mut |event| {
            match event {
                Event::Prefilled { tokens, .. } => prefilled += tokens,
                Event::Piece {
                    text: piece,
                    tokens: made,
                } => {
                    assert!(!piece.is_empty());
                    text.push_str(piece);
                    tokens += made;
                }
                _ => {}
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(text, completion.text);
    assert_eq!(prefilled, completion.prompt_tokens);
    assert!(tokens <= completion.tokens.len());
    assert!(
        completion.timings.first_token >= completion.timings.prefill
            || completion.tokens.is_empty()
    );
    completion
}

#[test]
fn greedy_text_is_the_argmax_chain() {
    let model = model(Shape::default());
    let mut session = session(&model);
    let completion = generate(&mut session, &request("once", 12));
    let ids = model.prompt_tokens(&request("once", 12)).unwrap();
    assert_eq!(
        (completion.prompt_tokens, ids[0]),
        (ids.len(), model.tokenizer().bos().unwrap())
    );
    session.reset();
    let mut logits = session.prefill(&ids).unwrap().to_vec();
    for &token in &completion.tokens {
        let best = (0..logits.len())
            .max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
            .unwrap();
        assert_eq!(token as usize, best);
        logits = session.decode(token).unwrap().to_vec();
    }
    assert_eq!(
        completion.text,
        model.tokenizer().decode(&completion.tokens)
    );
}

#[test]
fn a_seed_fixes_the_completion() {
    let model = model(Shape::default());
    let mut session = session(&model);
    let mut with = |seed| {
        generate(
            &mut session,
            &Request {
                sampling: hot(seed),
                ..request("seed", 30)
            },
        )
        .tokens
    };
    let first = with(5);
    assert_eq!(first, with(5));
    assert_ne!(first, with(6));
}

#[test]
fn random_bytes_come_out_as_whole_code_points() {
    // A random model makes every kind of ill-formed UTF-8; pieces are &str, so whole by type: the sum has to agree with a lossy decoding.
    let model = model(Shape::default());
    let mut session = session(&model);
    for seed in 0..20 {
        let completion = generate(
            &mut session,
            &Request {
                sampling: hot(seed),
                ..request("utf", 60)
            },
        );
        let mut bytes = Vec::new();
        completion
            .tokens
            .iter()
            .for_each(|&id| model.tokenizer().decode_bytes(id, &mut bytes));
        assert_eq!(
            completion.text,
            String::from_utf8_lossy(&bytes),
            "seed {seed}"
        );
    }
}

#[test]
fn every_kind_of_end_is_reached_and_named() {
    let model = model(Shape {
        context: 64,
        ..Shape::default()
    });
    let mut session = session(&model);
    let long = generate(
        &mut session,
        &Request {
            sampling: hot(3),
            ..request("end", 20)
        },
    );
    assert_eq!(
        (long.finish.clone(), long.tokens.len()),
        (Finish::MaxTokens, 20)
    );

    // A stop string out of the middle of what the same seed gives, across tokens.
    let chars: Vec<char> = long.text.chars().collect();
    let stop: String = chars[6..10].iter().collect();
    let stopped = generate(
        &mut session,
        &Request {
            sampling: hot(3),
            stop: vec![stop.clone()],
            ..request("end", 20)
        },
    );
    assert_eq!(stopped.finish, Finish::StopString(stop.clone()));
    assert_eq!(stopped.text, long.text[..long.text.find(&stop).unwrap()]);

    let full = generate(
        &mut session,
        &Request {
            sampling: hot(3),
            ..request("end", 1000)
        },
    );
    if full.finish != Finish::EndOfText {
        assert_eq!(full.finish, Finish::ContextFull);
        // The last token is chosen, but has no place in the cache.
        assert_eq!(full.prompt_tokens + full.tokens.len(), 64 + 1);
    }

    // Of many seeds some end by themselves: one token in 288 is the end token.
    let ended = (0..60).map(|seed| {
        generate(
            &mut session,
            &Request {
                sampling: hot(seed),
                ..request("end", 50)
            },
        )
    });
    let ended: Vec<_> = ended
        .filter(|completion| completion.finish == Finish::EndOfText)
        .collect();
    assert!(!ended.is_empty());
    assert!(ended.iter().all(|completion| {
        completion
            .tokens
            .iter()
            .all(|&id| !model.tokenizer().is_end(id))
    }));

    let none = generate(&mut session, &request("end", 0));
    assert_eq!((none.finish, none.tokens.len()), (Finish::MaxTokens, 0));
}

#[test]
fn a_chat_is_rendered_with_special_tokens_and_text_is_not() {
    let model = model(Shape::default());
    let user = common::gguf::USER;
    let id = 287; // the last of the vocabulary
    let chat = Request::new(Prompt::Chat(vec![Message::new("user", "hi")]));
    let ids = model.prompt_tokens(&chat).unwrap();
    assert_eq!(ids.iter().filter(|&&token| token == id).count(), 2);
    assert_eq!(
        ids.iter()
            .filter(|&&token| Some(token) == model.tokenizer().bos())
            .count(),
        1,
        "{ids:?}"
    );
    let text = request(user, 1);
    assert!(!model.prompt_tokens(&text).unwrap().contains(&id));
    assert!(
        model
            .prompt_tokens(&Request {
                parse_special: true,
                ..text
            })
            .unwrap()
            .contains(&id)
    );
}

#[test]
fn senseless_requests_are_errors_and_change_nothing() {
    let model = model(Shape {
        context: 32,
        ..Shape::default()
    });
    let mut session = session(&model);
    let expected = generate(&mut session, &request("ok", 5));
    let bad = [
        Request {
            sampling: Sampling {
                top_p: 7.0,
                ..Sampling::default()
            },
            ..request("x", 5)
        },
        Request {
            stop: vec![String::new()],
            ..request("x", 5)
        },
        Request::new(Prompt::Tokens(vec![])),
        Request::new(Prompt::Tokens(vec![1, 9999])),
        request(&"far too long for this context ".repeat(9), 5),
    ];
    for request in bad {
        let error = session
            .generate(&request, &mut |_| ControlFlow::Continue(()))
            .unwrap_err();
        assert!(error.to_string().contains("expected"), "{error}");
    }
    assert_eq!(
        generate(&mut session, &request("ok", 5)).tokens,
        expected.tokens
    );
    for (context, threads) in [
        (Some(0), None),
        (Some(33), None),
        (None, Some(0)),
        (None, Some(1 << 20)),
    ] {
        assert!(matches!(
            model.session(SessionOptions {
                context,
                threads,
                ..SessionOptions::default()
            }),
            Err(Error::InvalidOption { .. })
        ));
    }
}

#[test]
fn cancelling_from_the_callback_or_before_the_start() {
    let model = model(Shape::default());
    let mut session = session(&model);
    let expected = generate(&mut session, &request("stop me", 20));

    let mut pieces = 0;
    let completion = session
        .generate(&request("stop me", 20), &mut |event| match event {
            Event::Piece { .. } if pieces == 2 => ControlFlow::Break(()),
            Event::Piece { .. } => {
                pieces += 1;
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        })
        .unwrap();
    assert_eq!(completion.finish, Finish::Cancelled);
    assert!(completion.tokens.len() < 20 && expected.tokens.starts_with(&completion.tokens));

    // Before it begins: nothing is lost. After it ended: the next one does not suffer.
    let token = session.cancel_token();
    token.cancel();
    let completion = generate_cancelled(&mut session);
    assert_eq!(
        (completion.finish, completion.tokens.len()),
        (Finish::Cancelled, 0)
    );
    token.cancel();
    assert!(token.is_cancelled() && !session.cancel_token().is_cancelled());
    assert_eq!(
        generate(&mut session, &request("stop me", 20)).tokens,
        expected.tokens
    );
}

/// The token of a call that is over, whether it went well or not, does nothing to the next one.
#[test]
fn a_token_is_for_one_call() {
    let model = model(Shape::default());
    let mut session = session(&model);
    let plain = [3, 1, 4];
    let logits = session.prefill(&plain).unwrap().to_vec();
    let calls: [fn(&mut Session); 7] = [
        |s| assert!(s.prefill(&[2]).is_ok()),
        |s| assert!(s.decode(2).is_ok()),
        |s| assert!(s.prefill(&[]).is_err()),
        |s| assert!(s.decode(u32::MAX).is_err()),
        |s| assert!(s.evaluate(&[2, 3], &mut |_, _| ()).is_ok()),
        |s| assert!(s.evaluate(&[], &mut |_, _| ()).is_err()),
        |s| {
            let empty = Request::new(Prompt::Tokens(Vec::new()));
            assert!(s.generate(&empty, &mut |_| panic!("an event")).is_err());
        },
    ];
    for (number, call) in calls.iter().enumerate() {
        let token = session.cancel_token();
        call(&mut session);
        token.cancel();
        session.reset();
        let again = session.prefill(&plain).map(<[f32]>::to_vec);
        assert!(again.is_ok_and(|again| again == logits), "call {number}");
        // And one that is taken before a call is not lost.
        session.cancel_token().cancel();
        assert!(matches!(session.decode(2), Err(Error::Cancelled)));
        assert_eq!(session.tokens(), plain);
    }
}

fn generate_cancelled(session: &mut Session) -> Completion {
    session
        .generate(&request("stop me", 20), &mut |_| {
            panic!("no event after a cancel")
        })
        .unwrap()
}

#[test]
fn cancelling_in_mid_prefill_is_prompt_and_leaves_the_session_usable() {
    // Large enough that its prompt takes a while, in many parts and layers; small where kernels are slow or emulated.
    let slow = cfg!(debug_assertions)
        || std::env::var_os("DRAM_EMULATED").is_some()
        || dram_core::kernels::selected().name() == "scalar";
    let (layers, embedding, length) = if slow { (3, 64, 600) } else { (8, 256, 1500) };
    let shape = Shape {
        layers,
        embedding,
        feed_forward: 2 * embedding,
        context: 2048,
        format: "q8_0",
        ..Shape::default()
    };
    let model = model(shape);
    let mut session = session(&model);
    let prompt: Vec<u32> = (0..length).map(|i| i * 7 % 256).collect();
    let request = Request {
        max_tokens: 4,
        ..Request::new(Prompt::Tokens(prompt.clone()))
    };
    let expected = generate(&mut session, &request);

    // How long the call goes on after a cancel, as a share of the whole prompt: the least of three, because the machine may be busy. The moment is
    // sought, because nobody knows how fast it is.
    let mut lateness = Vec::new();
    let mut wait = Duration::from_micros(100);
    for _ in 0..200 {
        session.reset(); // or the prompt would be found in the cache
        let token = session.cancel_token();
        let start = Instant::now();
        let (completion, returned, cancelled) = std::thread::scope(|scope| {
            let canceller = scope.spawn(move || {
                std::thread::sleep(wait);
                token.cancel();
                Instant::now()
            });
            let go_on = &mut |_: Event<'_>| ControlFlow::Continue(());
            let completion = session.generate(&request, go_on).unwrap();
            (completion, Instant::now(), canceller.join().unwrap())
        });
        if completion.finish != Finish::Cancelled || session.position() >= prompt.len() {
            wait = wait * 4 / 5;
        } else if session.position() == 0 {
            wait = wait * 3 / 2;
        } else {
            assert!(completion.tokens.is_empty());
            // What was kept took at most as long as the call.
            let share = prompt.len() as f64 / session.position() as f64;
            let whole = (returned - start).as_secs_f64() * share;
            let late = returned.saturating_duration_since(cancelled).as_secs_f64();
            lateness.push(late / whole);
        }
        if lateness.len() == 3 {
            break;
        }
    }
    println!("returned {lateness:.3?} of the prompt's time after the cancel");
    assert_eq!(lateness.len(), 3, "cancels in the middle of the prompt");
    // One layer of 256 tokens is a seventh of the shorter prompt.
    assert!(lateness.iter().any(|late| *late < 0.25), "{lateness:?}");

    // Rolled back to a whole part, from which the session goes on to the same result.
    let done = session.position();
    session.prefill(&prompt[done..]).unwrap();
    assert_eq!(session.tokens(), prompt);
    assert_eq!(generate(&mut session, &request).tokens, expected.tokens);
}
