//! The runtime's logits against Hugging Face transformers', for small random llama models.
//! `tests/golden/make_llama.py` made the values and says what is in the files; llama.json records its versions.

use dram_core::{Model, SessionOptions, gguf, quant};
use dram_tests::{
    measure::{argmax, relative},
    toy::{Shape, VOCABULARY, weights},
};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// One model and what transformers makes of it.
struct Golden {
    shape: Shape,
    ids: Vec<u32>,
    positions: Vec<usize>,
    /// [positions, vocabulary], transformers as it is.
    plain: Vec<f32>,
    /// [positions, vocabulary], with keys and values rounded to f16 as the runtime's cache rounds them.
    cached: Vec<f32>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn read(name: &str) -> Vec<u8> {
    let path = folder().join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn goldens() -> Vec<Golden> {
    let json: Value = serde_json::from_slice(&read("llama.json")).unwrap();
    println!("golden values by {}", json["versions"]);
    let values = floats(&read("llama.f32"));
    let mut rest = &values[..];
    let mut take = |count: usize| {
        let (head, tail) = rest.split_at(count);
        rest = tail;
        head.to_vec()
    };
    let integers = |v: &Value| {
        v.as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    let models = json["models"].as_array().unwrap().iter();
    let goldens = models.map(|m| {
        let positions: Vec<usize> = integers(&m["positions"])
            .iter()
            .map(|&p| p as usize)
            .collect();
        let count = positions.len() * VOCABULARY;
        let ids = integers(&m["ids"]).iter().map(|&id| id as u32).collect();
        Golden {
            shape: Shape::from_json(m),
            ids,
            plain: take(count),
            cached: take(count),
            positions,
        }
    });
    let goldens = goldens.collect();
    assert!(
        rest.is_empty(),
        "llama.f32 holds more values than llama.json tells of"
    );
    goldens
}

/// [positions, vocabulary]: the logits of one pass over all the tokens.
fn evaluate(model: &Model, ids: &[u32], positions: &[usize]) -> Vec<f32> {
    let options = SessionOptions {
        context: Some(ids.len()),
        threads: Some(2),
    };
    let mut session = model.session(options).unwrap();
    let mut all = vec![0f32; ids.len() * VOCABULARY]; // [ids, vocabulary]
    session
        .evaluate(ids, &mut |at, logits| {
            all[at * VOCABULARY..][..VOCABULARY].copy_from_slice(logits)
        })
        .unwrap();
    positions
        .iter()
        .flat_map(|&at| &all[at * VOCABULARY..][..VOCABULARY])
        .copied()
        .collect()
}

/// The same, one token after the other.
fn stepwise(model: &Model, ids: &[u32], positions: &[usize]) -> Vec<f32> {
    let options = SessionOptions {
        context: Some(ids.len()),
        threads: Some(1),
    };
    let mut session = model.session(options).unwrap();
    let mut kept = Vec::new();
    for (at, &id) in ids.iter().enumerate() {
        let logits = if at == 0 {
            session.prefill(&[id])
        } else {
            session.decode(id)
        }
        .unwrap();
        if positions.contains(&at) {
            kept.extend_from_slice(logits);
        }
    }
    kept
}

fn open(folder: &Path, name: &str, bytes: &[u8]) -> Model {
    let path = folder.join(format!("{name}.gguf"));
    std::fs::write(&path, bytes).unwrap();
    Model::open(&path).unwrap_or_else(|e| panic!("{e}"))
}

/// The largest error within a position, over its largest logit, and how many of the positions have the same top token.
fn compare(ours: &[f32], theirs: &[f32]) -> (f32, usize) {
    assert_eq!(ours.len(), theirs.len());
    let pairs = ours.chunks(VOCABULARY).zip(theirs.chunks(VOCABULARY));
    let worst = pairs
        .clone()
        .map(|(a, b)| relative(a, b))
        .fold(0.0, |x, y| if y.is_nan() { y } else { f32::max(x, y) });
    (worst, pairs.filter(|(a, b)| argmax(a) == argmax(b)).count())
}

#[test]
fn logits_equal_transformers() {
    let temporary = tempfile::tempdir().unwrap();
    for golden in goldens() {
        let name = &golden.shape.name;
        let model = open(temporary.path(), name, &golden.shape.bytes());
        let ours = evaluate(&model, &golden.ids, &golden.positions);
        let (cached, top) = compare(&ours, &golden.cached);
        let (plain, _) = compare(&ours, &golden.plain);
        println!("{name:<16} off by {cached:.1e} with an f16 cache, {plain:.1e} without");
        assert!(
            cached < 1e-4,
            "{name}: logits off by {cached:e} of the largest"
        );
        // Rounding the cache to f16 costs about 2⁻¹¹ of each key and value.
        assert!(
            plain < 2e-3,
            "{name}: logits off by {plain:e} of the largest"
        );
        assert_eq!(top, golden.positions.len(), "{name}: another top token");

        let steps = stepwise(&model, &golden.ids, &golden.positions);
        assert!(
            steps == ours,
            "{name}: token by token on one thread, the logits are not the bits of one pass on two"
        );
    }
}

/// tiny.gguf was written by the gguf package: the reader does not rest on the tests' writer.
#[test]
fn a_file_of_another_writer() {
    let golden = goldens()
        .into_iter()
        .find(|g| g.shape.name == "tiny")
        .unwrap();
    let model = Model::open(folder().join("tiny.gguf")).unwrap();
    let info = model.info();
    assert_eq!(
        (info.architecture.as_str(), info.layers, info.vocabulary),
        ("llama", 1, VOCABULARY)
    );
    let (apart, _) = compare(
        &evaluate(&model, &golden.ids, &golden.positions),
        &golden.cached,
    );
    assert!(apart < 1e-4, "off by {apart:e}");
    // Both writers give the same bytes, so the generators of the weights agree too.
    let ours = gguf::File::from_bytes("ours", golden.shape.bytes()).unwrap();
    assert_eq!(ours.tensors().len(), model.gguf().tensors().len());
    for theirs in model.gguf().tensors() {
        let ours = ours.tensor(theirs.name()).unwrap();
        assert_eq!(
            (ours.shape(), ours.bytes()),
            (theirs.shape(), theirs.bytes()),
            "{}",
            theirs.name()
        );
    }
}

/// blocks.bin: the same matrix as the gguf package quantises it.
#[test]
fn blocks_equal_the_gguf_package() {
    let mut matrix = weights("blocks", 4 * 64, 3.0, 0); // [4, 64]
    matrix[64..128].iter_mut().for_each(|w| *w *= 1e-3);
    matrix[128..160].fill(0.0);
    let golden = read("blocks.bin");
    let mut rest = &golden[..];
    let mut take = |count: usize| {
        let (head, tail) = rest.split_at(count);
        rest = tail;
        head
    };
    let formats = ["q8_0", "q4_0"].map(|name| quant::format_by_name(name).unwrap());
    let packed = formats.map(|format| take(format.bytes(4 * 64).unwrap()));
    let values = formats.map(|_| floats(take(4 * 4 * 64)));
    for ((format, packed), values) in formats.iter().zip(packed).zip(values) {
        let mut ours = vec![0f32; 4 * 64];
        format.dequantize(packed, &mut ours);
        assert_eq!(ours, values, "{}: dequantised", format.name);
        let mut blocks = vec![0; packed.len()];
        format.quantize(&matrix, &mut blocks);
        assert_eq!(blocks, packed, "{}: quantised", format.name);
    }
}
