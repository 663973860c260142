use super::*;
use crate::tasks::actions;
use dram_core::tokenizer::Pretokenizer;
use dram_files::tokenizer::{pre, token_type};
use dram_files::write::Entry;
use serde_json::json;

fn texts() -> Vec<String> {
    (0..400)
        .map(|i| actions::train(0, i))
        .flat_map(|s| [s.request, s.call])
        .collect()
}

fn trained() -> TextTokenizer {
    TextTokenizer::train(
        texts().iter(),
        600,
        &actions::SPECIAL_TOKENS,
        Some(actions::CHAT_TEMPLATE),
    )
    .unwrap()
}

#[test]
fn training_is_deterministic_and_decodes_what_it_encodes() {
    let (a, b) = (trained(), trained());
    assert_eq!(a.vocabulary(), b.vocabulary());
    assert_eq!(a.len(), 600);
    for id in 0..3 {
        assert_eq!(a.token_id(actions::SPECIAL_TOKENS[id as usize]), Some(id));
    }
    for text in [
        "set a timer for 5 minutes",
        " früh\n\n am  Morgen 東京 \u{1f600}",
        "<|end|> as text",
    ] {
        let ids = a.encode(text, false).unwrap();
        assert!(ids.iter().all(|&i| i > 2), "{ids:?}");
        assert_eq!(a.decode(&ids).unwrap(), text);
    }
    let ids = a.encode("<|request|>hi<|call|>{}<|end|>", true).unwrap();
    assert_eq!((ids[0], *ids.last().unwrap()), (1, 0));
}

fn read(keys: &[Entry]) -> Vocabulary {
    Vocabulary::from_metadata(keys.iter().map(|(key, value)| (&**key, value.get()))).unwrap()
}

#[test]
fn metadata_gives_the_same_tokenizer_back() {
    let a = trained();
    let metadata = a.vocabulary().metadata().unwrap();
    let b = TextTokenizer::from_vocabulary(read(&metadata)).unwrap();
    assert_eq!(a.vocabulary(), b.vocabulary());
    for text in texts().iter().take(100) {
        assert_eq!(a.encode(text, true).unwrap(), b.encode(text, true).unwrap());
    }
    assert!(
        Vocabulary::from_metadata([])
            .unwrap_err()
            .to_string()
            .contains("tokenizer.ggml.model")
    );
}

#[test]
fn bytes_alone_are_a_vocabulary() {
    let t = TextTokenizer::train(["abc", "abc"].iter(), 257, &["<|end|>"], None).unwrap();
    assert_eq!(t.encode("abcabc", false).unwrap().len(), 6);
    assert!(TextTokenizer::train(["a"].iter(), 256, &["<|end|>"], None).is_err());
}

/// Hugging Face's own tokenizer gives the same ids, for folders of every kind; and what a file says of the tokenizer is enough to make it again.
#[test]
fn every_kind_of_folder_encodes_as_the_tokenizers_crate() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/convert");
    for (name, kind) in [
        ("cl100k", "gpt2"),
        ("digits", "gpt2"),
        ("llama3", "gpt2"),
        ("qwen2", "gpt2"),
        ("spm", "llama"),
        ("spm-gemma", "llama"),
        ("spm-json", "llama"),
        ("wordpiece", "bert"),
    ] {
        let folder = golden.join(name);
        let ours = TextTokenizer::open(&folder).unwrap();
        assert_eq!(ours.vocabulary().model, kind, "{name}");
        let mut theirs = tokenizers::Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
        theirs.with_padding(None);
        theirs.with_truncation(None).unwrap();
        same_ids(name, &ours, &theirs);
    }
}

fn same_ids(name: &str, ours: &TextTokenizer, theirs: &tokenizers::Tokenizer) {
    let metadata = ours.vocabulary().metadata().unwrap();
    let again = read(&metadata);
    assert_eq!(ours.vocabulary(), &again, "{name}");
    let again = TextTokenizer::from_vocabulary(again).unwrap();
    assert_eq!(ours.fingerprint(), again.fingerprint(), "{name}");
    for text in pre::probes() {
        let ids = theirs.encode_fast(text.as_str(), false).unwrap();
        assert_eq!(
            ours.encode(&text, true).unwrap(),
            ids.get_ids(),
            "{name}: {text:?}"
        );
        assert_eq!(
            again.encode(&text, true).unwrap(),
            ids.get_ids(),
            "{name}: {text:?}"
        );
    }
}

/// A unigram model, as T5's folders have it.
#[test]
fn a_unigram_model_is_read() {
    let mut vocab = vec![
        json!(["<pad>", 0.0]),
        json!(["</s>", 0.0]),
        json!(["<unk>", 0.0]),
    ];
    let pieces = [
        "\u{2581}",
        "\u{2581}the",
        "the",
        "He",
        "ll",
        "o",
        "e",
        "l",
        "t",
        "h",
        "1",
        "2",
        "3",
        "don",
        "'",
        "s",
        "!",
        ".",
    ];
    for (rank, piece) in pieces.iter().enumerate() {
        vocab.push(json!([piece, -1.5 - 0.37 * rank as f64]));
    }
    let added: Vec<_> = ["<pad>", "</s>", "<unk>"]
        .iter()
        .enumerate()
        .map(|(id, text)| {
            json!({
                "id": id, "content": text, "special": true,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect();
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "WhitespaceSplit" }, { "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true } ] },
        "post_processor": { "type": "TemplateProcessing",
            "single": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "SpecialToken": { "id": "</s>", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": { "</s>": { "id": "</s>", "ids": [1], "tokens": ["</s>"] } } },
        "decoder": { "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true },
        "model": { "type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": false },
    });
    let ours = TextTokenizer::from_json(&json.to_string()).unwrap();
    let theirs = tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap();
    let v = ours.vocabulary();
    assert_eq!(
        (&*v.model, v.add_bos, v.add_eos, v.eos, v.unknown),
        ("t5", false, true, Some(1), Some(2))
    );
    let texts = [
        "the Hello don't 123!",
        "  three   the  ",
        "Hello the ? lll.",
        "ooo",
    ];
    for text in texts {
        let ids = theirs.encode_fast(text, false).unwrap();
        assert_eq!(ours.encode(text, true).unwrap(), ids.get_ids(), "{text:?}");
    }
    let again = read(&v.metadata().unwrap());
    assert_eq!(v, &again);
}

/// The `tokenizers` crate's tokenizer of a byte-level vocabulary.
fn peer(vocabulary: &Vocabulary) -> tokenizers::Tokenizer {
    let pre = Pretokenizer::named(vocabulary.pre.as_deref().unwrap()).unwrap();
    let tokens = vocabulary.tokens.iter().zip(&vocabulary.types).enumerate();
    let vocab: serde_json::Map<_, _> = tokens
        .clone()
        .map(|(id, (token, _))| (token.clone(), json!(id)))
        .collect();
    let added: Vec<_> = tokens
        .filter(|(_, (_, kind))| matches!(**kind, token_type::CONTROL | token_type::USER_DEFINED))
        .map(|(id, (token, kind))| {
            json!({
                "id": id, "content": token, "special": *kind == token_type::CONTROL,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect();
    let description = json!({
        "version": "1.0", "added_tokens": added, "normalizer": null, "pre_tokenizer": pre::describe(&pre), "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "vocab": vocab, "merges": vocabulary.merges, "ignore_merges": pre.takes_whole_words() },
    });
    tokenizers::Tokenizer::from_bytes(description.to_string()).unwrap()
}

/// The ids of tokenizers that are trained are those of the crate that trained them, special tokens read or not.
#[test]
fn trained_tokenizers_encode_as_the_tokenizers_crate() {
    for ours in [trained(), actions::tokenizer(700).unwrap()] {
        let mut theirs = peer(ours.vocabulary());
        let calls = "<|request|>set a timer<|call|>{\"a\": 1}<|end|> <|call".to_owned();
        for text in texts().into_iter().chain(pre::probes()).chain([calls]) {
            for specials in [true, false] {
                theirs.set_encode_special_tokens(!specials);
                let ids = theirs.encode_fast(text.as_str(), false).unwrap();
                assert_eq!(
                    ours.encode(&text, specials).unwrap(),
                    ids.get_ids(),
                    "{text:?}"
                );
            }
            let ids = ours.encode(&text, true).unwrap();
            assert_eq!(
                ours.decode(&ids).unwrap(),
                theirs.decode(&ids, false).unwrap()
            );
        }
    }
}

/// The same for large vocabularies out of GGUF files, where they lie beside the repository.
#[test]
fn known_vocabularies_encode_as_the_tokenizers_crate() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vocabs");
    if !folder.is_dir() {
        assert!(
            std::env::var_os("DRAM_REQUIRE_SHARED").is_none(),
            "expected vocabularies in {}",
            folder.display()
        );
        println!("not run: no vocabularies in {}", folder.display());
        return;
    }
    for name in ["gpt-2", "llama-bpe", "qwen2"] {
        let path = folder.join(format!("ggml-vocab-{name}.gguf"));
        let ours = TextTokenizer::open(&path).unwrap();
        let mut theirs = peer(ours.vocabulary());
        theirs.set_encode_special_tokens(true);
        for text in pre::probes() {
            let ids = theirs.encode_fast(text.as_str(), false).unwrap();
            assert_eq!(
                ours.encode(&text, false).unwrap(),
                ids.get_ids(),
                "{name}: {text:?}"
            );
        }
    }
    // SentencePiece and WordPiece: what a student's file says of them gives the file's own ids.
    for name in ["llama-spm", "phi-3", "bert-bge"] {
        let file = File::open(folder.join(format!("ggml-vocab-{name}.gguf"))).unwrap();
        let runtime = Tokenizer::from_gguf(&file).unwrap();
        let ours = TextTokenizer::from_vocabulary(vocabulary_of_gguf(&file).unwrap()).unwrap();
        for text in pre::probes() {
            assert_eq!(
                ours.encode(&text, false).unwrap(),
                runtime.encode(&text, false),
                "{name}: {text:?}"
            );
        }
        let v = ours.vocabulary();
        assert_eq!(
            (v.bos, v.eos, v.add_bos, v.add_eos),
            (
                runtime.bos(),
                runtime.eos(),
                runtime.add_bos(),
                runtime.add_eos()
            ),
            "{name}"
        );
    }
}
