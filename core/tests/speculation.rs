//! Speculative decoding: the same text, the same distribution and the same session as without drafts.

mod common;

use common::{Random, Shape};
use dram_core::sampling::{Dry, Penalties, Xtc};
use dram_core::{
    Completion, ContextPolicy, Error, Event, Finish, MemoryQuery, Model, OpenOptions, Prompt,
    Request, Sampling, Session, SessionOptions, Speculation, gguf,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

fn model(shape: Shape) -> Model {
    let file = gguf::File::from_bytes("random.gguf", Random::new(shape).to_gguf()).unwrap();
    Model::from_gguf(file, &OpenOptions::default()).unwrap()
}

fn session(model: &Model, context: usize) -> Session {
    let options = SessionOptions {
        context: Some(context),
        threads: Some(2),
        ..SessionOptions::default()
    };
    model.session(options).unwrap()
}

/// The model to draft for: its file is as long as that of a model for which all drafts are cheap.
fn target(shape: &Shape) -> Model {
    target_within(shape, None)
}

fn target_within(shape: &Shape, memory_limit: Option<u64>) -> Model {
    let mut bytes = Random::new(shape.clone()).to_gguf();
    bytes.resize(40 * bytes.len(), 0);
    let file = gguf::File::from_bytes("target.gguf", bytes).unwrap();
    let options = OpenOptions {
        memory_limit,
        ..OpenOptions::default()
    };
    Model::from_gguf(file, &options).unwrap()
}

/// Drafts that are always right, mostly right, never right, and found in the text.
fn all_drafts(shape: &Shape) -> Vec<(&'static str, Speculation)> {
    let with = |format, seed| {
        model(Shape {
            format,
            seed,
            ..shape.clone()
        })
    };
    vec![
        ("itself", Speculation::draft(with("f32", 1))),
        ("rounded", Speculation::draft(with("q4_0", 1))),
        ("a stranger", Speculation::draft(with("f32", 2))),
        ("lookup", Speculation::lookup(1)),
        ("long lookup", Speculation::Lookup { ngram: 2, most: 15 }),
    ]
}

fn request(prompt: &str, max_tokens: usize) -> Request {
    Request {
        max_tokens,
        ..Request::new(Prompt::Text(prompt.into()))
    }
}

fn hot(seed: u64) -> Sampling {
    Sampling {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed,
        ..Sampling::default()
    }
}

/// The completion, and its events as text.
fn generate(session: &mut Session, request: &Request) -> (Completion, Vec<String>) {
    let mut events = Vec::new();
    let completion = session
        .generate(request, &mut |event| {
            events.push(format!("{event:?}"));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(session.tokens().len(), session.position());
    let ended =
        usize::from(completion.finish != Finish::EndOfText && !completion.tokens.is_empty());
    let steps = completion.decode_steps + completion.accepted_tokens;
    if completion.finish != Finish::Cancelled {
        assert_eq!(completion.tokens.len(), steps + ended, "{completion:?}");
    }
    assert!(completion.accepted_tokens <= completion.drafted_tokens);
    (completion, events)
}

/// Compares all but the time that it took.
fn assert_same(plain: &(Completion, Vec<String>), drafted: &(Completion, Vec<String>), what: &str) {
    assert_eq!(plain.0.tokens, drafted.0.tokens, "{what}");
    assert_eq!(plain.0.text, drafted.0.text, "{what}");
    assert_eq!(plain.0.finish, drafted.0.finish, "{what}");
    assert_eq!(plain.0.logprobs, drafted.0.logprobs, "{what}");
    assert_eq!(plain.0.reused_tokens, drafted.0.reused_tokens, "{what}");
    assert_eq!(plain.1, drafted.1, "{what}");
}

#[test]
fn positions_evaluated_together_have_the_bits_of_one_at_a_time() {
    for format in [
        "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "iq4_nl",
    ] {
        let model = model(Shape {
            format,
            ..Shape::default()
        });
        let ids: Vec<u32> = (0..40).map(|i| i * 37 % 256).collect();
        let mut session = session(&model, 64);
        let mut singly = Vec::new();
        for &id in &ids {
            singly.push(session.decode(id).unwrap().to_vec());
        }
        for together in 1..=16 {
            let mut same = 0;
            let mut compare = |position: usize, logits: &[f32]| {
                same += usize::from(logits == singly[position]);
            };
            session.evaluate(&ids[..together], &mut compare).unwrap();
            assert_eq!(same, together, "{format}, {together} together");
        }
    }
}

#[test]
fn where_drafts_are_certain_the_text_is_the_same_token_for_token() {
    let shape = Shape::default();
    let target = target(&shape);
    let mut plain = session(&target, 256);
    let everything = Sampling {
        typical_p: 0.9,
        xtc: Xtc {
            probability: 0.5,
            threshold: 0.05,
        },
        dry: Dry {
            multiplier: 0.8,
            ..Dry::default()
        },
        penalties: Penalties {
            repetition: 1.3,
            frequency: 0.1,
            ..Penalties::default()
        },
        logit_bias: vec![(97, 1.0)],
        ..hot(5)
    };
    for (name, speculation) in all_drafts(&shape) {
        let mut drafting = session(&target, 256);
        drafting.set_speculation(&speculation).unwrap();
        let (mut drafted, mut accepted) = (0, 0);
        for seed in 0..24 {
            let prompt = format!("prompt {seed} and again prompt {seed}");
            let sampling = match (seed % 4, &speculation) {
                (0, _) => Sampling::default(),
                (1, _) => Sampling {
                    temperature: 0.0,
                    ..everything.clone()
                },
                (2, Speculation::Lookup { .. }) => hot(seed),
                (3, Speculation::Lookup { .. }) => everything.clone(),
                _ => Sampling {
                    penalties: everything.penalties,
                    ..Sampling::default()
                },
            };
            let request = Request {
                sampling,
                logprobs: (seed % 3 == 0).then_some(2),
                ..request(&prompt, 60)
            };
            plain.reset();
            drafting.reset();
            let (a, b) = (
                generate(&mut plain, &request),
                generate(&mut drafting, &request),
            );
            assert_same(&a, &b, &format!("{name}, seed {seed}"));
            assert_eq!(plain.tokens(), drafting.tokens(), "{name}, seed {seed}");
            assert_eq!(a.0.drafted_tokens, 0);
            drafted += b.0.drafted_tokens;
            accepted += b.0.accepted_tokens;
        }
        println!("{name}: {accepted} of {drafted} accepted");
        match name {
            "itself" => assert!(accepted > 600, "{accepted}"),
            "rounded" => assert!(accepted > 100 && accepted < drafted),
            // Where drafts are of no use there are hardly any: less than one for ten tokens.
            "a stranger" => assert!(drafted < 24 * 60 / 10, "{drafted}"),
            _ => assert!(accepted > 0 && accepted < drafted),
        }
    }
}

/// How often each text of `length` tokens came.
fn counts(
    session: &mut Session,
    sampling: &Sampling,
    length: usize,
) -> BTreeMap<Vec<u32>, [f64; 2]> {
    let mut counts = BTreeMap::new();
    for seed in 0..6000 {
        let request = Request {
            sampling: Sampling {
                seed,
                ..sampling.clone()
            },
            ..Request::new(Prompt::Tokens(vec![1, 2, 3, 97, 98, 99, 97, 98]))
        };
        let request = Request {
            max_tokens: length,
            ..request
        };
        let completion = session.generate(&request, &mut |_| ControlFlow::Continue(()));
        counts.entry(completion.unwrap().tokens).or_insert([0.0; 2])[0] += 1.0;
    }
    counts
}

#[test]
fn drawn_drafts_leave_the_distribution_as_it_is() {
    let shape = Shape {
        layers: 1,
        embedding: 32,
        heads: 2,
        kv_heads: 1,
        feed_forward: 32,
        context: 32,
        ..Shape::default()
    };
    let target = target(&shape);
    // A vocabulary of three tokens.
    let few = (0..shape.vocabulary as u32).filter(|id| !(97..100).contains(id));
    let logit_bias: Vec<_> = few.map(|id| (id, f32::NEG_INFINITY)).collect();
    let tiny = Sampling {
        logit_bias,
        temperature: 0.8,
        ..hot(0)
    };
    let chain = Sampling {
        min_p: 0.1,
        penalties: Penalties {
            repetition: 1.5,
            presence: 0.3,
            ..Penalties::default()
        },
        xtc: Xtc {
            probability: 0.3,
            threshold: 0.2,
        },
        top_k: 2,
        ..tiny.clone()
    };
    for (sampling, what) in [(tiny, "temperature"), (chain, "the whole chain")] {
        let mut plain = session(&target, 32);
        let expected = counts(&mut plain, &sampling, 4);
        for (name, speculation) in all_drafts(&shape) {
            let mut drafting = session(&target, 32);
            drafting.set_speculation(&speculation).unwrap();
            let mut both = expected.clone();
            for (text, [count, _]) in counts(&mut drafting, &sampling, 4) {
                both.entry(text).or_insert([0.0; 2])[1] += count;
            }
            // Two samples of one size: Σ (a − b)² / (a + b) is χ² with (cells − 1) degrees of freedom, mean f and variance 2f. Texts that hardly
            // come are one cell.
            let mut rare = [0.0; 2];
            let mut cells = Vec::new();
            for pair in both.into_values() {
                if pair[0] + pair[1] < 20.0 {
                    rare = [rare[0] + pair[0], rare[1] + pair[1]];
                } else {
                    cells.push(pair);
                }
            }
            cells.extend((rare != [0.0; 2]).then_some(rare));
            let term = |[a, b]: &[f64; 2]| (a - b).powi(2) / (a + b);
            let chi_squared: f64 = cells.iter().map(term).sum();
            let freedom = (cells.len() - 1) as f64;
            println!("{what}, {name}: χ² {chi_squared:.1} of {freedom} degrees of freedom");
            // Four standard deviations; the seeds are fixed. Wrong rules give more than ten.
            let most = freedom + 4.0 * (2.0 * freedom).sqrt();
            assert!(
                cells.len() > 7 && chi_squared < most,
                "{what}, {name}: {chi_squared}"
            );
        }
    }
}

#[test]
fn every_end_inside_an_accepted_draft_is_the_plain_one() {
    let shape = Shape {
        context: 64,
        ..Shape::default()
    };
    let target = target(&shape);
    let eos = target.tokenizer().eos().unwrap();
    let mut plain = session(&target, 64);
    let mut ends = BTreeMap::<String, usize>::new();
    for (name, speculation) in all_drafts(&shape) {
        let mut drafting = session(&target, 64);
        drafting.set_speculation(&speculation).unwrap();
        for case in 0..30 {
            let base = request(&format!("the end {case}"), 5 + case);
            let text = generate(&mut plain, &base).0.text;
            plain.reset();
            drafting.reset();
            let middle: String = text.chars().skip(case / 3).take(2).collect();
            let slide = ContextPolicy::Slide { keep_first: 3 };
            let requests = [
                base.clone(),
                request(&format!("the end {case}"), case % 3),
                Request {
                    stop: vec![middle.clone(), "never".into()],
                    ..base.clone()
                },
                Request {
                    max_tokens: 1000,
                    ..base.clone()
                },
                Request {
                    max_tokens: 150,
                    context_policy: slide,
                    ..base.clone()
                },
                Request {
                    sampling: Sampling {
                        logit_bias: vec![(eos, 2.0)],
                        ..Sampling::default()
                    },
                    ..base.clone()
                },
            ];
            for (number, request) in requests.iter().enumerate() {
                if matches!(&request.stop[..], [stop, ..] if stop.is_empty()) {
                    continue;
                }
                let what = format!("{name}, case {case}, request {number}");
                let (a, b) = (
                    generate(&mut plain, request),
                    generate(&mut drafting, request),
                );
                assert_same(&a, &b, &what);
                assert_eq!(plain.tokens(), drafting.tokens(), "{what}");
                let finish: String = format!("{:?}", a.0.finish).chars().take(8).collect();
                *ends.entry(finish).or_insert(0) += usize::from(b.0.accepted_tokens > 0);
            }
        }
    }
    println!("{ends:?}");
    assert_eq!(
        ends.len(),
        4,
        "max tokens, stop string, context, end: {ends:?}"
    );
    assert!(ends.values().all(|&count| count > 3), "{ends:?}");
}

#[test]
fn cancelling_inside_an_accepted_draft_leaves_what_was_made() {
    let shape = Shape::default();
    let target = target(&shape);
    let mut plain = session(&target, 256);
    let mut drafting = session(&target, 256);
    drafting
        .set_speculation(&Speculation::draft(model(shape)))
        .unwrap();
    let request = request("cancel", 40);
    let whole = generate(&mut plain, &request);
    for after in 1..12 {
        for by_token in [false, true] {
            let stop = |session: &mut Session| {
                let (token, mut pieces) = (session.cancel_token(), 0);
                let completion = session.generate(&request, &mut |event| {
                    pieces += usize::from(matches!(event, Event::Piece { .. }));
                    if pieces < after {
                        return ControlFlow::Continue(());
                    }
                    if by_token {
                        token.cancel();
                        return ControlFlow::Continue(());
                    }
                    ControlFlow::Break(())
                });
                completion.unwrap()
            };
            let (a, b) = (stop(&mut plain), stop(&mut drafting));
            assert_eq!((&a.finish, &a.tokens), (&Finish::Cancelled, &b.tokens));
            assert_eq!(a.finish, b.finish);
            // A token cancels the plain session's next step; with a draft that step may have been done.
            let (made, least) = (drafting.tokens(), plain.tokens());
            assert!(made.starts_with(least) && made.len() <= a.prompt_tokens + a.tokens.len());
            assert!(by_token || made == least);
            let again = generate(&mut drafting, &request);
            assert_eq!(again.0.tokens, whole.0.tokens);
        }
    }
}

#[test]
fn a_session_that_drafts_is_a_session_like_any_other() {
    let shape = Shape::default();
    let target = target(&shape);
    let rounded = model(Shape {
        format: "q4_0",
        ..shape.clone()
    });
    let mut plain = session(&target, 256);
    let mut drafting = session(&target, 256);
    drafting
        .set_speculation(&Speculation::draft(rounded.clone()))
        .unwrap();
    // Turns of a conversation reuse the cache; between them a caller may do as it likes.
    let mut prompt = vec![1, 2, 3];
    for turn in 0..6 {
        let request = Request {
            max_tokens: 20,
            ..Request::new(Prompt::Tokens(prompt.clone()))
        };
        let (a, b) = (
            generate(&mut plain, &request),
            generate(&mut drafting, &request),
        );
        assert_same(&a, &b, &format!("turn {turn}"));
        assert!(turn == 0 || b.0.reused_tokens > 0);
        prompt = [plain.tokens(), &[4, 5, turn]].concat();
        for session in [&mut plain, &mut drafting] {
            match turn {
                1 => session.truncate(10),
                2 => session.prefill(&[7, 8]).map(|_| ()).unwrap(),
                _ => {}
            }
        }
        let (mut a, mut b) = (plain.fork().unwrap(), drafting.fork().unwrap());
        assert_eq!(b.speculation().most(), 8);
        assert_eq!(a.decode(3).unwrap(), b.decode(3).unwrap());
    }

    // A draft model with less context rests where the sequence outgrows it.
    let short = model(Shape {
        context: 24,
        ..shape.clone()
    });
    drafting
        .set_speculation(&Speculation::draft(short))
        .unwrap();
    let long = request("short", 60);
    let (a, b) = (generate(&mut plain, &long), generate(&mut drafting, &long));
    assert_same(&a, &b, "short context");
    let accepted = b.0.accepted_tokens;
    assert!(accepted > 4 && accepted < 24, "{accepted}");

    // Adapters change the session's model, not the draft's.
    let bytes = common::gguf::adapter(&Random::new(shape.clone()), 4, "f32");
    let file = gguf::File::from_bytes("adapter.gguf", bytes).unwrap();
    let adapter = target.adapter_from_gguf(file).unwrap();
    drafting
        .set_speculation(&Speculation::draft(rounded))
        .unwrap();
    for session in [&mut plain, &mut drafting] {
        session.set_adapters(&[(adapter.clone(), 0.05)]).unwrap();
    }
    let (a, b) = (generate(&mut plain, &long), generate(&mut drafting, &long));
    assert_same(&a, &b, "adapter");
    assert!(b.0.accepted_tokens > 0);
    // Also where the room for logits comes later than the adapter.
    let mut later = session(&target, 256);
    later.set_adapters(&[(adapter, 0.05)]).unwrap();
    later.set_speculation(&Speculation::lookup(1)).unwrap();
    assert_same(&a, &generate(&mut later, &long), "adapter first");

    drafting.set_speculation(&Speculation::Off).unwrap();
    assert_eq!(generate(&mut drafting, &long).0.drafted_tokens, 0);
}

#[test]
fn drafts_that_mean_nothing_are_refused() {
    let target = target(&Shape::default());
    let mut session = session(&target, 64);
    session.set_speculation(&Speculation::lookup(3)).unwrap();
    let other = model(Shape {
        vocabulary: 300,
        ..Shape::default()
    });
    let error = session
        .set_speculation(&Speculation::draft(other))
        .unwrap_err();
    assert!(matches!(error, Error::DraftVocabulary { .. }), "{error}");
    assert!(error.to_string().contains("300 tokens and 288"), "{error}");
    // One token of the vocabulary has another text.
    let mut bytes = Random::new(Shape::default()).to_gguf();
    let at = bytes.windows(8).position(|window| window == b"<|user|>");
    bytes[at.unwrap() + 2] = b'U';
    let file = gguf::File::from_bytes("other.gguf", bytes).unwrap();
    let other = Model::from_gguf(file, &OpenOptions::default()).unwrap();
    let error = session
        .set_speculation(&Speculation::draft(other))
        .unwrap_err();
    let expected = "token 287 is \"<|User|>\" and \"<|user|>\"";
    assert!(error.to_string().contains(expected), "{error}");
    for speculation in [
        Speculation::Lookup { ngram: 0, most: 4 },
        Speculation::Lookup { ngram: 1, most: 0 },
        Speculation::Lookup { ngram: 1, most: 16 },
        Speculation::Draft {
            model: target.clone(),
            most: 99,
        },
    ] {
        let error = session.set_speculation(&speculation).unwrap_err();
        assert!(matches!(error, Error::InvalidOption { .. }), "{error}");
    }
    assert!(matches!(
        session.speculation(),
        Speculation::Lookup { ngram: 3, most: 8 }
    ));
}

#[test]
fn a_memory_limit_counts_the_draft_model() {
    let (shape, context) = (Shape::default(), 64);
    let draft = Speculation::draft(model(shape.clone()));
    let options = SessionOptions {
        context: Some(context),
        threads: Some(1),
        ..SessionOptions::default()
    };
    let own = target(&shape).memory(options);
    let needed = target(&shape).memory(MemoryQuery {
        speculation: &draft,
        ..options.into()
    });
    let Speculation::Draft { model: small, .. } = &draft else {
        unreachable!()
    };
    let small = small.memory(options);
    assert_eq!(needed.mapped, own.mapped + small.mapped);
    assert_eq!(needed.kv_cache, own.kv_cache + small.kv_cache);
    assert!(needed.scratch >= own.scratch + small.scratch);
    for (limit, fits) in [(needed.total(), true), (needed.total() - 1, false)] {
        let target = target_within(&shape, Some(limit));
        let mut session = target.session(options).unwrap();
        match session.set_speculation(&draft) {
            Ok(()) => assert!(fits),
            Err(error) => {
                assert!(
                    !fits && matches!(error, Error::MemoryLimit { .. }),
                    "{error}"
                );
                assert!(matches!(session.speculation(), Speculation::Off));
            }
        }
    }
}

#[test]
fn inputs_that_are_watched_are_those_of_the_text() {
    let shape = Shape::default();
    let target = target(&shape);
    let request = request("watch", 40);
    let sums = |speculation: &Speculation| {
        let mut session = session(&target, 256);
        session.set_speculation(speculation).unwrap();
        session.collect_importance();
        let text = generate(&mut session, &request).0.tokens;
        (text, session.take_importance())
    };
    // Drafts of which some are dropped.
    let rounded = model(Shape {
        format: "q4_0",
        ..shape
    });
    assert_eq!(sums(&Speculation::draft(rounded)), sums(&Speculation::Off));
}
