//! The tokenizer's half of a GGUF file.

use anyhow::{Context, Result};
use dram_core::{Tokenizer, gguf};

use super::Vocabulary;
use crate::write::{Head, Value};

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

/// [`vocabulary_of_gguf`] of a file with these keys.
///
/// # Errors
/// As there.
pub fn vocabulary_of_keys(keys: &[(String, Value)]) -> Result<Vocabulary> {
    let mut head = Head::default();
    keys.iter().for_each(|(key, value)| head.put(key, value));
    vocabulary_of_gguf(&head.file("the tokenizer")?)
}

/// A value as the keys of tokenizers have it; `None` for what they do not hold, such as -1 for a token that there is not.
fn plain(value: gguf::Value<'_>) -> Option<Value> {
    use gguf::{Kind, Value as Read};
    fn all<T>(array: gguf::Array<'_>, one: impl Fn(Read<'_>) -> Option<T>) -> Option<Vec<T>> {
        array.iter().map(one).collect()
    }
    Some(match value {
        Read::String(text) => Value::Text(text.to_owned()),
        Read::Bool(flag) => Value::Flag(flag),
        Read::F32(number) => Value::Float(number),
        Read::Array(array) => match array.kind() {
            Kind::String => Value::Texts(all(array, |v| match v {
                Read::String(text) => Some(text.to_owned()),
                _ => None,
            })?),
            Kind::F32 => Value::Floats(all(array, |v| match v {
                Read::F32(x) => Some(x),
                _ => None,
            })?),
            Kind::Bool => Value::Flags(all(array, |v| match v {
                Read::Bool(flag) => Some(flag),
                _ => None,
            })?),
            // Some files have the charsmap's bytes as signed.
            Kind::U8 | Kind::I8 => Value::Bytes(all(array, |v| Some(v.as_integer()? as u8))?),
            _ => Value::Integers(all(array, |v| i32::try_from(v.as_integer()?).ok())?),
        },
        number => Value::Number(
            number
                .as_integer()
                .and_then(|n| u32::try_from(n).ok())
                .filter(|&n| n != u32::MAX)?,
        ),
    })
}
