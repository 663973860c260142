//! What a Hugging Face `tokenizer.json` says, in GGUF's terms.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Vocabulary, pre, token_type};

/// Reads tokens, types and merges out of a parsed `tokenizer.json`.
///
/// # Errors
/// When it is malformed or of another kind than BPE.
pub fn describe(json: &Value) -> Result<Vocabulary> {
    let mut out = as_written(json)?;
    let model = &json["model"];
    if model["byte_fallback"] == true {
        sentence_piece(&mut out, model);
    } else {
        let whole_words = model["ignore_merges"] == true;
        out.pre = pre::recognise(&json["pre_tokenizer"], whole_words)?.map(str::to_string);
    }
    Ok(out)
}

/// Tokens, types and merges as they stand.
///
/// # Errors
/// As [`describe`].
pub(crate) fn as_written(json: &Value) -> Result<Vocabulary> {
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
                // A space inside a half would look like the one between them.
                (Some(left), Some(right)) => {
                    format!("{} {}", left.replace(' ', "Ġ"), right.replace(' ', "Ġ"))
                }
                _ => bail!("a merge is not a pair of strings: {merge}"),
            },
            other => bail!("a merge is not a pair of strings: {other}"),
        });
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
