//! Vocabularies that show where a tokenizer cuts: merges are added until each of some texts is one token, wherever words would end. A cut
//! anywhere in a text leaves more than one.

use crate::gguf::{Gguf, Value};
use crate::toy::splitmix;
use std::collections::HashMap;

/// How tokens are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// In GPT-2's byte alphabet, merges over bytes.
    Bytes,
    /// As they are, with U+2581 for a space; merges over characters, `<0x00>` to `<0xFF>` beside them.
    Plain,
}

/// Token types of `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

/// A file with such a vocabulary and nothing else. The special tokens stand at its end; it names neither BOS nor EOS.
pub fn vocabulary(texts: &[String], writing: Writing, control: &[&str], user: &[&str]) -> Gguf {
    let mut tokens: Vec<String> = Vec::new();
    let mut ids: HashMap<String, usize> = HashMap::new();
    let mut add = |token: String, tokens: &mut Vec<String>| {
        *ids.entry(token.clone()).or_insert_with(|| {
            tokens.push(token);
            tokens.len() - 1
        })
    };
    let bytes = (0..=255u8).map(|byte| match writing {
        Writing::Bytes => byte_character(byte).to_string(),
        Writing::Plain => format!("<0x{byte:02X}>"),
    });
    bytes.for_each(|byte| {
        add(byte, &mut tokens);
    });
    let mut lines: Vec<Vec<usize>> = Vec::new();
    for text in texts {
        let line = match writing {
            Writing::Bytes => text.bytes().map(usize::from).collect(),
            Writing::Plain => text
                .chars()
                .map(|c| add(if c == ' ' { '\u{2581}' } else { c }.into(), &mut tokens))
                .collect(),
        };
        lines.push(line);
    }
    let (mut merges, mut step) = (Vec::new(), 0);
    while let Some(line) = lines.iter().find(|line| line.len() > 1) {
        // Any pair of the first text that is not one token yet.
        let at = (splitmix(3, step) % (line.len() as u64 - 1)) as usize;
        step += 1;
        let (left, right) = (line[at], line[at + 1]);
        merges.push(format!("{} {}", tokens[left], tokens[right]));
        let joined = add(format!("{}{}", tokens[left], tokens[right]), &mut tokens);
        for line in &mut lines {
            let mut at = 0;
            while at + 1 < line.len() {
                if (line[at], line[at + 1]) == (left, right) {
                    line[at] = joined;
                    line.remove(at + 1);
                }
                at += 1;
            }
        }
    }
    let mut types = vec![NORMAL; tokens.len()];
    if writing == Writing::Plain {
        types[..256].fill(BYTE);
    }
    for (special, kind) in [(control, CONTROL), (user, USER_DEFINED)] {
        for token in special {
            tokens.push((*token).into());
            types.push(kind);
        }
    }
    let mut file = Gguf::default();
    file.set("general.architecture", Value::Str("llama".into()));
    file.set("tokenizer.ggml.model", Value::Str("gpt2".into()));
    // For SentencePiece, which has scores instead of merges: the first tokens first.
    let scores = (0..tokens.len()).map(|id| -(id as f32)).collect();
    file.set("tokenizer.ggml.scores", Value::F32s(scores));
    file.set("tokenizer.ggml.tokens", Value::Strs(tokens));
    file.set("tokenizer.ggml.token_type", Value::I32s(types));
    file.set("tokenizer.ggml.merges", Value::Strs(merges));
    file
}

/// GPT-2's byte alphabet: printable Latin-1 as it is, other bytes from U+0100 on.
fn byte_character(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or_default()
}
