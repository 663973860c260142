//! Any text, with a tokenizer of every kind: each id is in the vocabulary, and byte-level BPE gives back the text.
#![no_main]

use dram_core::Tokenizer;
use dram_core::gguf::File;
use dram_tests::gguf::Value;
use dram_tests::merges::{Writing, vocabulary};
use dram_tests::unigram;
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

/// Tokenizers, and whether decoding gives back any text.
fn tokenizers() -> &'static [(Tokenizer, bool)] {
    static ALL: OnceLock<Vec<(Tokenizer, bool)>> = OnceLock::new();
    ALL.get_or_init(|| {
        let texts: Vec<String> = [
            "Hello world",
            " it's 1234",
            "\u{4f60}\u{597d} na\u{ef}ve",
            "\r\n\t  x",
        ]
        .map(String::from)
        .into();
        let mut all = Vec::new();
        for pre in [
            "gpt-2",
            "llama-bpe",
            "qwen2",
            "deepseek-llm",
            "gpt-4o",
            "command-r",
            "falcon",
        ] {
            let mut file = vocabulary(&texts, Writing::Bytes, &["<|end|>"], &["<think>"]);
            file.set("tokenizer.ggml.pre", Value::Str(pre.into()));
            all.push((file, true));
        }
        all.push((
            vocabulary(&texts, Writing::Plain, &["</s>"], &["<think>"]),
            false,
        ));
        all.extend(
            unigram::goldens()
                .1
                .into_iter()
                .map(|golden| (golden.file, false)),
        );
        let open = |(mut file, exact): (dram_tests::gguf::Gguf, bool)| {
            if file
                .metadata
                .iter()
                .all(|(key, _)| key != b"general.architecture")
            {
                file.set("general.architecture", Value::Str("llama".into()));
            }
            let file = File::from_bytes("vocabulary", file.bytes()).expect("a valid file");
            (
                Tokenizer::from_gguf(&file).expect("a valid tokenizer"),
                exact,
            )
        };
        all.into_iter().map(open).collect()
    })
}

fuzz_target!(|data: &[u8]| {
    let [which, special, text @ ..] = data else {
        return;
    };
    let all = tokenizers();
    let (tokenizer, exact) = &all[usize::from(*which) % all.len()];
    let text = String::from_utf8_lossy(text);
    let ids = tokenizer.encode(&text, special % 2 == 1);
    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.len()));
    if *exact && special % 2 == 0 {
        assert_eq!(tokenizer.decode(&ids), text);
    }
});
