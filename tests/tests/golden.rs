//! The runtime's logits against Hugging Face transformers', for small random llama models.
//! `tests/golden/make_llama.py` made the values and says what is in the files; llama.json records its versions.

use dram_core::{Model, SessionOptions, Tokenizer, gguf, quant};
use dram_tests::golden::{compare, floats, folder, goldens, read};
use dram_tests::toy::{VOCABULARY, weights};
use std::path::Path;

/// [positions, vocabulary]: the logits of one pass over all the tokens.
fn evaluate(model: &Model, ids: &[u32], positions: &[usize]) -> Vec<f32> {
    let options = SessionOptions {
        context: Some(ids.len()),
        threads: Some(2),
        ..SessionOptions::default()
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
        ..SessionOptions::default()
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

/// SentencePiece's own ids for its unigram vocabularies, with rules for characters and without spaces beside others, with all of them, and
/// without a space before the text.
#[test]
fn unigram_tokens_equal_sentence_piece() {
    let (texts, models) = dram_tests::unigram::goldens();
    let folder = tempfile::tempdir().unwrap();
    for golden in models {
        let path = folder.path().join("unigram.gguf");
        std::fs::write(&path, golden.file.bytes()).unwrap();
        let tokenizer = Tokenizer::from_gguf(&gguf::File::open(&path).unwrap()).unwrap();
        for (text, expected) in texts.iter().zip(&golden.ids) {
            // llama.cpp, and so the runtime, puts no space before a text of nothing but spaces.
            if golden.merges_spaces || !text.trim().is_empty() {
                assert_eq!(tokenizer.encode(text, false), *expected, "{text:?}");
            }
        }
        let (_, sentence) = texts
            .iter()
            .enumerate()
            .find(|(_, text)| text.starts_with("What"))
            .unwrap();
        assert_eq!(
            tokenizer.decode(&tokenizer.encode(sentence, false)),
            *sentence
        );
    }
}
