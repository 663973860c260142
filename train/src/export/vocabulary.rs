//! The tokenizer's half of a GGUF file, from a folder or another file, and whether two models speak the same tokens.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use dram_core::{Tokenizer, gguf};
use gguf_rs::writer::MetadataValue as Value;
use serde_json::Value as Json;

use super::write::Entry;
use crate::data::tokenizer::MetadataValue as Plain;
use crate::data::{TextTokenizer, Vocabulary};
use crate::folder::read_json;

/// The tokenizer of a Hugging Face folder, with as many tokens as the embedding has `rows`: those past the tokenizer's own are unused.
///
/// # Errors
/// When the folder has no tokenizer, or one that the runtime cannot be, or one with more tokens than `rows`.
pub fn vocabulary_of_folder(folder: &Path, rows: usize) -> Result<Vocabulary> {
    let mut vocabulary = TextTokenizer::from_folder(folder)?.vocabulary().clone();
    vocabulary
        .fit(rows)
        .with_context(|| format!("{}", folder.display()))?;
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

/// The tokenizer of a GGUF file, with the special tokens and the rule for BOS and EOS that are usual for its kind where the file says nothing.
///
/// # Errors
/// When its keys are missing, of another type, or contradict each other, or the runtime does not read them.
pub fn vocabulary_of_gguf(file: &gguf::File) -> Result<Vocabulary> {
    let runtime = Tokenizer::from_gguf(file)?;
    let keys = file.metadata();
    let keys = keys
        .iter()
        .filter_map(|(key, value)| Some((key.to_owned(), plain(value)?)));
    let mut vocabulary = Vocabulary::from_metadata(keys).with_context(|| file.name().to_owned())?;
    vocabulary.bos = vocabulary.bos.or(runtime.bos());
    vocabulary.eos = vocabulary.eos.or(runtime.eos());
    vocabulary.add_bos = runtime.add_bos();
    vocabulary.add_eos = runtime.add_eos();
    Ok(vocabulary)
}

/// A value as the keys of tokenizers have it; `None` for what they do not hold, such as -1 for a token that there is not.
fn plain(value: gguf::Value<'_>) -> Option<Plain> {
    use gguf::{Kind, Value as Read};
    fn all<T>(array: gguf::Array<'_>, one: impl Fn(Read<'_>) -> Option<T>) -> Option<Vec<T>> {
        array.iter().map(one).collect()
    }
    Some(match value {
        Read::String(text) => Plain::Text(text.to_owned()),
        Read::Bool(flag) => Plain::Flag(flag),
        Read::F32(number) => Plain::Float(number),
        Read::Array(array) => match array.kind() {
            Kind::String => Plain::Texts(all(array, |v| match v {
                Read::String(text) => Some(text.to_owned()),
                _ => None,
            })?),
            Kind::F32 => Plain::Floats(all(array, |v| match v {
                Read::F32(x) => Some(x),
                _ => None,
            })?),
            Kind::Bool => Plain::Flags(all(array, |v| match v {
                Read::Bool(flag) => Some(flag),
                _ => None,
            })?),
            // Some files have the charsmap's bytes as signed.
            Kind::U8 | Kind::I8 => Plain::Bytes(all(array, |v| Some(v.as_integer()? as u8))?),
            _ => Plain::Integers(all(array, |v| i32::try_from(v.as_integer()?).ok())?),
        },
        number => Plain::Number(
            number
                .as_integer()
                .and_then(|n| u32::try_from(n).ok())
                .filter(|&n| n != u32::MAX)?,
        ),
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
            Plain::Bytes(list) => Value::Array(list.into_iter().map(Value::Uint8).collect()),
        };
        (key, value)
    });
    Ok(written.collect())
}

/// Checks that two models speak the same tokens, by their strings. Rows past a tokenizer's own tokens do not count.
///
/// # Errors
/// With the first token that differs.
pub fn same_tokens(a: &[String], b: &[String], a_name: &str, b_name: &str) -> Result<()> {
    match first_difference(a, b, a_name, b_name) {
        Some((_, words)) => bail!("{words}"),
        None => Ok(()),
    }
}

/// How many ids, from 0 on, are the same tokens in two models: all of the shorter list, or up to the first that differs where only a few
/// tokens at the end do, as added ones are.
///
/// # Errors
/// With the first token that differs, when more than a hundredth of the vocabulary (and more than 16 tokens) lie behind it: another tokenizer.
pub fn shared_tokens(a: &[String], b: &[String], a_name: &str, b_name: &str) -> Result<usize> {
    let Some((shared, words)) = first_difference(a, b, a_name, b_name) else {
        return Ok(a.len().min(b.len()));
    };
    let (own, other) = (real(a), real(b));
    let few = (own.min(other) / 100).max(16);
    ensure!(
        own.max(other) - shared <= few,
        "{words}; the two must share one vocabulary, but for at most {few} tokens at its end: give the student the teacher's tokenizer"
    );
    Ok(shared)
}

/// The first id whose token is not the same in both, and in words what is there.
fn first_difference(
    a: &[String],
    b: &[String],
    a_name: &str,
    b_name: &str,
) -> Option<(usize, String)> {
    let differs = |(x, y): (&String, &String)| x != y && !(is_padding(x) && is_padding(y));
    if let Some(id) = a.iter().zip(b).position(differs) {
        let words = format!(
            "token {id} is {:?} in {a_name} and {:?} in {b_name}",
            a[id], b[id]
        );
        return Some((id, words));
    }
    let shorter = a.len().min(b.len());
    let (longer, extra) = if a.len() > b.len() {
        (a_name, &a[shorter..])
    } else {
        (b_name, &b[shorter..])
    };
    let at = extra.iter().position(|token| !is_padding(token))?;
    let words = format!(
        "{a_name} has {} tokens and {b_name} has {}; {longer} alone knows token {}, {:?}",
        a.len(),
        b.len(),
        shorter + at,
        extra[at]
    );
    Some((shorter, words))
}

/// How many tokens there are without the padding at the end.
pub(crate) fn real(tokens: &[String]) -> usize {
    let last = tokens.iter().rposition(|token| !is_padding(token));
    last.map_or(0, |last| last + 1)
}

fn is_padding(token: &str) -> bool {
    token
        .strip_prefix("[PAD")
        .and_then(|t| t.strip_suffix(']'))
        .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
}
