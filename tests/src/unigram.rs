//! The vocabularies of `tests/golden/unigram.json` as files; `make_unigram.py` says what is in them.

use crate::gguf::{Gguf, Value};
use serde_json::Value as Json;

/// A vocabulary, and the ids that SentencePiece gives to each text.
pub struct Golden {
    pub file: Gguf,
    pub ids: Vec<Vec<u32>>,
    /// Whether spaces beside others are left out.
    pub merges_spaces: bool,
}

/// The texts, and the vocabularies.
pub fn goldens() -> (Vec<String>, Vec<Golden>) {
    let all: Json = serde_json::from_str(include_str!("../golden/unigram.json")).unwrap();
    let texts = serde_json::from_value(all["texts"].clone()).unwrap();
    let models = all["models"].as_array().unwrap();
    (texts, models.iter().map(golden).collect())
}

fn golden(model: &Json) -> Golden {
    let list = |key: &str| model[key].as_array().unwrap().iter();
    let flag = |key: &str| model[key].as_bool().unwrap();
    let hex = model["charsmap"].as_str().unwrap();
    let mut charsmap = 0u32.to_le_bytes().to_vec(); // of u8
    charsmap.extend((hex.len() as u64 / 2).to_le_bytes());
    let digits = hex.as_bytes().chunks(2);
    charsmap
        .extend(digits.map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()));
    let mut file = Gguf::default();
    let mut set = |key: &str, value| file.set(&format!("tokenizer.ggml.{key}"), value);
    set("model", Value::Str("t5".into()));
    set(
        "tokens",
        Value::Strs(list("tokens").map(|t| t.as_str().unwrap().into()).collect()),
    );
    set(
        "scores",
        Value::F32s(list("scores").map(|s| s.as_f64().unwrap() as f32).collect()),
    );
    set(
        "token_type",
        Value::I32s(list("types").map(|t| t.as_i64().unwrap() as i32).collect()),
    );
    set("precompiled_charsmap", Value::Raw(9, charsmap));
    set("add_space_prefix", Value::Bool(flag("adds_space")));
    set(
        "remove_extra_whitespaces",
        Value::Bool(flag("merges_spaces")),
    );
    set("unknown_token_id", Value::U32(0));
    set("bos_token_id", Value::U32(1));
    set("eos_token_id", Value::U32(2));
    file.set("general.architecture", Value::Str("t5".into()));
    Golden {
        file,
        ids: serde_json::from_value(model["ids"].clone()).unwrap(),
        merges_spaces: flag("merges_spaces"),
    }
}
