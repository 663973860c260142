//! What tokens are for, where a file does not say: by the texts that chat formats and code models use. The texts, and what follows from
//! them, are llama.cpp's (`src/llama-vocab.cpp`).

use super::vocabulary::Vocabulary;
use super::{TokenType, special_id};
use crate::Result;
use crate::gguf::File;
use std::collections::HashMap;

/// Tokens that end an answer, whatever the file's `eos`, `eot` and `eom` are.
const ENDS: [&str; 23] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "</s>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<|eom_id|>",
    "<EOT>",
    "<|EOT|>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<end_of_utterance>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
    "[e~[",
];

/// Infill and repositories: a key, and the texts by which such a token is found without it.
const CODE: [(&str, &[&str]); 6] = [
    (
        "fim_pre",
        &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<\u{ff5c}fim\u{2581}begin\u{ff5c}>",
            "<PRE>",
            "\u{2581}<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
    ),
    (
        "fim_suf",
        &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<\u{ff5c}fim\u{2581}hole\u{ff5c}>",
            "<SUF>",
            "\u{2581}<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
    ),
    (
        "fim_mid",
        &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<\u{ff5c}fim\u{2581}end\u{ff5c}>",
            "<MID>",
            "\u{2581}<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
    ),
    (
        "fim_pad",
        &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
    ),
    (
        "fim_rep",
        &[
            "<|fim_repo|>",
            "<|repo_name|>",
            "<fim-repo>",
            "<REPO>",
            "<reponame>",
        ],
    ),
    ("fim_sep", &["<|file_sep|>"]),
];

/// Parts of an answer that a user of gpt-oss wants to see.
const SHOWN: [&str; 4] = ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// Marks of vocabularies in which another text is a word like others.
const MARKS: [&str; 1] = ["<|plamo:eos|>"];

/// The tokens that end an answer, in ascending order. Tokens that are recognised become control tokens, whatever the file calls them.
pub(super) fn recognise(file: &File, vocabulary: &mut Vocabulary) -> Result<Vec<u32>> {
    let metadata = file.metadata();
    let tokens = vocabulary.len();
    let id = |key: &str| {
        let key = format!("tokenizer.ggml.{key}_token_id");
        special_id(file, &metadata, &key, tokens)
    };
    let found = find(vocabulary);
    let named = |text: &str| found.get(text.as_bytes()).copied();
    let mut ends = Vec::from_iter([id("eot")?, id("eom")?].into_iter().flatten());
    for (key, texts) in CODE {
        let mut code = id(key)?;
        if code.is_none() {
            code = texts.iter().find_map(|text| named(text));
            code.into_iter()
                .for_each(|id| vocabulary.set_kind(id, TokenType::Control));
        }
        // A model writes these when it has done.
        if ["fim_pad", "fim_rep", "fim_sep"].contains(&key) {
            ends.extend(code);
        }
    }
    for id in ENDS.into_iter().filter_map(named) {
        vocabulary.set_kind(id, TokenType::Control);
        ends.push(id);
    }
    for id in SHOWN.into_iter().filter_map(named) {
        vocabulary.set_kind(id, TokenType::UserDefined);
    }
    let has = |text: &str| named(text).is_some();
    let calls = has("<|call|>") && has("<|return|>")
        || has("<|flush|>") && (has("<|call|>") || has("<|calls|>"));
    // There `<|end|>` ends only a part of an answer (gpt-oss, Solar); elsewhere `</s>` is a word like others (Gemma 4, PLaMo).
    let part = ("<|end|>", TokenType::UserDefined, calls);
    let word = has("<|tool_response>") || has("<|plamo:eos|>");
    for (text, kind, applies) in [part, ("</s>", TokenType::Normal, word)] {
        if let Some(id) = named(text).filter(|_| applies) {
            vocabulary.set_kind(id, kind);
            ends.retain(|&end| end != id);
        }
    }
    Ok(ends)
}

/// The texts of this file that are tokens. One walk, so that the table for all texts need not be built when a file is opened.
fn find(vocabulary: &Vocabulary) -> HashMap<&'static [u8], u32> {
    let code = CODE.iter().flat_map(|(_, texts)| texts.iter());
    let texts = ENDS.iter().chain(&SHOWN).chain(&MARKS).chain(code);
    let texts: HashMap<&[u8], &'static [u8]> = texts
        .map(|text| (text.as_bytes(), text.as_bytes()))
        .collect();
    let longest = texts.keys().map(|text| text.len()).max().unwrap_or(0);
    let mut found = HashMap::new();
    for id in 0..vocabulary.len() as u32 {
        let bytes = vocabulary.bytes(id);
        if matches!(bytes, [b'<' | b'[' | b'_' | 0xe2, ..])
            && bytes.len() <= longest
            && let Some(text) = texts.get(bytes)
        {
            found.entry(*text).or_insert(id);
        }
    }
    found
}
