//! JSON Lines or Parquet: records, encoded where they are read.
#![no_main]

use dram_fuzz::scratch;
use dram_train::data::{Conversation, TextTokenizer, encode_records, read_records};
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
    let render = |chat: &Conversation, messages: usize, _open: bool| {
        let turns = chat.messages[..messages].iter();
        Ok(turns.map(|m| format!("<user>{}<end>", m.content)).collect())
    };
    let _ = encode_records(&records, tokenizer(), &render);
});
