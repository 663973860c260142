//! What a session has read: going on from it, copying it, saving it; adapters.

use crate::ears::{ENDLESS, STUDENT, complete, ears, file, open, path, request, session, slow};
use crate::toy;
use dram_ffi::{
    CacheFormat, DramError, GenerationRequest, NativeSession, Prompt, ScaledAdapter,
    SessionOptions, Speculation,
};
use std::path::Path;
use std::sync::Arc;

/// What `session` says after `ids`, and how many of them it did not read again.
fn go_on(session: &NativeSession, ids: &[u32]) -> (Vec<u32>, u32) {
    let prompt = Prompt::Tokens { ids: ids.to_vec() };
    let made = complete(
        session,
        GenerationRequest {
            prompt,
            ..request(0, 6)
        },
    );
    (made.tokens, made.reused_tokens)
}

fn student() -> Arc<NativeSession> {
    open(Path::new(STUDENT))
        .unwrap()
        .session(SessionOptions::default())
        .unwrap()
}

#[test]
fn drafts_and_threads_change_no_token() {
    let expected = complete(&session(), request(6, 80));
    let drafting = session();
    let model = open(Path::new(STUDENT)).unwrap();
    let other = drafting.set_speculation(Speculation::Draft { model, most: 4 });
    let refused = matches!(other, Err(DramError::InvalidRequest(_)));
    assert!(refused, "{other:?}");
    let lookup = Speculation::Lookup { ngram: 1, most: 4 };
    drafting.set_speculation(lookup).unwrap();
    drafting.set_threads(1);
    // A random model soon repeats itself, which looking up foresees.
    let drafted = complete(&drafting, request(6, 80));
    assert_eq!(drafted.tokens, expected.tokens);
    assert!(drafted.accepted_tokens > 0, "{drafted:?}");
    assert!(drafted.accepted_tokens <= drafted.drafted_tokens);

    let model = open(Path::new(STUDENT)).unwrap();
    let own = model.session(SessionOptions::default()).unwrap();
    let expected = complete(&own, request(9, 12));
    own.set_speculation(Speculation::Draft { model, most: 4 })
        .unwrap();
    assert_eq!(complete(&own, request(9, 12)).tokens, expected.tokens);
    own.set_speculation(Speculation::Off).unwrap();
    assert_eq!(complete(&own, request(9, 12)).drafted_tokens, 0);
}

#[test]
fn a_copy_and_a_restored_session_go_on_as_the_original() {
    let folder = tempfile::tempdir().unwrap();
    let saved = path(&folder.path().join("chat.dram"));
    let first = session();
    let told = complete(&first, request(20, 10));
    let read = first.tokens().unwrap();
    assert_eq!(read.len(), 29, "the last token made was not read yet");
    assert_eq!(read[20..], told.tokens[..9]);
    first.save(saved.clone()).unwrap();
    let copy = first.fork().unwrap();

    let mut prompt = read.clone();
    prompt.extend([told.tokens[9], 7, 8]);
    let expected = go_on(&first, &prompt);
    assert_eq!(expected.1, 29);
    assert_eq!(go_on(&copy, &prompt), expected);
    let restored = session();
    restored.restore(saved.clone()).unwrap();
    assert_eq!(restored.tokens().unwrap(), read);
    assert_eq!(go_on(&restored, &prompt), expected);
    assert_eq!(go_on(&session(), &prompt), (expected.0.clone(), 0));
    restored.truncate(5).unwrap();
    assert_eq!(restored.tokens().unwrap(), read[..5]);
    assert_eq!(go_on(&restored, &prompt), (expected.0, 5));

    let other_format = SessionOptions {
        cache_format: Some(CacheFormat::Q8_0),
        ..SessionOptions::default()
    };
    let mut bytes = std::fs::read(&saved).unwrap();
    bytes[100] ^= 1;
    let damaged = file(&bytes);
    let refused = [
        session().restore(path(damaged.path())),
        slow().session(other_format).unwrap().restore(saved.clone()),
        student().restore(saved),
        session().restore("no-such-session".into()),
        session().save(path(&folder.path().join("no-such-folder/chat.dram"))),
    ];
    for error in refused {
        assert!(matches!(error, Err(DramError::FileProblem(_))), "{error:?}");
    }
}

#[test]
fn an_adapter_changes_one_session_until_it_is_taken_off() {
    let adapter_file = file(&toy::adapter());
    let adapter_path = path(adapter_file.path());
    let model = slow();
    let adapter = model.adapter(adapter_path.clone()).unwrap();
    let with = |scale| {
        let adapter = Arc::clone(&adapter);
        vec![ScaledAdapter { adapter, scale }]
    };
    let [one, other] = [(); 2].map(|()| model.session(SessionOptions::default()).unwrap());
    let prompt: Vec<u32> = (0..12).collect();
    let (plain, _) = go_on(&one, &prompt);
    one.set_adapters(with(1.0)).unwrap();
    let (adapted, reused) = go_on(&one, &prompt);
    assert_ne!(adapted, plain);
    assert_eq!(reused, 0, "what was read without the adapter is forgotten");
    assert_eq!(go_on(&other, &prompt).0, plain);
    assert_eq!(go_on(&one.fork().unwrap(), &prompt), (adapted.clone(), 11));
    one.set_adapters(with(1.0)).unwrap();
    assert_eq!(go_on(&one, &prompt), (adapted, 11));
    one.set_adapters(Vec::new()).unwrap();
    assert_eq!(go_on(&one, &prompt).0, plain);

    let invalid = [
        one.set_adapters(with(f32::NAN)),
        student().set_adapters(with(1.0)),
    ];
    for error in invalid {
        assert!(
            matches!(error, Err(DramError::InvalidRequest(_))),
            "{error:?}"
        );
    }
    let missing = model.adapter("no-such-adapter".into()).err();
    assert!(
        matches!(missing, Some(DramError::FileProblem(_))),
        "{missing:?}"
    );
    let qwen = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/golden/families/qwen2.gguf"
    );
    let elsewhere = open(Path::new(qwen)).unwrap().adapter(adapter_path).err();
    assert!(
        matches!(elsewhere, Some(DramError::UnsupportedModel(_))),
        "{elsewhere:?}"
    );
}

#[test]
fn a_busy_session_refuses_everything_else() {
    let session = session();
    let (listener, _hears) = ears();
    let handle = session.generate(request(4, ENDLESS), listener).unwrap();
    let refused = [
        session.save("never-written".into()),
        session.restore("never-read".into()),
        session.set_adapters(Vec::new()),
        session.truncate(0),
        session.fork().map(|_| ()),
        session.tokens().map(|_| ()),
    ];
    for error in refused {
        assert!(matches!(error, Err(DramError::SessionBusy(_))), "{error:?}");
    }
    handle.cancel();
    // At once: a cancelled generation is waited for.
    session.truncate(0).unwrap();
    assert!(session.tokens().unwrap().is_empty());
    // A cancel while nobody generates is not kept for the next generation.
    session.cancel();
    assert_eq!(complete(&session, request(4, 2)).tokens.len(), 2);
}
