//! `dram convert` against llama.cpp's converter, key by key and tensor by tensor: `tests/golden/make_convert.py` kept what that makes of a tiny folder
//! of every family. The folders are built here again, since their weights are a function of name and place.

use dram_core::gguf::{File, Kind, Value};
use dram_core::hash::fnv1a;
use dram_core::{Model, OpenOptions, SessionOptions};
use dram_files::convert::Convert;
use dram_tests::folder::{Case, Facts};
use dram_tests::gguf::Gguf;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::Path;

/// Keys, or what several begin with, where the file is meant to differ from llama.cpp's, with the case, and why.
const APART: [(&str, &str, &str); 8] = [
    (
        "bert-rank",
        "cls.weight",
        "the converter leaves the pooler out, which the classifier reads",
    ),
    ("bert-rank", "cls.bias", "the same"),
    ("bert-rank", "general.size_label", "the same"),
    (
        "mistral",
        "llama.attention.sliding_window",
        "the converter leaves the window out, and the runtime has it",
    ),
    (
        "llama-yarn",
        "tokenizer.ggml.scores",
        "-1000 for every token there, which loses the order of merges; here the rank of the merge",
    ),
    (
        "qwen3-moe-stacked",
        "qwen3moe.expert_weights_norm",
        "the converter leaves norm_topk_prob out, and the runtime has it",
    ),
    (
        "granite-attention",
        "granite.ssm.",
        "the converter writes the sizes of state spaces that the model does not have",
    ),
    (
        "granite-attention",
        "granite.attention.head_count_kv",
        "the converter writes the same number for each layer",
    ),
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
        let convert = Convert {
            float: Some(&case.float),
            ..Convert::default()
        };
        match convert.run(&folder, &target, &mut |_| {}) {
            Err(error) => wrong.push(format!("{}: {error:#}", case.name)),
            Ok(made) => {
                let verified = made.verified.expect("each case has a tokenizer.json");
                assert!(
                    verified.texts > 600,
                    "{}: {} texts",
                    case.name,
                    verified.texts
                );
                wrong.extend(differences(case, &File::open(&target).unwrap()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(facts.cases.len() >= 25);
}

fn differences(case: &Case, file: &File) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut say = |what: &str, expected: Option<String>, got: Option<String>| {
        let known = APART.iter().any(|(name, key, _)| {
            *name == case.name && (*key == what || key.ends_with('.') && what.starts_with(key))
        });
        if (expected != got) != known {
            wrong.push(format!(
                "{}: {what}: expected {expected:?}, got {got:?}",
                case.name
            ));
        }
    };
    let ours: BTreeMap<&str, String> = file
        .metadata()
        .iter()
        .map(|(key, value)| (key, describe(value)))
        .collect();
    let theirs: BTreeMap<&str, String> = case
        .keys
        .iter()
        .map(|(key, fact)| (key.as_str(), fact_text(fact)))
        .collect();
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
            (
                t.name().to_owned(),
                format!(
                    "{} {} {:016x}",
                    t.format().name,
                    shape.join("x"),
                    fnv1a(t.bytes().iter().copied())
                ),
            )
        })
        .collect();
    // Layers after the first have one hash.
    let other = |name: &String| name.starts_with("blk.") && !name.starts_with("blk.0.");
    let rest: Vec<String> = ours
        .iter()
        .filter(|(name, _)| other(name))
        .map(|(name, text)| format!("{name} {text}"))
        .collect();
    let mut sorted = rest;
    sorted.sort_unstable();
    ours.retain(|name, _| !other(name));
    ours.insert(
        "...".into(),
        format!("{:016x}", fnv1a(sorted.join("\n").bytes())),
    );
    let mut names: Vec<&String> = ours.keys().chain(case.tensors.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        say(
            name,
            case.tensors.get(name).cloned(),
            ours.get(name).cloned(),
        );
    }
    wrong
}

/// A value as facts.json has it: arrays by their hash.
fn describe(value: Value<'_>) -> String {
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
            let hash = fnv1a(array.bytes().iter().copied());
            format!("[{kind}] {} {hash:016x}", array.len())
        }
        other => panic!("no key has {other:?}"),
    }
}

fn fact_text(fact: &Json) -> String {
    let parts = fact
        .as_array()
        .unwrap()
        .iter()
        .map(|part| match (part, fact[0].as_str()) {
            (Json::String(text), _) => text.clone(),
            (number, Some("float32")) => (number.as_f64().unwrap() as f32).to_string(),
            (other, _) => other.to_string(),
        });
    parts.collect::<Vec<_>>().join(" ")
}

/// What older folders call otherwise, or leave out.
#[test]
fn older_folders_give_the_same_file() {
    type Change = fn(&mut serde_json::Map<String, Json>);
    let cases: [(&str, Change); 5] = [
        ("qwen3-moe", |config| {
            let experts = config.remove("num_local_experts").unwrap();
            config.insert("num_experts".into(), experts);
            for field in ["decoder_sparse_step", "mlp_only_layers"] {
                config.remove(field).unwrap();
            }
        }),
        ("lfm2", |config| {
            let length = config.remove("intermediate_size").unwrap();
            config.insert("block_ff_dim".into(), length);
            let fields = [
                "layer_types",
                "conv_L_cache",
                "norm_eps",
                "rope_parameters",
                "tie_word_embeddings",
                "block_auto_adjust_ff_dim",
            ];
            for field in fields {
                config.remove(field).unwrap();
            }
            config.insert("full_attn_idxs".into(), vec![2].into());
            config.insert("tie_embedding".into(), true.into());
        }),
        ("gemma4", |config| {
            config.remove("per_layer_config").unwrap();
            config.insert("global_head_dim".into(), 16.into());
            for field in ["num_key_value_heads", "rms_norm_eps"] {
                let value = config.remove(field).unwrap();
                assert!(value == 2 || value == 1e-6);
            }
            config.insert("num_key_value_heads".into(), 2.into());
        }),
        ("gemma4-dense", |config| {
            config.remove("per_layer_config").unwrap();
            config.insert("global_head_dim".into(), 16.into());
            config.insert("num_global_key_value_heads".into(), 1.into());
        }),
        ("lfm2-moe", |config| {
            for field in ["use_expert_bias", "norm_topk_prob", "routed_scaling_factor"] {
                config.remove(field).unwrap();
            }
        }),
    ];
    let facts = Facts::read();
    for (name, change) in cases {
        let convert = |case: &Case| {
            let parent = tempfile::tempdir().unwrap();
            let folder = case.build(parent.path(), false);
            let target = folder.with_extension("gguf");
            Convert::default()
                .run(&folder, &target, &mut |_| {})
                .unwrap();
            std::fs::read(&target).unwrap()
        };
        let mut case = facts.case(name);
        let expected = convert(&case);
        change(case.config.as_object_mut().unwrap());
        assert!(convert(&case) == expected, "{name}");
    }
}

/// Published folders of Gemma 4 still have keys and values of layers that read another one's cache, and llama.cpp's converter writes them.
#[test]
fn what_nothing_reads_is_left_out_and_allowed() {
    let parent = tempfile::tempdir().unwrap();
    let convert = |case: &Case, name: &str| {
        let folder = case.build(&parent.path().join(name), false);
        let target = folder.with_extension("gguf");
        Convert::default()
            .run(&folder, &target, &mut |_| {})
            .unwrap();
        File::open(&target).unwrap()
    };
    let mut case = Facts::read().case("gemma4");
    let plain = convert(&case, "plain");
    for (name, shape) in [
        ("k_proj", vec![16, 32]),
        ("v_proj", vec![16, 32]),
        ("k_norm", vec![8]),
    ] {
        let name = format!("model.layers.4.self_attn.{name}.weight");
        case.weights.push((name, shape));
    }
    assert!(convert(&case, "more").bytes() == plain.bytes());

    let mut more = Gguf::copy(&plain);
    for (name, of) in [
        ("attn_k", "blk.2.attn_k.weight"),
        ("attn_v", "blk.2.attn_v.weight"),
        ("attn_k_norm", "blk.2.attn_k_norm.weight"),
    ] {
        let mut tensor = more.tensor(of).clone();
        tensor.name = format!("blk.4.{name}.weight");
        more.tensors.push(tensor);
    }
    let more = File::from_bytes("more", more.bytes()).unwrap();
    let logits = |file: File| {
        let model = Model::from_gguf(file, &OpenOptions::default()).unwrap();
        let mut session = model.session(SessionOptions::default()).unwrap();
        session.prefill(&[9, 8, 7, 6]).unwrap().to_vec()
    };
    assert_eq!(logits(more), logits(plain));
}

/// What is wrong with a folder is said, and the file that was there before stays.
/// The cards of embedding models name the rerankers of their series.
#[test]
fn an_embedding_model_is_no_reranker() {
    let folder = tempfile::tempdir().unwrap();
    let folder = Facts::read()
        .case("qwen3-embedding")
        .build(folder.path(), false);
    let pooling = |card: &str| {
        std::fs::write(folder.join("README.md"), card).unwrap();
        let target = folder.with_extension("gguf");
        Convert::default().run(&folder, &target, &mut |_| {})?;
        let file = File::open(&target)?;
        Ok::<_, anyhow::Error>(file.metadata().opt_u32("qwen3.pooling_type")?)
    };
    let table = "# Qwen3-Embedding-0.6B\n| Text Reranking | [Qwen3-Reranker-0.6B](x) |\n";
    assert_eq!(pooling(table).unwrap(), Some(3));
    let error = pooling("# Qwen3-Reranker-0.6B\n").unwrap_err();
    assert!(format!("{error:#}").contains("yes"), "{error:#}");
}

#[test]
fn bad_folders_are_refused_by_name() {
    type Damage = fn(&mut Case);
    let cases: &[(&str, &str, Damage)] = &[
        ("qwen2", "LlamaForCausalLM, LlamaModel", |c| {
            c.config["architectures"][0] = "MambaForCausalLM".into()
        }),
        ("qwen2", "hidden_size is missing", |c| {
            c.config["hidden_size"] = Json::Null
        }),
        ("qwen2", "quantised (\"gptq\")", |c| {
            c.config["quantization_config"]["quant_method"] = "gptq".into()
        }),
        ("qwen2", "activation \"relu\"", |c| {
            c.config["hidden_act"] = "relu".into()
        }),
        ("qwen2", "intermediate_size", |c| {
            c.config["intermediate_size"] = (1u64 << 40).into()
        }),
        ("qwen2", "num_attention_heads", |c| {
            c.config["num_attention_heads"] = 0.into()
        }),
        (
            "qwen2",
            "layers.0.mlp.gate_proj.weight: expected shape [49, 32] by config.json, got [48, 32]",
            |c| {
                c.config["intermediate_size"] = 49.into();
            },
        ),
        (
            "qwen2",
            "layers.0.self_attn.k_proj.weight is missing",
            |c| {
                c.weights
                    .retain(|(name, _)| !name.ends_with("k_proj.weight"))
            },
        ),
        ("qwen2", "lm_head.weight is missing", |c| {
            c.weights.retain(|(name, _)| name != "lm_head.weight")
        }),
        ("qwen2", "layers.0.mlp.router.weight [2, 2] is none", |c| {
            c.weights
                .push(("model.layers.0.mlp.router.weight".into(), vec![2, 2]))
        }),
        ("qwen2", "expected model.safetensors", |c| c.weights.clear()),
        ("llama3", "RoPE scaling \"ntk\" is not known", |c| {
            c.config["rope_parameters"]["rope_type"] = "ntk".into()
        }),
        ("gemma2", "query_pre_attn_scalar is 144", |c| {
            c.config["query_pre_attn_scalar"] = 144.into()
        }),
        ("gemma4", "with experts is not supported", |c| {
            c.config["enable_moe_block"] = true.into()
        }),
        ("gemma4", "num_kv_shared_layers is 6 of 6", |c| {
            c.config["num_kv_shared_layers"] = 6.into()
        }),
        ("gemma4", "use_bidirectional_attention is", |c| {
            c.config["use_bidirectional_attention"] = "all".into()
        }),
        ("gemma4", "partial_rotary_factor = 2", |c| {
            c.config["rope_parameters"]["full_attention"]["partial_rotary_factor"] = 2.into()
        }),
        ("gemma4", "embed_tokens_per_layer.weight: expected", |c| {
            c.config["hidden_size_per_layer_input"] = 9.into()
        }),
        ("gemma4", "expected Gemma 4's BPE", |c| {
            c.edit(
                "tokenizer.json",
                "\"Replace\",\"pattern\":{\"String\":\" \"",
                "\"Replace\",\"pattern\":{\"String\":\"_\"",
            )
        }),
        ("smollm3", "no_rope_layers", |c| {
            c.config["no_rope_layers"] = vec![1; 4].into()
        }),
        ("qwen3-moe", "decoder_sparse_step is 2", |c| {
            c.config["decoder_sparse_step"] = 2.into()
        }),
        ("qwen3-moe", "mlp_only_layers is [1]", |c| {
            c.config["mlp_only_layers"] = vec![1].into()
        }),
        ("qwen3-moe", "moe_intermediate_size is missing", |c| {
            c.config["moe_intermediate_size"] = Json::Null
        }),
        (
            "qwen3-moe",
            "layers.1.mlp.experts.7.up_proj.weight is missing",
            |c| {
                c.weights
                    .retain(|(name, _)| !name.ends_with("1.mlp.experts.7.up_proj.weight"))
            },
        ),
        (
            "qwen3-moe-stacked",
            "gate_up_proj: expected shape [8, 46, 32]",
            |c| c.config["moe_intermediate_size"] = 23.into(),
        ),
        ("lfm2", "layer_types has \"mamba\"", |c| {
            c.config["layer_types"][1] = "mamba".into()
        }),
        ("lfm2", "layer_types has 4 entries for 5 layers", |c| {
            c.config["num_hidden_layers"] = 5.into()
        }),
        ("lfm2", "conv.conv.weight: expected shape [32, 1, 4]", |c| {
            c.config["conv_L_cache"] = 4.into()
        }),
        ("lfm2", "conv_bias", |c| c.config["conv_bias"] = true.into()),
        ("lfm2-moe", "expert_bias [8] is none", |c| {
            c.config["use_expert_bias"] = false.into()
        }),
        ("qwen2", "the model has 300 rows", |c| {
            c.config["vocab_size"] = 300.into();
            c.weights
                .iter_mut()
                .filter(|(_, shape)| shape[0] == 400)
                .for_each(|(_, shape)| shape[0] = 300);
        }),
        ("qwen2", "--pre NAME", |c| {
            c.edit("tokenizer.json", r"|\\p{N}|", r"|\\p{N}{1,4}|")
        }),
        ("qwen2", "its normalizer is \"Lowercase\"", |c| {
            c.edit("tokenizer.json", "NFC", "Lowercase")
        }),
        ("qwen2", "expected a list of tokens with scores", |c| {
            c.edit(
                "tokenizer.json",
                r#""model":{"type":"BPE""#,
                r#""model":{"type":"Unigram""#,
            )
        }),
        ("qwen2", "is not JSON", |c| {
            c.edit("tokenizer.json", "{", "")
        }),
        ("qwen2", "token ids reach 100000000", |c| {
            c.edit("tokenizer.json", r#""id":310"#, r#""id":99999999"#)
        }),
        ("qwen2", "expected tokenizer.json or tokenizer.model", |c| {
            drop(c.files.remove("tokenizer.json"))
        }),
        ("qwen2", "vocab.json and merges.txt do not say", |c| {
            drop(c.files.remove("tokenizer.json"));
            for name in ["vocab.json", "merges.txt"] {
                c.files.insert(name.into(), Vec::new());
            }
        }),
        ("bert-mean", "expected tokenizer.json or vocab.txt", |c| {
            drop(c.files.remove("tokenizer.json"))
        }),
        ("llama-linear", "tokenizer.model", |c| {
            c.files.get_mut("tokenizer.model").unwrap().truncate(1000)
        }),
        // Both files are in order, but they are not of one tokenizer: only the comparison tells.
        ("llama-linear", "the runtime cuts", |c| {
            swap_scores(c.files.get_mut("tokenizer.model").unwrap())
        }),
    ];
    let facts = Facts::read();
    for (name, expected, damage) in cases {
        let parent = tempfile::tempdir().unwrap();
        let mut case = facts.case(name);
        damage(&mut case);
        let folder = case.build(parent.path(), false);
        if case.weights.is_empty() {
            std::fs::remove_file(folder.join("model.safetensors")).unwrap();
        }
        refused(&folder, expected);
    }
    // What no header says.
    let parent = tempfile::tempdir().unwrap();
    let folder = facts.case("qwen3").build(parent.path(), false);
    let weights = std::fs::read(folder.join("model.safetensors")).unwrap();
    for length in [0, 7, 100, weights.len() / 2, weights.len() - 1] {
        std::fs::write(folder.join("model.safetensors"), &weights[..length]).unwrap();
        refused(&folder, "model.safetensors");
    }
    let mut infinite = weights.clone();
    let end = infinite.len();
    infinite[end - 2..].copy_from_slice(&[0x00, 0x7c]);
    std::fs::write(folder.join("model.safetensors"), &infinite).unwrap();
    refused(&folder, "not finite");
    std::fs::write(folder.join("model.safetensors"), &weights).unwrap();
    std::fs::remove_file(folder.join("config.json")).unwrap();
    refused(&folder, "no config.json");
}

/// SentencePiece stores a piece's score as field 2: a tag 0x15 and four bytes. Reverses their order among the merged pieces.
fn swap_scores(model: &mut [u8]) {
    let at: Vec<usize> = (0..model.len() - 5)
        .filter(|&i| {
            model[i] == 0x15 && f32::from_le_bytes(model[i + 1..i + 5].try_into().unwrap()) < -1.0
        })
        .collect();
    assert!(at.len() > 20);
    for (&a, &b) in at.iter().zip(at.iter().rev()).take(at.len() / 2) {
        for byte in 1..5 {
            model.swap(a + byte, b + byte);
        }
    }
}

fn refused(folder: &Path, expected: &str) {
    let target = folder.with_extension("out.gguf");
    std::fs::write(&target, "before").unwrap();
    let error = Convert::default()
        .run(folder, &target, &mut |_| {})
        .expect_err(expected);
    let error = format!("{error:#}");
    assert!(
        error.contains(expected),
        "expected {expected:?} in: {error}"
    );
    assert_eq!(std::fs::read(&target).unwrap(), b"before");
    let left = std::fs::read_dir(target.parent().unwrap()).unwrap().count();
    assert_eq!(
        left, 2,
        "{expected}: the folder and the old file, nothing beside them"
    );
}

/// A student's folder, converted with the tokenizer of its export, is its export: the same tensors and the same logits.
#[test]
fn a_students_folder_converts_to_its_export() {
    let vocabulary = dram_train::data::TextTokenizer::train(
        ["a dram is a small measure", "a small dram"].iter(),
        270,
        &["<|end|>"],
        None,
    )
    .unwrap();
    let config = dram_train::student::Config {
        vocabulary: vocabulary.len(),
        embedding_length: 64,
        layers: 2,
        kv_heads: 2,
        head_dim: 16,
        feed_forward_length: 96,
        rope_factors: (0..8).map(|i| 1.0 + i as f32 / 3.0).collect(),
        ..dram_train::student::Config::default()
    };
    let decoder = dram_train::student::Decoder::random(config, 7).unwrap();
    let parent = tempfile::tempdir().unwrap();
    let (folder, exported, converted) = (
        parent.path().join("student"),
        parent.path().join("exported.gguf"),
        parent.path().join("converted.gguf"),
    );
    decoder.save_hugging_face(&folder).unwrap();
    let scheme = dram_train::student::Scheme::by_name("f16", "f16", "f16").unwrap();
    let export = dram_train::export::Export {
        name: "student",
        config: decoder.config(),
        weights: decoder.parameters(),
        scheme: &scheme,
        vocabulary: vocabulary.vocabulary(),
        metadata: Vec::new(),
    };
    export.unverified(&exported).unwrap();
    let convert = Convert {
        float: Some("f16"),
        tokenizer: Some(&exported),
        ..Convert::default()
    };
    convert.run(&folder, &converted, &mut |_| {}).unwrap();
    let logits = |path: &Path| {
        let model = Model::open(path).unwrap();
        let mut all = Vec::new(); // [ids, vocabulary]
        let mut session = model
            .session(SessionOptions {
                context: Some(64),
                threads: Some(1),
                ..SessionOptions::default()
            })
            .unwrap();
        session
            .evaluate(&[1, 5, 9, 200, 260, 3], &mut |_, logits| {
                all.extend_from_slice(logits)
            })
            .unwrap();
        all
    };
    assert_eq!(logits(&exported), logits(&converted));
}
