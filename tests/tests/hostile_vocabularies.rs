//! Vocabularies that were made to take long: each text must be encoded in time that grows as it does. What is quadratic takes minutes here.

use dram_core::Tokenizer;
use dram_core::gguf::File;
use dram_tests::gguf::{Gguf, Value};
use std::time::Instant;

const SECONDS: u64 = 20;

fn open(model: &str, tokens: Vec<String>, types: Vec<i32>) -> Result<Tokenizer, String> {
    let mut file = Gguf::default();
    let mut set = |key: &str, value| file.set(&format!("tokenizer.ggml.{key}"), value);
    set("model", Value::Str(model.into()));
    set("pre", Value::Str("gpt-2".into()));
    let scores = (0..tokens.len()).map(|id| id as f32 / tokens.len() as f32);
    set("scores", Value::F32s(scores.collect()));
    // Each token of several characters out of all its halves.
    let long = tokens
        .iter()
        .filter(|token| token.is_ascii() && token.len() > 1);
    let merges = long.map(|token| {
        format!(
            "{} {}",
            &token[..token.len() - 1],
            &token[token.len() - 1..]
        )
    });
    set("merges", Value::Strs(merges.collect()));
    set("tokens", Value::Strs(tokens));
    set("token_type", Value::I32s(types));
    let file = File::from_bytes("hostile.gguf", file.bytes()).map_err(|e| e.to_string())?;
    Tokenizer::from_gguf(&file).map_err(|e| e.to_string())
}

/// `a` once, twice, … `longest` times, and some other characters.
fn runs(longest: usize) -> Vec<String> {
    let others = ["<unk>", "<s>", "</s>", "\u{2581}", "b"].map(String::from);
    let runs = (1..=longest).map(|length| "a".repeat(length));
    others.into_iter().chain(runs).collect()
}

fn is_quick(tokenizer: &Tokenizer, what: &str) {
    let texts = [
        "a".repeat(100_000),
        "aab".repeat(30_000),
        "a".repeat(3_000) + &"b".repeat(30_000),
        "a ".repeat(40_000),
        " ".repeat(100_000),
        "<".repeat(100_000),
        "a\u{301}\u{1f600}".repeat(20_000),
    ];
    for text in texts {
        let start = Instant::now();
        let ids = tokenizer.encode(&text, true);
        let took = start.elapsed();
        let begin: String = text.chars().take(8).collect();
        println!("{what}, {begin:?}: {} ids in {took:?}", ids.len());
        assert!(took.as_secs() < SECONDS, "{what}, {begin:?}: {took:?}");
    }
}

#[test]
fn nested_tokens_of_every_kind() {
    for (model, longest) in [
        ("t5", 512),
        ("llama", 2_000),
        ("gpt2", 2_000),
        ("bert", 2_000),
    ] {
        let tokens = runs(longest);
        let mut types = vec![1; tokens.len()];
        (types[0], types[1], types[2]) = (2, 3, 3);
        is_quick(&open(model, tokens, types).unwrap(), model);
    }
}

/// Control tokens that all begin alike and nearly match everywhere.
#[test]
fn special_tokens_that_nearly_match() {
    for model in ["t5", "llama", "gpt2", "bert"] {
        let mut tokens = runs(1);
        let mut types = vec![1; tokens.len()];
        for length in 1..2_000 {
            tokens.push("a".repeat(length) + "<");
            types.push(if length % 2 == 0 { 3 } else { 4 });
        }
        is_quick(&open(model, tokens, types).unwrap(), model);
    }
}

#[test]
fn a_unigram_token_without_measure_is_refused() {
    let tokens = runs(513);
    let types = vec![1; tokens.len()];
    let message = open("t5", tokens.clone(), types).unwrap_err();
    assert!(message.contains("tokens of at most 512 bytes"), "{message}");
    // A user's own is cut out of the text before.
    let mut types = vec![1; tokens.len()];
    types[tokens.len() - 1] = 4;
    let tokenizer = open("t5", tokens, types).unwrap();
    let ids = tokenizer.encode(&"a".repeat(513), false);
    assert_eq!(ids, [517]);
}
