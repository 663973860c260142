//! What [`add_tokenizer`] writes beside a student's weights is the tokenizer of its export.

use super::*;
use crate::data::{Example, TextTokenizer, evaluation_batches};
use crate::eval::{Runtime, Scorer};
use crate::student::{Config, Decoder, Scheme};
use dram_files::convert::Convert;
use dram_files::tokenizer::{add_tokenizer, token_type};
use serde_json::{Value as Json, json};

const TEXTS: [&str; 4] = [
    "count 1 then 2 and rest.",
    "  Größe 東京\n\n\t\u{1f600} x=3.14",
    "don't <|end|> stop",
    "",
];

fn byte_level_vocabulary() -> Vocabulary {
    let words = (0..400).map(|i| format!("count {} then {} and rest. It's größe", i, i + 1));
    let template = "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}";
    let tokenizer =
        TextTokenizer::train(words, 320, &["<|end|>", "<|user|>"], Some(template)).unwrap();
    let mut vocabulary = tokenizer.vocabulary().clone();
    vocabulary.add_bos = true;
    vocabulary.bos = Some(1);
    vocabulary.pad_to(328);
    vocabulary
}

/// Tokens of one byte each, letters, and what joins them: later ones have lower scores.
fn sentence_piece_vocabulary() -> Vocabulary {
    let mut vocabulary = Vocabulary {
        model: "llama".into(),
        pre: Some("default".into()),
        bos: Some(1),
        eos: Some(2),
        unknown: Some(0),
        add_bos: true,
        ..Vocabulary::default()
    };
    let mut push = |token: &str, kind: i32, score: f32| {
        vocabulary.tokens.push(token.into());
        vocabulary.types.push(kind);
        vocabulary.scores.push(score);
    };
    push("<unk>", token_type::UNKNOWN, 0.0);
    push("<s>", token_type::CONTROL, 0.0);
    push("</s>", token_type::CONTROL, 0.0);
    (0..256).for_each(|byte| push(&format!("<0x{byte:02X}>"), token_type::BYTE, 0.0));
    let joined = [
        "th",
        "\u{2581}t",
        "he",
        "en",
        "\u{2581}th",
        "st",
        "\u{2581}then",
        "re",
        "rest",
        "an",
        "and",
        "\u{2581}and",
        "un",
        "nt",
        "ount",
        "count",
        "\u{2581}c",
    ];
    for (rank, token) in joined.iter().enumerate() {
        push(token, token_type::NORMAL, -(rank as f32));
    }
    for (rank, letter) in "\u{2581}abcdefghijklmnopqrstuvwxyz".chars().enumerate() {
        push(
            &letter.to_string(),
            token_type::NORMAL,
            -((100 + rank) as f32),
        );
    }
    vocabulary.pad_to(304);
    vocabulary
}

#[test]
fn a_converted_folder_is_the_exported_file() {
    convert_and_compare(&byte_level_vocabulary());
}

#[test]
fn so_it_is_with_sentencepiece() {
    convert_and_compare(&sentence_piece_vocabulary());
}

/// A folder made of weights and a vocabulary, converted, is the exported file: tokens, what goes around them, and logits.
fn convert_and_compare(vocabulary: &Vocabulary) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        vocabulary: vocabulary.tokens.len(),
        embedding_length: 64,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        feed_forward_length: 96,
        rope_factors: (0..8).map(|i| 1.0 + i as f32 / 3.0).collect(),
        ..Config::default()
    };
    let decoder = Decoder::random(config, 3).unwrap();
    let (folder, own, converted) = (
        dir.path().join("model"),
        dir.path().join("own.gguf"),
        dir.path().join("converted.gguf"),
    );
    decoder.save_hugging_face(&folder).unwrap();
    add_tokenizer(&folder, vocabulary, None).unwrap();
    let scheme = Scheme::by_name("f32", "f32", "f32").unwrap();
    Export {
        name: "own",
        config: decoder.config(),
        weights: decoder.parameters(),
        scheme: &scheme,
        vocabulary,
        metadata: Vec::new(),
    }
    .unverified(&own)
    .unwrap();
    let made = Convert::default()
        .run(&folder, &converted, &mut |_| {})
        .unwrap();
    assert!(
        made.verified
            .is_some_and(|v| v.texts > 100 && v.apart.is_empty())
    );

    let open = |path: &Path| Runtime::open(path, 1, None).unwrap();
    let (a, b) = (open(&own), open(&converted));
    let (left, right) = (a.model().tokenizer(), b.model().tokenizer());
    assert_eq!(left.len(), right.len());
    for text in TEXTS {
        for specials in [false, true] {
            assert_eq!(
                left.encode_with_ends(text, specials),
                right.encode_with_ends(text, specials),
                "{} {text:?}",
                vocabulary.model
            );
        }
    }
    for key in [
        "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.add_bos_token",
        "tokenizer.chat_template",
        "tokenizer.ggml.token_type",
    ] {
        // An unknown token comes back as a control token: tokenizer.json makes no difference.
        let value = |r: &Runtime| {
            let value = format!("{:?}", r.model().gguf().metadata().get(key));
            value.replace("bytes: [2, 0, 0, 0, 3,", "bytes: [3, 0, 0, 0, 3,")
        };
        assert_eq!(value(&a), value(&b), "{key}");
    }
    let example = Example::prompt_completion(&[1], &left.encode(TEXTS[0], false));
    let batch = &evaluation_batches(&[example], 1)[0];
    assert_eq!(a.logits(batch).unwrap(), b.logits(batch).unwrap());
}

/// Where the tokenizer came from a folder, that folder's files count.
#[test]
fn a_folders_own_files_are_copied_and_old_ones_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, source) = (dir.path().join("model"), dir.path().join("teacher"));
    let vocabulary = byte_level_vocabulary();
    for folder in [&folder, &source] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("config.json"), "{}").unwrap();
        add_tokenizer(folder, &vocabulary, None).unwrap();
    }
    fs::write(source.join("tokenizer_config.json"), "{\"own\": 1}").unwrap();
    fs::write(folder.join("chat_template.jinja"), "old").unwrap();
    fs::remove_file(source.join("generation_config.json")).unwrap();
    add_tokenizer(&folder, &vocabulary, Some(&source)).unwrap();
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    assert_eq!(read("tokenizer_config.json"), "{\"own\": 1}");
    assert!(!folder.join("chat_template.jinja").exists());
    let ids = json!({ "bos_token_id": 1, "eos_token_id": 0, "pad_token_id": 0 });
    for name in ["config.json", "generation_config.json"] {
        let json: Json = serde_json::from_str(&read(name)).unwrap();
        assert_eq!(json, ids, "{name}");
    }
    let opened = TextTokenizer::from_folder(&folder);
    assert_eq!(
        opened.unwrap().vocabulary().tokens,
        vocabulary.tokens[..320]
    );
}
