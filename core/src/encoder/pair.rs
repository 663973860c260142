//! A query and a document as the tokens of one text.

use crate::model::Model;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
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
            let [queries, documents] = PLACES.map(|place| template.matches(place).count());
            if [queries, documents] != [1, 1] {
                return Err(Error::BadKey {
                    file: model.gguf().name().to_owned(),
                    key: TEMPLATE.into(),
                    expected: format!("{} once each", PLACES.join(" and ")),
                    got: format!("{queries} and {documents} of them"),
                });
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::File;

    /// A file with nothing but a byte-level vocabulary: `<` and letters, and the control token `<x>`.
    fn tokenizer() -> Tokenizer {
        let tokens = ["a", "b", "x", "<", ">", "<x>"];
        let string = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
        let list = |kind: u32, count: usize, bytes: Vec<u8>| {
            let head = [
                kind.to_le_bytes().to_vec(),
                (count as u64).to_le_bytes().to_vec(),
            ];
            [head.concat(), bytes].concat()
        };
        let texts = tokens.iter().flat_map(|token| string(token)).collect();
        let types = [1i32, 1, 1, 1, 1, 3].iter().flat_map(|n| n.to_le_bytes());
        let keys = [
            ("model", 8u32, string("gpt2")),
            ("pre", 8, string("gpt-2")),
            ("tokens", 9, list(8, tokens.len(), texts)),
            ("token_type", 9, list(5, tokens.len(), types.collect())),
            ("merges", 9, list(8, 0, Vec::new())),
        ];
        let mut bytes = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        bytes.extend((keys.len() as u64).to_le_bytes());
        for (key, kind, value) in keys {
            bytes.extend(string(&format!("tokenizer.ggml.{key}")));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(value);
        }
        Tokenizer::from_gguf(&File::from_bytes("vocabulary", bytes).unwrap()).unwrap()
    }

    #[test]
    fn only_the_template_writes_special_tokens() {
        let tokenizer = tokenizer();
        let template = "<x>{document}<{query}<x>";
        let ids = fill(&tokenizer, template, ["x>a", "<x>b"]);
        assert_eq!(ids, [5, 3, 2, 4, 1, 3, 2, 4, 0, 5]);
        // What a text spells is no place for another.
        let ids = fill(&tokenizer, "{query}{document}", ["a", "b"]);
        assert_eq!(ids, [0, 1]);
    }
}
