//! The tokenizer's half of a GGUF file: from a `tokenizer.json`, or copied from another GGUF.
//!
//! Keys and token types are those of the GGUF specification (`tokenizer.ggml.*`), as llama.cpp's converter writes them.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use dram_core::gguf::{self, File};
use gguf_rs::writer::MetadataValue as Value;
use serde_json::Value as Json;

use super::write::Entry;

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// What a GGUF file says about its tokenizer, and the token strings to compare two vocabularies by.
#[derive(Clone)]
pub struct Vocabulary {
    entries: Vec<Entry>,
    tokens: Vec<String>,
}

/// The special tokens and the chat template, from `tokenizer_config.json` and `config.json`, or set by whoever made the tokenizer.
#[derive(Clone, Debug, Default)]
pub struct Specials {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unknown: Option<u32>,
    pub padding: Option<u32>,
    /// Whether a prompt starts with `bos` / ends with `eos`.
    pub add_bos: bool,
    pub add_eos: bool,
    pub chat_template: Option<String>,
}

impl Vocabulary {
    /// Token strings by id, `[vocabulary]`.
    #[must_use]
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// Entries `tokenizer.*`.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Reads `tokenizer.json` (and `tokenizer_config.json`, `config.json` where they are there) of a Hugging Face folder.
    ///
    /// `rows` is the number of rows of the embedding, which may be more than the tokenizer has tokens; the rest are written as unused.
    ///
    /// # Errors
    /// When a file is missing or is not what it should be, or the tokenizer is of a kind that GGUF has no name for.
    pub fn from_folder(folder: &Path, rows: usize) -> Result<Self> {
        let tokenizer = read_json(&folder.join("tokenizer.json"))?;
        let specials = Specials::from_folder(folder, &tokenizer)?;
        Self::from_tokenizer(&tokenizer, &specials, rows)
    }

    /// From the content of a `tokenizer.json`.
    ///
    /// # Errors
    /// When it is malformed, has more tokens than `rows`, or is of a kind that GGUF has no name for.
    pub fn from_tokenizer(tokenizer: &Json, specials: &Specials, rows: usize) -> Result<Self> {
        let model = tokenizer
            .get("model")
            .context("tokenizer.json has no \"model\"")?;
        let kind = model.get("type").and_then(Json::as_str).unwrap_or("BPE");
        let mut table = Table::new(rows);
        ensure!(
            kind == "BPE",
            "tokenizer.json holds a {kind} model; expected BPE (byte-level, or SentencePiece with byte fallback)"
        );
        let fallback = model
            .get("byte_fallback")
            .and_then(Json::as_bool)
            .unwrap_or(false);
        let name = if fallback { "llama" } else { "gpt2" };
        let vocab = model
            .get("vocab")
            .and_then(Json::as_object)
            .context("tokenizer.json: model.vocab is not an object")?;
        for (token, id) in vocab {
            table.put(
                id_of(id)?,
                token,
                if fallback {
                    sentencepiece_type(token)
                } else {
                    NORMAL
                },
            )?;
        }
        let merges = merge_lines(model)?;
        for added in tokenizer
            .get("added_tokens")
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
        {
            let token = added
                .get("content")
                .and_then(Json::as_str)
                .context("an added token has no content")?;
            let id = id_of(added.get("id").context("an added token has no id")?)?;
            let special = added
                .get("special")
                .and_then(Json::as_bool)
                .unwrap_or(false);
            let unknown = name == "llama" && specials.unknown == Some(id);
            table.set(
                id,
                token,
                if unknown {
                    UNKNOWN
                } else if special {
                    CONTROL
                } else {
                    USER_DEFINED
                },
            )?;
        }
        let (tokens, types) = table.finish();

        let mut entries: Vec<Entry> = vec![
            key("ggml.model", Value::String(name.into())),
            key("ggml.tokens", strings(&tokens)),
            key(
                "ggml.token_type",
                Value::Array(types.into_iter().map(Value::Int32).collect()),
            ),
        ];
        if name == "gpt2" {
            entries.push(key(
                "ggml.pre",
                Value::String(pre_tokenizer(tokenizer)?.into()),
            ));
            entries.push(key("ggml.merges", strings(&merges)));
            entries.push(key(
                "ggml.add_space_prefix",
                Value::Bool(adds_prefix_space(tokenizer)),
            ));
        } else {
            let scores = scores_from_merges(vocab, &merges, rows)?;
            entries.push(key("ggml.pre", Value::String("default".into())));
            entries.push(key(
                "ggml.scores",
                Value::Array(scores.into_iter().map(Value::Float32).collect()),
            ));
        }
        specials.entries(rows, &mut entries)?;
        Ok(Self { entries, tokens })
    }

    /// Copies what another GGUF file says, types and all.
    ///
    /// # Errors
    /// When the file has no tokens.
    pub fn from_gguf(file: &File) -> Result<Self> {
        let tokens: Vec<String> = file
            .metadata()
            .strings("tokenizer.ggml.tokens")?
            .map(str::to_owned)
            .collect();
        let entries = file
            .metadata()
            .iter()
            .filter(|(key, _)| key.starts_with("tokenizer."));
        let entries = entries
            .filter_map(|(key, value)| Some((key.to_owned(), owned(value)?)))
            .collect();
        Ok(Self { entries, tokens })
    }

    /// Checks that two models speak the same tokens: same count of real tokens, same string for each id.
    ///
    /// Rows past the tokenizer's own tokens (padding of the embedding) do not count.
    ///
    /// # Errors
    /// With the first difference.
    pub fn same_as(&self, other: &Self, here: &str, there: &str) -> Result<()> {
        same_tokens(&self.tokens, &other.tokens, here, there)
    }
}

/// Compares token strings by id; see [`Vocabulary::same_as`].
///
/// # Errors
/// With the first difference.
pub fn same_tokens(a: &[String], b: &[String], a_name: &str, b_name: &str) -> Result<()> {
    const ADVICE: &str =
        "teacher and student must share one vocabulary: give the student the teacher's tokenizer";
    for (id, (x, y)) in a.iter().zip(b).enumerate() {
        if x != y && !(is_padding(x) && is_padding(y)) {
            bail!("token {id} is {x:?} in {a_name} and {y:?} in {b_name}; {ADVICE}");
        }
    }
    let (longer, extra) = if a.len() > b.len() {
        (a_name, &a[b.len()..])
    } else {
        (b_name, &b[a.len()..])
    };
    if let Some(token) = extra.iter().find(|t| !is_padding(t)) {
        bail!(
            "{a_name} has {} tokens and {b_name} has {}; {longer} alone knows {token:?}; {ADVICE}",
            a.len(),
            b.len()
        );
    }
    Ok(())
}

/// The same value for the writer, which has no door for lone integers of other widths than 32 and 64 bits: those are widened.
fn owned(value: gguf::Value<'_>) -> Option<Value> {
    use gguf::Value as Read;
    Some(match value {
        Read::U8(v) => Value::Uint32(v.into()),
        Read::U16(v) => Value::Uint32(v.into()),
        Read::U32(v) => Value::Uint32(v),
        Read::U64(v) => Value::Uint64(v),
        Read::I8(v) => Value::Int32(v.into()),
        Read::I16(v) => Value::Int32(v.into()),
        Read::I32(v) => Value::Int32(v),
        Read::I64(v) => Value::Int32(i32::try_from(v).ok()?),
        Read::F32(v) => Value::Float32(v),
        Read::F64(v) => Value::Float32(v as f32),
        Read::Bool(v) => Value::Bool(v),
        Read::String(v) => Value::String(v.to_owned()),
        Read::Array(array) => Value::Array(array.iter().map(element).collect::<Option<_>>()?),
    })
}

/// An element of a list, in its own width.
fn element(value: gguf::Value<'_>) -> Option<Value> {
    use gguf::Value as Read;
    Some(match value {
        Read::U8(v) => Value::Uint8(v),
        Read::U16(v) => Value::Uint16(v),
        Read::I8(v) => Value::Int8(v),
        Read::I16(v) => Value::Int16(v),
        Read::F64(v) => Value::Float64(v),
        Read::Array(_) => return None,
        other => owned(other)?,
    })
}

fn is_padding(token: &str) -> bool {
    token
        .strip_prefix("[PAD")
        .and_then(|t| t.strip_suffix(']'))
        .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
}

impl Specials {
    /// Reads them from the files beside a `tokenizer.json`; missing files mean missing tokens.
    ///
    /// # Errors
    /// When a file is there and is not JSON.
    pub fn from_folder(folder: &Path, tokenizer: &Json) -> Result<Self> {
        let mut ids = HashMap::new();
        for (token, id) in tokenizer["model"]["vocab"]
            .as_object()
            .into_iter()
            .flatten()
        {
            ids.insert(token.clone(), id_of(id)?);
        }
        for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
            if let (Some(token), Some(id)) = (added["content"].as_str(), added["id"].as_u64()) {
                ids.insert(token.to_owned(), u32::try_from(id)?);
            }
        }
        let optional = |name: &str| -> Result<Json> {
            let path = folder.join(name);
            if path.exists() {
                read_json(&path)
            } else {
                Ok(Json::Null)
            }
        };
        let named = optional("tokenizer_config.json")?;
        let config = optional("config.json")?;
        let pick = |role: &str| {
            let entry = &named[format!("{role}_token")];
            let text = entry.as_str().or_else(|| entry["content"].as_str());
            let number = |v: &Json| {
                v.as_u64()
                    .or_else(|| v[0].as_u64())
                    .and_then(|n| u32::try_from(n).ok())
            };
            text.and_then(|t| ids.get(t).copied())
                .or_else(|| number(&config[format!("{role}_token_id")]))
        };
        let bos = pick("bos");
        let template_adds_bos =
            bos.is_some_and(|id| post_processor_starts_with(tokenizer, id, &ids));
        Ok(Self {
            bos,
            eos: pick("eos"),
            unknown: pick("unk"),
            padding: pick("pad"),
            add_bos: named["add_bos_token"]
                .as_bool()
                .unwrap_or(template_adds_bos),
            add_eos: named["add_eos_token"].as_bool().unwrap_or(false),
            chat_template: named["chat_template"].as_str().map(str::to_owned),
        })
    }

    fn entries(&self, rows: usize, out: &mut Vec<Entry>) -> Result<()> {
        for (name, id) in [
            ("bos", self.bos),
            ("eos", self.eos),
            ("unknown", self.unknown),
            ("padding", self.padding),
        ] {
            if let Some(id) = id {
                ensure!(
                    (id as usize) < rows,
                    "the {name} token is {id}, but the vocabulary has {rows} rows"
                );
                out.push(key(&format!("ggml.{name}_token_id"), Value::Uint32(id)));
            }
        }
        out.push(key(
            "ggml.add_bos_token",
            Value::Bool(self.add_bos && self.bos.is_some()),
        ));
        out.push(key(
            "ggml.add_eos_token",
            Value::Bool(self.add_eos && self.eos.is_some()),
        ));
        if let Some(template) = &self.chat_template {
            out.push(key("chat_template", Value::String(template.clone())));
        }
        Ok(())
    }
}

/// Does a TemplateProcessing (alone or in a Sequence) put `id` before the text?
fn post_processor_starts_with(tokenizer: &Json, id: u32, ids: &HashMap<String, u32>) -> bool {
    let post = &tokenizer["post_processor"];
    let parts = post["processors"]
        .as_array()
        .cloned()
        .unwrap_or_else(|| vec![post.clone()]);
    parts.iter().any(|part| {
        part["single"][0]["SpecialToken"]["id"]
            .as_str()
            .and_then(|t| ids.get(t))
            .is_some_and(|first| *first == id)
    })
}

/// The token table being filled: text and type by id, `[rows]`.
struct Table(Vec<Option<(String, i32)>>);

impl Table {
    fn new(rows: usize) -> Self {
        Self(vec![None; rows])
    }

    fn slot(&mut self, id: u32, token: &str) -> Result<&mut Option<(String, i32)>> {
        let rows = self.0.len();
        self.0.get_mut(id as usize).with_context(|| {
            format!("token {token:?} has id {id}, but the model's embedding has {rows} rows: the tokenizer belongs to another model")
        })
    }

    fn put(&mut self, id: u32, token: &str, kind: i32) -> Result<()> {
        let slot = self.slot(id, token)?;
        if let Some((before, _)) = slot {
            bail!("tokens {before:?} and {token:?} share the id {id}");
        }
        *slot = Some((token.to_owned(), kind));
        Ok(())
    }

    fn set(&mut self, id: u32, token: &str, kind: i32) -> Result<()> {
        *self.slot(id, token)? = Some((token.to_owned(), kind));
        Ok(())
    }

    fn finish(self) -> (Vec<String>, Vec<i32>) {
        self.0
            .into_iter()
            .enumerate()
            .map(|(id, t)| t.unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED)))
            .unzip()
    }
}

fn sentencepiece_type(token: &str) -> i32 {
    let byte = token
        .strip_prefix("<0x")
        .and_then(|t| t.strip_suffix('>'))
        .is_some_and(|h| h.len() == 2 && u8::from_str_radix(h, 16).is_ok());
    if byte { BYTE } else { NORMAL }
}

fn merge_lines(model: &Json) -> Result<Vec<String>> {
    let merges = model
        .get("merges")
        .and_then(Json::as_array)
        .context("tokenizer.json: model.merges is not a list")?;
    merges
        .iter()
        .map(|m| match (m.as_str(), m[0].as_str(), m[1].as_str()) {
            (Some(line), _, _) => Ok(line.to_owned()),
            (None, Some(a), Some(b)) => Ok(format!("{a} {b}")),
            _ => bail!("tokenizer.json: a merge is neither \"a b\" nor [\"a\", \"b\"]: {m}"),
        })
        .collect()
}

/// SentencePiece picks the neighbours whose union scores best; minus the rank of the first merge that makes a token gives the same order
/// as the list of merges.
fn scores_from_merges(
    vocab: &serde_json::Map<String, Json>,
    merges: &[String],
    rows: usize,
) -> Result<Vec<f32>> {
    let lowest = -(merges.len() as f32) - 1.0;
    let mut scores = vec![lowest; rows]; // [vocabulary]
    for (rank, line) in merges.iter().enumerate().rev() {
        let joined: String = line.split(' ').collect();
        if let Some(id) = vocab.get(&joined) {
            if let Some(score) = scores.get_mut(id_of(id)? as usize) {
                *score = -(rank as f32);
            }
        }
    }
    Ok(scores)
}

/// The GGUF name of the rule that cuts text into words before the merges (`tokenizer.ggml.pre`).
fn pre_tokenizer(tokenizer: &Json) -> Result<&'static str> {
    let pre = &tokenizer["pre_tokenizer"];
    let parts = match pre["type"].as_str() {
        Some("Sequence") => pre["pretokenizers"].as_array().cloned().unwrap_or_default(),
        Some(_) => vec![pre.clone()],
        None => vec![],
    };
    let kinds: Vec<&str> = parts.iter().filter_map(|p| p["type"].as_str()).collect();
    let regex = parts
        .iter()
        .find_map(|p| p["pattern"]["Regex"].as_str())
        .unwrap_or("");
    Ok(match kinds.as_slice() {
        ["ByteLevel"] if parts[0]["use_regex"].as_bool().unwrap_or(true) => "gpt-2",
        ["Digits", "ByteLevel"] if parts[0]["individual_digits"].as_bool() == Some(true) => {
            "smollm"
        }
        ["Split", "ByteLevel"] if regex.contains(r"\p{N}{1,3}|") && regex.contains("(?i:") => {
            "llama-bpe"
        }
        ["Split", "ByteLevel"] if regex.contains(r"\p{N}|") && regex.contains("(?i:") => "qwen2",
        _ => bail!(
            "the tokenizer cuts words by {kinds:?}{}, which has no GGUF name here; known are ByteLevel (gpt-2), Digits + ByteLevel (smollm), and the \
             Split patterns of Llama 3 and Qwen 2",
            if regex.is_empty() {
                String::new()
            } else {
                format!(" with {regex:?}")
            }
        ),
    })
}

fn adds_prefix_space(tokenizer: &Json) -> bool {
    let pre = &tokenizer["pre_tokenizer"];
    let parts = pre["pretokenizers"]
        .as_array()
        .cloned()
        .unwrap_or_else(|| vec![pre.clone()]);
    parts
        .iter()
        .any(|p| p["type"] == "ByteLevel" && p["add_prefix_space"].as_bool() == Some(true))
}

fn key(name: &str, value: Value) -> Entry {
    (format!("tokenizer.{name}"), value)
}

fn strings(list: &[String]) -> Value {
    Value::Array(list.iter().cloned().map(Value::String).collect())
}

fn id_of(value: &Json) -> Result<u32> {
    value
        .as_u64()
        .and_then(|n| u32::try_from(n).ok())
        .with_context(|| format!("a token id is {value}, expected a small whole number"))
}

pub(crate) fn read_json(path: &Path) -> Result<Json> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}
