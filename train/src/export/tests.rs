use std::fs;
use std::path::Path;

use dram_core::Model;
use dram_files::quantize::{Mixture, Requantize};
use dram_files::tokenizer::{same_tokens, shared_tokens, vocabulary_of_folder, vocabulary_of_gguf};
use dram_files::{FILE_TYPES, Rng};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::*;
use crate::data::{Example, TextTokenizer, evaluation_batches};
use crate::student::{Decoder, QuantMode};
use crate::teacher::{Engine, Gguf, HuggingFace, Placement, Scored, Teacher, Trained};

/// Bytes, two merges, three special tokens: 261 tokens.
fn tokenizer() -> Json {
    // GPT-2's printable stand-ins: printable bytes are themselves, the others follow from U+0100.
    let printable =
        |b: u32| (33..127).contains(&b) || (161..173).contains(&b) || (174..256).contains(&b);
    let mut next = 256;
    let mut vocab = serde_json::Map::new();
    for byte in 0..256u32 {
        let code = if printable(byte) {
            byte
        } else {
            next += 1;
            next - 1
        };
        let text = char::from_u32(code).unwrap().to_string();
        vocab.insert(text, json!(byte));
    }
    vocab.insert("th".into(), json!(256));
    vocab.insert("the".into(), json!(257));
    let added: Vec<Json> = ["<|end|>", "<|request|>", "<|call|>"]
        .iter()
        .enumerate()
        .map(|(i, text)| json!({ "id": 258 + i, "content": text, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false }))
        .collect();
    json!({
        "added_tokens": added,
        "version": "1.0",
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "byte_fallback": false, "vocab": vocab, "merges": ["t h", "th e"] },
    })
}

const ROWS: usize = 264;

fn config(tied: bool) -> Config {
    Config {
        vocabulary: ROWS,
        embedding_length: 64,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        feed_forward_length: 96,
        context_length: 64,
        tied_embeddings: tied,
        ..Config::default()
    }
}

/// A random decoder whose norms are not all one, so that a norm in the wrong place shows.
fn decoder(config: Config) -> Decoder {
    let mut decoder = Decoder::random(config, 7).unwrap();
    let norms: Vec<_> = decoder
        .layout()
        .parameters
        .iter()
        .filter(|p| p.rows == 1)
        .map(|p| p.range.clone())
        .collect();
    let mut rng = Rng::new(&[1]);
    for range in norms {
        decoder.parameters_mut()[range]
            .iter_mut()
            .for_each(|w| *w = 0.5 + rng.below(1000) as f32 / 1000.0);
    }
    // Larger embeddings, so that logits differ as those of a trained model do.
    let embedding = decoder.layout().parameters[0].range.clone();
    decoder.parameters_mut()[embedding]
        .iter_mut()
        .for_each(|w| *w *= 10.0);
    decoder
}

fn batches(count: u64) -> Vec<Batch> {
    let examples: Vec<Example> = (0..count)
        .map(|i| {
            let mut rng = Rng::new(&[3, i]);
            let length = 4 + rng.below(30);
            let ids: Vec<u32> = (0..length).map(|_| rng.below(261) as u32).collect();
            Example::prompt_completion(&ids[..2], &ids[2..])
        })
        .collect();
    evaluation_batches(&examples, 8)
}

fn vocabulary() -> Vocabulary {
    let mut vocabulary = TextTokenizer::from_json(&tokenizer().to_string())
        .unwrap()
        .vocabulary()
        .clone();
    (vocabulary.eos, vocabulary.padding) = (Some(258), Some(258));
    vocabulary.pad_to(ROWS);
    vocabulary
}

fn export<'a>(decoder: &'a Decoder, scheme: &'a Scheme, vocabulary: &'a Vocabulary) -> Export<'a> {
    Export {
        name: "tiny",
        config: decoder.config(),
        weights: decoder.parameters(),
        scheme,
        vocabulary,
        metadata: vec![("dram.task".into(), "test".into())],
    }
}

fn folder(decoder: &Decoder) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    decoder.save_hugging_face(dir.path()).unwrap();
    fs::write(dir.path().join("tokenizer.json"), tokenizer().to_string()).unwrap();
    fs::write(
        dir.path().join("tokenizer_config.json"),
        r#"{"eos_token": "<|end|>"}"#,
    )
    .unwrap();
    dir
}

/// One model four ways: the decoder, its folder through candle-transformers, its f32 GGUF in the runtime, the GGUF read back.
#[test]
fn folder_candle_runtime_and_decoder_agree() {
    for tied in [true, false] {
        let decoder = decoder(config(tied));
        let dir = folder(&decoder);
        let batches = batches(24);
        let reference = Trained::new("decoder", &decoder, QuantMode::Off, 2).unwrap();

        let own = HuggingFace::open(dir.path()).unwrap();
        assert_eq!(own.decoder().unwrap().parameters(), decoder.parameters());
        let candle = HuggingFace::open_with(dir.path(), Engine::Candle).unwrap();
        assert!(candle.decoder().is_none());
        let parity = compare(
            &Scored {
                teacher: &candle,
                threads: 2,
            },
            &reference,
            &batches,
        )
        .unwrap();
        assert!(
            parity.top1 == 1.0 && parity.max_difference < 1e-3,
            "candle: {parity}"
        );

        let scheme = Scheme::by_name("f32", "f32", "f32").unwrap();
        let path = dir.path().join("tiny.gguf");
        let exported = export(&decoder, &scheme, own.vocabulary());
        exported.unverified(&path).unwrap();
        let parity = verify(&path, &reference, &batches, 2).unwrap();
        // The runtime keeps keys and values in f16.
        assert!(
            parity.top1 > 0.99 && f64::from(parity.max_difference) < 0.01 * parity.spread,
            "runtime: {parity}"
        );

        let back = Gguf::open_with(&path, 1, Placement::Decoder).unwrap();
        assert_eq!(back.decoder().unwrap().parameters(), decoder.parameters());
        assert_eq!(back.decoder().unwrap().config(), decoder.config());
        back.check_tokens(&own.vocabulary().tokens).unwrap();
        let runtime = Gguf::open_with(&path, 2, Placement::Runtime).unwrap();
        let again = compare(
            &Scored {
                teacher: &runtime,
                threads: 2,
            },
            &reference,
            &batches,
        )
        .unwrap();
        assert_eq!(again, parity);
    }
}

/// Both engines read a folder whose weights lie in shards.
#[test]
fn shards_are_found_by_their_index() {
    let decoder = decoder(config(false));
    let dir = folder(&decoder);
    let single = dir.path().join("model.safetensors");
    let tensors = candle_core::safetensors::load(&single, &candle_core::Device::Cpu).unwrap();
    fs::remove_file(single).unwrap();
    let (mut shards, mut map) = (
        vec![std::collections::HashMap::new(); 2],
        serde_json::Map::new(),
    );
    for (i, (name, tensor)) in tensors.into_iter().enumerate() {
        map.insert(name.clone(), json!(format!("model-{}.safetensors", i % 2)));
        shards[i % 2].insert(name, tensor);
    }
    for (i, shard) in shards.iter().enumerate() {
        candle_core::safetensors::save(shard, dir.path().join(format!("model-{i}.safetensors")))
            .unwrap();
    }
    let index = dir.path().join("model.safetensors.index.json");
    fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    let own = HuggingFace::open(dir.path()).unwrap();
    assert_eq!(own.decoder().unwrap().parameters(), decoder.parameters());
    let candle = HuggingFace::open_with(dir.path(), Engine::Candle).unwrap();
    let reference = Trained::new("decoder", &decoder, QuantMode::Off, 1).unwrap();
    let parity = compare(
        &Scored {
            teacher: &candle,
            threads: 1,
        },
        &reference,
        &batches(4),
    )
    .unwrap();
    assert!(parity.max_difference < 1e-3, "{parity}");

    let wanted = crate::student::OutputSpec {
        positions: vec![0],
        hidden_layers: vec![1],
    };
    let error = candle
        .targets(&batches(1)[0], &wanted)
        .unwrap_err()
        .to_string();
    assert!(error.contains("logits only"), "{error}");
    map.insert("lm_head.weight".into(), json!("../elsewhere.safetensors"));
    fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    let error = format!(
        "{:#}",
        HuggingFace::open_with(dir.path(), Engine::Candle)
            .err()
            .unwrap()
    );
    assert!(error.contains("leaves the folder"), "{error}");
}

#[test]
fn rope_factors_travel_with_the_file() {
    let factors: Vec<f32> = (0..8).map(|i| 1.0 + i as f32).collect();
    let decoder = decoder(Config {
        rope_factors: factors,
        ..config(true)
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    let (scheme, vocabulary) = (Scheme::by_name("f32", "f32", "f32").unwrap(), vocabulary());
    export(&decoder, &scheme, &vocabulary)
        .unverified(&path)
        .unwrap();
    let reference = Trained::new("decoder", &decoder, QuantMode::Off, 1).unwrap();
    let parity = verify(&path, &reference, &batches(8), 1).unwrap();
    assert!(
        f64::from(parity.max_difference) < 0.01 * parity.spread,
        "{parity}"
    );
    let back = Gguf::open_with(&path, 1, Placement::Decoder).unwrap();
    assert_eq!(back.decoder().unwrap().config(), decoder.config());
}

/// The gate passes what was trained, in every format, and refuses a file whose tensor was touched.
#[test]
fn the_gate_passes_exact_blocks_and_refuses_others() {
    let batches = batches(60);
    let vocabulary = vocabulary();
    for (linear, embedding) in [
        ("q4_0", "q8_0"),
        ("q4_0", "q4_0"),
        ("q8_0", "f16"),
        ("f16", "f16"),
    ] {
        let mut decoder = decoder(config(true));
        let scheme = Scheme::by_name(linear, embedding, embedding).unwrap();
        decoder.set_scheme(Some(scheme)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("student.gguf");
        let reference = Trained::new("student", &decoder, QuantMode::On, 2).unwrap();
        let gate = Gate {
            reference: &reference,
            batches: &batches,
            limits: Limits::default(),
            workers: 2,
        };
        let parity = export(&decoder, &scheme, &vocabulary)
            .verified(&path, &gate)
            .unwrap();
        println!("{linear}/{embedding}: {parity}");
        assert!(parity.positions > 800);
        let model = Model::open(&path).unwrap();
        let metadata = model.gguf().metadata();
        assert_eq!(
            u64::from(metadata.u32("dram.parity.positions").unwrap()),
            parity.positions
        );
        assert_eq!(
            metadata.f32("dram.parity.max_difference").unwrap(),
            parity.max_difference
        );
        assert_eq!(
            metadata.f32("dram.parity.top1").unwrap(),
            parity.top1 as f32
        );
        assert_eq!(
            scheme_of(model.gguf(), decoder.config())
                .unwrap()
                .linear
                .name,
            linear
        );

        // Touched: the scale of one block in the last layer's down matrix.
        let range = model
            .gguf()
            .tensor("blk.1.ffn_down.weight")
            .unwrap()
            .range();
        drop(model);
        let before = fs::read(&path).unwrap();
        let mut touched = before.clone();
        touched[range.start..range.start + 64].fill(0x55);
        fs::write(&path, touched).unwrap();
        let parity = verify(&path, &reference, &batches, 2).unwrap();
        let error = parity.check(&Limits::default()).unwrap_err().to_string();
        assert!(
            error.contains("top-1") && error.contains("expected"),
            "{error}"
        );

        // A model other than the one that was trained never gets the name: the older file stays, the new one is set aside.
        fs::write(&path, &before).unwrap();
        let mut other = decoder.clone();
        let down = other
            .layout()
            .find("model.layers.1.mlp.down_proj.weight")
            .unwrap()
            .range
            .clone();
        other.parameters_mut()[down]
            .iter_mut()
            .for_each(|w| *w = -*w);
        let error = format!(
            "{:#}",
            export(&other, &scheme, &vocabulary)
                .verified(&path, &gate)
                .unwrap_err()
        );
        assert!(error.contains("rejected"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["student.gguf", "student.gguf.rejected"]);
    }
}

/// Folder to any plain format and back, and the file held against the folder.
#[test]
fn a_folder_is_exported_and_verified_in_every_format() {
    let decoder = decoder(config(false));
    let dir = folder(&decoder);
    let other = Decoder::random(config(false), 99).unwrap();
    let other = folder(&other);
    let batches = batches(16);
    for format in ["f32", "f16", "q8_0", "q4_0"] {
        let path = dir.path().join(format!("{format}.gguf"));
        let scheme = Scheme::by_name(format, format, format).unwrap();
        let mut checkpoint = Checkpoint::open(dir.path(), None).unwrap();
        let parity = checkpoint
            .export(scheme, &path, Some((&batches, 2)))
            .unwrap()
            .unwrap();
        assert_eq!(checkpoint.verify(&path, &batches, 2).unwrap(), parity);
        let wrong = Checkpoint::open(other.path(), None)
            .unwrap()
            .verify(&path, &batches, 2)
            .unwrap();
        assert!(wrong.check(&Limits::default()).is_err(), "{wrong}");
        // The file is a checkpoint too, of its rounded weights.
        let mut again = Checkpoint::open(&path, None).unwrap();
        again
            .export(scheme, &dir.path().join("again.gguf"), None)
            .unwrap();
        let (a, b) = (
            Model::open(&path).unwrap(),
            Model::open(dir.path().join("again.gguf")).unwrap(),
        );
        for tensor in a.gguf().tensors() {
            assert_eq!(
                tensor.bytes(),
                b.gguf().tensor(tensor.name()).unwrap().bytes(),
                "{format} {}",
                tensor.name()
            );
        }
        fs::remove_file(dir.path().join("again.gguf")).unwrap();
    }
    let narrow = Decoder::random(
        Config {
            layers: 1,
            ..config(false)
        },
        1,
    )
    .unwrap();
    let narrow = folder(&narrow);
    let error = Checkpoint::open(narrow.path(), None)
        .unwrap()
        .verify(&dir.path().join("f32.gguf"), &batches, 1)
        .unwrap_err();
    assert!(error.to_string().contains("different models"), "{error}");
    // Without a tokenizer of its own, a folder takes that of the only GGUF file beside it, or the one it is told.
    let inner = dir.path().join("runs").join("model");
    decoder.save_hugging_face(&inner).unwrap();
    assert!(
        Checkpoint::open(&inner, None)
            .err()
            .unwrap()
            .to_string()
            .contains("tokenizer.json")
    );
    let named = Checkpoint::open(&inner, Some(dir.path())).unwrap();
    fs::copy(
        dir.path().join("f16.gguf"),
        dir.path().join("runs").join("model.gguf"),
    )
    .unwrap();
    assert_eq!(
        Checkpoint::open(&inner, None).unwrap().vocabulary.tokens,
        named.vocabulary.tokens
    );
}

/// An independent reader finds what was meant to be written.
#[test]
fn gguf_rs_reads_the_file_back() {
    let decoder = decoder(config(false));
    let scheme = Scheme::by_name("q4_0", "q8_0", "f16").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    let vocabulary = vocabulary();
    export(&decoder, &scheme, &vocabulary)
        .unverified(&path)
        .unwrap();

    let model = gguf_rs::get_gguf_container_array_size(path.to_str().unwrap(), u64::MAX)
        .unwrap()
        .decode()
        .unwrap();
    assert_eq!(
        (model.get_version().as_str(), model.model_family().as_str()),
        ("v3", "llama")
    );
    let kv = model.metadata();
    assert_eq!(kv["llama.attention.head_count_kv"], 2);
    assert_eq!(kv["llama.rope.dimension_count"], 16);
    assert_eq!(kv["general.file_type"], 2);
    assert_eq!(kv["tokenizer.ggml.model"], "gpt2");
    assert_eq!(kv["tokenizer.ggml.pre"], "gpt-2");
    assert_eq!(kv["tokenizer.ggml.tokens"].as_array().unwrap().len(), ROWS);
    assert_eq!(kv["tokenizer.ggml.tokens"][263], "[PAD263]");
    assert_eq!(kv["tokenizer.ggml.merges"][1], "th e");
    assert_eq!(kv["tokenizer.ggml.token_type"][258], 3);
    assert_eq!(kv["tokenizer.ggml.add_bos_token"], false);
    assert_eq!(kv["dram.task"], "test");

    let bytes = fs::read(&path).unwrap();
    let ours = dram_core::gguf::File::open(&path).unwrap();
    assert_eq!(model.tensors().len(), decoder.layout().parameters.len());
    for tensor in model.tensors() {
        let own = ours.tensor(&tensor.name).unwrap();
        assert_eq!(own.format().ggml_id, tensor.kind, "{}", tensor.name);
        assert_eq!(
            tensor.shape.iter().map(|d| *d as usize).collect::<Vec<_>>(),
            own.shape(),
            "{}",
            tensor.name
        );
        let start = (model.data_offset() + tensor.offset) as usize;
        assert_eq!(start % 32, 0);
        assert_eq!(
            &bytes[start..start + tensor.size as usize],
            own.bytes(),
            "{}",
            tensor.name
        );
    }
    let last = model
        .tensors()
        .iter()
        .map(|t| model.data_offset() + t.offset + t.size)
        .max()
        .unwrap();
    assert!(bytes.len() as u64 - last < 32);
    assert_eq!(model.tensors()[0].kind, 8);
    // The blocks of row 1 of a head are those of the decoder's row `half`.
    let q = decoder
        .tensor("model.layers.0.self_attn.q_proj.weight")
        .unwrap();
    let mut row = vec![0; 36];
    scheme.linear.quantize(&q[8 * 64..9 * 64], &mut row);
    assert_eq!(
        &ours.tensor("blk.0.attn_q.weight").unwrap().bytes()[36..72],
        row
    );
}

#[test]
fn what_cannot_be_written_is_refused_and_the_old_file_stays() {
    let mut decoder = decoder(config(true));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    fs::write(&path, "old").unwrap();
    let (f32, q4) = (
        Scheme::by_name("f32", "f32", "f32").unwrap(),
        Scheme::by_name("q4_0", "q4_0", "q4_0").unwrap(),
    );
    let vocabulary = vocabulary();
    let refused = |export: Export<'_>, word: &str| {
        let error = format!("{:#}", export.unverified(&path).unwrap_err());
        assert!(error.contains(word), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    };
    let narrow = Decoder::random(
        Config {
            feed_forward_length: 100,
            ..config(true)
        },
        1,
    )
    .unwrap();
    refused(export(&narrow, &q4, &vocabulary), "blocks of 32");
    let short = TextTokenizer::from_json(&tokenizer().to_string())
        .unwrap()
        .vocabulary()
        .clone();
    refused(export(&decoder, &f32, &short), "264 rows");
    decoder.parameters_mut()[5] = f32::NAN;
    refused(export(&decoder, &f32, &vocabulary), "not finite");
}

#[test]
fn vocabularies_are_compared_token_by_token() {
    let ours = vocabulary();
    let mut tokens = ours.tokens.to_vec();
    same_tokens(&ours.tokens, &tokens[..261], "a", "b").unwrap();
    tokens[7] = "other".into();
    let error = same_tokens(&ours.tokens, &tokens, "the teacher", "the student")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("token 7") && error.contains("other") && error.contains("the student"),
        "{error}"
    );
    assert!(
        same_tokens(&ours.tokens, &ours.tokens[..200], "a", "b")
            .unwrap_err()
            .to_string()
            .contains("264")
    );
    // Behind two thousand tokens that are the same, a few may differ.
    let many = |more: &[&str]| -> Vec<String> {
        let first = (0..2000).map(|i| format!("t{i}"));
        first.chain(more.iter().map(|t| (*t).to_owned())).collect()
    };
    let (plain, padding) = (many(&[]), many(&["[PAD2000]", "[PAD2001]"]));
    assert_eq!(shared_tokens(&plain, &padding, "a", "b").unwrap(), 2000);
    let (think, tool) = (many(&["<think>", "x"]), many(&["<tool>"]));
    for other in [&plain, &padding, &think] {
        assert_eq!(shared_tokens(&tool, other, "a", "b").unwrap(), 2000);
        assert_eq!(shared_tokens(other, &tool, "a", "b").unwrap(), 2000);
    }
    let mut early = plain.clone();
    early[1900] = "other".into();
    let error = shared_tokens(&plain, &early, "a", "b").unwrap_err();
    assert!(
        error.to_string().contains("token 1900 is \"t1900\" in a"),
        "{error}"
    );
    let dir = folder(&decoder(config(true)));
    let error = format!("{:#}", vocabulary_of_folder(dir.path(), 200).unwrap_err());
    assert!(error.contains("200 rows"), "{error}");
}

/// Copies keep their types.
#[test]
fn a_vocabulary_survives_a_file() {
    let decoder = decoder(config(true));
    let scheme = Scheme::by_name("f16", "f16", "f16").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, vocabulary: &Vocabulary| {
        let path = Path::new(dir.path()).join("made").join(name);
        export(&decoder, &scheme, vocabulary)
            .unverified(&path)
            .unwrap();
        path
    };
    let first = write("a.gguf", &vocabulary());
    let copied = vocabulary_of_gguf(&dram_core::gguf::File::open(&first).unwrap()).unwrap();
    let second = write("b.gguf", &copied);
    assert_eq!(fs::read(first).unwrap(), fs::read(second).unwrap());
}

/// llama.cpp's number for each format and mixture, by both writers.
#[test]
fn files_say_what_they_hold() {
    let dir = tempfile::tempdir().unwrap();
    let of = |path: &Path| {
        let file = dram_core::gguf::File::open(path).unwrap();
        file.metadata().u32("general.file_type").unwrap()
    };
    let wide = decoder(Config {
        embedding_length: 256,
        head_dim: 64,
        feed_forward_length: 256,
        ..config(true)
    });
    let path = dir.path().join("student.gguf");
    for (name, number) in [
        ("q2_k", 10),
        ("q3_k", 11),
        ("q4_k", 14),
        ("q5_k", 16),
        ("q6_k", 18),
        ("q4_0", 2),
        ("q8_0", 7),
        ("f16", 1),
        ("bf16", 32),
        ("f32", 0),
    ] {
        let scheme = Scheme::by_name(name, "f16", "f16").unwrap();
        export(&wide, &scheme, &vocabulary())
            .unverified(&path)
            .unwrap();
        assert_eq!(of(&path), number, "{name}");
    }
    let source = dram_core::gguf::File::open(&path).unwrap();
    for (name, _, number) in FILE_TYPES {
        let target = dir.path().join(name);
        Requantize {
            mixture: &Mixture::by_name(name).unwrap(),
            rules: &[],
            importance: None,
            threads: 2,
        }
        .run(&source, &target, &mut |_| ())
        .unwrap();
        assert_eq!(of(&target), number, "{name}");
    }
}

/// In many layers float rounding decides between int8 values until it shows: the gate measures how much, allows it, and refuses what is more.
#[test]
fn the_gate_tells_float_rounding_from_an_error() {
    let batches = batches(60);
    let mut deep = decoder(Config {
        layers: 12,
        ..config(true)
    });
    let scheme = Scheme::by_name("q8_0", "q8_0", "q8_0").unwrap();
    deep.set_scheme(Some(scheme)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep.gguf");
    export(&deep, &scheme, &vocabulary())
        .unverified(&path)
        .unwrap();
    let reference = Trained::new("deep", &deep, QuantMode::On, 2).unwrap();
    let parity = verify(&path, &reference, &batches, 2).unwrap();
    println!("{parity}");
    let strict = Parity {
        rounding: None,
        ..parity
    };
    assert!(strict.check(&Limits::default()).is_err(), "{parity}");
    parity.check(&Limits::default()).unwrap();

    // A tenth more in one of 84 matrices.
    let mut other = deep.clone();
    let down = other.layout().find("model.layers.5.mlp.down_proj.weight");
    let range = down.unwrap().range.clone();
    for value in &mut other.parameters_mut()[range] {
        *value *= 1.1;
    }
    export(&other, &scheme, &vocabulary())
        .unverified(&path)
        .unwrap();
    let parity = verify(&path, &reference, &batches, 2).unwrap();
    println!("{parity}");
    let error = parity.check(&Limits::default()).unwrap_err().to_string();
    assert!(error.contains("float rounding alone"), "{error}");
}
