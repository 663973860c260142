//! `dram convert` and the files beside the weights: old forms of the tokenizer, where spaces go, the model card. The folders are those of
//! `golden_convert.rs`, changed.

use dram_core::Tokenizer;
use dram_core::gguf::File;
use dram_files::convert::Convert;
use dram_tests::folder::{Case, Facts};
use serde_json::Value as Json;

/// Old folders have no tokenizer.json: the vocabulary alone gives the same tokens, and the same keys about them.
#[test]
fn older_tokenizer_files_do_as_well() {
    let facts = Facts::read();
    let convert = |case: &Case| {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("out.gguf");
        let folder = case.build(parent.path(), false);
        let made = Convert::default().run(&folder, &target, &mut |_| {});
        let made = made.unwrap_or_else(|error| panic!("{error:#}"));
        let file = File::open(&target).unwrap();
        (made, Tokenizer::from_gguf(&file).unwrap(), file)
    };
    let text = "The quick brown fox, naïve café; 東京 1234!";
    for (name, only) in [
        ("llama-linear", "tokenizer.model"),
        ("bert-mean", "vocab.txt"),
    ] {
        let whole = facts.case(name);
        let mut old = whole.clone();
        let json = old.files.remove("tokenizer.json").unwrap();
        if only == "vocab.txt" {
            let json: Json = serde_json::from_slice(&json).unwrap();
            let vocab = json["model"]["vocab"].as_object().unwrap();
            let mut words: Vec<(u64, &str)> = vocab
                .iter()
                .map(|(w, id)| (id.as_u64().unwrap(), &**w))
                .collect();
            words.sort_unstable();
            let lines: Vec<&str> = words.into_iter().map(|(_, word)| word).collect();
            old.files.insert(only.into(), lines.join("\n").into());
        }
        assert!(old.files.contains_key(only));
        let ((_, tokens, file), (made, old_tokens, old_file)) = (convert(&whole), convert(&old));
        assert!(made.verified.is_none(), "nothing to compare with");
        assert_eq!(
            tokens.encode_with_ends(text, true),
            old_tokens.encode_with_ends(text, true)
        );
        for key in [
            "model",
            "tokens",
            "scores",
            "token_type",
            "bos_token_id",
            "eos_token_id",
        ] {
            let value = |file: &File| {
                file.metadata()
                    .get(&format!("tokenizer.ggml.{key}"))
                    .map(|value| format!("{value:?}"))
            };
            assert_eq!(value(&file), value(&old_file), "{name}: {key}");
        }
    }
}

/// Hugging Face's tokenizers put no space after a special token there, which no key of llama.cpp's says.
#[test]
fn a_space_before_the_beginning_only() {
    let mut case = Facts::read().case("llama-linear");
    let mut json: Json = serde_json::from_slice(&case.files["tokenizer.json"]).unwrap();
    json["normalizer"] = Json::Null;
    for scheme in ["first", "always"] {
        json["pre_tokenizer"] = serde_json::json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": false});
        case.files
            .insert("tokenizer.json".into(), json.to_string().into());
        let parent = tempfile::tempdir().unwrap();
        let (folder, target) = (
            case.build(parent.path(), false),
            parent.path().join("out.gguf"),
        );
        // Where a text begins with a space, "always" is SentencePiece's rule but for that space.
        let convert = Convert {
            unverified: scheme == "always",
            ..Convert::default()
        };
        let made = convert.run(&folder, &target, &mut |_| {}).unwrap();
        let file = File::open(&target).unwrap();
        let key = file
            .metadata()
            .opt_str("tokenizer.dram.prepend_scheme")
            .unwrap();
        let tokenizer = Tokenizer::from_gguf(&file).unwrap();
        let after = tokenizer.encode("<s>the", true);
        let inside = tokenizer.encode("a<s>the", true);
        assert_eq!(after[1..], inside[inside.len() - (after.len() - 1)..]);
        let spaced = after[1..] == tokenizer.encode("the", true);
        assert_eq!(
            (key, spaced),
            if scheme == "first" {
                (Some("first"), false)
            } else {
                (None, true)
            }
        );
        if let Some(verified) = made.verified {
            assert!(
                verified.texts > 600 && verified.apart.is_empty(),
                "{:?}",
                verified.apart
            );
        }
    }
}

/// By llama.cpp's gguf-py (of llama-cpp-python 0.3.36), `Metadata.load` of the same folder.
#[test]
fn a_model_card_is_read() {
    const CARD: &str = "---\nlicense: other # see below\nlicense_name: 'tiny-research'\nlicense_link: https://example.org/LICENSE\nlanguage:\n- en\n- \"no\"\n\
        tags: [chat, tiny]\npipeline_tag: text-generation\nbase_model:\n  - acme/Large-7B-v1.5\n  - https://huggingface.co/acme/Other-1B-Chat\n\
        datasets:\n- acme/web-text\nwidget:\n- text: hello\n  example: deep\nmodel-index:\n- name: x\n  results: []\n---\n# Tiny\nlicense: mit\n";
    let mut case = Facts::read().case("qwen3");
    case.files.insert("README.md".into(), CARD.into());
    let parent = tempfile::tempdir().unwrap();
    let (folder, target) = (
        case.build(parent.path(), false),
        parent.path().join("out.gguf"),
    );
    Convert::default()
        .run(&folder, &target, &mut |_| {})
        .unwrap();
    let file = File::open(&target).unwrap();
    let text = |key: &str| file.metadata().opt_str(&format!("general.{key}")).unwrap();
    let list = |key: &str| {
        let all = file
            .metadata()
            .opt_strings(&format!("general.{key}"))
            .unwrap();
        all.map(|all| all.collect::<Vec<_>>())
    };
    assert_eq!(text("license"), Some("other"));
    assert_eq!(text("license.name"), Some("tiny-research"));
    assert_eq!(text("license.link"), Some("https://example.org/LICENSE"));
    assert_eq!(list("tags"), Some(vec!["chat", "tiny", "text-generation"]));
    assert_eq!(list("languages"), Some(vec!["en", "no"]));
    assert_eq!(
        file.metadata().opt_u32("general.base_model.count").unwrap(),
        Some(2)
    );
    assert_eq!(text("base_model.0.name"), Some("Large 7B v1.5"));
    assert_eq!(text("base_model.0.organization"), Some("Acme"));
    assert_eq!(text("base_model.0.version"), Some("v1.5"));
    assert_eq!(
        text("base_model.0.repo_url"),
        Some("https://huggingface.co/acme/Large-7B-v1.5")
    );
    assert_eq!(text("base_model.1.name"), Some("Other 1B Chat"));
    assert_eq!(
        text("base_model.1.repo_url"),
        Some("https://huggingface.co/acme/Other-1B-Chat")
    );
    assert_eq!(text("dataset.0.name"), Some("Web Text"));
    assert_eq!(
        text("dataset.0.repo_url"),
        Some("https://huggingface.co/acme/web-text")
    );
}
