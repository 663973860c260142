//! A tokenizer as GGUF describes it.

use anyhow::{Context, Result, anyhow, bail, ensure};

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
    /// `gpt2` (byte-level BPE), `llama` (SentencePiece BPE) or `bert` (WordPiece, which is converted only).
    pub model: String,
    /// The pre-tokeniser's name, one of those that the runtime knows (`default` for SentencePiece); `None` when the
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
    Integer(i32),
    Float(f32),
    Flag(bool),
    Texts(Vec<String>),
    Integers(Vec<i32>),
    Floats(Vec<f32>),
    Flags(Vec<bool>),
}

impl Vocabulary {
    /// The metadata keys of a GGUF file with this tokenizer.
    ///
    /// # Errors
    /// When GGUF has no name for how the tokenizer splits text.
    pub fn metadata(&self) -> Result<Vec<(&'static str, MetadataValue)>> {
        use MetadataValue::{Flag, Floats, Integers, Number, Text, Texts};
        let pre = self.pre.clone().context(
            "GGUF has no name for this tokenizer's way of splitting text: it cuts as none of the runtime's pre-tokenizers",
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
