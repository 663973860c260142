//! The golden values of `tests/golden`, which `make_llama.py` there made with Hugging Face transformers.

use crate::measure::{argmax, relative};
use crate::toy::{Shape, VOCABULARY};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// One model and what transformers makes of it.
pub struct Golden {
    pub shape: Shape,
    pub ids: Vec<u32>,
    pub positions: Vec<usize>,
    /// [positions, vocabulary], transformers as it is.
    pub plain: Vec<f32>,
    /// [positions, vocabulary], with keys and values rounded to f16 as the runtime's cache rounds them.
    pub cached: Vec<f32>,
}

/// tests/golden.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// A file of it.
pub fn read(name: &str) -> Vec<u8> {
    let path = folder().join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Little-endian f32.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

/// All models of llama.json.
pub fn goldens() -> Vec<Golden> {
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

/// The largest error within a position, over its largest logit, and how many of the positions have the same top token.
pub fn compare(ours: &[f32], theirs: &[f32]) -> (f32, usize) {
    assert_eq!(ours.len(), theirs.len());
    let pairs = ours.chunks(VOCABULARY).zip(theirs.chunks(VOCABULARY));
    let worst = pairs
        .clone()
        .map(|(a, b)| relative(a, b))
        .fold(0.0, |x, y| if y.is_nan() { y } else { f32::max(x, y) });
    (worst, pairs.filter(|(a, b)| argmax(a) == argmax(b)).count())
}
