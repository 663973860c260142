//! Records of prompts and answers, encoded with a template where they are read.
#![no_main]

use dram_fuzz::scratch;
use dram_train::data::{TextTokenizer, Turn, encode_records, read_records};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

fn tokenizer() -> &'static TextTokenizer {
    static TOKENIZER: OnceLock<TextTokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        TextTokenizer::train(["some words"].iter(), 260, &["<end>", "<user>"], None)
            .expect("a tokenizer")
    })
}

fuzz_target!(|data: &[u8]| {
    let path = scratch("records.jsonl");
    std::fs::write(&path, data).expect("the scratch folder takes a file");
    let Ok(records) = read_records(&path) else {
        return;
    };
    let render = |turns: &[Turn], _open: bool| {
        Ok(turns
            .iter()
            .map(|t| format!("<user>{}<end>", t.content))
            .collect())
    };
    let _ = encode_records(&records, tokenizer(), &render, 64);
});
