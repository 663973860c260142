//! Sequences: reusing, copying, saving and sliding them, and the formats they are cached in.

mod common;

use common::{Numbers, Random, Shape, of_context};
use dram_core::{
    CacheFormat, Completion, ContextPolicy, Error, Event, Finish, Model, OpenOptions, Prompt,
    Request, Sampling, Session, SessionOptions, gguf,
};
use std::ops::ControlFlow;

fn shape() -> Shape {
    Shape {
        head: 32,
        value: 32,
        rope_dims: 24,
        rope_scale: Some(2.0),
        ..Shape::default()
    }
}

fn model(shape: Shape) -> Model {
    let file = gguf::File::from_bytes("random.gguf", Random::new(shape).to_gguf()).unwrap();
    Model::from_gguf(file, &OpenOptions::default()).unwrap()
}

fn options(context: usize, cache_format: CacheFormat) -> SessionOptions {
    SessionOptions {
        context: Some(context),
        threads: Some(2),
        cache_format,
    }
}

fn tokens(count: usize) -> Vec<u32> {
    let mut numbers = Numbers::new(7);
    (0..count).map(|_| (numbers.next() % 256) as u32).collect()
}

fn request(prompt: &[u32], max_tokens: usize) -> Request {
    Request {
        max_tokens,
        ..Request::new(Prompt::Tokens(prompt.to_vec()))
    }
}

fn generate(session: &mut Session, request: &Request) -> Completion {
    let go_on = &mut |_: Event<'_>| ControlFlow::Continue(());
    session.generate(request, go_on).unwrap()
}

const FORMATS: [CacheFormat; 2] = [CacheFormat::F16, CacheFormat::Q8_0];

#[test]
fn a_prompt_that_goes_on_with_the_sequence_is_not_evaluated_again() {
    let model = model(shape());
    for format in FORMATS {
        let fresh = |ids: &[u32]| {
            let mut session = model.session(options(256, format)).unwrap();
            session.prefill(ids).unwrap().to_vec()
        };
        let mut session = model.session(options(256, format)).unwrap();
        let first = generate(&mut session, &request(&tokens(50), 10));
        assert_eq!(first.reused_tokens, 0);
        // The last token made was not evaluated: nobody asked what follows it.
        let mut next = session.tokens().to_vec();
        assert_eq!((next.len(), &next[50..]), (59, &first.tokens[..9]));

        next.extend(tokens(20));
        let mut reported = None;
        let second = session
            .generate(&request(&next, 5), &mut |event| {
                if let Event::Prefilled { tokens, reused } = event {
                    reported = Some((tokens, reused));
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!((reported, second.reused_tokens), (Some((79, 59)), 59));
        let mut again = model.session(options(256, format)).unwrap();
        assert_eq!(
            generate(&mut again, &request(&next, 5)).tokens,
            second.tokens
        );

        // The same prompt: its last token is evaluated, for its logits. Another one: what both begin with.
        assert_eq!(generate(&mut session, &request(&next, 0)).reused_tokens, 78);
        next.truncate(30);
        next.push(7);
        assert_eq!(generate(&mut session, &request(&next, 0)).reused_tokens, 30);
        assert_eq!(session.tokens(), next);
        // Bit for bit.
        next.push(9);
        assert_eq!(session.decode(9).unwrap(), fresh(&next));
        // A refused request changes nothing.
        let refused = session.generate(&request(&[9999], 1), &mut |_| ControlFlow::Continue(()));
        assert!(refused.is_err() && session.tokens() == next);
    }
}

#[test]
fn a_fork_goes_its_own_way() {
    let model = model(shape());
    for format in FORMATS {
        let mut session = model.session(options(100, format)).unwrap();
        session.prefill(&tokens(37)).unwrap();
        let mut fork = session.fork().unwrap();
        assert_eq!(
            (fork.options(), fork.tokens()),
            (session.options(), session.tokens())
        );
        let expected = session.decode(5).unwrap().to_vec();
        fork.decode(6).unwrap();
        fork.truncate(37);
        assert_eq!(fork.decode(5).unwrap(), expected);
        session.reset();
        let (a, b) = (fork.decode(8).unwrap().to_vec(), session.position());
        let mut whole = tokens(37);
        whole.extend([5, 8]);
        assert_eq!((session.prefill(&whole).unwrap(), b), (&a[..], 0));
    }
}

#[test]
fn a_saved_session_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sequence");
    for format in FORMATS {
        let mut session = model(shape()).session(options(100, format)).unwrap();
        session.save(&path).unwrap();
        session.prefill(&tokens(45)).unwrap();
        session.save(&path).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

        // The model opened anew; another context.
        let mut other = model(shape()).session(options(46, format)).unwrap();
        other.prefill(&[1, 2, 3]).unwrap();
        other.restore(&path).unwrap();
        assert_eq!(other.tokens(), session.tokens());
        assert_eq!(
            other.fork().unwrap().decode(3).unwrap(),
            session.decode(3).unwrap()
        );
        let mut prompt = tokens(45);
        prompt.push(3);
        let completion = generate(&mut other, &request(&prompt, 1));
        assert_eq!(completion.reused_tokens, 45);
    }
    let mut empty = model(shape())
        .session(options(9, CacheFormat::F16))
        .unwrap();
    empty.save(&path).unwrap();
    empty.prefill(&[4]).unwrap();
    empty.restore(&path).unwrap();
    assert_eq!(empty.position(), 0);
}

#[test]
fn saves_to_one_path_at_the_same_time_leave_a_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sequence");
    let model = model(shape());
    std::thread::scope(|scope| {
        for length in [5, 40, 60] {
            let mut session = model.session(options(64, CacheFormat::F16)).unwrap();
            let path = &path;
            scope.spawn(move || {
                session.prefill(&tokens(length)).unwrap();
                for _ in 0..20 {
                    session.save(path).unwrap();
                    session.restore(path).unwrap();
                    assert!([5, 40, 60].contains(&session.position()));
                }
            });
        }
    });
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_damaged_or_foreign_saved_session_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sequence");
    let ours = model(shape());
    let mut session = ours.session(options(64, CacheFormat::F16)).unwrap();
    session.prefill(&tokens(20)).unwrap();
    session.save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    session.prefill(&[1, 2, 3]).unwrap();
    let before = session.tokens().to_vec();

    let mut refuse = |bytes: &[u8], expected: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = session.restore(&path).unwrap_err();
        assert!(matches!(error, Error::SavedSession { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}: {expected}");
    };
    for length in [0, 7, 55, 56, whole.len() / 2, whole.len() - 1] {
        refuse(&whole[..length], "truncated");
    }
    let changed = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    refuse(&changed(0), "DRAMSEQ");
    refuse(&changed(8), "another version");
    refuse(&changed(12), "cache format");
    refuse(&changed(16), "fingerprint");
    refuse(&changed(24), "adapters");
    refuse(&changed(32), "damaged"); // 20 tokens become 4
    refuse(&changed(39), "longer context");
    refuse(&changed(40), "damaged"); // 20 positions become 4
    for at in [
        48,
        56,
        48 + 20 * 4,
        whole.len() / 2,
        whole.len() - 9,
        whole.len() - 1,
    ] {
        refuse(&changed(at), "checksum");
    }
    let mut longer = whole.clone();
    longer.push(0);
    refuse(&longer, "damaged");
    assert_eq!(session.tokens(), before);
    let expected = session.fork().unwrap().decode(9).unwrap().to_vec();
    assert_eq!(session.decode(9).unwrap(), expected);

    std::fs::write(&path, &whole).unwrap();
    let into = |model: &Model, options| {
        let mut session = model.session(options).unwrap();
        session.restore(&path).unwrap_err().to_string()
    };
    let other = model(Shape { seed: 2, ..shape() });
    assert!(into(&other, options(64, CacheFormat::F16)).contains("fingerprint"));
    assert!(into(&ours, options(64, CacheFormat::Q8_0)).contains("q8_0"));
    assert!(into(&ours, options(19, CacheFormat::F16)).contains("at most 19"));
    let missing = session.restore(folder.path().join("none")).unwrap_err();
    assert!(matches!(missing, Error::Io { .. }), "{missing}");
}

/// Generates with a context of `context`, and returns the completion with (dropped, kept) of every slide.
fn slide(session: &mut Session, request: &Request) -> (Completion, Vec<(usize, usize)>) {
    let mut slides = Vec::new();
    let completion = session
        .generate(request, &mut |event| {
            if let Event::Slid { dropped, kept } = event {
                slides.push((dropped, kept));
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    (completion, slides)
}

#[test]
fn a_full_context_slides_as_if_the_rest_had_been_all() {
    let model = model(shape());
    let keep_first = 4;
    let sliding = |prompt: &[u32], max_tokens| Request {
        context_policy: ContextPolicy::Slide { keep_first },
        // No end token: the completion is as long as it may be.
        sampling: Sampling {
            logit_bias: vec![(model.tokenizer().eos().unwrap(), f32::NEG_INFINITY)],
            ..Sampling::default()
        },
        ..request(prompt, max_tokens)
    };
    let prompt = tokens(20);
    let mut session = model.session(options(32, CacheFormat::F16)).unwrap();
    let (completion, slides) = slide(&mut session, &sliding(&prompt, 50));
    assert_eq!(
        (completion.finish, completion.tokens.len()),
        (Finish::MaxTokens, 50)
    );
    // 32 are full: 14 of the 28 after the first 4 go, the next one comes.
    assert_eq!(slides, [(14, 19); 3]);

    // By hand: a plain session, given what was left after each slide.
    let mut plain = model.session(options(32, CacheFormat::F16)).unwrap();
    let end = model.tokenizer().eos().unwrap() as usize;
    let mut ids = prompt.clone();
    let mut logits = plain.prefill(&ids).unwrap().to_vec();
    for (made, &token) in completion.tokens.iter().enumerate() {
        logits[end] = f32::NEG_INFINITY;
        let best = (0..logits.len())
            .rev()
            .max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        assert_eq!(best, Some(token as usize), "token {made}");
        ids.push(token);
        if ids.len() > 32 {
            ids.drain(4..18);
            plain.reset();
            logits = plain.prefill(&ids).unwrap().to_vec();
        } else {
            logits = plain.decode(token).unwrap().to_vec();
        }
    }

    // A prompt that is too long: the same, before anything is evaluated.
    let long = tokens(70);
    let (completion, slides) = slide(&mut session, &sliding(&long, 3));
    assert_eq!((completion.prompt_tokens, slides), (70, vec![(42, 28)]));
    let kept = [&long[..4], &long[46..]].concat();
    assert_eq!(
        generate(&mut plain, &sliding(&kept, 3)).tokens,
        completion.tokens
    );

    // The policy's error is today's; a part to keep that fills the context is refused.
    let error = Request {
        context_policy: ContextPolicy::Error,
        ..sliding(&long, 3)
    };
    let refused = session.generate(&error, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(
        refused,
        Err(Error::ContextFull {
            tokens: 70,
            context: 32
        })
    ));
    let full = Request {
        context_policy: ContextPolicy::Error,
        ..sliding(&prompt, 50)
    };
    assert_eq!(generate(&mut session, &full).finish, Finish::ContextFull);
    let all = Request {
        context_policy: ContextPolicy::Slide { keep_first: 32 },
        ..sliding(&prompt, 1)
    };
    let refused = session
        .generate(&all, &mut |_| ControlFlow::Continue(()))
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("less than the session's context of 32"),
        "{refused}"
    );

    // The tightest ones still go on; cancelling from the event leaves the session usable.
    for (context, keep_first) in [(1, 0), (2, 1), (3, 2), (5, 0)] {
        let mut session = model.session(options(context, CacheFormat::F16)).unwrap();
        let tight = Request {
            context_policy: ContextPolicy::Slide { keep_first },
            ..sliding(&prompt, 9)
        };
        assert_eq!(generate(&mut session, &tight).tokens.len(), 9);
        assert!(session.position() <= context);
        let stop = &mut |event: Event<'_>| match event {
            Event::Slid { .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let request = Request {
            prompt: Prompt::Tokens(vec![1]),
            ..tight.clone()
        };
        assert_eq!(
            session.generate(&request, stop).unwrap().finish,
            Finish::Cancelled
        );
        assert_eq!(session.tokens().len(), session.position());
        assert_eq!(generate(&mut session, &tight).tokens.len(), 9);
    }
}

#[test]
fn log_probabilities_come_with_every_token() {
    let model = model(shape());
    let mut session = model.session(options(64, CacheFormat::F16)).unwrap();
    let sampling = Sampling {
        temperature: 2.0,
        top_k: 0,
        seed: 3,
        ..Sampling::default()
    };
    let request = Request {
        logprobs: Some(3),
        sampling,
        ..request(&tokens(8), 12)
    };
    let mut events = Vec::new();
    let completion = session
        .generate(&request, &mut |event| {
            if let Event::Token { id, logprob, top } = event {
                events.push((id, logprob, top.to_vec()));
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    let logprobs = completion.logprobs.unwrap();
    assert_eq!(
        (logprobs.len(), events.len()),
        (completion.tokens.len(), completion.tokens.len())
    );
    let mut logits = {
        session.reset();
        session.prefill(&tokens(8)).unwrap().to_vec()
    };
    for (index, &token) in completion.tokens.iter().enumerate() {
        let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        let exact = |id: u32| f64::from(logits[id as usize]) - total.ln();
        let (id, logprob, top) = &events[index];
        assert_eq!(
            (*id, *logprob, &top[..]),
            (token, logprobs.chosen(index), logprobs.top(index))
        );
        assert!((f64::from(*logprob) - exact(token)).abs() < 1e-4);
        assert_eq!(top.len(), 3);
        assert!(
            top.iter()
                .all(|t| (f64::from(t.logprob) - exact(t.id)).abs() < 1e-4)
        );
        let best = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        assert_eq!(logits[top[0].id as usize], best);
        logits = session.decode(token).unwrap().to_vec();
    }
    let many = Request {
        logprobs: Some(101),
        ..request
    };
    let refused = session
        .generate(&many, &mut |_| ControlFlow::Continue(()))
        .unwrap_err();
    assert!(refused.to_string().contains("at most 100"), "{refused}");
}

#[test]
fn a_q8_0_cache_is_half_as_large_and_nearly_as_exact() {
    let model = model(shape());
    let logits = |format, parts: &[usize]| {
        let mut session = model.session(options(200, format)).unwrap();
        let ids = tokens(150);
        let mut at = 0;
        for part in parts {
            session.prefill(&ids[at..at + part]).unwrap();
            at += part;
        }
        session.decode(1).unwrap().to_vec()
    };
    let (exact, rounded) = (
        logits(CacheFormat::F16, &[150]),
        logits(CacheFormat::Q8_0, &[150]),
    );
    let spread = exact.iter().fold(0f32, |most, x| most.max(x.abs()));
    let distance = exact
        .iter()
        .zip(&rounded)
        .fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    println!("largest difference: {} of the spread", distance / spread);
    assert!(
        distance > 0.0 && distance < 0.02 * spread,
        "{distance} of {spread}"
    );
    // How the prompt is cut makes no difference.
    assert_eq!(logits(CacheFormat::Q8_0, &[1, 2, 13, 1, 100, 33]), rounded);

    let memory = |format| model.memory(options(160, format)).kv_cache;
    assert_eq!(memory(CacheFormat::F16), 2 * 2 * 160 * (32 + 32) * 2);
    assert_eq!(memory(CacheFormat::Q8_0), 2 * 2 * 160 * (34 + 34));
    assert_eq!(
        model.memory(of_context(160)),
        model.memory(options(160, CacheFormat::F16))
    );

    let short = self::model(Shape::default());
    let error = short
        .session(options(16, CacheFormat::Q8_0))
        .map(|_| ())
        .unwrap_err();
    assert!(error.to_string().contains("heads of 16 values"), "{error}");
}

#[test]
fn sessions_of_one_model_do_not_disturb_each_other() {
    let model = model(shape());
    let expected = generate(
        &mut model.session(options(64, CacheFormat::F16)).unwrap(),
        &request(&tokens(9), 20),
    );
    let both = std::thread::scope(|scope| {
        let run = || {
            let mut session = model.session(options(64, CacheFormat::F16)).unwrap();
            generate(&mut session, &request(&tokens(9), 20)).tokens
        };
        [scope.spawn(run), scope.spawn(run)].map(|handle| handle.join().unwrap())
    });
    assert!(both.iter().all(|tokens| *tokens == expected.tokens));
}
