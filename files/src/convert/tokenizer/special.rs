//! Which tokens begin, end and pad a text, whether they are added, and the chat template: as llama.cpp's converter finds them in the tokenizer's files.

use anyhow::{Result, bail};
use serde_json::Value as Json;

use super::{Entries, Fields, Files};
use crate::folder::read_json;
use crate::tokenizer::Vocabulary;

/// Names in Hugging Face's files and in GGUF's keys. A classifier's token is BERT's first one, and stands in the file as that.
const ROLES: [(&str, &str); 8] = [
    ("bos", "bos"),
    ("eos", "eos"),
    ("unk", "unknown"),
    ("sep", "seperator"),
    ("pad", "padding"),
    ("mask", "mask"),
    ("eot", "eot"),
    ("eom", "eom"),
];

/// The texts of roles, and what is added to a text.
#[derive(Default)]
struct Roles {
    texts: Vec<(&'static str, String)>,
    adds: Vec<(&'static str, bool)>,
}

impl Roles {
    fn text(&self, role: &str) -> Option<&str> {
        self.texts
            .iter()
            .find(|(other, _)| *other == role)
            .map(|(_, text)| text.as_str())
    }

    fn set(&mut self, role: &'static str, text: &str) {
        self.texts.retain(|(other, _)| *other != role);
        self.texts.push((role, text.to_owned()));
    }

    fn adds(&mut self, role: &'static str, adds: bool) {
        self.adds.retain(|(other, _)| *other != role);
        self.adds.push((role, adds));
    }

    fn is(&self, text: Option<&str>, roles: [&str; 2]) -> bool {
        text.is_some() && roles.iter().any(|role| self.text(role) == text)
    }

    /// `post_processor` of `tokenizer.json`.
    fn read_processor(&mut self, processor: &Json) {
        match processor["type"].as_str() {
            Some("Sequence") => processor["processors"]
                .as_array()
                .into_iter()
                .flatten()
                .for_each(|part| self.read_processor(part)),
            Some("ByteLevel") => {
                for role in ["bos", "eos"] {
                    if !self.adds.iter().any(|(other, _)| *other == role) {
                        self.adds(role, false);
                    }
                }
            }
            Some("RobertaProcessing") => {
                for role in ["bos", "eos", "sep"] {
                    self.adds(role, true);
                }
                for role in ["cls", "sep"] {
                    if let (None, Some(text)) = (self.text(role), processor[role][0].as_str()) {
                        self.set(role, text);
                    }
                }
            }
            Some("TemplateProcessing") => self.read_template(processor),
            _ => {}
        }
    }

    fn read_template(&mut self, processor: &Json) {
        let list = |key: &str| processor[key].as_array().map_or(&[][..], Vec::as_slice);
        fn special(part: &Json) -> Option<&str> {
            part["SpecialToken"]["id"].as_str()
        }
        let single = list("single");
        let (mut first, mut last) = (None, None);
        if let [begin, .., end] = single {
            (first, last) = (special(begin), special(end));
        }
        if let Some(first) = first {
            if !self.is(Some(first), ["bos", "cls"]) {
                for role in ["bos", "cls"] {
                    if self.text(role).is_none() {
                        self.set(role, first);
                    }
                }
            }
            let known = self.is(Some(first), ["bos", "cls"]);
            self.adds("bos", known);
        }
        if let Some(last) = last {
            if self.text("eos") != Some(last) {
                // What ends a text goes before what ends a turn.
                if let Some(turn) = self.text("eos").map(str::to_owned) {
                    let role = if self.text("eot").is_none() {
                        "eot"
                    } else {
                        "eom"
                    };
                    self.set(role, &turn);
                }
                self.set("eos", last);
            }
            self.adds("eos", true);
        }
        let mut pair = list("pair");
        if let Some((begin, rest)) = pair.split_first()
            && first.is_some()
            && special(begin) == first
        {
            pair = rest;
        }
        if let Some((end, rest)) = pair.split_last()
            && last.is_some()
            && special(end) == last
        {
            pair = rest;
        }
        let [a, middle @ .., b] = pair else {
            return;
        };
        if a["Sequence"]["id"] == "A" && b["Sequence"]["id"] == "B" && !middle.is_empty() {
            let separates = |part: &Json| self.is(special(part), ["sep", "eos"]);
            let adds = separates(&middle[0]) && last.is_none()
                || middle.len() == 2 && separates(&middle[1]);
            self.adds("sep", adds);
            if adds
                && let (None, Some(eos)) = (self.text("sep"), self.text("eos").map(str::to_owned))
            {
                self.set("sep", &eos);
            }
        }
    }
}

/// Sets the ids of special tokens, what is added to a text, how a text is normalised, and the chat template.
///
/// # Errors
/// When a template's file cannot be read.
pub(super) fn set(
    files: &Files<'_>,
    fields: &Fields,
    vocabulary: &Vocabulary,
    keys: &mut Entries,
) -> Result<()> {
    let mut roles = Roles::default();
    for role in ["bos", "eos", "unk", "sep", "pad", "cls", "mask"] {
        let value = &files.config[format!("{role}_token")];
        if let Some(text) = value.as_str().or(value["content"].as_str()) {
            roles.set(role, text);
        }
    }
    // BERT's files may name their first and last token only by their use.
    for (role, other) in [("bos", "cls"), ("eos", "sep")] {
        if let (None, Some(text)) = (roles.text(role), roles.text(other).map(str::to_owned)) {
            roles.set(role, &text);
        }
    }
    if let Some(json) = &files.json {
        roles.read_processor(&json["post_processor"]);
        normalizer(&json["normalizer"], keys);
    } else if vocabulary.model == "bert" {
        let lowers = files.config["do_lower_case"].as_bool().unwrap_or(true);
        keys.set("tokenizer.ggml.normalizer.lowercase", lowers);
        for (role, text) in [
            ("bos", "[CLS]"),
            ("eos", "[SEP]"),
            ("sep", "[SEP]"),
            ("unk", "[UNK]"),
            ("pad", "[PAD]"),
            ("mask", "[MASK]"),
        ] {
            if roles.text(role).is_none() {
                roles.set(role, text);
            }
        }
    }
    let id_of = |text: &str| match &files.json {
        Some(json) => {
            let mut listed = json["added_tokens"].as_array().into_iter().flatten();
            listed
                .find(|token| token["content"] == text)
                .and_then(|token| token["id"].as_u64())
        }
        None => vocabulary
            .tokens
            .iter()
            .position(|token| token == text)
            .map(|id| id as u64),
    };
    for (role, name) in ROLES {
        let named = roles.text(role).and_then(id_of);
        let id = named.or_else(|| fields[&*format!("{role}_token_id")].as_u64());
        let id = id
            .filter(|&id| id < vocabulary.tokens.len() as u64)
            .and_then(|id| u32::try_from(id).ok());
        if let Some(id) = id {
            keys.set(&format!("tokenizer.ggml.{name}_token_id"), id);
        }
    }
    for role in ["bos", "eos", "sep"] {
        let by_processor = roles
            .adds
            .iter()
            .find(|(other, _)| *other == role)
            .map(|(_, adds)| *adds);
        let stated = by_processor.or_else(|| files.config[format!("add_{role}_token")].as_bool());
        // The runtime's usual for a unigram model is T5's EOS.
        let nothing = vocabulary.model == "t5" && files.json.is_some() && role != "sep";
        let usual = (keys.architecture() == "modern-bert").then_some(true);
        let adds = stated.or(nothing.then_some(false)).or(usual);
        if let Some(adds) = adds {
            keys.set(&format!("tokenizer.ggml.add_{role}_token"), adds);
        }
    }
    chat_template(files, keys)
}

fn normalizer(part: &Json, keys: &mut Entries) {
    let mut set = |key: &str, value: &Json| {
        if let Some(value) = value.as_bool() {
            keys.set(&format!("tokenizer.ggml.normalizer.{key}"), value);
        }
    };
    match part["type"].as_str() {
        Some("Lowercase") => set("lowercase", &Json::Bool(true)),
        Some("StripAccents") => set("strip_accents", &Json::Bool(true)),
        Some("BertNormalizer") => {
            set("lowercase", &part["lowercase"]);
            set("strip_accents", &part["strip_accents"]);
        }
        Some("Sequence") => part["normalizers"]
            .as_array()
            .into_iter()
            .flatten()
            .for_each(|part| normalizer(part, keys)),
        _ => {}
    }
}

/// `tokenizer_config.json` may hold one template or several with names; newer folders have a file, and more in `additional_chat_templates`.
fn chat_template(files: &Files<'_>, keys: &mut Entries) -> Result<()> {
    let mut templates: Vec<(String, String)> = Vec::new();
    let stated = &files.config["chat_template"];
    let (jinja, old) = (
        files.folder.join("chat_template.jinja"),
        files.folder.join("chat_template.json"),
    );
    if let Some(text) = stated.as_str() {
        templates.push(("default".into(), text.into()));
    } else if let Some(list) = stated.as_array() {
        for entry in list {
            let (Some(name), Some(text)) = (entry["name"].as_str(), entry["template"].as_str())
            else {
                bail!("tokenizer_config.json: a chat template lacks its name or text");
            };
            templates.push((name.into(), text.into()));
        }
    } else if jinja.is_file() {
        templates.push(("default".into(), std::fs::read_to_string(jinja)?));
        let more = std::fs::read_dir(files.folder.join("additional_chat_templates"));
        for entry in more.into_iter().flatten() {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "jinja") {
                let name = path
                    .file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                templates.push((name, std::fs::read_to_string(&path)?));
            }
        }
        templates.sort();
    } else if old.is_file()
        && let Some(text) = read_json(&old)?["chat_template"].as_str()
    {
        templates.push(("default".into(), text.into()));
    }
    let mut names = Vec::new();
    for (name, text) in templates {
        if name == "default" {
            keys.set("tokenizer.chat_template", text);
            continue;
        }
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        keys.set(&format!("tokenizer.chat_template.{name}"), text);
        names.push(name);
    }
    if !names.is_empty() {
        keys.set("tokenizer.chat_templates", names);
    }
    Ok(())
}
