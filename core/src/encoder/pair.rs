//! A query and a document as the tokens of one text.

use crate::Result;
use crate::model::Model;
use crate::tokenizer::Tokenizer;
use std::ops::Range;

/// The template that a reranker's file may have, with a place for the query and one for the document.
const TEMPLATE: &str = "tokenizer.chat_template.rerank";
const PLACES: [&str; 2] = ["{query}", "{document}"];

/// The tokens of a query and a document.
pub(super) struct Pair {
    pub(super) ids: Vec<u32>,
    /// Where the document begins, for models that know two texts.
    pub(super) second: usize,
}

impl Pair {
    /// By the file's template, or else as `query`, then `document`, between the tokens that the model asks for. Neither holds a special token,
    /// whatever it spells.
    pub(super) fn new(model: &Model, query: &str, document: &str) -> Result<Pair> {
        let (metadata, tokenizer) = (model.gguf().metadata(), model.tokenizer());
        if let Some(template) = metadata.opt_str(TEMPLATE)? {
            let ids = fill(tokenizer, template, [query, document]);
            let second = ids.len();
            return Ok(Pair { ids, second });
        }
        let separates = metadata.opt_bool("tokenizer.ggml.add_sep_token")?;
        let separator = match separates {
            Some(true) => metadata.opt_u32("tokenizer.ggml.seperator_token_id")?,
            _ => None,
        };
        let end = || tokenizer.eos().filter(|_| tokenizer.add_eos());
        let mut ids = Vec::from_iter(tokenizer.bos().filter(|_| tokenizer.add_bos()));
        ids.extend(tokenizer.encode(query, false));
        ids.extend(end());
        ids.extend(separator);
        let second = ids.len();
        ids.extend(tokenizer.encode(document, false));
        ids.extend(end());
        Ok(Pair { ids, second })
    }
}

/// The tokens of a template with these texts in their places.
fn fill(tokenizer: &Tokenizer, template: &str, texts: [&str; 2]) -> Vec<u32> {
    let (mut text, mut said): (String, Vec<Range<usize>>) = Default::default();
    let mut rest = template;
    let first = |rest: &str| {
        let places = PLACES.iter().zip(texts);
        let found = places.filter_map(|(place, text)| Some((rest.find(place)?, *place, text)));
        found.min_by_key(|(at, ..)| *at)
    };
    while let Some((at, place, inserted)) = first(rest) {
        text.push_str(&rest[..at]);
        said.push(text.len()..text.len() + inserted.len());
        text.push_str(inserted);
        rest = &rest[at + place.len()..];
    }
    text.push_str(rest);
    let length = |id: u32| {
        let mut special = tokenizer.special_tokens();
        special
            .find(|(other, ..)| *other == id)
            .map_or(0, |(.., text)| text.len())
    };
    let counts = |id: u32, at: usize| {
        let end = at + length(id);
        !said.iter().any(|range| at < range.end && range.start < end)
    };
    tokenizer.encode_where(&text, None, &counts)
}
