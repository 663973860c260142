//! Generations: pieces, cancelling, listeners that fail; sampling, log-probabilities, the full context.

use crate::ears::{
    ENDLESS, Ears, Heard, all, ask, complete, completion, ears, request, session, slow,
};
use dram_ffi::{
    ContextPolicy, DramError, FinishReason, GenerationEvent, GenerationListener, GenerationRequest,
    ListenerError, NativeSession, SamplingOptions, SessionOptions,
};
use std::collections::HashMap;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// At most the token in which the cancel fell may still be made.
fn settles(session: &NativeSession, count: u64) {
    std::thread::sleep(Duration::from_millis(200));
    let after = session.tokens_made() - count;
    assert!(after <= 1, "{after} tokens were made after the cancel");
}

#[test]
fn pieces_add_up_and_are_batched() {
    let session = session();
    let (listener, hears) = ears();
    let start = Instant::now();
    let handle = session.generate(request(4, 60), listener).unwrap();
    let heard = all(&hears);
    let frames = start.elapsed().as_millis() / 16;
    let [
        first,
        pieces @ ..,
        Heard::Event(GenerationEvent::Finished { completion }),
    ] = &heard[..]
    else {
        panic!("{heard:?}");
    };
    let prefilled = GenerationEvent::Prefilled {
        tokens: 4,
        reused: 0,
    };
    assert!(
        matches!(first, Heard::Event(event) if *event == prefilled),
        "{first:?}"
    );
    let (mut text, mut tokens) = (String::new(), 0);
    for event in pieces {
        let Heard::Event(GenerationEvent::Piece {
            text: piece,
            tokens: n,
            ..
        }) = event
        else {
            panic!("{event:?} before the end");
        };
        text.push_str(piece);
        tokens += n;
    }
    assert_eq!((text, tokens), (completion.text.clone(), 60));
    assert_eq!(completion.finish, FinishReason::MaxTokens);
    assert_eq!((completion.tokens.len(), completion.prompt_tokens), (60, 4));
    // The first, the rest at the end, and between them no more than one a frame.
    assert!(
        pieces.len() as u128 <= frames + 2,
        "{} pieces",
        pieces.len()
    );
    handle.join();
    assert!(handle.is_finished() && !session.is_busy());
    assert_eq!((handle.tokens_made(), session.tokens_made()), (60, 60));
}

#[test]
fn cancel_stops_the_decode_and_leaves_the_session_usable() {
    let session = session();
    let (listener, hears) = ears();
    let handle = session.generate(request(4, ENDLESS), listener).unwrap();
    while !matches!(
        hears.recv().unwrap(),
        Heard::Event(GenerationEvent::Piece { .. })
    ) {}
    handle.cancel();
    let count = session.tokens_made();
    let made = completion(&hears);
    assert_eq!(made.finish, FinishReason::Cancelled);
    assert_eq!(made.tokens.len() as u64, session.tokens_made());
    settles(&session, count);

    let (listener, hears) = ears();
    let next = session.generate(request(4, 3), listener).unwrap();
    handle.cancel(); // too late, and not for this one
    assert_eq!(completion(&hears).finish, FinishReason::MaxTokens);
    assert!(!next.is_cancelled());
}

#[test]
fn cancel_in_the_middle_of_a_long_prompt_is_prompt() {
    let session = session();
    let (listener, hears) = ears();
    let handle = session.generate(request(4000, 1), listener).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    handle.cancel();
    handle.join();
    let took = start.elapsed();
    let made = completion(&hears);
    assert_eq!(
        (made.finish, made.tokens.len()),
        (FinishReason::Cancelled, 0)
    );
    assert!(took < Duration::from_secs(2), "it took {took:?}");
    let (listener, hears) = ears();
    session.generate(request(4, 3), listener).unwrap().join();
    assert_eq!(completion(&hears).tokens.len(), 3);
}

#[test]
fn a_dropped_handle_cancels_a_dropped_session_does_not() {
    let session = session();
    let (listener, hears) = ears();
    drop(session.generate(request(4, ENDLESS), listener).unwrap());
    assert_eq!(completion(&hears).finish, FinishReason::Cancelled);

    let (listener, hears) = ears();
    let handle = session.generate(request(4, ENDLESS), listener).unwrap();
    session.cancel();
    assert_eq!(completion(&hears).finish, FinishReason::Cancelled);
    assert!(handle.is_cancelled());

    let (listener, hears) = ears();
    let handle = session.generate(request(4, 20), listener).unwrap();
    drop(session);
    assert_eq!(completion(&hears).finish, FinishReason::MaxTokens);
    drop(handle);
}

#[test]
fn a_second_generation_is_refused_until_the_first_is_cancelled() {
    let session = session();
    let (listener, hears) = ears();
    let first = session.generate(request(4, ENDLESS), listener).unwrap();
    let refused = session.generate(request(4, 1), ears().0);
    assert!(matches!(refused, Err(DramError::SessionBusy(_))));
    first.cancel();
    // At once: it waits until the cancelled one has handed the session back.
    let (listener, second) = ears();
    let handle = session.generate(request(4, 1), listener).unwrap();
    assert_eq!(completion(&second).finish, FinishReason::MaxTokens);
    assert_eq!(completion(&hears).finish, FinishReason::Cancelled);
    drop(handle);
}

#[test]
fn a_listener_that_throws_ends_its_generation() {
    let session = session();
    let (heard, hears) = channel();
    let listener = Box::new(Ears {
        heard,
        throw_at_once: true,
    });
    let handle = session.generate(request(4, ENDLESS), listener).unwrap();
    handle.join();
    let heard = all(&hears);
    assert!(
        matches!(&heard[..], [.., Heard::Event(GenerationEvent::Piece { .. }), Heard::Failed(DramError::Internal(m))] if m.contains("had enough")),
        "{heard:?}"
    );
    assert!(!session.is_busy());
}

/// Panics at once, as a broken binding would.
struct Panics;

impl GenerationListener for Panics {
    fn on_event(&self, _: GenerationEvent) -> Result<(), ListenerError> {
        panic!("a test's panic");
    }
    fn on_error(&self, error: DramError) -> Result<(), ListenerError> {
        assert!(matches!(error, DramError::Internal(_)));
        panic!("another");
    }
}

#[test]
fn a_panic_is_an_internal_error_and_ends_the_session_alone() {
    let model = slow();
    let session = model.session(SessionOptions::default()).unwrap();
    session
        .generate(request(4, ENDLESS), Box::new(Panics))
        .unwrap()
        .join();
    let lost = session.generate(request(4, 1), ears().0);
    assert!(matches!(lost, Err(DramError::Internal(_))));
    let (listener, hears) = ears();
    let other = model.session(SessionOptions::default()).unwrap();
    other.generate(request(4, 1), listener).unwrap().join();
    assert_eq!(completion(&hears).tokens.len(), 1);
}

#[test]
fn log_probabilities_are_the_models_and_come_with_the_pieces() {
    const TOP: u32 = 100;
    let session = session();
    let (events, made) = ask(
        &session,
        GenerationRequest {
            logprobs: Some(TOP),
            ..request(4, 20)
        },
    );
    let made = made.unwrap();
    assert_eq!(made.logprobs.len(), made.tokens.len());
    for (token, id) in made.logprobs.iter().zip(&made.tokens) {
        // Greedy: the likeliest is chosen.
        assert_eq!((token.id, token.top.len()), (*id, TOP as usize));
        assert_eq!(
            (token.top[0].id, token.top[0].logprob),
            (*id, token.logprob)
        );
        assert!(token.top.is_sorted_by(|a, b| a.logprob >= b.logprob));
        // 100 of 258 tokens: most of the probability, and not all of it.
        let sum: f32 = token.top.iter().map(|t| t.logprob.exp()).sum();
        assert!((0.4..1.0).contains(&sum), "{sum}");
    }
    let told = events.into_iter().filter_map(|event| match event {
        GenerationEvent::Piece { logprobs, .. } => Some(logprobs),
        _ => None,
    });
    assert_eq!(told.flatten().collect::<Vec<_>>(), made.logprobs);
    assert_eq!(complete(&session, request(4, 3)).logprobs, []);
    let too_many = GenerationRequest {
        logprobs: Some(101),
        ..request(4, 1)
    };
    assert!(matches!(
        ask(&session, too_many).1,
        Err(DramError::InvalidRequest(m)) if m.contains("logprobs")
    ));
}

#[test]
fn every_sampling_option_reaches_core() {
    let session = session();
    let with = |change: &dyn Fn(&mut SamplingOptions)| {
        let mut sampling = SamplingOptions::default();
        change(&mut sampling);
        GenerationRequest {
            sampling: Some(sampling),
            ..request(4, 30)
        }
    };
    type Change = fn(&mut SamplingOptions);
    let wrong: [(&str, Change); 14] = [
        ("temperature", |s| s.temperature = -1.0),
        ("typical_p", |s| s.typical_p = 0.0),
        ("top_p", |s| s.top_p = 2.0),
        ("min_p", |s| s.min_p = 1.0),
        ("xtc.probability", |s| s.xtc.probability = 2.0),
        ("xtc.threshold", |s| s.xtc.threshold = -1.0),
        ("dry.multiplier", |s| s.dry.multiplier = -1.0),
        ("dry.base", |s| s.dry.base = 0.0),
        ("dry.allowed_length", |s| s.dry.allowed_length = 0),
        ("dry.breakers", |s| {
            s.dry.breakers = Some(vec![String::new()])
        }),
        ("penalties.repetition", |s| s.penalties.repetition = 0.0),
        ("penalties.presence", |s| s.penalties.presence = f32::NAN),
        ("penalties.frequency", |s| s.penalties.frequency = f32::NAN),
        ("logit_bias", |s| {
            s.logit_bias = HashMap::from([(1, f32::NAN)])
        }),
    ];
    for (name, change) in wrong {
        let refused = ask(&session, with(&change)).1;
        assert!(
            matches!(&refused, Err(DramError::InvalidRequest(m)) if m.starts_with(name)),
            "{name}: {refused:?}"
        );
    }

    let tokens = |change: &dyn Fn(&mut SamplingOptions)| complete(&session, with(change)).tokens;
    let plain = tokens(&|_| {});
    assert_eq!(complete(&session, request(4, 30)).tokens, plain);
    let first = plain[0];
    let bias = HashMap::from([(first, f32::NEG_INFINITY)]);
    assert!(!tokens(&|s| s.logit_bias = bias.clone()).contains(&first));
    // Nothing comes twice within the window of the last ten tokens.
    let varied = tokens(&|s| (s.penalties.presence, s.penalties.window) = (1e6, 10));
    for (i, id) in varied.iter().enumerate() {
        assert!(!varied[i.saturating_sub(10)..i].contains(id), "{varied:?}");
    }
    let seeded = |seed| tokens(&|s| (s.temperature, s.seed) = (1.5, seed));
    assert!(seeded(1) == seeded(1) && seeded(1) != seeded(2));
    // Where every token reaches the threshold and it always acts, XTC leaves the least likely of those that top-k keeps.
    let excluded = tokens(&|s| {
        (s.temperature, s.top_p, s.min_p, s.top_k) = (1.0, 1.0, 0.0, 3);
        (s.xtc.probability, s.xtc.threshold) = (1.0, 0.0);
    });
    let likeliest = GenerationRequest {
        logprobs: Some(3),
        ..request(4, 1)
    };
    let likeliest = complete(&session, likeliest).logprobs;
    assert_eq!(excluded[0], likeliest[0].top[2].id);
}

#[test]
fn a_full_context_ends_the_answer_or_slides() {
    let options = SessionOptions {
        context: Some(32),
        ..SessionOptions::default()
    };
    let session = slow().session(options).unwrap();
    let full = complete(&session, request(4, 60));
    assert_eq!(
        (full.finish, full.tokens.len()),
        (FinishReason::ContextFull, 29)
    );
    let slides = |keep_first| GenerationRequest {
        context_policy: Some(ContextPolicy::Slide { keep_first }),
        ..request(4, 60)
    };
    let (events, slid) = ask(&session, slides(2));
    let slid = slid.unwrap();
    assert_eq!(
        (slid.finish, slid.tokens.len()),
        (FinishReason::MaxTokens, 60)
    );
    assert_eq!(slid.tokens[..29], full.tokens);
    let told = |event: &&GenerationEvent| {
        matches!(
            event,
            GenerationEvent::Slid {
                dropped: 15,
                kept: 18
            }
        )
    };
    assert_eq!(events.iter().filter(told).count(), 3, "{events:?}");
    assert!(matches!(
        ask(&session, slides(32)).1,
        Err(DramError::InvalidRequest(m)) if m.contains("keep_first")
    ));
}
