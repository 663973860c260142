//! The tokenizer's half of a GGUF file, from a folder or another file, and whether two models speak the same tokens.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use dram_core::gguf;
use gguf_rs::writer::MetadataValue as Value;
use serde_json::Value as Json;

use super::write::Entry;
use crate::data::tokenizer::MetadataValue as Plain;
use crate::data::{TextTokenizer, Vocabulary};
use crate::folder::read_json;

/// The tokenizer of a Hugging Face folder, with as many tokens as the embedding has `rows`: those past the tokenizer's own are unused.
///
/// # Errors
/// When `tokenizer.json` is missing or of another kind than BPE, or has more tokens than `rows`.
pub fn vocabulary_of_folder(folder: &Path, rows: usize) -> Result<Vocabulary> {
    let mut vocabulary = TextTokenizer::from_folder(folder)?.vocabulary().clone();
    ensure!(
        vocabulary.tokens.len() <= rows,
        "{}: the tokenizer has {} tokens, the model's embedding {rows} rows: they do not belong together",
        folder.display(),
        vocabulary.tokens.len()
    );
    vocabulary.pad_to(rows);
    if vocabulary.eos.is_none() {
        let config = folder.join("config.json");
        let id = if config.is_file() {
            read_json(&config)?["eos_token_id"].clone()
        } else {
            Json::Null
        };
        let id = id
            .as_u64()
            .or_else(|| id[0].as_u64())
            .and_then(|id| u32::try_from(id).ok());
        vocabulary.eos = id.filter(|&id| (id as usize) < rows);
    }
    Ok(vocabulary)
}

/// The tokenizer of a GGUF file.
///
/// # Errors
/// When its keys are missing, of another type, or contradict each other.
pub fn vocabulary_of_gguf(file: &gguf::File) -> Result<Vocabulary> {
    let metadata = file.metadata();
    Vocabulary::from_metadata(|key| metadata.get(key).and_then(plain))
        .with_context(|| file.name().to_owned())
}

fn plain(value: gguf::Value<'_>) -> Option<Plain> {
    use gguf::{Kind, Value as Read};
    Some(match value {
        Read::String(text) => Plain::Text(text.to_owned()),
        Read::Bool(flag) => Plain::Flag(flag),
        Read::Array(array) if array.kind() == Kind::String => Plain::Texts(
            array
                .iter()
                .filter_map(|v| {
                    if let Read::String(text) = v {
                        Some(text.to_owned())
                    } else {
                        None
                    }
                })
                .collect(),
        ),
        Read::Array(array) if array.kind() == Kind::F32 => Plain::Floats(
            array
                .iter()
                .filter_map(|v| if let Read::F32(x) = v { Some(x) } else { None })
                .collect(),
        ),
        Read::Array(array) => Plain::Integers(
            array
                .iter()
                .map(|v| v.as_integer().and_then(|n| i32::try_from(n).ok()))
                .collect::<Option<_>>()?,
        ),
        number => Plain::Number(number.as_integer().and_then(|n| u32::try_from(n).ok())?),
    })
}

/// The metadata of a file with this tokenizer.
///
/// # Errors
/// When GGUF has no name for how the tokenizer splits text, or a special token's id is none of its tokens.
pub(super) fn entries(vocabulary: &Vocabulary) -> Result<Vec<Entry>> {
    let tokens = vocabulary.tokens.len();
    for (role, id) in [
        ("bos", vocabulary.bos),
        ("eos", vocabulary.eos),
        ("padding", vocabulary.padding),
        ("unknown", vocabulary.unknown),
    ] {
        ensure!(
            id.is_none_or(|id| (id as usize) < tokens),
            "the {role} token is {id:?}, but there are {tokens} tokens"
        );
    }
    let written = vocabulary.metadata()?.into_iter().map(|(key, value)| {
        let value = match value {
            Plain::Text(text) => Value::String(text),
            Plain::Number(number) => Value::Uint32(number),
            Plain::Integer(number) => Value::Int32(number),
            Plain::Float(number) => Value::Float32(number),
            Plain::Flag(flag) => Value::Bool(flag),
            Plain::Texts(list) => Value::Array(list.into_iter().map(Value::String).collect()),
            Plain::Integers(list) => Value::Array(list.into_iter().map(Value::Int32).collect()),
            Plain::Floats(list) => Value::Array(list.into_iter().map(Value::Float32).collect()),
            Plain::Flags(list) => Value::Array(list.into_iter().map(Value::Bool).collect()),
        };
        (key.to_owned(), value)
    });
    Ok(written.collect())
}

/// Checks that two models speak the same tokens, by their strings. Rows past a tokenizer's own tokens do not count.
///
/// # Errors
/// With the first token that differs.
pub fn same_tokens(a: &[String], b: &[String], a_name: &str, b_name: &str) -> Result<()> {
    const ADVICE: &str =
        "teacher and student must share one vocabulary: give the student the teacher's tokenizer";
    for (id, (x, y)) in a.iter().zip(b).enumerate() {
        if x != y && !(is_padding(x) && is_padding(y)) {
            bail!("token {id} is {x:?} in {a_name} and {y:?} in {b_name}; {ADVICE}");
        }
    }
    let (longer, extra) = if a.len() > b.len() {
        (a_name, &a[b.len()..])
    } else {
        (b_name, &b[a.len()..])
    };
    if let Some(token) = extra.iter().find(|t| !is_padding(t)) {
        bail!(
            "{a_name} has {} tokens and {b_name} has {}; {longer} alone knows {token:?}; {ADVICE}",
            a.len(),
            b.len()
        );
    }
    Ok(())
}

fn is_padding(token: &str) -> bool {
    token
        .strip_prefix("[PAD")
        .and_then(|t| t.strip_suffix(']'))
        .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
}
