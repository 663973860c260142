//! What a session allocates: what `Model::memory` says when it is made, and nothing per token once it is warm.

mod common;

use common::{Random, Shape};
use dram_core::sampling::{Dry, Penalties, Xtc};
use dram_core::{
    CacheFormat, Event, MemoryQuery, Model, OpenOptions, Prompt, Request, Sampling, SessionOptions,
    Speculation, gguf,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the allocations of every thread, and the bytes that are in use.
struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

fn count(bytes: usize) {
    CALLS.fetch_add(1, Ordering::Relaxed);
    BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

fn uncount(bytes: usize) {
    BYTES.fetch_sub(bytes as u64, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        uncount(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        uncount(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// One test: the counters are the process's.
#[test]
fn a_session_allocates_its_memory_once_and_nothing_per_token() {
    let random = Random::new(Shape {
        format: "q4_0",
        context: 1024,
        head: 32,
        value: 32,
        ..Shape::default()
    });
    let file = random.to_file();
    let model = Model::open(file.path()).unwrap();
    for (context, cache_format) in [
        (64, CacheFormat::F16),
        (1024, CacheFormat::F16),
        (1024, CacheFormat::Q8_0),
    ] {
        let options = SessionOptions {
            context: Some(context),
            threads: Some(2),
            cache_format,
        };
        let before = BYTES.load(Ordering::Relaxed);
        let session = model.session(options).unwrap();
        let allocated = BYTES.load(Ordering::Relaxed) - before;
        let said = model.memory(options).anonymous();
        // The pool's and the runtime's own small objects come on top.
        assert!(
            (said..said + 16 * 1024).contains(&allocated),
            "{options:?}: allocated {allocated}, said {said}"
        );
        drop(session);
    }

    let mut session = model
        .session(SessionOptions {
            context: None,
            threads: Some(2),
            ..SessionOptions::default()
        })
        .unwrap();
    // Everything on.
    let sampling = Sampling {
        temperature: 1.0,
        typical_p: 0.95,
        xtc: Xtc {
            probability: 0.5,
            threshold: 0.1,
        },
        dry: Dry {
            multiplier: 0.1,
            ..Dry::default()
        },
        penalties: Penalties {
            repetition: 1.1,
            ..Penalties::default()
        },
        logit_bias: vec![(model.tokenizer().eos().unwrap(), -5.0)],
        ..Sampling::default()
    };
    let request = Request {
        max_tokens: 200,
        sampling,
        logprobs: Some(5),
        stop: vec!["never comes".into()],
        ..Request::new(Prompt::Text("allocate".into()))
    };
    let mut run = || {
        let (mut first, mut last, mut pieces) = (0, 0, 0);
        session
            .generate(&request, &mut |event| {
                if matches!(event, Event::Piece { .. }) {
                    last = CALLS.load(Ordering::Relaxed);
                    first = if pieces == 0 { last } else { first };
                    pieces += 1;
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        assert!(pieces > 20, "{pieces} pieces");
        last - first
    };
    run();
    // The harness's own thread may allocate meanwhile; what a token allocates shows every time.
    let least = (0..4).map(|_| run()).min();
    assert_eq!(
        least,
        Some(0),
        "allocations between the first and the last piece"
    );

    let mut decode = || {
        session.reset();
        session.prefill(&[1, 2, 3]).unwrap();
        let before = CALLS.load(Ordering::Relaxed);
        for id in 0..100 {
            session.decode(id).unwrap();
        }
        CALLS.load(Ordering::Relaxed) - before
    };
    let least = (0..4).map(|_| decode()).min();
    assert_eq!(least, Some(0), "allocations of 100 decodes");

    // Nor do drafts, looked up or drawn, beyond what they are said to take. The file is so long that its own model is a cheap draft.
    let small = model.clone();
    let mut bytes = random.to_gguf();
    bytes.resize(40 * bytes.len(), 0);
    let file = gguf::File::from_bytes("large", bytes).unwrap();
    let large = Model::from_gguf(file, &OpenOptions::default()).unwrap();
    let mut drafting = large.session(session.options()).unwrap();
    for speculation in [Speculation::lookup(1), Speculation::draft(small.clone())] {
        let before = BYTES.load(Ordering::Relaxed);
        drafting.set_speculation(&speculation).unwrap();
        let allocated = BYTES.load(Ordering::Relaxed) - before;
        let own = match speculation {
            Speculation::Draft { .. } => small.memory(session.options()).anonymous(),
            _ => 0,
        };
        // Room for the logits was there: the vocabulary is small.
        assert!(
            (own..own + 32 * 1024).contains(&allocated),
            "{allocated}, {own}"
        );
        let warm = Request {
            sampling: Sampling {
                temperature: 0.1,
                ..Sampling::default()
            },
            ..request.clone()
        };
        let mut accepted = 0;
        let mut run = || {
            let (mut first, mut last, mut pieces) = (0, 0, 0);
            let completion = drafting.generate(&warm, &mut |event| {
                if matches!(event, Event::Piece { .. }) {
                    last = CALLS.load(Ordering::Relaxed);
                    first = if pieces == 0 { last } else { first };
                    pieces += 1;
                }
                ControlFlow::Continue(())
            });
            accepted += completion.unwrap().accepted_tokens;
            last - first
        };
        run();
        let least = (0..4).map(|_| run()).min();
        assert_eq!(least, Some(0), "allocations with {speculation:?}");
        assert!(accepted > 0, "{speculation:?}");
    }

    // Nor do adapters, beyond what they are said to take.
    let adapters = ["f32", "q8_0"].map(|format| {
        let bytes = common::gguf::adapter(&random, 32, format);
        let file = gguf::File::from_bytes("adapter", bytes).unwrap();
        (model.adapter_from_gguf(file).unwrap(), 0.5)
    });
    let options = session.options();
    let with = MemoryQuery {
        adapters: &adapters,
        ..options.into()
    };
    let said = model.memory(with).scratch - model.memory(options).scratch;
    let before = BYTES.load(Ordering::Relaxed);
    session.set_adapters(&adapters).unwrap();
    let allocated = BYTES.load(Ordering::Relaxed) - before;
    assert!(
        (said..said + 1024).contains(&allocated),
        "allocated {allocated} for adapters, said {said}"
    );
    let mut decode = || {
        session.reset();
        session.prefill(&[1, 2, 3]).unwrap();
        let before = CALLS.load(Ordering::Relaxed);
        for id in 0..100 {
            session.decode(id).unwrap();
        }
        CALLS.load(Ordering::Relaxed) - before
    };
    let least = (0..4).map(|_| decode()).min();
    assert_eq!(least, Some(0), "allocations of 100 decodes with adapters");

    // What other families do beside the llama family's steps allocates as little.
    for name in [
        "gemma3",
        "stablelm-2-12b",
        "phi3",
        "lfm2",
        "lfm2-moe",
        "qwen3.5",
        "granite-hybrid",
    ] {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/families");
        let model = Model::open(format!("{folder}/{name}.gguf")).unwrap();
        let options = SessionOptions {
            context: Some(128),
            threads: Some(2),
            ..SessionOptions::default()
        };
        let before = BYTES.load(Ordering::Relaxed);
        let mut session = model.session(options).unwrap();
        let allocated = BYTES.load(Ordering::Relaxed) - before;
        let said = model.memory(options).anonymous();
        assert!((said..said + 16 * 1024).contains(&allocated), "{name}");
        let mut decode = || {
            session.reset();
            session.prefill(&[1, 2, 3]).unwrap();
            let before = CALLS.load(Ordering::Relaxed);
            for id in 0..60 {
                session.decode(id).unwrap();
            }
            CALLS.load(Ordering::Relaxed) - before
        };
        let least = (0..4).map(|_| decode()).min();
        assert_eq!(least, Some(0), "allocations of 60 decodes of {name}");
    }
}
