//! Token ids of known vocabularies, as their models' own reference tokenizers give them. The files lie in `../shared/vocabs` beside the
//! repository and are not part of it: where they are absent the test says so, and fails if `DRAM_REQUIRE_SHARED` is set.

use dram_core::Tokenizer;
use dram_core::gguf::File;
use std::path::Path;

/// Vocabularies whose every expected id must come out.
const NAMES: [&str; 6] = [
    "gpt-2",
    "llama-bpe",
    "qwen2",
    "llama-spm",
    "phi-3",
    "bert-bge",
];

#[test]
fn known_vocabularies_give_their_reference_ids() {
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
    for name in NAMES {
        let path = folder.join(format!("ggml-vocab-{name}.gguf"));
        let tokenizer = Tokenizer::from_gguf(&File::open(&path).unwrap()).unwrap();
        let read = |extension: &str| {
            std::fs::read_to_string(path.with_extension(format!("gguf.{extension}"))).unwrap()
        };
        let (texts, expected) = (read("inp"), read("out"));
        let mut texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
        assert_eq!(
            texts.pop(),
            Some(""),
            "{name}: the separator ends the last text"
        );
        let expected: Vec<&str> = expected.lines().collect();
        assert_eq!(texts.len(), expected.len(), "{name}");
        for (text, expected) in texts.iter().zip(expected) {
            let expected: Vec<u32> = expected
                .split_whitespace()
                .map(|id| id.parse().unwrap())
                .collect();
            let ids = tokenizer.encode(text, false);
            assert_eq!(ids, expected, "{name}: {text:?}");
            // BERT's normalizer loses case, accents and white space.
            assert!(
                name == "bert-bge" || tokenizer.decode(&ids) == *text,
                "{name}: round trip of {text:?}"
            );
        }
        println!("{name}: {} texts", texts.len());
    }
}

/// Training encodes with the Hugging Face crate, the runtime with its own scanner: on any text they must give the same ids.
#[test]
fn training_and_runtime_encode_alike() {
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
    let mut rng = dram_train::data::Rng::new(&[7]);
    let texts: Vec<String> = (0..3_000).map(|_| awkward(&mut rng)).collect();
    for name in ["gpt-2", "llama-bpe", "qwen2"] {
        let file = File::open(folder.join(format!("ggml-vocab-{name}.gguf"))).unwrap();
        let runtime = Tokenizer::from_gguf(&file).unwrap();
        let vocabulary = dram_train::export::vocabulary_of_gguf(&file).unwrap();
        let training = dram_train::data::TextTokenizer::from_vocabulary(vocabulary).unwrap();
        for text in &texts {
            let ids = runtime.encode(text, false);
            assert_eq!(
                ids,
                training.encode(text, false).unwrap(),
                "{name}: {text:?}"
            );
            assert_eq!(runtime.decode(&ids), *text, "{name}");
        }
        println!("{name}: {} random texts", texts.len());
    }
}

/// Letters, digits, marks, spaces of all kinds and line breaks in no sensible order.
fn awkward(rng: &mut dram_train::data::Rng) -> String {
    const PIECES: [&str; 44] = [
        "the",
        "Hello",
        "don't",
        "WE'LL",
        "'s",
        "'S",
        "'re",
        "'",
        "''",
        "\"",
        " ",
        " ",
        " ",
        "  ",
        "   ",
        "\n",
        "\n\n",
        "\r\n",
        "\t",
        "\u{a0}",
        "\u{2003}",
        "\u{3000}",
        "\u{85}",
        "1",
        "23",
        "4567",
        "Ⅷ",
        "½",
        "٣٤",
        "é",
        "e\u{301}",
        "ß",
        "東京",
        "привет",
        "नमस्ते",
        "\u{1f600}",
        "👩\u{200d}👧",
        "!",
        "?!",
        "...",
        "$",
        "_",
        "<|end|>",
        "ſ",
    ];
    (0..1 + rng.below(14)).map(|_| *rng.pick(&PIECES)).collect()
}
