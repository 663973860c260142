//! Whether a space goes before a text.

use serde_json::Value as Json;

use super::{Entries, Family, Files};
use crate::tokenizer::Vocabulary;

impl Files<'_> {
    /// Whether a space goes before a text, where it is not the usual for the kind.
    pub(super) fn space_prefix(&self, family: Family, vocabulary: &Vocabulary, keys: &mut Entries) {
        let stated = self.config["add_prefix_space"]
            .as_bool()
            .filter(|_| family.name == "llama");
        let adds = stated
            .or_else(|| (vocabulary.model == "llama" && !self.adds_space(family)).then_some(false));
        if let Some(adds) = adds {
            keys.set("tokenizer.ggml.add_space_prefix", adds);
        }
        if vocabulary.model == "llama" && adds != Some(false) && self.adds_first_only() {
            keys.set("tokenizer.dram.prepend_scheme", "first");
        }
    }

    /// Whether the space goes before a text's beginning, and not before what follows a special token: llama.cpp has no key for it.
    fn adds_first_only(&self) -> bool {
        let metaspace = self.json.as_ref().map(|json| &json["pre_tokenizer"]);
        metaspace
            .is_some_and(|part| part["type"] == "Metaspace" && part["prepend_scheme"] == "first")
    }

    /// For SentencePiece: by `tokenizer.json` where there is one.
    fn adds_space(&self, family: Family) -> bool {
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
