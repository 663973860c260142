//! Qwen3-Reranker: a decoder whose logits of "yes" and "no" after a prompt say whether a document answers a query. Of its head the file has these two rows,
//! and the prompt as a template.

use std::path::Path;

use anyhow::{Context, Result};
use dram_core::gguf::names::key;
use dram_core::model::folder::{Entries, Family, Fields};

use crate::folder::read_json;

/// What the folder's name, its card's heading or `config.json` calls such a model.
const NAME: &str = "qwen3-reranker";

/// The prompt that these models were trained with.
const TEMPLATE: &str = "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. \
Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n\
<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n\
<Query>: {query}\n<Document>: {document}<|im_end|>\n\
<|im_start|>assistant\n<think>\n\n</think>\n\n";

/// The tokens "yes" and "no" of a folder that holds a reranker.
///
/// # Errors
/// When its tokenizer lacks one.
pub(super) fn labels(folder: &Path, family: Family, fields: &Fields) -> Result<Option<[usize; 2]>> {
    let own = folder.canonicalize().ok();
    let own = own.as_deref().unwrap_or(folder).file_name();
    let names = [
        own.map(|name| name.to_string_lossy().into_owned()),
        fields["_name_or_path"].as_str().map(str::to_owned),
    ];
    let mut names = names.into_iter().flatten();
    let is_named = names.any(|name| name.to_lowercase().contains(NAME));
    // The cards of embedding models name it too, in their tables.
    let card = std::fs::read_to_string(folder.join("README.md")).unwrap_or_default();
    let title = format!("# {NAME}");
    let mut lines = card.lines();
    let is_titled = lines.any(|line| line.to_lowercase().starts_with(&title));
    if family.name != "qwen3" || !(is_named || is_titled) {
        return Ok(None);
    }
    let path = folder.join("tokenizer.json");
    let json = read_json(&path)?;
    let id = |text: &str| {
        let mut added = json["added_tokens"].as_array().into_iter().flatten();
        let added = added.find(|token| token["content"] == text);
        let id = added.map_or(&json["model"]["vocab"][text], |token| &token["id"]);
        id.as_u64().map(|id| id as usize).with_context(|| {
            format!(
                "{}: no token {text:?}, by which a reranker answers",
                path.display()
            )
        })
    };
    Ok(Some([id("yes")?, id("no")?]))
}

/// Sets the keys of a reranker.
pub(super) fn set(keys: &mut Entries) {
    keys.own(key::POOLING_TYPE, 4u32);
    let labels = ["yes", "no"].map(str::to_owned);
    keys.own(key::CLASSIFIER_LABELS, labels.to_vec());
    keys.set("tokenizer.chat_template.rerank", TEMPLATE);
    keys.set("tokenizer.chat_templates", vec!["rerank".to_owned()]);
}
