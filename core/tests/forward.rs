//! The forward pass against a plain one, and against itself in other portions.

mod common;

use common::{Numbers, Random, Shape, of_context, oracle};
use dram_core::quant::{FORMATS, format_by_name};
use dram_core::{Error, Model, OpenOptions, Session, SessionOptions, gguf};

fn open(model: &Random) -> Model {
    let file = gguf::File::from_bytes("random.gguf", model.to_gguf()).unwrap();
    Model::from_gguf(file, &OpenOptions::default()).unwrap()
}

fn session(model: &Model, threads: usize) -> Session {
    model
        .session(SessionOptions {
            context: None,
            threads: Some(threads),
            ..SessionOptions::default()
        })
        .unwrap()
}

fn tokens(count: usize, vocabulary: usize) -> Vec<u32> {
    let mut numbers = Numbers::new(99);
    (0..count)
        .map(|_| (numbers.next() % vocabulary as u64) as u32)
        .collect()
}

/// A shape whose rows are whole blocks of `block` values.
fn wide_enough(block: usize) -> Shape {
    if block <= 32 {
        return Shape::default();
    }
    Shape {
        layers: 1,
        embedding: block,
        head: block / 4,
        value: block / 4,
        feed_forward: block,
        ..Shape::default()
    }
}

/// Every position's logits.
fn evaluate(session: &mut Session, ids: &[u32]) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    session
        .evaluate(ids, &mut |position, logits| {
            assert_eq!(position, all.len());
            all.push(logits.to_vec());
        })
        .unwrap();
    all
}

/// The largest difference, relative to the spread of the expected logits.
fn distance(got: &[f32], expected: &[f32]) -> f32 {
    let spread = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
    got.iter()
        .zip(expected)
        .fold(0f32, |most, (a, b)| most.max((a - b).abs()))
        / spread
}

#[test]
fn agrees_with_a_plain_forward_pass() {
    let base = Shape::default();
    let shapes = [
        ("plain", base.clone()),
        (
            "more than two segments of attention",
            Shape {
                context: 560,
                ..base.clone()
            },
        ),
        (
            "a window, twice as long as its ring",
            Shape {
                context: 1100,
                layers: 2,
                window: Some(40),
                ..base.clone()
            },
        ),
        (
            "tied",
            Shape {
                tied: true,
                ..base.clone()
            },
        ),
        (
            "one kv head",
            Shape {
                kv_heads: 1,
                ..base.clone()
            },
        ),
        (
            "no grouping",
            Shape {
                kv_heads: 4,
                ..base.clone()
            },
        ),
        (
            "own value length",
            Shape {
                value: 24,
                ..base.clone()
            },
        ),
        (
            "own key length",
            Shape {
                head: 32,
                rope_dims: 32,
                ..base.clone()
            },
        ),
        (
            "part of a head rotated",
            Shape {
                rope_dims: 8,
                ..base.clone()
            },
        ),
        (
            "another base",
            Shape {
                rope_base: 500_000.0,
                ..base.clone()
            },
        ),
        (
            "linear scaling",
            Shape {
                rope_scale: Some(4.0),
                ..base.clone()
            },
        ),
        (
            "factors",
            Shape {
                rope_factors: true,
                ..base.clone()
            },
        ),
        (
            "biases",
            Shape {
                biases: true,
                ..base.clone()
            },
        ),
        (
            "no whole blocks",
            Shape {
                embedding: 44,
                feed_forward: 70,
                ..base.clone()
            },
        ),
    ];
    for (name, shape) in shapes {
        let random = Random::new(shape);
        let ids = tokens(random.shape.context.min(1000), random.shape.vocabulary);
        let expected = oracle::logits(&random, &ids);
        let got = evaluate(&mut session(&open(&random), 2), &ids);
        let worst = got
            .iter()
            .zip(&expected)
            .map(|(got, expected)| distance(got, expected))
            .fold(0.0, f32::max);
        // Sums in another order turn the f16 rounding of some keys and values: 2⁻¹¹ of each.
        assert!(worst < 5e-4, "{name}: {worst}");
    }
}

#[test]
fn every_format_agrees_with_its_own_roundings() {
    for format in &FORMATS[1..] {
        let shape = Shape {
            format: format.name,
            ..wide_enough(format.block)
        };
        // Rounding a second time would move values where scales are searched: the file is made from the values as they were.
        let model = open(&Random::new(shape.clone()));
        let random = Random::new(shape).rounded();
        let mut distances = Vec::new();
        for ids in tokens(40, random.shape.vocabulary).chunks(4) {
            let expected = oracle::logits(&random, ids);
            let got = evaluate(&mut session(&model, 1), ids);
            let pairs = got.iter().zip(&expected);
            distances.extend(pairs.map(|(got, expected)| distance(got, expected)));
        }
        distances.sort_by(f32::total_cmp);
        // A sum that differs in its last bit now and then turns the rounding of an activation, one part in 127 of its block, and that turns
        // others behind it, here and at the positions after it. Short texts keep that apart.
        let (median, worst) = (distances[20], distances[39]);
        println!("{}: {median:.1e}, {worst:.1e}", format.name);
        assert!(
            median < 1e-4 && worst < 5e-2,
            "{}: {median}, {worst}",
            format.name
        );
    }
}

#[test]
fn portions_and_threads_change_no_bit() {
    // More tokens than one part of a prompt and one segment of attention have (256), so that both are crossed.
    for format in ["f32", "q4_0", "q8_0", "q6_k"] {
        let random = Random::new(Shape {
            format,
            context: 600,
            layers: 3,
            ..wide_enough(format_by_name(format).unwrap().block)
        });
        let model = open(&random);
        let ids = tokens(300, random.shape.vocabulary);
        let whole = session(&model, 1).prefill(&ids).unwrap().to_vec();
        let every = evaluate(&mut session(&model, 3), &ids);
        assert_eq!(every.len(), ids.len());
        assert_eq!(whole, every[299], "{format}: prefill and evaluate");
        let mut single = session(&model, 2);
        for (position, &id) in ids.iter().enumerate() {
            assert_eq!(single.position(), position);
            assert_eq!(
                single.decode(id).unwrap(),
                every[position],
                "{format}: position {position}"
            );
        }
        let mut portions = session(&model, 2);
        portions.prefill(&ids[..7]).unwrap();
        portions.prefill(&ids[7..290]).unwrap();
        assert_eq!(
            portions.prefill(&ids[290..]).unwrap(),
            whole,
            "{format}: portions"
        );
        portions.truncate(100);
        assert_eq!(
            portions.prefill(&ids[100..]).unwrap(),
            whole,
            "{format}: after truncate"
        );
    }
}

#[test]
fn refusals_leave_the_session_as_it_was() {
    let random = Random::new(Shape {
        context: 16,
        ..Shape::default()
    });
    let model = open(&random);
    let mut session = session(&model, 1);
    let ids = tokens(16, 288);
    session.prefill(&ids[..10]).unwrap();
    assert!(matches!(
        session.prefill(&ids[..7]),
        Err(Error::ContextFull {
            tokens: 17,
            context: 16
        })
    ));
    assert!(matches!(session.prefill(&[]), Err(Error::EmptyPrompt)));
    assert!(matches!(
        session.decode(288),
        Err(Error::BadToken {
            id: 288,
            vocabulary: 288
        })
    ));
    assert_eq!(session.position(), 10);
    session.prefill(&ids[10..]).unwrap();
    assert!(matches!(session.decode(1), Err(Error::ContextFull { .. })));
}

#[test]
fn a_format_that_is_not_read_is_listed_and_refused() {
    let random = Random::new(Shape {
        format: "f16",
        ..Shape::default()
    });
    let mut bytes = random.to_gguf();
    let name = b"blk.1.ffn_up.weight";
    let at = bytes.windows(name.len()).position(|part| part == name);
    let format = at.unwrap() + name.len() + 4 + 2 * 8; // behind the name: dimensions, two of them
    assert_eq!(bytes[format], 1);
    bytes[format] = 25; // i16, as wide as f16
    let file = gguf::File::from_bytes("odd.gguf", bytes).unwrap();
    let tensor = file.tensor("blk.1.ffn_up.weight").unwrap();
    assert!(tensor.format().name == "i16" && !tensor.format().is_read());
    let error = Model::from_gguf(file, &OpenOptions::default()).unwrap_err();
    assert!(matches!(error, Error::UnsupportedFormat { .. }));
    let text = error.to_string();
    assert!(
        text.contains("blk.1.ffn_up.weight") && text.contains("got i16: quantise"),
        "{text}"
    );
}

#[test]
fn a_tensor_that_is_missing_misshaped_or_unknown_is_named() {
    let open = |change: &dyn Fn(&mut Random)| {
        let mut random = Random::new(Shape::default());
        change(&mut random);
        let file = gguf::File::from_bytes("bad.gguf", random.to_gguf()).unwrap();
        Model::from_gguf(file, &OpenOptions::default())
            .unwrap_err()
            .to_string()
    };
    let missing = open(&|random| {
        random
            .tensors
            .retain(|tensor| tensor.name != "blk.1.attn_k.weight")
    });
    assert!(
        missing.contains("blk.1.attn_k.weight") && missing.contains("got none"),
        "{missing}"
    );
    let shape = open(&|random| {
        let tensor = random
            .tensors
            .iter_mut()
            .find(|tensor| tensor.name == "blk.0.ffn_up.weight")
            .unwrap();
        tensor.rows -= 1;
        tensor.data.truncate(tensor.rows * tensor.cols);
    });
    assert!(
        shape.contains("blk.0.ffn_up.weight")
            && shape.contains("[64, 96]")
            && shape.contains("[64, 95]"),
        "{shape}"
    );
    let unknown = open(&|random| {
        let tensor = random
            .tensors
            .iter_mut()
            .find(|tensor| tensor.name == "output.weight")
            .unwrap();
        tensor.name = "blk.0.ffn_gate_inp.weight".into();
    });
    assert!(unknown.contains("ffn_gate_inp"), "{unknown}");
    let heads = open(&|random| random.shape.kv_heads = 3);
    assert!(
        heads.contains("head_count_kv") && heads.contains("divisor of the 4"),
        "{heads}"
    );
}

#[test]
fn memory_is_known_beforehand_and_limits_hold() {
    let random = Random::new(Shape::default());
    let file = random.to_file();
    let model = Model::open(file.path()).unwrap();
    let memory = model.memory(of_context(256));
    assert_eq!(memory.mapped, std::fs::metadata(file.path()).unwrap().len());
    assert_eq!(memory.kv_cache, 2 * 2 * (16 + 16) * 256 * 2); // layers, heads, lengths, positions, bytes
    let limit = model.memory(of_context(100)).total();
    let options = OpenOptions {
        memory_limit: Some(limit),
        ..OpenOptions::default()
    };
    let model = Model::open_with(file.path(), &options).unwrap();
    assert!(
        model
            .session(SessionOptions {
                context: Some(100),
                threads: Some(1),
                ..SessionOptions::default()
            })
            .is_ok()
    );
    let error = model
        .session(SessionOptions {
            context: Some(101),
            threads: Some(1),
            ..SessionOptions::default()
        })
        .map(|_| ())
        .unwrap_err();
    assert!(
        matches!(error, Error::MemoryLimit { fits: 100, .. }),
        "{error}"
    );
    assert!(error.to_string().contains(&limit.to_string()), "{error}");
    let error = Model::open_with(
        file.path(),
        &OpenOptions {
            memory_limit: Some(1000),
            ..OpenOptions::default()
        },
    )
    .unwrap_err();
    assert!(error.to_string().contains("no context fits"), "{error}");
}
