//! The tokenizer of a Hugging Face folder as GGUF's keys.
//!
//! Four kinds: byte-level BPE from `tokenizer.json`; SentencePiece's BPE from `tokenizer.model`, or from a `tokenizer.json` that says the same with
//! merges; SentencePiece's unigram model from either; WordPiece from `tokenizer.json` or `vocab.txt`.

mod sentencepiece;
mod special;
mod unigram;

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use dram_core::tokenizer::Pretokenizer;
use serde_json::Value as Json;

use super::config::Fields;
use super::families::Family;
use super::keys::Keys;
use crate::data::Vocabulary;
use crate::data::tokenizer::hugging_face::describe;
use crate::data::tokenizer::{MetadataValue as Value, token_type};
use crate::folder::read_json;

/// The folder's files about the tokenizer.
struct Files<'a> {
    folder: &'a Path,
    /// `tokenizer.json`
    json: Option<Json>,
    /// `tokenizer_config.json`; null where there is none.
    config: Json,
}

/// A token that `tokenizer.json` or `tokenizer_config.json` adds to the model's own.
struct Added {
    id: usize,
    text: String,
    special: bool,
}

/// More than any vocabulary has, where no model says how many rows there are.
const MAX: usize = 1 << 20;

/// The keys `tokenizer.*` of a folder's tokenizer, or of one `tokenizer.json`, without a model. A folder's `config.json` is asked for the family
/// where the converter knows it.
///
/// # Errors
/// As [`tokenizer`].
pub(crate) fn tokenizer_keys(path: &Path) -> Result<Vec<(String, Value)>> {
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
    let known = path.is_dir().then(|| Fields::read(folder).ok()).flatten();
    let (fields, family) = match known {
        Some(known) => known,
        None => {
            let config = path.join("config.json");
            let json = if config.is_file() {
                read_json(&config)?
            } else {
                Json::Null
            };
            (Fields(json), Family::usual())
        }
    };
    let mut keys = Keys::new(family.name);
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
pub(crate) fn tokenizer_keys_of_json(text: &str) -> Result<Vec<(String, Value)>> {
    let json = serde_json::from_str(text).context("not a usable tokenizer")?;
    let family = Family::usual();
    let mut keys = Keys::new(family.name);
    let files = Files::of_json(Path::new("."), json);
    files.set(&Fields(Json::Null), family, None, None, &mut keys)?;
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
    family: &Family,
    rows: usize,
    pre: Option<&str>,
    keys: &mut Keys,
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
        family: &Family,
        model_rows: Option<usize>,
        pre: Option<&str>,
        keys: &mut Keys,
    ) -> Result<String> {
        let rows = model_rows.unwrap_or(MAX);
        let folder = self.folder;
        let has = |name: &str| folder.join(name).is_file();
        let kind = self.json.as_ref().map(|json| &json["model"]["type"]);
        let is = |name: &str| kind.is_some_and(|kind| kind == name);
        let (mut vocabulary, kind) = if family.name == "bert" || is("WordPiece") {
            (word_piece(self, rows)?, "WordPiece".to_owned())
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
            self.bpe(json, rows, pre, family)?
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
            phantom_spaces(&mut vocabulary);
        }
        self.space_prefix(family, &vocabulary, keys);
        special::set(self, fields, &vocabulary, keys)?;
        // As its trainers meant it: the post-processor of these models says otherwise.
        if vocabulary.tokens.len() == 49_152
            && matches!(family.name, "llama" | "smollm3" | "granite")
        {
            keys.set("tokenizer.ggml.add_bos_token", Value::Flag(false));
        }
        let mut set = |key: &str, value| keys.set(&format!("tokenizer.ggml.{key}"), value);
        set("model", Value::Text(vocabulary.model));
        set("pre", Value::Text(vocabulary.pre.unwrap_or_default()));
        set("tokens", Value::Texts(vocabulary.tokens));
        set("token_type", Value::Integers(vocabulary.types));
        if !vocabulary.scores.is_empty() {
            set("scores", Value::Floats(vocabulary.scores));
        }
        if !vocabulary.merges.is_empty() {
            set("merges", Value::Texts(vocabulary.merges));
        }
        Ok(kind)
    }

    fn is_byte_level(&self) -> bool {
        let byte_fallback = self
            .json
            .as_ref()
            .map(|json| json["model"]["byte_fallback"] == true);
        byte_fallback == Some(false)
            && self
                .json
                .as_ref()
                .is_some_and(|json| json["model"]["type"] == "BPE")
    }

    /// Tokens beside the model's own; the later of two with one id counts.
    fn added(&self, rows: usize) -> Result<Vec<Added>> {
        let decoder = self.config["added_tokens_decoder"]
            .as_object()
            .into_iter()
            .flatten();
        let decoder = decoder.map(|(id, token)| (id.parse::<usize>().ok(), token));
        let listed = self
            .json
            .iter()
            .flat_map(|json| json["added_tokens"].as_array().into_iter().flatten());
        let listed = listed.map(|token| (token["id"].as_u64().map(|id| id as usize), token));
        let read = |(id, token): (Option<usize>, &Json)| {
            let (Some(id), Some(text)) = (id, token["content"].as_str()) else {
                bail!("an added token lacks its id or content: {token}");
            };
            ensure!(
                id < rows,
                "the added token {text:?} has id {id}, but the model has {rows} rows of embeddings"
            );
            let special = token["special"] == true || looks_special(text);
            Ok(Added {
                id,
                text: text.into(),
                special,
            })
        };
        decoder.chain(listed).map(read).collect()
    }

    /// Byte-level BPE, or SentencePiece's written as merges.
    fn bpe(
        &self,
        json: &Json,
        rows: usize,
        pre: Option<&str>,
        family: &Family,
    ) -> Result<(Vocabulary, String)> {
        let at = || format!("{}/tokenizer.json", self.folder.display());
        let mut vocabulary = describe(json).with_context(at)?;
        check_count(vocabulary.tokens.len(), rows).with_context(at)?;
        for token in self.added(rows)? {
            vocabulary.pad_to(token.id + 1);
            vocabulary.set_added(&token);
        }
        if vocabulary.model == "llama" {
            return Ok((vocabulary, "SentencePiece, from tokenizer.json".into()));
        }
        let normalizer = &json["normalizer"];
        ensure!(
            normalizer.is_null() || normalizer["type"] == "NFC" || pre.is_some(),
            "{}: its normalizer is {}; the runtime's byte-level BPE takes text as it is (--pre NAME converts all the same)",
            at(),
            normalizer["type"]
        );
        let found = vocabulary.pre.as_deref().and_then(Pretokenizer::named);
        let name = match (pre, &found) {
            (Some(name), _) => {
                ensure!(
                    Pretokenizer::named(name).is_some(),
                    "--pre {name}: known are {}",
                    Pretokenizer::known().join(", ")
                );
                name
            }
            // Of names for the same cuts, the one that this family's files have.
            (None, Some(found)) if found.names().contains(&family.pre) => family.pre,
            (None, Some(found)) => found.names()[0],
            (None, None) => bail!(
                "{}: it cuts text in a way that the runtime does not know: {}; --pre NAME takes a known one all the same: {}",
                at(),
                json["pre_tokenizer"],
                Pretokenizer::known().join(", ")
            ),
        };
        let kind = format!("byte-level BPE, pre-tokenizer {name}");
        vocabulary.pre = Some(name.to_owned());
        Ok((vocabulary, kind))
    }

    /// The tokens of `tokenizer.model` with those that the other files add or rename.
    fn sentence_piece(&self, mut vocabulary: Vocabulary, rows: usize) -> Result<Vocabulary> {
        let old = self.folder.join("added_tokens.json");
        let old = if old.is_file() {
            read_json(&old)?
        } else {
            Json::Null
        };
        for (text, id) in old.as_object().into_iter().flatten() {
            let id = id.as_u64().filter(|&id| (id as usize) < rows);
            let id = id.with_context(|| {
                format!("added_tokens.json: the id of {text:?} is none of the model's {rows}")
            })? as usize;
            vocabulary.pad_to(id + 1);
            vocabulary.set_added(&Added {
                id,
                text: text.clone(),
                special: false,
            });
        }
        for token in self.added(rows)? {
            vocabulary.pad_to(token.id + 1);
            // What stands for unknown text keeps its type.
            if vocabulary.types[token.id] != token_type::UNKNOWN || vocabulary.model != "t5" {
                vocabulary.set_added(&token);
            }
        }
        Ok(vocabulary)
    }

    /// Whether a space goes before a text, where it is not the usual for the kind.
    fn space_prefix(&self, family: &Family, vocabulary: &Vocabulary, keys: &mut Keys) {
        let stated = self.config["add_prefix_space"]
            .as_bool()
            .filter(|_| family.name == "llama");
        let adds = stated
            .or_else(|| (vocabulary.model == "llama" && !self.adds_space(family)).then_some(false));
        if let Some(adds) = adds {
            keys.set("tokenizer.ggml.add_space_prefix", Value::Flag(adds));
        }
        if vocabulary.model == "llama" && adds != Some(false) && self.adds_first_only() {
            keys.set("tokenizer.dram.prepend_scheme", Value::Text("first".into()));
        }
    }

    /// Whether the space goes before a text's beginning, and not before what follows a special token: llama.cpp has no key for it.
    fn adds_first_only(&self) -> bool {
        let metaspace = self.json.as_ref().map(|json| &json["pre_tokenizer"]);
        metaspace
            .is_some_and(|part| part["type"] == "Metaspace" && part["prepend_scheme"] == "first")
    }

    /// For SentencePiece: by `tokenizer.json` where there is one.
    fn adds_space(&self, family: &Family) -> bool {
        fn prepends(part: &Json) -> bool {
            let inside = ["normalizers", "pretokenizers"]
                .into_iter()
                .filter_map(|key| part[key].as_array());
            part["type"] == "Prepend"
                || part["type"] == "Metaspace"
                    && part["prepend_scheme"] != "never"
                    && part["add_prefix_space"] != false
                || inside.flatten().any(prepends)
        }
        match &self.json {
            Some(json) => prepends(&json["normalizer"]) || prepends(&json["pre_tokenizer"]),
            None => !family.name.starts_with("gemma"),
        }
    }
}

impl Vocabulary {
    /// Gives an id below the number of tokens to an added token.
    fn set_added(&mut self, token: &Added) {
        let id = token.id;
        // The runtime looks for users' tokens in the text itself.
        self.tokens[id] = if token.special {
            token.text.clone()
        } else {
            token.text.replace('\u{2581}', " ")
        };
        self.types[id] = if token.special {
            token_type::CONTROL
        } else {
            token_type::USER_DEFINED
        };
        // A unigram model's unknown characters are scored by the worst token.
        if let Some(score) = self.scores.get_mut(id).filter(|_| self.model != "t5") {
            *score = -1000.0;
        }
    }
}

fn check_count(tokens: usize, rows: usize) -> Result<()> {
    ensure!(
        tokens <= rows,
        "{tokens} tokens, but the model has {rows} rows of embeddings: they do not belong together"
    );
    Ok(())
}

/// Some models do not say that these are control tokens.
fn looks_special(text: &str) -> bool {
    let between = |start, end| {
        text.strip_prefix(start)
            .is_some_and(|rest: &str| rest.ends_with(end))
    };
    ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].contains(&text)
        || between("<|", "|>")
        || between("<\u{ff5c}", "\u{ff5c}>")
        || between("<unused", ">")
}

/// The tokens of `tokenizer.json`, or the lines of `vocab.txt`.
fn word_piece(files: &Files<'_>, rows: usize) -> Result<Vocabulary> {
    let mut by_id: HashMap<usize, String> = HashMap::new();
    if let Some(json) = &files.json {
        let vocab = json["model"]["vocab"].as_object();
        let vocab = vocab.filter(|_| json["model"]["type"] == "WordPiece");
        let vocab = vocab.with_context(|| {
            format!(
                "{}/tokenizer.json: expected WordPiece for a BERT",
                files.folder.display()
            )
        })?;
        for (token, id) in vocab {
            let id = id
                .as_u64()
                .with_context(|| format!("the id of token {token:?} is not a number"))?;
            by_id.insert(usize::try_from(id)?, token.clone());
        }
    } else {
        let path = files.folder.join("vocab.txt");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{}: expected tokenizer.json or vocab.txt", path.display()))?;
        by_id.extend(text.lines().map(str::to_owned).enumerate());
    }
    let most = by_id.keys().max().map_or(0, |id| id.saturating_add(1));
    check_count(most, rows)?;
    let mut vocabulary = Vocabulary {
        model: "bert".into(),
        pre: Some("bert-bge".into()),
        ..Vocabulary::default()
    };
    for id in 0..most {
        let token = by_id.remove(&id);
        vocabulary.types.push(if token.is_some() {
            token_type::NORMAL
        } else {
            token_type::UNUSED
        });
        vocabulary
            .tokens
            .push(token.unwrap_or_else(|| format!("[PAD{id}]")));
    }
    if files.json.is_none() {
        let named =
            |text: &String| ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].contains(&text.as_str());
        let pairs = vocabulary.tokens.iter().zip(&mut vocabulary.types);
        pairs
            .filter(|(token, _)| named(token))
            .for_each(|(_, kind)| *kind = token_type::CONTROL);
    }
    for token in files.added(rows)? {
        vocabulary.pad_to(token.id + 1);
        vocabulary.set_added(&token);
    }
    Ok(vocabulary)
}

/// Words begin with U+2581, and what goes on has no mark, where BERT's files mark what goes on.
fn phantom_spaces(vocabulary: &mut Vocabulary) {
    for (token, kind) in vocabulary.tokens.iter_mut().zip(&vocabulary.types) {
        if *kind != token_type::CONTROL {
            *token = match token.strip_prefix("##") {
                Some(rest) => rest.to_owned(),
                None => format!("\u{2581}{token}"),
            };
        }
    }
}
