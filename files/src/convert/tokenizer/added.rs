//! Tokens that `tokenizer.json` and its neighbours add to the model's own.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value as Json;

use super::Files;
use crate::folder::read_json;
use crate::tokenizer::{Vocabulary, token_type};

/// A token that `tokenizer.json` or `tokenizer_config.json` adds to the model's own.
pub(super) struct Added {
    pub(super) id: usize,
    text: String,
    special: bool,
}

impl Files<'_> {
    /// Tokens beside the model's own; the later of two with one id counts.
    pub(super) fn added(&self, rows: usize) -> Result<Vec<Added>> {
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

    /// The tokens of `tokenizer.model` with those that the other files add or rename.
    pub(super) fn sentence_piece(
        &self,
        mut vocabulary: Vocabulary,
        rows: usize,
    ) -> Result<Vocabulary> {
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
}

impl Vocabulary {
    /// Gives an id below the number of tokens to an added token.
    pub(super) fn set_added(&mut self, token: &Added) {
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
