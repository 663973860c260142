//! Text to token ids and back, from the metadata of a GGUF file.
//!
//! `tokenizer.ggml.model` names the algorithm: BPE with merges (`"gpt2"`, `"gemma4"`), SentencePiece's scored BPE (`"llama"`), WordPiece
//! (`"bert"`), SentencePiece's unigram model (`"t5"`). A file that names another one or an unknown pre-tokenizer is refused: wrong tokens look like a bad model.

mod bpe;
mod charsmap;
mod families;
mod merge;
mod pattern;
mod pretokenize;
mod roles;
mod special;
mod spm;
mod unigram;
mod vocabulary;
mod wpm;

#[cfg(test)]
mod tests;

pub use pretokenize::Pretokenizer;

use crate::gguf::{File, Metadata};
use crate::{Error, Result};
use special::{Part, Special};
use vocabulary::Vocabulary;

/// What `tokenizer.ggml.token_type` says of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum TokenType {
    /// 0, and every number without a meaning.
    Undefined = 0,
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

impl TokenType {
    fn from_id(id: i32) -> TokenType {
        match id {
            1 => TokenType::Normal,
            2 => TokenType::Unknown,
            3 => TokenType::Control,
            4 => TokenType::UserDefined,
            5 => TokenType::Unused,
            6 => TokenType::Byte,
            _ => TokenType::Undefined,
        }
    }
}

enum Algorithm {
    Bpe(Box<bpe::Bpe>),
    Spm(Box<spm::Spm>),
    Wpm(wpm::Wpm),
    Unigram(Box<unigram::Unigram>),
}

/// A model's tokenizer. Made in milliseconds: in one pass over the file's tokens, and one over its merges.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    algorithm: Algorithm,
    special: Special,
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    /// Tokens that end an answer, sorted.
    ends: Vec<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.ggml.*`.
    ///
    /// # Errors
    /// [`Error::MissingKey`] and [`Error::BadKey`], naming the key, what was expected and what was found.
    pub fn from_gguf(file: &File) -> Result<Tokenizer> {
        let metadata = file.metadata();
        let model = metadata.str("tokenizer.ggml.model")?;
        let pretokenizer = match model {
            "gpt2" | "gemma4" => Some(bpe::Bpe::pretokenizer_of(file)?),
            "llama" | "bert" | "t5" => None,
            other => {
                return Err(bad(
                    file,
                    "tokenizer.ggml.model",
                    "`gpt2`, `gemma4`, `llama`, `bert` or `t5`".into(),
                    format!("`{other}`"),
                ));
            }
        };
        let family = pretokenizer.as_ref().map(|p| p.family);
        let mut vocabulary = Vocabulary::from_gguf(file, family.is_some_and(|f| !f.plain))?;
        let id = |key: &str| special_id(file, &metadata, key, vocabulary.len());
        let (mut bos, mut eos, mut unknown) = (
            id("tokenizer.ggml.bos_token_id")?,
            id("tokenizer.ggml.eos_token_id")?,
            id("tokenizer.ggml.unknown_token_id")?,
        );
        let (mut adds_bos, mut adds_eos) = (true, false);
        // Where a SentencePiece file names none, as in llama.cpp.
        let usual = |id| Some(id).filter(|&id: &u32| (id as usize) < vocabulary.len());
        let algorithm = if let Some(pretokenizer) = pretokenizer {
            adds_bos = pretokenizer.family.adds_bos;
            Algorithm::Bpe(Box::new(bpe::Bpe::from_gguf(
                file,
                pretokenizer,
                &vocabulary,
            )?))
        } else if model == "t5" {
            (adds_bos, adds_eos) = (false, true);
            eos = eos.or(usual(1));
            unknown = unknown.or(usual(2));
            Algorithm::Unigram(Box::new(unigram::Unigram::from_gguf(file, &vocabulary)?))
        } else if model == "llama" {
            bos = bos.or(usual(1));
            eos = eos.or(usual(2));
            unknown = unknown.or(usual(0));
            Algorithm::Spm(Box::new(spm::Spm::from_gguf(file, &vocabulary)?))
        } else {
            // BERT's text stands between [CLS] and [SEP].
            let named = |text: &str| vocabulary.find(text.as_bytes());
            bos = id("tokenizer.ggml.cls_token_id")?
                .or(bos)
                .or_else(|| named("[CLS]"));
            eos = id("tokenizer.ggml.seperator_token_id")?
                .or(eos)
                .or_else(|| named("[SEP]"));
            unknown = unknown.or_else(|| named("[UNK]"));
            adds_eos = true;
            Algorithm::Wpm(wpm::Wpm::from_gguf(file)?)
        };

        let mut ends = roles::recognise(file, &mut vocabulary)?;
        ends.extend(eos);
        ends.sort_unstable();
        ends.dedup();

        Ok(Tokenizer {
            special: Special::from_gguf(file, &vocabulary)?,
            bos,
            eos,
            unknown,
            // Early files of Gemma 4 say false by mistake.
            add_bos: family.is_some_and(|f| f.plain && f.adds_bos)
                || metadata
                    .opt_bool("tokenizer.ggml.add_bos_token")?
                    .unwrap_or(adds_bos),
            add_eos: metadata
                .opt_bool("tokenizer.ggml.add_eos_token")?
                .unwrap_or(adds_eos),
            ends,
            vocabulary,
            algorithm,
        })
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.vocabulary.len()
    }

    /// Whether there are no tokens. A file without tokens is refused, so this is false.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.vocabulary.len() == 0
    }

    /// The token that begins a sequence.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a sequence.
    #[must_use]
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether a prompt begins with [`Tokenizer::bos`]. `encode` does not add it.
    #[must_use]
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether a text to be embedded or scored ends with [`Tokenizer::eos`]. `encode` does not add it.
    #[must_use]
    pub fn add_eos(&self) -> bool {
        self.add_eos
    }

    /// Tokens that end an answer, in ascending order.
    #[cfg(feature = "constraint")]
    pub(crate) fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Whether `id` ends an answer: end of sequence, end of turn and their like.
    #[must_use]
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    /// The token whose text is exactly `text`, special tokens among them.
    #[must_use]
    pub fn token_id(&self, text: &str) -> Option<u32> {
        let special = self.special.exact(text.as_bytes(), &self.vocabulary);
        special.or_else(|| self.vocabulary.find(text.as_bytes()))
    }

    /// Token ids of a whole text, with the tokens around it that the model asks for: BOS and EOS, or an encoder's `[CLS]` and `[SEP]`.
    #[must_use]
    pub fn encode_with_ends(&self, text: &str, parse_special: bool) -> Vec<u32> {
        let mut ids = Vec::from_iter(self.bos().filter(|_| self.add_bos()));
        ids.extend(self.encode(text, parse_special));
        ids.extend(self.eos().filter(|_| self.add_eos()));
        ids
    }

    /// Token ids of `text`, without BOS and EOS. With `parse_special`, control tokens written in the text (`<|im_start|>`) become these
    /// tokens; without it they are text like any other. User-defined tokens are found either way.
    #[must_use]
    pub fn encode(&self, text: &str, parse_special: bool) -> Vec<u32> {
        self.encode_part(text, parse_special, true)
    }

    /// [`Tokenizer::encode`] for the rest of a text that was cut where no token lies across: SentencePiece puts no space before it, and after
    /// a special token inside it the space that it would have in the whole text.
    #[must_use]
    pub fn encode_rest(&self, text: &str, parse_special: bool) -> Vec<u32> {
        self.encode_at(text, parse_special, false, true)
    }

    /// [`Tokenizer::encode`] for a text that `begins` there, or goes on from another: then SentencePiece puts no space before it.
    pub(crate) fn encode_part(&self, text: &str, parse_special: bool, begins: bool) -> Vec<u32> {
        self.encode_at(text, parse_special, begins, begins)
    }

    /// [`Tokenizer::encode`] with special tokens, but for those that do not count where they stand: `counts(token, offset)`. A text that goes on
    /// behind the token `after` is encoded as it would be there.
    pub(crate) fn encode_where(
        &self,
        text: &str,
        after: Option<u32>,
        counts: &dyn Fn(u32, usize) -> bool,
    ) -> Vec<u32> {
        let parts = self
            .special
            .split_where(text, &self.vocabulary, after, counts);
        let first = after.is_none_or(|id| match &self.algorithm {
            Algorithm::Spm(spm) => spm.prefixes_after_special() && self.is_special(id),
            _ => false,
        });
        self.encode_parts(parts, text.len(), first, true)
    }

    fn is_special(&self, id: u32) -> bool {
        let known = (id as usize) < self.len();
        known && self.special_id(self.vocabulary.bytes(id)) == Some(id)
    }

    /// The special token with exactly these bytes.
    pub(crate) fn special_id(&self, bytes: &[u8]) -> Option<u32> {
        self.special.exact(bytes, &self.vocabulary)
    }

    /// Every token that is found in a text as it stands: whether it is one that users added, and its text.
    pub(crate) fn special_tokens(&self) -> impl Iterator<Item = (u32, bool, &[u8])> {
        self.special.ids().iter().map(|&id| {
            let added = self.vocabulary.kind(id) == TokenType::UserDefined;
            (id, added, self.vocabulary.bytes(id))
        })
    }

    fn encode_at(&self, text: &str, parse_special: bool, first: bool, inside: bool) -> Vec<u32> {
        let parts = self.special.split(text, parse_special, &self.vocabulary);
        self.encode_parts(parts, text.len(), first, inside)
    }

    /// Token ids of a text in parts. Whether SentencePiece's space goes before its beginning (`first`), and before what follows a special token
    /// inside it (`inside`).
    fn encode_parts(
        &self,
        parts: Vec<Part<'_>>,
        bytes: usize,
        first: bool,
        inside: bool,
    ) -> Vec<u32> {
        let mut ids = Vec::with_capacity(bytes / 3 + 4);
        let mut after_special = false;
        for part in parts {
            match part {
                Part::Token(id) => {
                    ids.push(id);
                    after_special = true;
                }
                Part::Text(text) => {
                    match &self.algorithm {
                        Algorithm::Bpe(bpe) => {
                            bpe.encode(text, &self.vocabulary, self.unknown, &mut ids)
                        }
                        Algorithm::Wpm(wpm) => {
                            wpm.encode(text, &self.vocabulary, self.unknown, &mut ids)
                        }
                        Algorithm::Unigram(unigram) => {
                            unigram.encode(text, &self.vocabulary, self.unknown, &mut ids)
                        }
                        // SentencePiece's leading space goes before the text, not before what follows a token inside it.
                        Algorithm::Spm(spm) => spm.encode(
                            text,
                            if ids.is_empty() {
                                first
                            } else {
                                inside && after_special && spm.prefixes_after_special()
                            },
                            &self.vocabulary,
                            self.unknown,
                            &mut ids,
                        ),
                    }
                    after_special = false;
                }
            }
        }
        ids
    }

    /// Appends the bytes that `id` stands for: none for control tokens and ids out of range. One token may hold half a code point.
    pub fn decode_bytes(&self, id: u32, out: &mut Vec<u8>) {
        if (id as usize) >= self.vocabulary.len() {
            return;
        }
        match self.vocabulary.kind(id) {
            TokenType::Control | TokenType::Unknown | TokenType::Unused | TokenType::Undefined => {}
            _ => self.raw_bytes(id, out),
        }
    }

    /// [`Tokenizer::decode_bytes`], with `special` those of a control token as it is written.
    pub(crate) fn shown_bytes(&self, id: u32, special: bool, out: &mut Vec<u8>) {
        match special && (id as usize) < self.vocabulary.len() {
            true => self.raw_bytes(id, out),
            false => self.decode_bytes(id, out),
        }
    }

    /// The text of `ids`, control tokens included as they are written; bytes that are no UTF-8 become U+FFFD.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for &id in ids
            .iter()
            .filter(|&&id| (id as usize) < self.vocabulary.len())
        {
            self.raw_bytes(id, &mut bytes);
        }
        let text = match &self.algorithm {
            Algorithm::Bpe(_) => &bytes,
            Algorithm::Spm(spm) if !spm.adds_space() => &bytes,
            Algorithm::Unigram(unigram) if !unigram.adds_space() => &bytes,
            _ => bytes.strip_prefix(b" ").unwrap_or(&bytes),
        };
        String::from_utf8_lossy(text).into_owned()
    }

    /// What tells this vocabulary's tokens from those of `other`, in words; `None` where all are the same.
    pub(crate) fn difference(&self, other: &Tokenizer) -> Option<String> {
        let (ours, theirs) = (self.len(), other.len());
        if ours != theirs {
            return Some(format!("{ours} tokens and {theirs}"));
        }
        let mut texts = [Vec::new(), Vec::new()];
        let id = (0..self.len() as u32).find(|&id| {
            for (tokenizer, text) in [self, other].into_iter().zip(&mut texts) {
                text.clear();
                tokenizer.raw_bytes(id, text);
            }
            texts[0] != texts[1]
        })?;
        let [ours, theirs] = texts.map(|text| {
            let text = String::from_utf8_lossy(&text);
            text.chars().take(40).collect::<String>()
        });
        Some(format!("token {id} is {ours:?} and {theirs:?}"))
    }

    /// What the file says of token `id`, which must exist.
    #[cfg(feature = "constraint")]
    pub(crate) fn kind(&self, id: u32) -> TokenType {
        self.vocabulary.kind(id)
    }

    /// Appends the bytes of token `id`, which must exist; those of a control token as they are written.
    pub(crate) fn raw_bytes(&self, id: u32, out: &mut Vec<u8>) {
        let bytes = self.vocabulary.bytes(id);
        let escaped = match &self.algorithm {
            Algorithm::Bpe(bpe) => bpe.plain(),
            Algorithm::Spm(_) | Algorithm::Wpm(_) | Algorithm::Unigram(_) => true,
        };
        match self.vocabulary.kind(id) {
            TokenType::Byte => out.extend(spm::parse_byte(bytes)),
            TokenType::Normal | TokenType::UserDefined if escaped => spm::unescape(bytes, out),
            _ => out.extend_from_slice(bytes),
        }
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("tokens", &self.len())
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}

fn bad(file: &File, key: &str, expected: String, got: String) -> Error {
    Error::BadKey {
        file: file.name().to_owned(),
        key: key.to_owned(),
        expected,
        got,
    }
}

/// A token id from the metadata. One that is no token (-1 and 2³²−1 are written where there is none) counts as absent, as in llama.cpp.
fn special_id(
    file: &File,
    metadata: &Metadata<'_>,
    key: &str,
    tokens: usize,
) -> Result<Option<u32>> {
    let Some(value) = metadata.get(key) else {
        return Ok(None);
    };
    match value.as_integer() {
        Some(id) => Ok(u32::try_from(id).ok().filter(|&id| (id as usize) < tokens)),
        None => Err(bad(
            file,
            key,
            "a whole number".into(),
            value.kind().to_string(),
        )),
    }
}
