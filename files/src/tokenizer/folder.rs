//! The tokenizer of a Hugging Face folder: read, and written so that transformers and `dram convert` open what `model.safetensors` holds.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use dram_core::tokenizer::Pretokenizer;
use serde_json::{Map, Value as Json, json};

use super::{Vocabulary, pre, token_type, tokenizer_keys, vocabulary_of_keys};
use crate::folder::read_json;
use crate::write_beside;

/// The tokenizer of a Hugging Face folder, with as many tokens as the embedding has `rows`: those past the tokenizer's own are unused.
///
/// # Errors
/// When the folder has no tokenizer, or one that the runtime cannot be, or one with more tokens than `rows`.
pub fn vocabulary_of_folder(folder: &Path, rows: usize) -> Result<Vocabulary> {
    ensure!(folder.is_dir(), "{}: no such folder", folder.display());
    let mut vocabulary = vocabulary_of_keys(&tokenizer_keys(folder)?)
        .with_context(|| folder.display().to_string())?;
    vocabulary
        .fit(rows)
        .with_context(|| format!("{}", folder.display()))?;
    if vocabulary.eos.is_none() {
        let config = folder.join("config.json");
        let id = if config.is_file() {
            read_json(&config)?["eos_token_id"].clone()
        } else {
            Json::Null
        };
        let id = id
            .as_u64()
            .or_else(|| id[0].as_u64())
            .and_then(|id| u32::try_from(id).ok());
        vocabulary.eos = id.filter(|&id| (id as usize) < rows);
    }
    Ok(vocabulary)
}

/// What folders say of their tokenizer and of generation.
const FILES: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.model",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
];

/// Completes a folder that has `config.json` and weights: the files of the Hugging Face folder that the tokenizer came from, and where there is none
/// `tokenizer.json`, `tokenizer_config.json` and `generation_config.json` made of the vocabulary. `config.json` gets the ids of special tokens.
///
/// # Errors
/// When a file cannot be read or written, or the way in which the vocabulary cuts text has no description.
pub fn add_tokenizer(folder: &Path, vocabulary: &Vocabulary, source: Option<&Path>) -> Result<()> {
    let config = folder.join("config.json");
    let mut fields = read_json(&config)?;
    for (key, id) in ids(vocabulary) {
        fields[key] = json!(id);
    }
    put(&config, &fields)?;
    let source = source.filter(|source| source.join("tokenizer.json").is_file());
    for name in FILES {
        let target = folder.join(name);
        match source.map(|source| source.join(name)) {
            Some(path) if path.is_file() => write_beside(&target, |beside| {
                fs::write(beside, fs::read(&path)?)?;
                Ok(())
            })
            .with_context(|| format!("copying {}", path.display()))?,
            // Of an earlier run with another tokenizer.
            _ if target.is_file() => {
                fs::remove_file(&target).with_context(|| target.display().to_string())?;
            }
            _ => {}
        }
    }
    if source.is_none() {
        put(&folder.join("tokenizer.json"), &description(vocabulary)?)?;
        let length = &fields["max_position_embeddings"];
        let about = tokenizer_config(vocabulary, length);
        put(&folder.join("tokenizer_config.json"), &about)?;
    }
    let generation = folder.join("generation_config.json");
    if generation.is_file() {
        return Ok(());
    }
    let known = ids(vocabulary)
        .into_iter()
        .filter_map(|(key, id)| Some((key.to_owned(), json!(id?))));
    put(&generation, &Json::Object(known.collect()))
}

fn put(path: &Path, json: &Json) -> Result<()> {
    let text = serde_json::to_string_pretty(json)? + "\n";
    write_beside(path, |beside| Ok(fs::write(beside, text)?))
}

fn ids(vocabulary: &Vocabulary) -> [(&'static str, Option<u32>); 3] {
    [
        ("bos_token_id", vocabulary.bos),
        ("eos_token_id", vocabulary.eos),
        ("pad_token_id", vocabulary.padding),
    ]
}

fn tokenizer_config(vocabulary: &Vocabulary, length: &Json) -> Json {
    let mut json = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": length,
        "clean_up_tokenization_spaces": false,
        "add_bos_token": vocabulary.add_bos,
        "add_eos_token": false,
    });
    for (key, id) in [
        ("bos_token", vocabulary.bos),
        ("eos_token", vocabulary.eos),
        ("pad_token", vocabulary.padding),
        ("unk_token", vocabulary.unknown),
    ] {
        if let Some(token) = id.and_then(|id| vocabulary.tokens.get(id as usize)) {
            json[key] = json!(token);
        }
    }
    if let Some(template) = &vocabulary.chat_template {
        json["chat_template"] = json!(template);
    }
    json
}

/// A `tokenizer.json` that encodes as the vocabulary does. Rows without a token are left out.
///
/// # Errors
/// When the vocabulary is of a kind, or cuts text in a way, that has no description here.
fn description(vocabulary: &Vocabulary) -> Result<Json> {
    let mut vocab = Map::new();
    let mut added = Vec::new();
    for (id, (token, kind)) in vocabulary.tokens.iter().zip(&vocabulary.types).enumerate() {
        if *kind == token_type::UNUSED && *token == format!("[PAD{id}]") {
            continue;
        }
        ensure!(
            vocab.insert(token.clone(), json!(id)).is_none(),
            "token {id}, {token:?}, occurs twice"
        );
        if matches!(
            *kind,
            token_type::CONTROL | token_type::USER_DEFINED | token_type::UNKNOWN
        ) {
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": *kind != token_type::USER_DEFINED,
            }));
        }
    }
    let mut json = match vocabulary.model.as_str() {
        "gpt2" => byte_level(vocabulary, vocab)?,
        "llama" => sentence_piece(vocabulary, vocab),
        other => anyhow::bail!("a tokenizer of the kind {other} has no tokenizer.json here"),
    };
    json["added_tokens"] = json!(added);
    let bos = vocabulary.bos.filter(|_| vocabulary.add_bos);
    if let Some((id, token)) = bos.and_then(|id| Some((id, vocabulary.tokens.get(id as usize)?))) {
        let special = json!({ "SpecialToken": { "id": token, "type_id": 0 } });
        let part = |name: &str| json!({ "Sequence": { "id": name, "type_id": 0 } });
        let mut tokens = Map::new();
        tokens.insert(
            token.clone(),
            json!({ "id": token, "ids": [id], "tokens": [token] }),
        );
        json["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [special, part("A")],
            "pair": [special, part("A"), part("B")],
            "special_tokens": tokens,
        });
    }
    Ok(json)
}

fn byte_level(vocabulary: &Vocabulary, vocab: Map<String, Json>) -> Result<Json> {
    let name = vocabulary.pre.as_deref().unwrap_or_default();
    let cuts = Pretokenizer::named(name).filter(|pre| !pre.is_plain());
    let cuts = cuts.with_context(|| {
        format!("the pre-tokenizer {name:?} has no description for a tokenizer.json")
    })?;
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": pre::describe(&cuts),
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": cuts.takes_whole_words(),
            "vocab": vocab, "merges": vocabulary.merges,
        },
    }))
}

/// SentencePiece's BPE joins the two neighbours that make the token of the highest score: merges in the order of their token's score.
fn sentence_piece(vocabulary: &Vocabulary, vocab: Map<String, Json>) -> Json {
    let normal = |id: usize| vocabulary.types[id] == token_type::NORMAL;
    let known: HashMap<&str, usize> = vocabulary
        .tokens
        .iter()
        .enumerate()
        .filter(|(id, _)| normal(*id))
        .map(|(id, token)| (token.as_str(), id))
        .collect();
    let mut order: Vec<usize> = (0..vocabulary.tokens.len())
        .filter(|&id| normal(id))
        .collect();
    let score = |id: &usize| vocabulary.scores.get(*id).copied().unwrap_or_default();
    order.sort_by(|a, b| score(b).total_cmp(&score(a)));
    let mut merges = Vec::new();
    for id in order {
        let token = &vocabulary.tokens[id];
        let cuts = token
            .char_indices()
            .skip(1)
            .map(|(at, _)| token.split_at(at));
        let mut pairs: Vec<(usize, usize, [&str; 2])> = cuts
            .filter_map(|(a, b)| Some((*known.get(a)?, *known.get(b)?, [a, b])))
            .collect();
        pairs.sort_unstable();
        merges.extend(pairs.into_iter().map(|(_, _, pair)| pair));
    }
    let unknown = vocabulary
        .unknown
        .and_then(|id| vocabulary.tokens.get(id as usize));
    let space = |from: &str, to: &str| json!({ "type": "Replace", "pattern": { "String": from }, "content": to });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": { "type": "Sequence", "normalizers": [{ "type": "Prepend", "prepend": "\u{2581}" }, space(" ", "\u{2581}")] },
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": { "type": "Sequence", "decoders": [
            space("\u{2581}", " "), { "type": "ByteFallback" }, { "type": "Fuse" },
            { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
        ] },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "vocab": vocab, "merges": merges,
        },
    })
}
