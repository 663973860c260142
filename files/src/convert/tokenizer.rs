//! The tokenizer of a Hugging Face folder as GGUF's keys.
//!
//! Five kinds: Gemma 4's BPE and byte-level BPE from `tokenizer.json`; SentencePiece's BPE from `tokenizer.model`, or from a `tokenizer.json` that says the same with
//! merges; SentencePiece's unigram model from either; WordPiece from `tokenizer.json` or `vocab.txt`.

mod added;
mod byte_level;
mod gemma4;
mod sentencepiece;
mod spaces;
mod special;
mod unigram;
mod word_piece;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use dram_core::gguf::OwnedValue;
use dram_core::model::folder::{Entries, Family, Fields};
use serde_json::Value as Json;

use super::read_config;
use crate::folder::read_json;
use crate::write::Entry;

/// The folder's files about the tokenizer.
struct Files<'a> {
    folder: &'a Path,
    /// `tokenizer.json`
    json: Option<Json>,
    /// `tokenizer_config.json`; null where there is none.
    config: Json,
}

/// More than any vocabulary has, where no model says how many rows there are.
const MAX: usize = 1 << 20;

/// The keys `tokenizer.*` of a folder's tokenizer, or of one `tokenizer.json`, without a model. A folder's `config.json` is asked for the family
/// where the converter knows it.
///
/// # Errors
/// As [`tokenizer`].
pub fn tokenizer_keys(path: &Path) -> Result<Vec<Entry>> {
    let folder = if path.is_dir() {
        path
    } else {
        path.parent().unwrap_or(Path::new(""))
    };
    let files = if path.is_dir() {
        Files::of_folder(path)?
    } else {
        Files::of_json(folder, read_json(path)?)
    };
    let known = path.is_dir().then(|| read_config(folder).ok()).flatten();
    let (fields, family) = match known {
        Some(known) => known,
        None => {
            let config = path.join("config.json");
            let json = if config.is_file() {
                read_json(&config)?
            } else {
                Json::Null
            };
            (Fields::plain(json), Family::llama())
        }
    };
    let mut keys = Entries::new(family.name);
    files.set(&fields, family, None, None, &mut keys)?;
    let own = keys.into_entries().into_iter();
    Ok(own
        .filter(|(key, _)| key.starts_with("tokenizer."))
        .collect())
}

/// [`tokenizer_keys`] of the text of a `tokenizer.json`.
///
/// # Errors
/// As [`tokenizer`].
pub fn tokenizer_keys_of_json(text: &str) -> Result<Vec<Entry>> {
    let json = serde_json::from_str(text).context("not a usable tokenizer")?;
    let family = Family::llama();
    let mut keys = Entries::new(family.name);
    let files = Files::of_json(Path::new("."), json);
    files.set(&Fields::plain(Json::Null), family, None, None, &mut keys)?;
    let own = keys.into_entries().into_iter();
    Ok(own
        .filter(|(key, _)| key.starts_with("tokenizer."))
        .collect())
}

/// Sets the keys `tokenizer.*` for a model with `rows` rows of embeddings. `pre`: the pre-tokenizer's name, where the user gives one. Returns the
/// kind of tokenizer for the report.
///
/// # Errors
/// When files are missing, malformed or of another kind, there are more tokens than rows, or the pre-tokenizer is unknown.
pub(super) fn tokenizer(
    folder: &Path,
    fields: &Fields,
    family: Family,
    rows: usize,
    pre: Option<&str>,
    keys: &mut Entries,
) -> Result<String> {
    Files::of_folder(folder)?.set(fields, family, Some(rows), pre, keys)
}

impl<'a> Files<'a> {
    fn of_folder(folder: &'a Path) -> Result<Self> {
        let optional = |name: &str| {
            let path = folder.join(name);
            if path.is_file() {
                read_json(&path).map(Some)
            } else {
                Ok(None)
            }
        };
        Ok(Files {
            folder,
            json: optional("tokenizer.json")?,
            config: optional("tokenizer_config.json")?.unwrap_or_default(),
        })
    }

    fn of_json(folder: &'a Path, json: Json) -> Self {
        Files {
            folder,
            json: Some(json),
            config: Json::Null,
        }
    }

    /// Sets the keys; `model_rows`: of the model's embeddings, where there is a model.
    fn set(
        &self,
        fields: &Fields,
        family: Family,
        model_rows: Option<usize>,
        pre: Option<&str>,
        keys: &mut Entries,
    ) -> Result<String> {
        let rows = model_rows.unwrap_or(MAX);
        let folder = self.folder;
        let has = |name: &str| folder.join(name).is_file();
        let kind = self.json.as_ref().map(|json| &json["model"]["type"]);
        let is = |name: &str| kind.is_some_and(|kind| kind == name);
        let (mut vocabulary, kind) = if family.name == "bert" || is("WordPiece") {
            (word_piece::read(self, rows)?, "WordPiece".to_owned())
        } else if has("tokenizer.model") && !self.is_byte_level() {
            let vocabulary = sentencepiece::read(&folder.join("tokenizer.model"), rows, keys)?;
            let kind = if vocabulary.model == "t5" {
                "SentencePiece's unigram model"
            } else {
                "SentencePiece"
            };
            (
                self.sentence_piece(vocabulary, rows)?,
                format!("{kind}, from tokenizer.model"),
            )
        } else if is("Unigram")
            && let Some(json) = &self.json
        {
            let vocabulary = unigram::read(json, rows, keys)
                .with_context(|| format!("{}/tokenizer.json", folder.display()))?;
            (
                self.sentence_piece(vocabulary, rows)?,
                "SentencePiece's unigram model, from tokenizer.json".into(),
            )
        } else if let Some(json) = &self.json {
            let model = &json["model"]["type"];
            ensure!(
                *model == "BPE" || model.is_null(),
                "{}/tokenizer.json: its model is {model}; the runtime reads BPE, Unigram and WordPiece",
                folder.display()
            );
            if family.pre == "gemma4" {
                self.gemma4(json, rows, keys)?
            } else {
                self.bpe(json, rows, pre, family)?
            }
        } else {
            let note = if has("tekken.json") {
                " (tekken.json is not read)"
            } else if has("vocab.json") && has("merges.txt") {
                " (vocab.json and merges.txt do not say how text is cut: transformers' AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes it)"
            } else {
                ""
            };
            bail!(
                "{}: expected tokenizer.json or tokenizer.model{note}; --tokenizer names a folder or GGUF file that has one",
                folder.display(),
            );
        };
        if let Some(rows) = model_rows {
            vocabulary.pad_to(rows);
        }
        if vocabulary.model == "bert" {
            word_piece::phantom_spaces(&mut vocabulary);
        }
        self.space_prefix(family, &vocabulary, keys);
        special::set(self, fields, &vocabulary, keys)?;
        // As its trainers meant it: the post-processor of these models says otherwise.
        if vocabulary.tokens.len() == 49_152
            && matches!(family.name, "llama" | "smollm3" | "granite")
        {
            keys.set("tokenizer.ggml.add_bos_token", false);
        }
        let mut set =
            |key: &str, value: OwnedValue| keys.set(&format!("tokenizer.ggml.{key}"), value);
        // Gemma 4's kind has one way of cutting, and always BOS.
        if vocabulary.model == "gemma4" {
            set("add_bos_token", true.into());
        } else {
            set("pre", vocabulary.pre.unwrap_or_default().into());
        }
        set("model", vocabulary.model.into());
        set("tokens", vocabulary.tokens.into());
        set("token_type", vocabulary.types.into());
        if !vocabulary.scores.is_empty() {
            set("scores", vocabulary.scores.into());
        }
        if !vocabulary.merges.is_empty() {
            set("merges", vocabulary.merges.into());
        }
        Ok(kind)
    }
}

fn check_count(tokens: usize, rows: usize) -> Result<()> {
    ensure!(
        tokens <= rows,
        "{tokens} tokens, but the model has {rows} rows of embeddings: they do not belong together"
    );
    Ok(())
}
