//! Tokenizers: trained on any text, read from a Hugging Face folder or a GGUF file. The runtime encodes and decodes; the `tokenizers` crate trains, and
//! checks in the tests.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use dram_core::Tokenizer;
use dram_core::gguf::File;
use dram_files::tokenizer::{
    Vocabulary, describe, tokenizer_keys, tokenizer_keys_of_json, vocabulary_of_gguf,
    vocabulary_of_keys,
};
use dram_files::write::{Entry, Head};
use tokenizers::AddedToken;
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::models::{TrainerWrapper, bpe::BPE};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use crate::checkpoint::checksum;

/// Text to ids and back, by the runtime's tokenizer: a student reads in an app what it was trained on.
pub struct TextTokenizer {
    runtime: Tokenizer,
    vocabulary: Vocabulary,
    fingerprint: u64,
}

impl std::fmt::Debug for TextTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextTokenizer")
            .field("model", &self.vocabulary.model)
            .field("tokens", &self.len())
            .finish_non_exhaustive()
    }
}

impl TextTokenizer {
    /// Trains a byte-level BPE with GPT-2's way of splitting text. `size` counts the `specials` (ids 0, 1, …), the 256 bytes
    /// and the merges; with `size` = 256 + specials there are no merges and every byte is a token.
    ///
    /// The same texts give the same tokenizer. The first special token is also end of text and padding.
    ///
    /// # Errors
    /// When `size` has no room for the bytes and special tokens.
    pub fn train<I, S>(
        texts: I,
        size: usize,
        specials: &[&str],
        chat_template: Option<&str>,
    ) -> Result<Self>
    where
        I: Iterator<Item = S> + Send,
        S: AsRef<str> + Send,
    {
        ensure!(
            size >= 256 + specials.len(),
            "a byte-level vocabulary needs 256 tokens for the bytes and {} for special tokens, got a size of {size}",
            specials.len()
        );
        let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        let mut trainer: TrainerWrapper = BpeTrainer::builder()
            .vocab_size(size)
            .min_frequency(2)
            .show_progress(false)
            .special_tokens(
                specials
                    .iter()
                    .map(|s| AddedToken::from(*s, true))
                    .collect(),
            )
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build()
            .into();
        tokenizer
            .train(&mut trainer, texts)
            .map_err(|e| anyhow!("training the tokenizer: {e}"))?;
        let description = tokenizer.to_string(false).map_err(|e| anyhow!("{e}"))?;
        let mut vocabulary = describe(&serde_json::from_str(&description)?)?;
        if !specials.is_empty() {
            vocabulary.bos = Some(0);
            vocabulary.eos = Some(0);
            vocabulary.padding = Some(0);
        }
        vocabulary.chat_template = chat_template.map(str::to_string);
        Self::from_vocabulary(vocabulary)
    }

    /// The tokenizer of a Hugging Face model folder, of any kind that the converter reads: `tokenizer.json`, `tokenizer.model` or `vocab.txt`,
    /// and from `tokenizer_config.json` where there is one the special tokens' roles and the chat template.
    ///
    /// # Errors
    /// Names the file that is missing, malformed or of an unsupported kind.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        ensure!(folder.is_dir(), "{}: no such folder", folder.display());
        Self::from_keys(&tokenizer_keys(folder)?).with_context(|| format!("{}", folder.display()))
    }

    /// A Hugging Face `tokenizer.json`.
    ///
    /// # Errors
    /// When the file cannot be read, or is not a tokenizer that the runtime can be.
    pub fn from_file(path: &Path) -> Result<Self> {
        ensure!(
            path.is_file(),
            "{}: cannot read the tokenizer",
            path.display()
        );
        Self::from_keys(&tokenizer_keys(path)?).with_context(|| format!("{}", path.display()))
    }

    /// The text of a Hugging Face `tokenizer.json`.
    ///
    /// # Errors
    /// When it is malformed, or not a tokenizer that the runtime can be.
    pub fn from_json(text: &str) -> Result<Self> {
        Self::from_keys(&tokenizer_keys_of_json(text)?)
    }

    /// A GGUF file's tokenizer.
    ///
    /// # Errors
    /// As [`vocabulary_of_gguf`].
    pub fn from_gguf(path: &Path) -> Result<Self> {
        Self::from_vocabulary(vocabulary_of_gguf(&File::open(path)?)?)
    }

    /// A folder, a `tokenizer.json`, or a GGUF file.
    ///
    /// # Errors
    /// As the function for each.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            Self::from_folder(path)
        } else if path.extension().is_some_and(|e| e == "json") {
            Self::from_file(path)
        } else {
            Self::from_gguf(path)
        }
    }

    fn from_keys(keys: &[Entry]) -> Result<Self> {
        Self::from_vocabulary(vocabulary_of_keys(keys)?)
    }

    /// A tokenizer from what GGUF says about it.
    ///
    /// # Errors
    /// When GGUF has no name for how it splits text, or the runtime refuses what it says.
    pub fn from_vocabulary(vocabulary: Vocabulary) -> Result<Self> {
        let mut head = Head::default();
        for (key, value) in vocabulary.metadata()? {
            head.put(&key, value.get());
        }
        let file = head.file("the tokenizer")?;
        Ok(TextTokenizer {
            runtime: Tokenizer::from_gguf(&file)?,
            vocabulary,
            fingerprint: checksum(file.bytes()),
        })
    }

    /// Ids of `text`. With `specials`, the spelling of a special token in it becomes that token; without, it is text like any other.
    /// No beginning-of-text token is added.
    ///
    /// # Errors
    /// None today: the runtime's tokenizers have ids for any text.
    pub fn encode(&self, text: &str, specials: bool) -> Result<Vec<u32>> {
        Ok(self.runtime.encode(text, specials))
    }

    /// The text of `ids`, special tokens spelled out; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// When an id is none of the vocabulary's.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.len()) {
            bail!("cannot decode {id}: there are {} tokens", self.len());
        }
        Ok(self.runtime.decode(ids))
    }

    /// Differs where tokenizers do.
    pub fn fingerprint(&self) -> String {
        format!("{:016x}", self.fingerprint)
    }

    /// The runtime's tokenizer.
    pub fn runtime(&self) -> &Tokenizer {
        &self.runtime
    }

    /// How many ids there are.
    pub fn len(&self) -> usize {
        self.vocabulary.tokens.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token whose text is exactly `token`, special tokens among them.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.runtime.token_id(token)
    }

    /// What GGUF needs.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
}

#[cfg(test)]
mod tests;
