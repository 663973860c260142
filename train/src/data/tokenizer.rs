//! Tokenizers: trained on any text, read from a Hugging Face `tokenizer.json`, or rebuilt from GGUF metadata; and what GGUF
//! needs to know about them.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::models::{TrainerWrapper, bpe::BPE};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

/// Token types of GGUF's `tokenizer.ggml.token_type`.
pub mod token_type {
    pub const NORMAL: i32 = 1;
    pub const UNKNOWN: i32 = 2;
    pub const CONTROL: i32 = 3;
    pub const USER_DEFINED: i32 = 4;
    pub const UNUSED: i32 = 5;
    pub const BYTE: i32 = 6;
}

/// A tokenizer as GGUF describes it (the `tokenizer.*` keys).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Vocabulary {
    /// `gpt2` (byte-level BPE) or `llama` (SentencePiece BPE).
    pub model: String,
    /// The pre-tokeniser's name (`gpt-2`, `llama-bpe`, `qwen2`, `smollm`, `default` for SentencePiece); `None` when the
    /// tokenizer splits in a way that GGUF has no name for, which training allows and export does not.
    pub pre: Option<String>,
    /// [vocabulary], in the byte-unicode form of GPT-2 for `gpt2`.
    pub tokens: Vec<String>,
    /// [vocabulary], see [`token_type`].
    pub types: Vec<i32>,
    /// [vocabulary] for `llama`, empty for `gpt2`.
    pub scores: Vec<f32>,
    /// "left right" in the order of their rank.
    pub merges: Vec<String>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub padding: Option<u32>,
    pub unknown: Option<u32>,
    pub add_bos: bool,
    pub chat_template: Option<String>,
}

/// A value of a metadata key.
#[derive(Debug, Clone, PartialEq)]
pub enum MetadataValue {
    Text(String),
    Number(u32),
    Flag(bool),
    Texts(Vec<String>),
    Integers(Vec<i32>),
    Floats(Vec<f32>),
}

impl Vocabulary {
    /// The metadata keys of a GGUF file with this tokenizer.
    ///
    /// # Errors
    /// When GGUF has no name for how the tokenizer splits text.
    pub fn metadata(&self) -> Result<Vec<(&'static str, MetadataValue)>> {
        use MetadataValue::{Flag, Floats, Integers, Number, Text, Texts};
        let pre = self.pre.clone().context(
            "GGUF has no name for this tokenizer's way of splitting text; known are gpt-2, llama-bpe, qwen2, smollm and SentencePiece",
        )?;
        let mut out = vec![
            ("tokenizer.ggml.model", Text(self.model.clone())),
            ("tokenizer.ggml.pre", Text(pre)),
            ("tokenizer.ggml.tokens", Texts(self.tokens.clone())),
            ("tokenizer.ggml.token_type", Integers(self.types.clone())),
        ];
        if self.scores.is_empty() {
            out.push(("tokenizer.ggml.merges", Texts(self.merges.clone())));
        } else {
            out.push(("tokenizer.ggml.scores", Floats(self.scores.clone())));
        }
        for (key, id) in [
            ("tokenizer.ggml.bos_token_id", self.bos),
            ("tokenizer.ggml.eos_token_id", self.eos),
            ("tokenizer.ggml.padding_token_id", self.padding),
            ("tokenizer.ggml.unknown_token_id", self.unknown),
        ] {
            if let Some(id) = id {
                out.push((key, Number(id)));
            }
        }
        out.push(("tokenizer.ggml.add_bos_token", Flag(self.add_bos)));
        if let Some(template) = &self.chat_template {
            out.push(("tokenizer.chat_template", Text(template.clone())));
        }
        Ok(out)
    }

    /// Reads the same keys back; `get` looks one up.
    ///
    /// # Errors
    /// Names the key that is missing or has another type than expected, or that disagrees with the others.
    pub fn from_metadata(get: impl Fn(&str) -> Option<MetadataValue>) -> Result<Self> {
        let text = |key: &str| match get(key) {
            Some(MetadataValue::Text(text)) => Ok(Some(text)),
            None => Ok(None),
            Some(other) => Err(anyhow!("{key}: expected a string, got {other:?}")),
        };
        let number = |key: &str| match get(key) {
            Some(MetadataValue::Number(n)) => Ok(Some(n)),
            None => Ok(None),
            Some(other) => Err(anyhow!(
                "{key}: expected an unsigned integer, got {other:?}"
            )),
        };
        let texts = |key: &str| match get(key) {
            Some(MetadataValue::Texts(list)) => Ok(Some(list)),
            None => Ok(None),
            Some(_) => Err(anyhow!("{key}: expected an array of strings")),
        };
        let model = text("tokenizer.ggml.model")?.context("tokenizer.ggml.model is missing")?;
        let tokens = texts("tokenizer.ggml.tokens")?.context("tokenizer.ggml.tokens is missing")?;
        let types = match get("tokenizer.ggml.token_type") {
            Some(MetadataValue::Integers(types)) => types,
            None => vec![token_type::NORMAL; tokens.len()],
            Some(_) => bail!("tokenizer.ggml.token_type: expected an array of integers"),
        };
        ensure!(
            types.len() == tokens.len(),
            "tokenizer.ggml.token_type has {} entries, tokenizer.ggml.tokens {}",
            types.len(),
            tokens.len()
        );
        let scores = match get("tokenizer.ggml.scores") {
            Some(MetadataValue::Floats(scores)) if model == "llama" => scores,
            _ => Vec::new(),
        };
        Ok(Vocabulary {
            pre: text("tokenizer.ggml.pre")?,
            merges: texts("tokenizer.ggml.merges")?.unwrap_or_default(),
            bos: number("tokenizer.ggml.bos_token_id")?,
            eos: number("tokenizer.ggml.eos_token_id")?,
            padding: number("tokenizer.ggml.padding_token_id")?,
            unknown: number("tokenizer.ggml.unknown_token_id")?,
            add_bos: matches!(
                get("tokenizer.ggml.add_bos_token"),
                Some(MetadataValue::Flag(true))
            ),
            chat_template: text("tokenizer.chat_template")?,
            model,
            tokens,
            types,
            scores,
        })
    }

    /// Adds unused tokens up to `count`: models often have more rows than their tokenizer has tokens.
    pub fn pad_to(&mut self, count: usize) {
        for id in self.tokens.len()..count {
            self.tokens.push(format!("[PAD{id}]"));
            self.types.push(token_type::UNUSED);
            if !self.scores.is_empty() {
                self.scores.push(-1e4);
            }
        }
    }
}

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
        let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
        let split = |pattern: &str| {
            json!({ "type": "Sequence", "pretokenizers": [
                { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false }, bytes ] })
        };
        let gpt2 = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
        let pre_tokenizer = match pre {
            "gpt-2" => gpt2,
            "llama-bpe" => split(LLAMA_BPE),
            "qwen2" => split(QWEN2),
            "smollm" => {
                json!({ "type": "Sequence", "pretokenizers": [{ "type": "Digits", "individual_digits": true }, gpt2] })
            }
            other => {
                bail!("tokenizer.ggml.pre is {other}; known are gpt-2, llama-bpe, qwen2, smollm")
            }
        };
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
                "ignore_merges": pre == "llama-bpe",
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

const LLAMA_BPE: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Reads tokens, types and merges out of a parsed `tokenizer.json`.
fn describe(json: &Value) -> Result<Vocabulary> {
    let model = &json["model"];
    let kind = model["type"].as_str().unwrap_or("BPE");
    let vocab = model["vocab"].as_object();
    let (Some(vocab), "BPE") = (vocab, kind) else {
        bail!("the tokenizer's model is {kind}; supported is BPE");
    };
    let mut by_id: HashMap<usize, (String, i32)> = HashMap::with_capacity(vocab.len());
    let byte_fallback = model["byte_fallback"].as_bool().unwrap_or(false);
    for (token, id) in vocab {
        let id = id
            .as_u64()
            .with_context(|| format!("the id of token {token:?} is not a number"))?;
        let is_byte =
            byte_fallback && token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
        by_id.insert(
            id as usize,
            (
                token.clone(),
                if is_byte {
                    token_type::BYTE
                } else {
                    token_type::NORMAL
                },
            ),
        );
    }
    for added in json["added_tokens"].as_array().into_iter().flatten() {
        let (Some(id), Some(token)) = (added["id"].as_u64(), added["content"].as_str()) else {
            bail!("an added token lacks its id or content: {added}");
        };
        let special = added["special"].as_bool().unwrap_or(false);
        by_id.insert(
            id as usize,
            (
                token.into(),
                if special {
                    token_type::CONTROL
                } else {
                    token_type::USER_DEFINED
                },
            ),
        );
    }
    let count = by_id.keys().max().map_or(0, |m| m + 1);
    ensure!(
        count <= by_id.len() + 65_536,
        "token ids reach {count} though there are only {} tokens",
        by_id.len()
    );
    let mut out = Vocabulary {
        model: "gpt2".into(),
        ..Vocabulary::default()
    };
    for id in 0..count {
        let (token, kind) = by_id
            .remove(&id)
            .unwrap_or_else(|| (format!("[PAD{id}]"), token_type::UNUSED));
        out.tokens.push(token);
        out.types.push(kind);
    }
    for merge in model["merges"].as_array().into_iter().flatten() {
        out.merges.push(match merge {
            Value::String(pair) => pair.clone(),
            Value::Array(pair) => match (
                pair.first().and_then(Value::as_str),
                pair.get(1).and_then(Value::as_str),
            ) {
                (Some(left), Some(right)) => format!("{left} {right}"),
                _ => bail!("a merge is not a pair of strings: {merge}"),
            },
            other => bail!("a merge is not a pair of strings: {other}"),
        });
    }
    if byte_fallback {
        sentence_piece(&mut out, model);
    } else {
        out.pre = pre_tokenizer_name(&json["pre_tokenizer"]).map(str::to_string);
    }
    Ok(out)
}

/// A `llama` tokenizer that the converter wrote as merges: the score of a token is minus the rank of the merge that makes it.
fn sentence_piece(out: &mut Vocabulary, model: &Value) {
    out.model = "llama".into();
    out.pre = Some("default".into());
    let ids: HashMap<&str, usize> = out
        .tokens
        .iter()
        .enumerate()
        .map(|(i, t)| (t.as_str(), i))
        .collect();
    let mut scores = vec![-(out.merges.len() as f32); out.tokens.len()];
    for (rank, merge) in out.merges.iter().enumerate().rev() {
        if let Some(&id) = ids.get(merge.replacen(' ', "", 1).as_str()) {
            scores[id] = -(rank as f32);
        }
    }
    if let Some(&id) = model["unk_token"].as_str().and_then(|t| ids.get(t)) {
        out.types[id] = token_type::UNKNOWN;
        out.unknown = Some(id as u32);
    }
    for (score, kind) in scores.iter_mut().zip(&out.types) {
        if *kind != token_type::NORMAL {
            *score = 0.0;
        }
    }
    out.scores = scores;
    out.merges.clear();
}

/// GGUF's name for a Hugging Face pre-tokeniser.
fn pre_tokenizer_name(pre: &Value) -> Option<&'static str> {
    let parts: Vec<&Value> = match pre["type"].as_str()? {
        "Sequence" => pre["pretokenizers"].as_array()?.iter().collect(),
        _ => vec![pre],
    };
    let kinds: Vec<&str> = parts.iter().filter_map(|p| p["type"].as_str()).collect();
    match kinds.as_slice() {
        ["ByteLevel"] if pre_regex(parts[0]) => Some("gpt-2"),
        ["Digits", "ByteLevel"] if parts[0]["individual_digits"] == true && pre_regex(parts[1]) => {
            Some("smollm")
        }
        ["Split", "ByteLevel"] => match parts[0]["pattern"]["Regex"].as_str()? {
            LLAMA_BPE => Some("llama-bpe"),
            QWEN2 => Some("qwen2"),
            _ => None,
        },
        _ => None,
    }
}

fn pre_regex(byte_level: &Value) -> bool {
    byte_level["use_regex"].as_bool().unwrap_or(true) && byte_level["add_prefix_space"] != true
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
