//! A LoRA adapter in GGUF for a small model, and one token with it where it opens.
#![no_main]

use dram_core::gguf::File;
use dram_fuzz::{mutate_gguf, session, toy_model};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|data: &[u8]| {
    let model = toy_model();
    let Ok(file) = File::from_bytes("fuzz-lora.gguf", data) else {
        return;
    };
    let Ok(adapter) = model.adapter_from_gguf(file) else {
        return;
    };
    let Some(mut session) = session(model, 8) else {
        return;
    };
    if session.set_adapters(&[(adapter, 0.5)]).is_ok() {
        let _ = session.prefill(&[1, 2, 3]);
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let room = max_size.min(data.len());
    mutate_gguf(&mut data[..room], size, seed, fuzzer_mutate)
});
