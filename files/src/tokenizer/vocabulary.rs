//! A tokenizer as GGUF describes it.

use anyhow::{Context, Result, ensure};

use dram_core::gguf::{OwnedValue, Value};

use crate::write::Entry;

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
    /// `gpt2` (byte-level BPE), `gemma4` (BPE over plain text), `llama` (SentencePiece BPE), `t5` (SentencePiece's unigram model) or `bert`
    /// (WordPiece).
    pub model: String,
    /// The pre-tokeniser's name, one of those that the runtime knows (`default` for SentencePiece); `None` when a byte-level BPE splits in a
    /// way that GGUF has no name for: such a tokenizer encodes nothing.
    pub pre: Option<String>,
    /// [vocabulary], in the byte-unicode form of GPT-2 for `gpt2`.
    pub tokens: Vec<String>,
    /// [vocabulary], see [`token_type`].
    pub types: Vec<i32>,
    /// [vocabulary] for `llama` and `t5`, empty where merges rank.
    pub scores: Vec<f32>,
    /// "left right" in the order of their rank.
    pub merges: Vec<String>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub padding: Option<u32>,
    pub unknown: Option<u32>,
    /// Whether a text begins with `bos`.
    pub add_bos: bool,
    /// Whether a text ends with `eos`.
    pub add_eos: bool,
    pub chat_template: Option<String>,
    /// Every other key under `tokenizer.`, as it stands in the file, sorted: spaces, normalisation, other special tokens, more templates.
    pub more: Vec<Entry>,
}

/// What a key of [`Vocabulary`] holds.
fn expected(name: &str) -> &'static str {
    match name.rsplit_once('_') {
        Some((_, "id")) => "an unsigned integer",
        Some(("add_bos" | "add_eos", _)) => "a boolean",
        Some(("token", "type")) => "an array of integers",
        _ => match name.strip_prefix("ggml.").unwrap_or(name) {
            "tokens" | "merges" => "an array of strings",
            "scores" => "an array of floats",
            _ => "a string",
        },
    }
}

impl Vocabulary {
    /// The metadata keys of a GGUF file with this tokenizer.
    ///
    /// # Errors
    /// When GGUF has no name for how the tokenizer splits text.
    pub fn metadata(&self) -> Result<Vec<Entry>> {
        ensure!(
            self.pre.is_some() || self.model != "gpt2",
            "GGUF has no name for this tokenizer's way of splitting text: it cuts as none of the runtime's pre-tokenizers"
        );
        let scores = (!self.scores.is_empty()).then(|| self.scores.clone());
        let merges = (!self.merges.is_empty()).then(|| self.merges.clone());
        // Only these end a text with EOS where the file does not say.
        let says_eos = self.add_eos || matches!(&*self.model, "t5" | "bert");
        let keys: [(&str, Option<OwnedValue>); 12] = [
            ("model", Some(self.model.clone().into())),
            ("pre", self.pre.clone().map(Into::into)),
            ("tokens", Some(self.tokens.clone().into())),
            ("token_type", Some(self.types.clone().into())),
            ("scores", scores.map(Into::into)),
            ("merges", merges.map(Into::into)),
            ("bos_token_id", self.bos.map(Into::into)),
            ("eos_token_id", self.eos.map(Into::into)),
            ("padding_token_id", self.padding.map(Into::into)),
            ("unknown_token_id", self.unknown.map(Into::into)),
            ("add_bos_token", Some(self.add_bos.into())),
            ("add_eos_token", says_eos.then_some(self.add_eos.into())),
        ];
        let keys = keys
            .into_iter()
            .filter_map(|(key, value)| Some((format!("tokenizer.ggml.{key}"), value?)));
        let template = self
            .chat_template
            .clone()
            .map(|text| ("tokenizer.chat_template".to_owned(), text.into()));
        Ok(keys
            .chain(template)
            .chain(self.more.iter().cloned())
            .collect())
    }

    /// Checks that the special tokens are among its tokens.
    ///
    /// # Errors
    /// With the one that is not.
    pub fn check_ids(&self) -> Result<()> {
        let tokens = self.tokens.len();
        for (role, id) in [
            ("bos", self.bos),
            ("eos", self.eos),
            ("padding", self.padding),
            ("unknown", self.unknown),
        ] {
            ensure!(
                id.is_none_or(|id| (id as usize) < tokens),
                "the {role} token is {id:?}, but there are {tokens} tokens"
            );
        }
        Ok(())
    }

    /// Reads the same keys back; those of other parts of a file are passed over. `add_bos` and `add_eos` are false where the file does not
    /// say: [`super::vocabulary_of_gguf`] knows what is usual for the kind.
    ///
    /// # Errors
    /// Names the key that is missing or has another type than expected, or that disagrees with the others.
    pub fn from_metadata<'a>(keys: impl IntoIterator<Item = (&'a str, Value<'a>)>) -> Result<Self> {
        let mut out = Vocabulary::default();
        let (mut tokens, mut types): (Option<Vec<String>>, _) = (None, None);
        for (key, value) in keys {
            let Some(name) = key.strip_prefix("tokenizer.") else {
                continue;
            };
            let text = || value.as_str().map(str::to_owned);
            let texts = || Some(value.as_strings()?.map(str::to_owned).collect());
            let found = match name.strip_prefix("ggml.").unwrap_or(name) {
                "model" => text().map(|text| out.model = text),
                "pre" => text().map(|text| out.pre = Some(text)),
                "chat_template" => text().map(|text| out.chat_template = Some(text)),
                "tokens" => texts().map(|list| tokens = Some(list)),
                "merges" => texts().map(|list| out.merges = list),
                "token_type" => value.as_i32s().map(|list| types = Some(list)),
                "scores" => value.as_f32s().map(|list| out.scores = list),
                "bos_token_id" => value.as_u32().map(|id| out.bos = Some(id)),
                "eos_token_id" => value.as_u32().map(|id| out.eos = Some(id)),
                "padding_token_id" => value.as_u32().map(|id| out.padding = Some(id)),
                "unknown_token_id" => value.as_u32().map(|id| out.unknown = Some(id)),
                "add_bos_token" => value.as_bool().map(|adds| out.add_bos = adds),
                "add_eos_token" => value.as_bool().map(|adds| out.add_eos = adds),
                _ => {
                    out.more.push((key.to_owned(), value.into()));
                    Some(())
                }
            };
            ensure!(
                found.is_some(),
                "{key}: expected {}, got {} {value:.40}",
                expected(name),
                value.kind()
            );
        }
        ensure!(!out.model.is_empty(), "tokenizer.ggml.model is missing");
        out.more.sort_by(|(a, _), (b, _)| a.cmp(b));
        out.tokens = tokens.context("tokenizer.ggml.tokens is missing")?;
        let count = out.tokens.len();
        out.types = types.unwrap_or_else(|| vec![token_type::NORMAL; count]);
        ensure!(
            out.types.len() == count,
            "tokenizer.ggml.token_type has {} entries, tokenizer.ggml.tokens {count}",
            out.types.len()
        );
        ensure!(
            out.scores.is_empty() || out.scores.len() == count,
            "tokenizer.ggml.scores has {} entries, tokenizer.ggml.tokens {count}",
            out.scores.len()
        );
        if out.model == "gpt2" && out.pre.is_none() {
            out.pre = Some("default".into());
        }
        Ok(out)
    }

    /// Takes exactly `count` tokens: unused ones are added, or taken off the end.
    ///
    /// # Errors
    /// When there are more tokens than `count`.
    pub fn fit(&mut self, count: usize) -> Result<()> {
        let own = super::real(&self.tokens);
        ensure!(
            own <= count,
            "the tokenizer has {own} tokens, the model {count} rows of embeddings: token {count}, {:?}, is the first without a row",
            self.tokens[count.min(own - 1)]
        );
        self.tokens.truncate(count);
        self.types.truncate(count);
        self.scores.truncate(count);
        self.pad_to(count);
        Ok(())
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
