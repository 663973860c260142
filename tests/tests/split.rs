//! Models in several files, as `llama-gguf-split` writes them.

use dram_core::gguf::File;
use dram_core::{Model, SessionOptions};
use dram_tests::gguf::{Gguf, Value};
use dram_tests::toy::Shape;
use std::path::{Path, PathBuf};

const PARTS: usize = 3;

/// The first part has all metadata, each of them an equal share of the tensors; with `empty_first` the first has none.
fn split(whole: &Gguf, empty_first: bool) -> Vec<Gguf> {
    let holders = PARTS - usize::from(empty_first);
    let share = whole.tensors.len().div_ceil(holders);
    let mut shares = whole.tensors.chunks(share);
    let parts = (0..PARTS).map(|number| {
        let mut part = Gguf::default();
        if number == 0 {
            part.metadata = whole.metadata.clone();
        }
        part.set(
            "split.no",
            Value::Raw(2, (number as u16).to_le_bytes().into()),
        );
        part.set(
            "split.count",
            Value::Raw(2, (PARTS as u16).to_le_bytes().into()),
        );
        part.set(
            "split.tensors.count",
            Value::I32(whole.tensors.len() as i32),
        );
        if !(empty_first && number == 0) {
            part.tensors = shares.next().unwrap().to_vec();
        }
        part
    });
    parts.collect()
}

fn name(number: usize) -> String {
    format!("toy-{:05}-of-{PARTS:05}.gguf", number + 1)
}

fn write(folder: &Path, parts: &[Gguf]) -> Vec<PathBuf> {
    let written = parts.iter().enumerate().map(|(number, part)| {
        let path = folder.join(name(number));
        std::fs::write(&path, part.bytes()).unwrap();
        path
    });
    written.collect()
}

fn logits(model: &Model) -> Vec<f32> {
    let options = SessionOptions {
        threads: Some(2),
        ..SessionOptions::default()
    };
    let mut session = model.session(options).unwrap();
    session.prefill(&[1, 2, 3]).unwrap().to_vec()
}

#[test]
fn a_split_model_is_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let whole = Shape::default().gguf();
    let path = folder.path().join("whole.gguf");
    std::fs::write(&path, whole.bytes()).unwrap();
    let whole_model = Model::open(&path).unwrap();
    let expected = logits(&whole_model);
    for empty_first in [false, true] {
        let parts = write(folder.path(), &split(&whole, empty_first));
        for part in &parts {
            let model = Model::open(part).unwrap();
            assert!(logits(&model) == expected);
            let file = model.gguf();
            assert!(file.is_mapped() && file.name() == part.display().to_string());
            let bytes = parts.iter().map(|part| part.metadata().unwrap().len());
            assert_eq!(file.file_bytes() as u64, bytes.sum::<u64>());
            for tensor in whole_model.gguf().tensors() {
                let same = file.tensor(tensor.name()).unwrap();
                assert!(same.bytes() == tensor.bytes(), "{}", tensor.name());
            }
            let mut ranges: Vec<_> = file.tensors().map(|tensor| tensor.range()).collect();
            ranges.sort_by_key(|range| range.start);
            assert!(ranges.windows(2).all(|two| two[0].end <= two[1].start));
        }
    }
}

#[test]
fn what_is_wrong_with_the_parts_is_said() {
    let whole = Shape::default().gguf();
    type Damage = fn(&Path, &mut Vec<Gguf>);
    let cases: [(Damage, &str); 6] = [
        (
            |folder, _| std::fs::remove_file(folder.join(name(2))).unwrap(),
            "part 1 of 3 of a split model: expected all parts in one folder, got no file",
        ),
        (
            |folder, _| {
                std::fs::rename(folder.join(name(0)), folder.join("model.gguf")).unwrap();
            },
            "a name that ends in `-00001-of-00003.gguf`",
        ),
        (
            |folder, _| {
                std::fs::copy(folder.join(name(1)), folder.join(name(2))).unwrap();
            },
            "got part 2 of 3",
        ),
        (
            |folder, parts| {
                parts[1].metadata.clear();
                std::fs::write(folder.join(name(1)), parts[1].bytes()).unwrap();
            },
            "got a whole file",
        ),
        (
            |folder, parts| {
                parts[1].tensors.pop();
                std::fs::write(folder.join(name(1)), parts[1].bytes()).unwrap();
            },
            "tensors in all parts",
        ),
        (
            |folder, parts| {
                let twice = parts[0].tensors[0].clone();
                parts[1].tensors.push(twice);
                std::fs::write(folder.join(name(1)), parts[1].bytes()).unwrap();
            },
            "in one part",
        ),
    ];
    for (damage, fragment) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut parts = split(&whole, false);
        let paths = write(folder.path(), &parts);
        damage(folder.path(), &mut parts);
        let renamed = folder.path().join("model.gguf");
        let path = if renamed.exists() {
            &renamed
        } else {
            &paths[0]
        };
        let message = File::open(path).unwrap_err().to_string();
        assert!(message.contains(fragment), "{message:?} lacks {fragment:?}");
        assert!(
            message.starts_with(&path.display().to_string()),
            "{message}"
        );
    }
    let bytes = split(&whole, false)[1].bytes();
    let message = File::from_bytes("part", bytes).unwrap_err().to_string();
    assert!(message.contains("part 2 of 3"), "{message}");
}

#[test]
fn folders_and_texts_are_no_models() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "Dear diary, today …").unwrap();
    for (path, fragment) in [(folder.path(), "got a folder"), (&text, "a text file")] {
        let message = Model::open(path).unwrap_err().to_string();
        assert!(message.contains(fragment), "{message}");
        assert!(message.contains("not a GGUF file"), "{message}");
    }
}

/// As converters of models with different layers write all models.
#[test]
fn a_list_of_equal_numbers_is_a_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lists.gguf");
    let open = |file: &Gguf| {
        std::fs::write(&path, file.bytes()).unwrap();
        Model::open(&path)
    };
    let shape = Shape::default();
    let keys = [
        ("llama.attention.head_count", shape.heads),
        ("llama.attention.head_count_kv", shape.kv_heads),
        ("llama.feed_forward_length", shape.ffn),
    ];
    let mut file = shape.gguf();
    let expected = logits(&open(&file).unwrap());
    for (key, number) in keys {
        file.set(key, Value::I32s(vec![number as i32; shape.layers]));
    }
    assert!(logits(&open(&file).unwrap()) == expected);
    for (key, number) in keys {
        let number = number as i32;
        for list in [vec![], vec![number; 9], vec![number, 1], vec![-1, -1]] {
            let mut file = file.clone();
            file.set(key, Value::I32s(list));
            let message = open(&file).unwrap_err().to_string();
            // Each layer may have its own length: then it is the tensor that does not fit.
            let fits = key.ends_with("feed_forward_length") && message.contains("ffn_gate");
            assert!(message.contains(key) || fits, "{message}");
        }
    }
}
