//! The texts and expected ids that llama.cpp keeps beside its vocabularies: `ggml-vocab-NAME.gguf`, `.gguf.inp`, `.gguf.out`.

use dram_core::Tokenizer;
use dram_core::gguf::File;
use std::path::Path;

/// Texts whose ids are not the expected ones, and how many texts there are.
pub struct Compared {
    pub wrong: Vec<String>,
    pub texts: usize,
}

/// Encodes the texts beside the vocabulary at `path`. Where `comes_back`, each text is decoded from its ids too.
pub fn compare(path: &Path, comes_back: bool) -> Compared {
    let tokenizer = Tokenizer::from_gguf(&File::open(path).unwrap()).unwrap();
    let read = |extension: &str| {
        std::fs::read_to_string(path.with_extension(format!("gguf.{extension}"))).unwrap()
    };
    let (texts, expected) = (read("inp"), read("out"));
    let mut texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
    // The separator ends the last text too, but in some files.
    texts.pop_if(|last| last.is_empty());
    let expected: Vec<&str> = expected.lines().collect();
    assert_eq!(texts.len(), expected.len(), "{}", path.display());
    let mut wrong = Vec::new();
    for (text, expected) in texts.iter().zip(expected) {
        let expected = expected.split_whitespace();
        let expected: Vec<u32> = expected.map(|id| id.parse().unwrap()).collect();
        let ids = tokenizer.encode(text, false);
        if ids != expected {
            wrong.push(format!("{text:?}: {ids:?} instead of {expected:?}"));
        } else if comes_back && tokenizer.decode(&ids) != *text {
            wrong.push(format!(
                "{text:?} comes back as {:?}",
                tokenizer.decode(&ids)
            ));
        }
    }
    Compared {
        wrong,
        texts: texts.len(),
    }
}
