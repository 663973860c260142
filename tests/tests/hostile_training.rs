//! Broken inputs of training: data files, recipes, checkpoints and Hugging Face folders. Each is refused with an error
//! that names the place, and none brings the program down.

use dram_tests::toy::{Shape, splitmix};
use dram_train::checkpoint::{self, Schedule, State};
use dram_train::data::{TextTokenizer, read_records, read_text};
use dram_train::identity::Identity;
use dram_train::recipe::Recipe;
use dram_train::student::Decoder;
use std::path::Path;

/// The error's message, with its causes; panics where there is none.
fn message<T>(name: &str, result: anyhow::Result<T>) -> String {
    match result {
        Ok(_) => panic!("{name}: accepted"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn records() {
    let folder = tempfile::tempdir().unwrap();
    let good = r#"{"prompt": "a", "completion": "b"}"#;
    let path = folder.path().join("data.jsonl");
    for (name, bad, fragment) in [
        ("no JSON", "nonsense", "data.jsonl:2"),
        ("cut short", r#"{"prompt": "a", "comple"#, "data.jsonl:2"),
        ("a list", "[1, 2]", "a list"),
        ("a number", "7", "a number"),
        ("null", "null", "null"),
        ("an empty object", "{}", "unknown kind"),
        (
            "unknown keys",
            r#"{"heading": "a", "label": "b"}"#,
            "heading",
        ),
        ("no completion", r#"{"prompt": "a"}"#, "completion"),
        (
            "a number for a prompt",
            r#"{"prompt": 1, "completion": "b"}"#,
            "prompt",
        ),
        (
            "a list for a completion",
            r#"{"prompt": "a", "completion": ["b"]}"#,
            "completion",
        ),
        ("messages no list", r#"{"messages": "hello"}"#, "messages"),
        ("messages empty", r#"{"messages": []}"#, "messages"),
        (
            "a message no object",
            r#"{"messages": ["hello"]}"#,
            "turn 0",
        ),
        (
            "a message without content",
            r#"{"messages": [{"role": "user"}]}"#,
            "content",
        ),
        (
            "an unknown role",
            r#"{"messages": [{"role": "narrator", "content": "x"}]}"#,
            "narrator",
        ),
        (
            "nobody answers",
            r#"{"messages": [{"role": "user", "content": "x"}]}"#,
            "assistant",
        ),
        (
            "ShareGPT without value",
            r#"{"conversations": [{"from": "human"}]}"#,
            "value",
        ),
        (
            "Alpaca without output",
            r#"{"instruction": "do"}"#,
            "output",
        ),
        (
            "Alpaca with a number for input",
            r#"{"instruction": "do", "input": 3, "output": "x"}"#,
            "input",
        ),
        (
            "two values in a line",
            r#"{"prompt": "a", "completion": "b"} {"prompt": "a", "completion": "b"}"#,
            "data.jsonl:2",
        ),
        (
            "a lone surrogate",
            r#"{"prompt": "\ud800", "completion": "b"}"#,
            "data.jsonl:2",
        ),
    ] {
        std::fs::write(&path, format!("{good}\n{bad}\n{good}\n")).unwrap();
        let message = message(name, read_records(&path));
        assert!(
            message.contains(fragment) && message.contains("data.jsonl"),
            "{name}: {message:?} lacks {fragment:?}"
        );
    }
    // Deeply nested JSON must not exhaust the stack.
    std::fs::write(&path, "[".repeat(200_000)).unwrap();
    message("nested lists", read_records(&path));
    std::fs::write(&path, format!("{{\"prompt\": {}", "[".repeat(200_000))).unwrap();
    message("nested lists in a record", read_records(&path));
    std::fs::write(&path, "\n\n").unwrap();
    assert!(message("no records", read_records(&path)).contains("no record"));
    std::fs::write(&path, b"{\"prompt\": \"\xff\"}").unwrap();
    assert!(message("not UTF-8", read_records(&path)).contains("data.jsonl:1"));
    assert!(message("no such file", read_text(&[folder.path().join("absent")])).contains("absent"));
}

#[test]
fn recipes() {
    for (bad, fragment) in [
        ("[student]\nlayers = 0", "layers"),
        ("[student]\nlayers = -1", "layers"),
        ("[student]\nheads = 0", "heads"),
        (
            "[student]\nembedding_length = 4294967296",
            "embedding_length",
        ),
        (
            "[student]\nembedding_length = 268435456\nfeed_forward_length = 268435456",
            "parameters",
        ),
        ("[student]\nhead_dim = 31", "head_dim"),
        ("[student]\nrope_base = 0", "rope_base"),
        ("[student]\nrope_base = nan", "rope_base"),
        ("[student]\nnorm_eps = -1", "norm_eps"),
        ("[student]\nlayers = \"four\"", "layers"),
        ("[train]\nlearning_rate = 0", "learning_rate"),
        ("[train]\nlearning_rate = nan", "learning_rate"),
        ("[train]\nlearning_rate = inf", "learning_rate"),
        ("[train]\nbeta1 = 1.0", "beta1"),
        ("[train]\nclip = -1", "clip"),
        ("[train]\nshards = 0", "shards"),
        ("[train]\nthreads = 0", "threads"),
        ("[train]\nbatch = 0", "batch"),
        ("[train]\nsteps = 1e3", "steps"),
        ("[data]\nheld_out_share = 1.0", "held_out_share"),
        ("[data]\nheld_out_share = nan", "held_out_share"),
        ("[data]\nvocabulary = 10", "vocabulary"),
        ("[eval]\nexamples = 0", "examples"),
        ("[quant]\nstart = nan", "start"),
        ("[quant]\nlinear = \"\"", "q4_0"),
        ("[export]\nformat = \"q2_k\"", "multiples of 256"),
        ("[losses]\ncross_entropy = { weight = \"much\" }", "weight"),
        ("[losses]\ncross_entropy = 1", "cross_entropy"),
        ("[teacher]", "path"),
        ("[teacher]\npath = 3", "path"),
        ("[studnet]\nlayers = 2", "studnet"),
        ("steps = 3", "steps"),
    ] {
        let message = message(bad, Recipe::parse(bad));
        assert!(
            message.contains(fragment),
            "{bad}: {message:?} lacks {fragment:?}"
        );
    }
    let text = "name = \"x\"\n[data]\nkind = \"text\"\npath = \"a.txt\"\n[student]\nlayers = 3\n[train]\nsteps = 30\n[quant]\nstart = 0.5\n";
    assert!(Recipe::parse(text).is_ok());
    for round in 0..2000 {
        // Any answer will do, as long as there is one.
        let _ = Recipe::parse(&String::from_utf8_lossy(&changed(
            text.as_bytes(),
            round,
            text.len(),
        )));
    }
}

#[test]
fn checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let state = State {
        step: 1234,
        updates: 1234,
        identity: Identity::of("recipe", "this one"),
        schedule: Schedule {
            steps: 2000,
            warmup: 100,
            quantise_from: Some(1000),
        },
    };
    let values: Vec<f32> = (0..64).map(|i| i as f32).collect();
    checkpoint::save(&path, &state, &[("weights", &values), ("moments", &values)]).unwrap();
    let good = std::fs::read(&path).unwrap();
    let load = |bytes: &[u8], recipe: &str, length: usize| {
        std::fs::write(&path, bytes).unwrap();
        let (mut a, mut b) = (vec![0f32; length], vec![0f32; length]);
        let state = checkpoint::load(
            &path,
            &Identity::of("recipe", recipe),
            &mut [("weights", &mut a), ("moments", &mut b)],
        )?;
        anyhow::Ok((state, a, b))
    };
    let whole = (state, values.clone(), values);
    assert_eq!(load(&good, "this one", 64).unwrap(), whole);
    assert!(
        message("another recipe", load(&good, "another", 64))
            .contains("expected this one, got another")
    );
    assert!(message("another shape", load(&good, "this one", 65)).contains("weights"));
    for length in [0, 1, 8, 9, 100, good.len() / 2, good.len() - 1] {
        assert!(message("cut short", load(&good[..length], "this one", 64)).contains("checkpoint"));
    }
    assert!(
        message(
            "with a tail",
            load(&[&good[..], &[0; 4]].concat(), "this one", 64)
        )
        .contains("checkpoint")
    );
    for round in 0..1000 {
        if let Ok(loaded) = load(&changed(&good, round, good.len()), "this one", 64) {
            assert!(
                loaded == whole,
                "round {round}: a damaged checkpoint was taken for good: {:?}",
                loaded.0
            );
        }
    }
}

#[test]
fn hugging_face_folders() {
    let shape = Shape {
        width: 32,
        ffn: 64,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        ..Shape::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (config, weights) = (folder.join("config.json"), folder.join("model.safetensors"));
    shape.write_hugging_face(folder).unwrap();
    Decoder::from_hugging_face(folder).unwrap();
    let (good_config, good_weights) = (
        std::fs::read_to_string(&config).unwrap(),
        std::fs::read(&weights).unwrap(),
    );

    for (from, to, fragment) in [
        ("LlamaForCausalLM", "MambaForCausalLM", "Mamba"),
        ("\"hidden_size\":32", "\"hidden_size\":64", "shape"),
        ("\"hidden_size\":32", "\"hidden_size\":0", "hidden_size"),
        (
            "\"hidden_size\":32",
            "\"hidden_size\":\"32\"",
            "hidden_size",
        ),
        ("\"hidden_size\":32", "\"hidden_size\":-32", "hidden_size"),
        (
            "\"num_hidden_layers\":1",
            "\"num_hidden_layers\":2",
            "layers.1",
        ),
        (
            "\"num_hidden_layers\":1",
            "\"num_hidden_layers\":100000000000",
            "layers",
        ),
        (
            "\"num_attention_heads\":2",
            "\"num_attention_heads\":0",
            "num_attention_heads",
        ),
        (
            "\"num_key_value_heads\":1",
            "\"num_key_value_heads\":3",
            "key-value heads",
        ),
        ("\"silu\"", "\"gelu\"", "gelu"),
        (
            "\"rope_scaling\":null",
            "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":64}",
            "yarn",
        ),
        (
            "\"rope_scaling\":null",
            "\"rope_scaling\":{\"rope_type\":\"llama3\"}",
            "factor",
        ),
        ("{", "", "config.json"),
    ] {
        let broken = good_config.replacen(from, to, 1);
        assert_ne!(broken, good_config, "{from} is not in {good_config}");
        std::fs::write(&config, broken).unwrap();
        let message = message(to, Decoder::from_hugging_face(folder));
        assert!(
            message.contains(fragment),
            "{from} → {to}: {message:?} lacks {fragment:?}"
        );
    }
    std::fs::write(&config, &good_config).unwrap();

    let text = |from: &str, to: &str| {
        let at = good_weights
            .windows(from.len())
            .position(|w| w == from.as_bytes())
            .expect(from);
        [
            &good_weights[..at],
            to.as_bytes(),
            &good_weights[at + from.len()..],
        ]
        .concat()
    };
    for (name, bytes, fragment) in [
        ("empty", vec![], "model.safetensors"),
        ("cut in the header", good_weights[..100].to_vec(), ""),
        (
            "cut in the data",
            good_weights[..good_weights.len() - 4].to_vec(),
            "",
        ),
        (
            "a header of 2⁶³ bytes",
            [&(1u64 << 63).to_le_bytes(), &good_weights[8..]].concat(),
            "",
        ),
        (
            "another name",
            text("model.norm.weight", "model.morn.weight"),
            "model.norm.weight",
        ),
        ("an unknown type", text("\"F32\"", "\"F99\""), ""),
    ] {
        std::fs::write(&weights, bytes).unwrap();
        let message = message(name, Decoder::from_hugging_face(folder));
        assert!(
            message.contains(fragment) && message.contains(folder.to_str().unwrap()),
            "{name}: {message:?}"
        );
    }
    let header = 8 + u64::from_le_bytes(good_weights[..8].try_into().unwrap()) as usize;
    for round in 0..200 {
        std::fs::write(&weights, changed(&good_weights, round, header)).unwrap();
        let _ = Decoder::from_hugging_face(folder);
        std::fs::write(&weights, &good_weights).unwrap();
        std::fs::write(
            &config,
            changed(good_config.as_bytes(), round, good_config.len()),
        )
        .unwrap();
        let _ = Decoder::from_hugging_face(folder);
        std::fs::write(&config, &good_config).unwrap();
    }
    std::fs::remove_file(&weights).unwrap();
    assert!(
        message("no weights", Decoder::from_hugging_face(folder)).contains("model.safetensors")
    );
    assert!(
        message(
            "no folder",
            Decoder::from_hugging_face(Path::new("/nowhere/at/all"))
        )
        .contains("/nowhere/at/all")
    );
}

#[test]
fn tokenizers() {
    for bad in [
        "",
        "{}",
        "[]",
        "null",
        "{\"model\": 1}",
        r#"{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}}"#,
    ] {
        message(bad, TextTokenizer::from_json(bad));
    }
    message(
        "no room",
        TextTokenizer::train(["text"].iter(), 100, &["<|end|>"], None),
    );
}

/// 1 to 3 bytes within the first `reach` changed.
fn changed(bytes: &[u8], round: u64, reach: usize) -> Vec<u8> {
    let random = |i: u64| splitmix(round, i) as usize;
    let mut out = bytes.to_vec();
    for i in 0..=random(1) as u64 % 3 {
        out[random(10 + i) % reach] = random(20 + i) as u8;
    }
    out
}
