//! Layers that see a window keep that and little more, and nothing of what a session promises changes: the same bits however the sequence came about.

mod common;

use common::{Numbers, Random, Shape, of_context};
use dram_core::{
    CacheFormat, Event, Model, OpenOptions, Prompt, Request, Session, SessionOptions, Speculation,
    gguf,
};
use std::ops::ControlFlow;

const CONTEXT: usize = 1400;
const WINDOW: usize = 40;

fn model(window: Option<usize>) -> Model {
    let shape = Shape {
        context: CONTEXT,
        window,
        head: 32,
        value: 32,
        ..Shape::default()
    };
    let file = gguf::File::from_bytes("random.gguf", Random::new(shape).to_gguf()).unwrap();
    Model::from_gguf(file, &OpenOptions::default()).unwrap()
}

fn session(model: &Model, cache_format: CacheFormat) -> Session {
    model
        .session(SessionOptions {
            context: Some(CONTEXT),
            threads: Some(2),
            cache_format,
        })
        .unwrap()
}

fn tokens(seed: u64, count: usize) -> Vec<u32> {
    let mut numbers = Numbers::new(seed);
    (0..count).map(|_| (numbers.next() % 256) as u32).collect()
}

const FORMATS: [CacheFormat; 2] = [CacheFormat::F16, CacheFormat::Q8_0];

#[test]
fn going_back_any_distance_gives_the_bits_of_a_fresh_sequence() {
    let model = model(Some(WINDOW));
    let (ids, next) = (tokens(1, 1300), tokens(2, 5));
    for format in FORMATS {
        let mut session = session(&model, format);
        // Within the ring, out of it, into the window of its beginning, and to the beginning.
        for position in [1299, 1290, 1100, 800, 700, 41, 3, 0] {
            session.truncate(0);
            session.prefill(&ids).unwrap();
            session.truncate(position);
            assert_eq!(session.position(), position);
            let ours = session.prefill(&next).unwrap().to_vec();
            let mut fresh = self::session(&model, format);
            let all = [&ids[..position], &next].concat();
            assert_eq!(ours, fresh.prefill(&all).unwrap(), "{format:?} {position}");
            // And on from there, token by token.
            assert_eq!(session.decode(9).unwrap(), fresh.decode(9).unwrap());
        }
    }
}

#[test]
fn conversations_that_share_a_beginning_reuse_it() {
    let model = model(Some(WINDOW));
    let system = tokens(3, 700);
    let mut session = session(&model, CacheFormat::F16);
    let mut ask = |turn: &[u32]| {
        let request = Request {
            max_tokens: 600, // the ring forgets what the system prompt left
            ..Request::new(Prompt::Tokens([&system, turn].concat()))
        };
        let go_on = &mut |_: Event<'_>| ControlFlow::Continue(());
        let reused = session.generate(&request, go_on).unwrap();
        let fresh = self::session(&model, CacheFormat::F16)
            .generate(&request, go_on)
            .unwrap();
        assert_eq!(reused.tokens, fresh.tokens);
        reused
    };
    assert_eq!(ask(&tokens(4, 40)).reused_tokens, 0);
    // Where they part was not known before; the next time it is.
    let second = ask(&tokens(5, 40)).reused_tokens;
    assert!(second < 700, "{second}");
    assert_eq!(ask(&tokens(6, 40)).reused_tokens, 700);
    assert_eq!(ask(&tokens(7, 60)).reused_tokens, 700);
}

#[test]
fn another_sequence_leaves_nothing_to_go_back_to() {
    let model = model(Some(WINDOW));
    let mut session = session(&model, CacheFormat::F16);
    // Its checkpoint is where its last part began, at 512; the next sequence, token by token, makes none.
    session.prefill(&tokens(11, 700)).unwrap();
    session.truncate(0);
    let ids = tokens(12, 1300);
    session.prefill(&ids[..200]).unwrap();
    for part in ids[200..].chunks(1) {
        session.prefill(part).unwrap();
    }
    session.truncate(520); // within reach of what lay before 512
    let ours = session.prefill(&[1, 2, 3]).unwrap().to_vec();
    let mut fresh = self::session(&model, CacheFormat::F16);
    let all = [&ids[..520], &[1, 2, 3]].concat();
    assert_eq!(ours, fresh.prefill(&all).unwrap());
}

#[test]
fn forks_and_saved_sequences_go_on_with_the_same_bits() {
    let model = model(Some(WINDOW));
    let ids = tokens(8, 1000);
    let folder = tempfile::tempdir().unwrap();
    for format in FORMATS {
        let mut session = session(&model, format);
        session.prefill(&ids).unwrap();
        let mut fork = session.fork().unwrap();
        let path = folder.path().join("sequence");
        session.save(&path).unwrap();
        let mut restored = self::session(&model, format);
        restored.restore(&path).unwrap();
        for (number, id) in tokens(9, 300).into_iter().enumerate() {
            let expected = session.decode(id).unwrap().to_vec();
            assert_eq!(fork.decode(id).unwrap(), expected, "fork, {number}");
            assert_eq!(restored.decode(id).unwrap(), expected, "restored, {number}");
        }
        restored.truncate(990);
        let again = restored.prefill(&[1, 2, 3]).unwrap().to_vec();
        session.truncate(990);
        assert_eq!(session.prefill(&[1, 2, 3]).unwrap(), again);
        // A file of the window alone is smaller than one of everything.
        let whole = self::model(None);
        let mut all = self::session(&whole, format);
        all.prefill(&ids).unwrap();
        let every = folder.path().join("every");
        all.save(&every).unwrap();
        let size = |path| std::fs::metadata(path).unwrap().len();
        assert!(5 * size(&path) < size(&every));
    }
}

#[test]
fn drafts_change_nothing_beyond_the_ring() {
    let model = model(Some(WINDOW));
    let request = Request {
        max_tokens: 500,
        ..Request::new(Prompt::Tokens(tokens(10, 600)))
    };
    let go_on = &mut |_: Event<'_>| ControlFlow::Continue(());
    let plain = session(&model, CacheFormat::F16)
        .generate(&request, go_on)
        .unwrap();
    let mut session = session(&model, CacheFormat::F16);
    session.set_speculation(&Speculation::lookup(2)).unwrap();
    assert_eq!(
        session.generate(&request, go_on).unwrap().tokens,
        plain.tokens
    );
}

#[test]
fn a_window_takes_less_memory() {
    let memory = |window| model(window).memory(of_context(CONTEXT)).kv_cache;
    let (all, some) = (memory(None), memory(Some(WINDOW)));
    // 512 of 1408 positions, and two checkpoints of 64.
    assert_eq!(some * 1408, all * (512 + 2 * 64));
}
