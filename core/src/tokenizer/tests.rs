//! With the vocabularies of `../shared/vocabs`, which are not part of the repository: where they are absent the tests say so, and fail if
//! `DRAM_REQUIRE_SHARED` is set.

use super::Tokenizer;
use crate::gguf::File;
use std::path::Path;

fn vocabulary(name: &str) -> Option<Tokenizer> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vocabs");
    if !folder.is_dir() {
        assert!(
            std::env::var_os("DRAM_REQUIRE_SHARED").is_none(),
            "expected vocabularies in {}",
            folder.display()
        );
        println!("not run: no vocabularies in {}", folder.display());
        return None;
    }
    let file = File::open(folder.join(format!("ggml-vocab-{name}.gguf"))).unwrap();
    Some(Tokenizer::from_gguf(&file).unwrap())
}

/// Characters of every script and kind, in runs of all lengths; the same at each call.
fn mixed(bytes: usize) -> String {
    const ASCII: &[u8] = b"  etaoin'shrdlu 0123\n\r\t.,/<|>_ETA";
    let (mut text, mut state) = (String::new(), 1_u64);
    let mut below = |n: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % n
    };
    while text.len() < bytes {
        let kind = below(10);
        for _ in 0..=below(8) {
            text.extend(match kind {
                0..=5 => Some(char::from(ASCII[below(ASCII.len() as u64) as usize])),
                6 => char::from_u32(below(0x3000) as u32),
                7 => char::from_u32(0x4e00 + below(0x5000) as u32),
                8 => char::from_u32(0x1f300 + below(0x700) as u32),
                _ => char::from_u32(below(0x11_0000) as u32),
            });
        }
    }
    text.replace('\u{2581}', "") // which SentencePiece cannot tell from a space
}

#[test]
fn what_is_encoded_decodes_to_itself() {
    let text = mixed(300_000);
    for name in ["gpt-2", "llama-bpe", "qwen2", "llama-spm", "phi-3"] {
        let Some(tokenizer) = vocabulary(name) else {
            return;
        };
        let ids = tokenizer.encode(&text, false);
        assert!(tokenizer.decode(&ids) == text, "{name}");
        let mut bytes = Vec::new();
        ids.iter()
            .for_each(|&id| tokenizer.decode_bytes(id, &mut bytes));
        assert!(String::from_utf8(bytes).unwrap().ends_with(&text), "{name}");
    }
}

/// Quadratic time would take minutes.
#[test]
fn long_monotony_is_encoded_in_near_linear_time() {
    for name in ["gpt-2", "llama-bpe", "llama-spm", "bert-bge"] {
        let Some(tokenizer) = vocabulary(name) else {
            return;
        };
        for text in ["a", " ", "\n", "<", "中", "\u{1f600}"] {
            let text = text.repeat(200_000);
            let ids = tokenizer.encode(&text, true);
            assert!(name == "bert-bge" || tokenizer.decode(&ids) == text);
        }
    }
}

const BERT: &[(&str, &[u32])] = &[
    (
        "Héllo WORLD—naïve cafés, 中文！",
        &[7592, 2088, 1517, 15743, 23812, 1010, 1746, 1861, 1986],
    ),
    (
        "İstanbul ǅungla ﬁne Ⅷ x\u{b}y a\u{ad}b\u{200b}c\u{85}d",
        &[9960, 100, 1984, 2638, 100, 1060, 2100, 5925, 2094],
    ),
    (
        "한국어 نص עִבְרִית e\u{301}te\u{301}",
        &[
            1469, 30006, 30021, 29991, 30014, 30020, 29999, 30008, 1296, 29826, 1259, 29789, 29811,
            29796, 29813, 3802, 2063,
        ],
    ),
    (
        "[CLS] don't_stop $5.00\t\r\nok \u{fffd}\0z",
        &[
            1031, 18856, 2015, 1033, 2123, 1005, 1056, 1035, 2644, 1002, 1019, 1012, 4002, 7929,
            1062,
        ],
    ),
];

/// By Hugging Face's `tokenizers` 0.23.3 for Python: `BertNormalizer`, `BertPreTokenizer`, `WordPiece` with this vocabulary.
#[test]
fn bert_normalizes_as_its_reference() {
    let Some(tokenizer) = vocabulary("bert-bge") else {
        return;
    };
    for (text, ids) in BERT {
        assert_eq!(tokenizer.encode(text, false), *ids, "{text:?}");
    }
    let long = "a".repeat(101);
    assert_eq!(tokenizer.encode(&long, false), [100]);
    assert_ne!(tokenizer.encode(&long[1..], false), [100]);
    assert_eq!(tokenizer.encode("[CLS]a[SEP]", true), [101, 1037, 102]);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(101), Some(102)));
    assert!(tokenizer.add_bos() && tokenizer.add_eos());
}

/// Phi-3's tokens swallow the white space after them, all but `<s>`, `<unk>` and `<|endoftext|>`.
#[test]
fn white_space_beside_special_tokens() {
    let Some(tokenizer) = vocabulary("phi-3") else {
        return;
    };
    let ids = tokenizer.encode("<|user|> \n a<s> b", true);
    let alone = |text: &str| tokenizer.encode(text, false);
    let user = tokenizer.token_id("<|user|>").unwrap();
    let expected = [vec![user], alone("a"), vec![1], alone(" b")].concat();
    assert_eq!(ids, expected);
}
