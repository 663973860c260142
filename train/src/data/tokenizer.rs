//! Tokenizers: trained on any text, read from a Hugging Face `tokenizer.json`, or rebuilt from GGUF metadata; and what GGUF
//! needs to know about them.

pub(crate) mod hugging_face;
pub(crate) mod pre;
mod vocabulary;

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use dram_core::tokenizer::Pretokenizer;
use serde_json::{Value, json};
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::models::{TrainerWrapper, bpe::BPE};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use self::hugging_face::describe;
pub use self::vocabulary::{MetadataValue, Vocabulary, token_type};

/// Text to ids and back.
pub struct TextTokenizer {
    inner: Tokenizer,
    vocabulary: Vocabulary,
    /// Control tokens, longest first, so that one that begins like another is not cut short.
    specials: Vec<(String, u32)>,
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
        let mut tokenizer = Tokenizer::new(BPE::default());
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

    /// The tokenizer of a Hugging Face model folder: `tokenizer.json`, and from `tokenizer_config.json` where there is one the
    /// special tokens' roles and the chat template.
    ///
    /// # Errors
    /// Names the file that is missing, malformed or of an unsupported kind.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let mut tokenizer = Self::from_file(&folder.join("tokenizer.json"))?;
        let path = folder.join("tokenizer_config.json");
        let Ok(text) = std::fs::read_to_string(&path) else {
            return Ok(tokenizer);
        };
        let config: Value =
            serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?;
        let id = |key: &str| {
            let value = &config[key];
            let name = value.as_str().or_else(|| value["content"].as_str())?;
            tokenizer.token_id(name)
        };
        let (bos, eos, padding, unknown) = (
            id("bos_token"),
            id("eos_token"),
            id("pad_token"),
            id("unk_token"),
        );
        let v = &mut tokenizer.vocabulary;
        (v.bos, v.eos, v.padding, v.unknown) = (bos, eos, padding, unknown);
        v.add_bos = config["add_bos_token"]
            .as_bool()
            .unwrap_or(v.model == "llama" && bos.is_some());
        v.chat_template = config["chat_template"]
            .as_str()
            .map(str::to_string)
            .or_else(|| std::fs::read_to_string(folder.join("chat_template.jinja")).ok());
        Ok(tokenizer)
    }

    /// A Hugging Face `tokenizer.json`.
    ///
    /// # Errors
    /// When the file cannot be read, or is not a BPE tokenizer.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{}: cannot read the tokenizer", path.display()))?;
        Self::from_json(&text).with_context(|| format!("{}", path.display()))
    }

    /// The text of a Hugging Face `tokenizer.json`.
    ///
    /// # Errors
    /// When it is malformed, or not a BPE tokenizer.
    pub fn from_json(text: &str) -> Result<Self> {
        let inner =
            Tokenizer::from_bytes(text).map_err(|e| anyhow!("not a usable tokenizer: {e}"))?;
        let vocabulary = describe(&serde_json::from_str(text)?)?;
        Ok(Self::assemble(inner, vocabulary))
    }

    /// A tokenizer from what GGUF says about it.
    ///
    /// # Errors
    /// For SentencePiece (which the runtime encodes), an unknown pre-tokeniser, or lists that contradict each other.
    pub fn from_vocabulary(vocabulary: Vocabulary) -> Result<Self> {
        ensure!(
            vocabulary.model == "gpt2",
            "tokenizer.ggml.model is {}; training data can be encoded with gpt2 (byte-level BPE) from GGUF, or with a tokenizer.json",
            vocabulary.model
        );
        let pre = vocabulary
            .pre
            .as_deref()
            .context("the pre-tokeniser (tokenizer.ggml.pre) is not named")?;
        let pre = Pretokenizer::named(pre).with_context(|| {
            format!(
                "tokenizer.ggml.pre is {pre}; known are {}",
                Pretokenizer::known().join(", ")
            )
        })?;
        ensure!(
            !pre.is_plain(),
            "tokenizer.ggml.pre is {}, whose tokens are no bytes in GPT-2's alphabet; training can encode it from a tokenizer.json",
            pre.names()[0]
        );
        let pre_tokenizer = self::pre::describe(&pre);
        let mut vocab = serde_json::Map::new();
        let mut added = Vec::new();
        for (id, (token, kind)) in vocabulary.tokens.iter().zip(&vocabulary.types).enumerate() {
            ensure!(
                vocab.insert(token.clone(), json!(id)).is_none(),
                "token {id}, {token:?}, occurs twice"
            );
            if matches!(*kind, token_type::CONTROL | token_type::USER_DEFINED) {
                added.push(json!({
                    "id": id, "content": token, "special": *kind == token_type::CONTROL,
                    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                }));
            }
        }
        let description = json!({
            "version": "1.0",
            "added_tokens": added,
            "normalizer": null,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": null,
            "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
            "model": {
                "type": "BPE", "vocab": vocab, "merges": vocabulary.merges,
                "ignore_merges": pre.takes_whole_words(),
            },
        });
        let inner = Tokenizer::from_bytes(description.to_string())
            .map_err(|e| anyhow!("not a usable tokenizer: {e}"))?;
        Ok(Self::assemble(inner, vocabulary))
    }

    fn assemble(mut inner: Tokenizer, vocabulary: Vocabulary) -> Self {
        // special tokens in text are found here, so that data cannot smuggle one in where they are not asked for
        inner.set_encode_special_tokens(true);
        let mut specials: Vec<(String, u32)> = vocabulary
            .tokens
            .iter()
            .zip(&vocabulary.types)
            .zip(0..)
            .filter(|((token, kind), _)| **kind == token_type::CONTROL && !token.is_empty())
            .map(|((token, _), id)| (token.clone(), id))
            .collect();
        specials.sort_by_key(|(token, _)| std::cmp::Reverse(token.len()));
        TextTokenizer {
            inner,
            vocabulary,
            specials,
        }
    }

    /// Ids of `text`. With `specials`, the spelling of a special token in it becomes that token; without, it is text like any other.
    /// No beginning-of-text token is added.
    ///
    /// # Errors
    /// When the tokenizer has no token for a part of the text.
    pub fn encode(&self, text: &str, specials: bool) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut rest = text;
        while specials && !rest.is_empty() {
            let found = self
                .specials
                .iter()
                .filter_map(|(s, id)| rest.find(s.as_str()).map(|at| (at, s.len(), *id)));
            let Some((at, length, id)) =
                found.min_by_key(|&(at, length, _)| (at, std::cmp::Reverse(length)))
            else {
                break;
            };
            self.plain(&rest[..at], &mut ids)?;
            ids.push(id);
            rest = &rest[at + length..];
        }
        self.plain(rest, &mut ids)?;
        Ok(ids)
    }

    fn plain(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|e| anyhow!("cannot encode {text:?}: {e}"))?;
        ids.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    /// The text of `ids`, special tokens spelled out; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// When the decoder of the tokenizer refuses the sequence.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner
            .decode(ids, false)
            .map_err(|e| anyhow!("cannot decode: {e}"))
    }

    /// How many ids there are.
    pub fn len(&self) -> usize {
        self.vocabulary.tokens.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// What GGUF needs.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    pub fn vocabulary_mut(&mut self) -> &mut Vocabulary {
        &mut self.vocabulary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::actions;

    fn texts() -> Vec<String> {
        (0..400)
            .map(|i| actions::train(0, i))
            .flat_map(|s| [s.request, s.call])
            .collect()
    }

    fn trained() -> TextTokenizer {
        TextTokenizer::train(
            texts().iter(),
            600,
            &actions::SPECIAL_TOKENS,
            Some(actions::CHAT_TEMPLATE),
        )
        .unwrap()
    }

    #[test]
    fn training_is_deterministic_and_decodes_what_it_encodes() {
        let (a, b) = (trained(), trained());
        assert_eq!(a.vocabulary(), b.vocabulary());
        assert_eq!(a.len(), 600);
        for id in 0..3 {
            assert_eq!(a.token_id(actions::SPECIAL_TOKENS[id as usize]), Some(id));
        }
        for text in [
            "set a timer for 5 minutes",
            " früh\n\n am  Morgen 東京 \u{1f600}",
            "<|end|> as text",
        ] {
            let ids = a.encode(text, false).unwrap();
            assert!(ids.iter().all(|&i| i > 2), "{ids:?}");
            assert_eq!(a.decode(&ids).unwrap(), text);
        }
        let ids = a.encode("<|request|>hi<|call|>{}<|end|>", true).unwrap();
        assert_eq!((ids[0], *ids.last().unwrap()), (1, 0));
    }

    #[test]
    fn metadata_gives_the_same_tokenizer_back() {
        let a = trained();
        let metadata = a.vocabulary().metadata().unwrap();
        let get = |key: &str| {
            metadata
                .iter()
                .find(|(k, _)| *k == key)
                .map(|(_, v)| v.clone())
        };
        let b = TextTokenizer::from_vocabulary(Vocabulary::from_metadata(get).unwrap()).unwrap();
        assert_eq!(a.vocabulary(), b.vocabulary());
        for text in texts().iter().take(100) {
            assert_eq!(a.encode(text, true).unwrap(), b.encode(text, true).unwrap());
        }
        assert!(
            Vocabulary::from_metadata(|_| None)
                .unwrap_err()
                .to_string()
                .contains("tokenizer.ggml.model")
        );
    }

    #[test]
    fn bytes_alone_are_a_vocabulary() {
        let t = TextTokenizer::train(["abc", "abc"].iter(), 257, &["<|end|>"], None).unwrap();
        assert_eq!(t.encode("abcabc", false).unwrap().len(), 6);
        assert!(TextTokenizer::train(["a"].iter(), 256, &["<|end|>"], None).is_err());
    }
}
