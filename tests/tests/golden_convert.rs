//! `dram convert` against llama.cpp's converter, key by key and tensor by tensor: `tests/golden/make_convert.py` kept what that makes of a tiny folder
//! of every family. The folders are built here again, since their weights are a function of name and place.

use dram_core::Model;
use dram_core::gguf::{File, Kind, Value};
use dram_tests::folder::{Case, Facts, fnv};
use dram_train::convert::Convert;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// Keys where the file is meant to differ from llama.cpp's, with the case, and why.
const APART: [(&str, &str, &str); 2] = [
    ("mistral", "llama.attention.sliding_window", "the converter leaves the window out, and the runtime has it"),
    ("llama-yarn", "tokenizer.ggml.scores", "-1000 for every token there, which loses the order of merges; here the rank of the merge"),
];

#[test]
fn every_family_converts_as_by_llama_cpp() {
    let facts = Facts::read();
    println!("{}", facts.versions);
    let mut wrong = Vec::new();
    for case in &facts.cases {
        let folder = tempfile::tempdir().unwrap();
        let folder = case.build(folder.path(), case.name == "qwen2");
        let target = folder.with_extension("gguf");
        let convert = Convert { float: Some(&case.float), ..Convert::default() };
        match convert.run(&folder, &target, &mut |_| {}) {
            Err(error) => wrong.push(format!("{}: {error:#}", case.name)),
            Ok(made) => {
                let verified = made.verified.expect("each case has a tokenizer.json");
                assert!(verified.texts > 600, "{}: {} texts", case.name, verified.texts);
                wrong.extend(differences(case, &File::open(&target).unwrap()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(facts.cases.len() >= 20);
}

fn differences(case: &Case, file: &File) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut say = |what: &str, expected: Option<String>, got: Option<String>| {
        let known = APART.iter().any(|(name, key, _)| *name == case.name && *key == what);
        if (expected != got) != known {
            wrong.push(format!("{}: {what}: expected {expected:?}, got {got:?}", case.name));
        }
    };
    let ours: BTreeMap<&str, String> = file.metadata().iter().map(|(key, value)| (key, describe(value))).collect();
    let theirs: BTreeMap<&str, String> = case.keys.iter().map(|(key, fact)| (key.as_str(), fact_text(fact))).collect();
    let mut keys: Vec<&str> = ours.keys().chain(theirs.keys()).copied().collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        say(key, theirs.get(key).cloned(), ours.get(key).cloned());
    }
    let mut ours: BTreeMap<String, String> = file
        .tensors()
        .map(|t| {
            let shape: Vec<String> = t.shape().iter().map(usize::to_string).collect();
            (t.name().to_owned(), format!("{} {} {:016x}", t.format().name, shape.join("x"), fnv(t.bytes())))
        })
        .collect();
    // Layers after the first have one hash.
    let other = |name: &String| name.starts_with("blk.") && !name.starts_with("blk.0.");
    let rest: Vec<String> = ours.iter().filter(|(name, _)| other(name)).map(|(name, text)| format!("{name} {text}")).collect();
    let mut sorted = rest;
    sorted.sort_unstable();
    ours.retain(|name, _| !other(name));
    ours.insert("...".into(), format!("{:016x}", fnv(sorted.join("\n").as_bytes())));
    let mut names: Vec<&String> = ours.keys().chain(case.tensors.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        say(name, case.tensors.get(name).cloned(), ours.get(name).cloned());
    }
    wrong
}

/// A value as facts.json has it: arrays by their hash.
fn describe(value: Value<'_>) -> String {
    fn bytes(value: Value<'_>) -> Vec<u8> {
        match value {
            Value::I32(v) => v.to_le_bytes().into(),
            Value::F32(v) => v.to_le_bytes().into(),
            Value::Bool(v) => vec![v.into()],
            Value::String(v) => [&(v.len() as u64).to_le_bytes(), v.as_bytes()].concat(),
            other => panic!("no array holds {other:?}"),
        }
    }
    match value {
        Value::U32(v) => format!("uint32 {v}"),
        Value::I32(v) => format!("int32 {v}"),
        Value::F32(v) => format!("float32 {v}"),
        Value::Bool(v) => format!("bool {v}"),
        Value::String(v) => format!("string {v}"),
        Value::Array(array) => {
            let kind = match array.kind() {
                Kind::String => "string",
                Kind::I32 => "int32",
                Kind::F32 => "float32",
                Kind::Bool => "bool",
                other => panic!("no array of {other}"),
            };
            let all: Vec<u8> = array.iter().flat_map(bytes).collect();
            format!("[{kind}] {} {:016x}", array.len(), fnv(&all))
        }
        other => panic!("no key has {other:?}"),
    }
}

fn fact_text(fact: &Json) -> String {
    let parts = fact.as_array().unwrap().iter().map(|part| match (part, fact[0].as_str()) {
        (Json::String(text), _) => text.clone(),
        (number, Some("float32")) => (number.as_f64().unwrap() as f32).to_string(),
        (other, _) => other.to_string(),
    });
    parts.collect::<Vec<_>>().join(" ")
}

/// What is wrong with a folder is said, and the file that was there before stays.
#[test]
fn bad_folders_are_refused_by_name() {
    let facts = Facts::read();
    let case = |name: &str| facts.cases.iter().find(|case| case.name == name).unwrap();
    type Damage = fn(&mut Case, &std::path::Path);
    let cases: &[(&str, &str, Damage)] = &[
        ("qwen2", "config.json", |_, folder| std::fs::remove_file(folder.join("config.json")).unwrap()),
        ("qwen2", "known are LlamaForCausalLM", |case, _| case.config["architectures"][0] = "MambaForCausalLM".into()),
        ("qwen2", "hidden_size is missing", |case, _| drop(case.config.as_object_mut().unwrap().remove("hidden_size"))),
        ("qwen2", "quantised (\"gptq\")", |case, _| case.config["quantization_config"]["quant_method"] = "gptq".into()),
        ("qwen2", "activation \"relu\"", |case, _| case.config["hidden_act"] = "relu".into()),
        ("qwen2", "intermediate_size", |case, _| case.config["intermediate_size"] = (1u64 << 40).into()),
        ("qwen2", "tensor layers.0.mlp.up_proj.weight: expected shape [49, 32] by config.json, got [48, 32]", |case, _| {
            case.config["intermediate_size"] = 49.into();
            case.weights.retain(|(name, _)| !name.contains("gate_proj"));
            case.weights.push(("model.layers.0.mlp.gate_proj.weight".into(), vec![49, 32]));
        }),
        ("qwen2", "tensor layers.0.self_attn.k_proj.weight is missing", |case, _| case.weights.retain(|(name, _)| !name.contains("k_proj.weight"))),
        ("qwen2", "tensor lm_head.weight is missing", |case, _| case.weights.retain(|(name, _)| name != "lm_head.weight")),
        ("qwen2", "tensor layers.0.mlp.experts.weight", |case, _| case.weights.push(("model.layers.0.mlp.experts.weight".into(), vec![2, 2]))),
        ("llama3", "RoPE scaling \"ntk\" is not known", |case, _| case.config["rope_parameters"]["rope_type"] = "ntk".into()),
        ("gemma2", "query_pre_attn_scalar is 144", |case, _| case.config["query_pre_attn_scalar"] = 144.into()),
        ("smollm3", "no_rope_layers", |case, _| case.config["no_rope_layers"] = vec![1, 1, 1, 1].into()),
        ("qwen2", "300 rows of embeddings", |case, _| {
            case.config["vocab_size"] = 300.into();
            for (_, shape) in case.weights.iter_mut().filter(|(_, shape)| shape[0] == 400) {
                shape[0] = 300;
            }
        }),
        ("qwen2", "--pre NAME", |case, _| case.edit("tokenizer.json", r"\\p{N}|", r"\\p{N}{1,4}|")),
        ("qwen2", "normalizer is \"Lowercase\"", |case, _| case.edit("tokenizer.json", "NFC", "Lowercase")),
        ("qwen2", "Unigram", |case, _| case.edit("tokenizer.json", r#"{"type":"BPE""#, r#"{"type":"Unigram""#)),
        ("qwen2", "is not JSON", |case, _| case.edit("tokenizer.json", "{", "")),
        ("qwen2", "has id 99999", |case, _| case.edit("tokenizer.json", r#"{"id":310"#, r#"{"id":99999"#)),
        // One merge less in the file than in tokenizer.json's own words: known only by comparing.
        ("llama-linear", "the runtime cuts", |case, _| case.edit("tokenizer.json", r#"{"type":"Prepend","prepend":"▁"},"#, "")),
        ("llama-linear", "truncated", |case, folder| {
            let model = case.files.get_mut("tokenizer.model").unwrap();
            model.truncate(1000);
            let _ = folder;
        }),
    ];
    for (name, expected, damage) in cases {
        let temporary = tempfile::tempdir().unwrap();
        let mut case = case(name).clone();
        damage(&mut case, temporary.path().join("nothing").as_path_or_built());
        let folder = case.build(temporary.path(), false);
        check(&folder, expected);
    }
}

#[test]
fn students_convert_to_what_they_export() {}
