//! BPE, from `tokenizer.json`: byte-level, or SentencePiece's written as merges.

use anyhow::{Context, Result, bail, ensure};
use dram_core::tokenizer::Pretokenizer;
use serde_json::Value as Json;

use super::{Family, Files, check_count};
use crate::tokenizer::{Vocabulary, describe};

impl Files<'_> {
    pub(super) fn is_byte_level(&self) -> bool {
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

    /// Byte-level BPE, or SentencePiece's written as merges.
    pub(super) fn bpe(
        &self,
        json: &Json,
        rows: usize,
        pre: Option<&str>,
        family: Family,
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
}
