//! A GGUF file: reader, metadata of every family, tokenizer, and a few tokens where it opens.
#![no_main]

use dram_core::gguf::File;
use dram_core::{Model, OpenOptions, Prompt, Request, SessionOptions};
use dram_fuzz::{mutate_gguf, session};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use std::ops::ControlFlow;

/// Bytes that a model may take: a header may ask for any context.
const MEMORY: u64 = 64 << 20;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = File::from_bytes("fuzz.gguf", data) else {
        return;
    };
    let options = OpenOptions {
        memory_limit: Some(MEMORY),
        ..OpenOptions::default()
    };
    let Ok(model) = Model::from_gguf(file, &options) else {
        return;
    };
    let ids = model.tokenizer().encode("Hello <|end|> 1234", true);
    let _ = model.tokenizer().decode(&ids);
    if let Some(mut session) = session(&model, 16) {
        let request = Request {
            prompt: Prompt::Text("Hi".into()),
            max_tokens: 2,
            ..Request::default()
        };
        let _ = session.generate(&request, &mut |_| ControlFlow::Continue(()));
    }
    let small = SessionOptions {
        context: Some(8),
        threads: Some(1),
        ..SessionOptions::default()
    };
    if let Ok(mut encoder) = model.encoder(small) {
        let _ = encoder.embed(&[1, 2]);
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let room = max_size.min(data.len());
    mutate_gguf(&mut data[..room], size, seed, fuzzer_mutate)
});
