//! The tokenizer's half of a GGUF file.

use anyhow::{Context, Result};
use dram_core::Tokenizer;
use dram_core::gguf::File;

use super::Vocabulary;
use crate::write::{Entry, Head};

/// The tokenizer of a GGUF file, with the special tokens and the rule for BOS and EOS that are usual for its kind where the file says nothing.
///
/// # Errors
/// When its keys are missing, of another type, or contradict each other, or the runtime does not read them.
pub fn vocabulary_of_gguf(file: &File) -> Result<Vocabulary> {
    let runtime = Tokenizer::from_gguf(file)?;
    // Some files write -1 for a token that there is not.
    let is_id = |id: i128| (0..u32::MAX.into()).contains(&id);
    let keys = file.metadata().iter();
    let keys = keys.filter(|(_, value)| value.as_integer().is_none_or(is_id));
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
pub fn vocabulary_of_keys(keys: &[Entry]) -> Result<Vocabulary> {
    let mut head = Head::default();
    keys.iter()
        .for_each(|(key, value)| head.put(key, value.get()));
    vocabulary_of_gguf(&head.file("the tokenizer")?)
}
