//! LoRA adapters: what they change, that sessions do not mix them, and files that are wrong.

use dram_core::gguf::File;
use dram_core::model::Pooling;
use dram_core::{
    Adapter, Error, MemoryQuery, Model, OpenOptions, Prompt, Request, Session, SessionOptions,
};
use dram_tests::adapter::{EMBEDDING, Lora, merged};
use dram_tests::gguf::{Gguf, Value};
use dram_tests::measure::relative;
use dram_tests::toy::{Shape, VOCABULARY};
use std::ops::ControlFlow;
use std::path::Path;

fn file(name: &str, gguf: &Gguf) -> File {
    File::from_bytes(name, gguf.bytes()).unwrap()
}

fn model(name: &str, gguf: &Gguf) -> Model {
    Model::from_gguf(file(name, gguf), &OpenOptions::default()).unwrap()
}

fn session(model: &Model) -> Session {
    let options = SessionOptions {
        context: Some(128),
        threads: Some(2),
        ..SessionOptions::default()
    };
    model.session(options).unwrap()
}

fn logits(session: &mut Session, ids: &[u32]) -> Vec<f32> {
    let mut all = Vec::new(); // [ids, vocabulary]
    session
        .evaluate(ids, &mut |_, logits| all.extend_from_slice(logits))
        .unwrap();
    all
}

/// The largest error of any position.
fn apart(ours: &[f32], theirs: &[f32], vocabulary: usize) -> f32 {
    let pairs = ours.chunks(vocabulary).zip(theirs.chunks(vocabulary));
    pairs
        .map(|(a, b)| relative(a, b))
        .fold(0.0, |x, y| if y.is_nan() { y } else { x.max(y) })
}

#[test]
fn an_adapted_model_of_every_family_equals_the_merged_one() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/families");
    let mut seen = 0;
    for entry in std::fs::read_dir(golden).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "gguf") {
            continue;
        }
        seen += 1;
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let base = Model::open(&path).unwrap();
        let lora = file("lora", &Lora::default().gguf(base.gguf()));
        let whole = model("merged", &merged(base.gguf(), &[(&lora, 0.7)]));
        let adapter = base.adapter_from_gguf(lora).unwrap();
        let ids: Vec<u32> = (0..40).map(|i| (i * 37 + 11) % 64).collect();
        let adapters = [(adapter, 0.7)];
        let ranks = base.config().pooling == Some(Pooling::Rank);
        let (plain, ours, expected, vocabulary) = if base.config().pooling.is_some() {
            let run = |model: &Model, adapters: &[(Adapter, f32)]| {
                let mut encoder = model.encoder(SessionOptions::default()).unwrap();
                encoder.set_adapters(adapters).unwrap();
                match ranks {
                    true => encoder.rank("012", &["abc", "ABC"]).unwrap(),
                    false => encoder.embed(&ids).unwrap(),
                }
            };
            let d = if ranks {
                2
            } else {
                base.config().embedding_length
            };
            (run(&base, &[]), run(&base, &adapters), run(&whole, &[]), d)
        } else {
            let run = |model: &Model, adapters: &[(Adapter, f32)]| {
                let mut session = session(model);
                session.set_adapters(adapters).unwrap();
                let all = logits(&mut session, &ids);
                session.reset();
                let last = ids.iter().map(|&id| session.decode(id).unwrap().to_vec());
                assert_eq!(
                    last.last().unwrap(),
                    all[all.len() - VOCABULARY_OF_FAMILIES..]
                );
                all
            };
            let v = VOCABULARY_OF_FAMILIES;
            (run(&base, &[]), run(&base, &adapters), run(&whole, &[]), v)
        };
        let (error, change) = (
            apart(&ours, &expected, vocabulary),
            apart(&plain, &expected, vocabulary),
        );
        println!("{name:<16} off by {error:.1e}; the adapter changes {change:.2}");
        // Sums in another order turn the f16 rounding of a key or value now and then.
        assert!(error < 5e-4, "{name}: {error}");
        assert!(change > 0.1, "{name}: the adapter changes only {change}");
    }
    assert!(seen >= 18, "{seen} files");
}

const VOCABULARY_OF_FAMILIES: usize = 64;

#[test]
fn halves_in_every_kind_of_format_count_as_they_read() {
    let ids: Vec<u32> = (0..40).map(|i| (i * 37 + 11) % 288).collect();
    // Rank 32 is a whole block, so that B is quantised too; products with what is quantised round their inputs to int8.
    for (base, lora, rounding) in [
        ("f32", "f16", 0.0),
        ("f32", "bf16", 0.0),
        ("f16", "q8_0", 0.01),
        ("q8_0", "f32", 0.0),
        ("q4_0", "q4_0", 0.01),
    ] {
        let shape = Shape {
            format: base.into(),
            ..Shape::default()
        };
        let base_model = model("base", &shape.gguf());
        let lora = Lora {
            rank: 32,
            format: lora,
            ..Lora::default()
        };
        let lora_gguf = lora.gguf(base_model.gguf());
        let lora_file = file("lora", &lora_gguf);
        let expected = |adapters: &[(&File, f32)]| {
            let whole = model("merged", &merged(base_model.gguf(), adapters));
            logits(&mut session(&whole), &ids)
        };
        let (without, with) = (expected(&[]), expected(&[(&lora_file, 1.0)]));
        let adapter = base_model
            .adapter_from_gguf(file("lora", &lora_gguf))
            .unwrap();
        let mut ours = session(&base_model);
        let floor = apart(&logits(&mut ours, &ids), &without, VOCABULARY);
        ours.set_adapters(&[(adapter, 1.0)]).unwrap();
        let error = apart(&logits(&mut ours, &ids), &with, VOCABULARY);
        println!(
            "{base} with {}: off by {error:.1e}, {floor:.1e} without",
            lora.format
        );
        let most = 2.0 * floor + rounding + 1e-4;
        assert!(
            error < most,
            "{base} with {}: {error}, at most {most}",
            lora.format
        );
    }
}

/// A base model and two adapters of it.
fn trio() -> (Model, Adapter, Adapter) {
    let base = model("base", &Shape::default().gguf());
    let open = |seed| {
        let lora = Lora {
            seed,
            ..Lora::default()
        };
        let lora = file("lora", &lora.gguf(base.gguf()));
        base.adapter_from_gguf(lora).unwrap()
    };
    let (a, b) = (open(1), open(2));
    (base, a, b)
}

#[test]
fn adapters_add_up_and_switch_and_sessions_do_not_share_them() {
    let (base, a, b) = trio();
    let ids: Vec<u32> = (0..30).collect();
    let both = merged(base.gguf(), &[(a.gguf(), 0.5), (b.gguf(), -1.5)]);
    let expected = logits(&mut session(&model("merged", &both)), &ids);

    let (mut one, mut two) = (session(&base), session(&base));
    let plain = logits(&mut one, &ids);
    one.set_adapters(&[(a.clone(), 1.0)]).unwrap();
    two.set_adapters(&[(a.clone(), 0.5), (b.clone(), -1.5)])
        .unwrap();
    let only_a = logits(&mut one, &ids);
    assert!(apart(&logits(&mut two, &ids), &expected, VOCABULARY) < 5e-4);
    assert_eq!(logits(&mut one, &ids), only_a);
    assert!(apart(&only_a, &plain, VOCABULARY) > 0.1);
    two.set_adapters(&[(b, 0.0), (a, 1.0)]).unwrap();
    assert_eq!(logits(&mut two, &ids), only_a);
    two.set_adapters(&[]).unwrap();
    assert_eq!(logits(&mut two, &ids), plain);
}

#[test]
fn what_one_adapter_left_in_the_cache_is_not_anothers_prefix() {
    let (base, a, b) = trio();
    let request = Request {
        max_tokens: 8,
        ..Request::new(Prompt::Text("the cat sat on the mat and".into()))
    };
    let run = |session: &mut Session| {
        let done = session.generate(&request, &mut |_| ControlFlow::Continue(()));
        let done = done.unwrap();
        (done.tokens, done.reused_tokens)
    };
    let fresh = |adapters: &[(Adapter, f32)]| {
        let mut session = session(&base);
        session.set_adapters(adapters).unwrap();
        run(&mut session).0
    };
    let (with_a, with_b) = ([(a.clone(), 1.0)], [(b, 1.0)]);
    let mut session = session(&base);
    for (adapters, again) in [(&with_a, false), (&with_a, true), (&with_b, false)] {
        session.set_adapters(adapters).unwrap();
        let (tokens, reused) = run(&mut session);
        assert_eq!((tokens, reused > 0), (fresh(adapters), again));
    }
    session.set_adapters(&[(a.clone(), 0.5)]).unwrap();
    assert_eq!(session.position(), 0);
    session.set_adapters(&with_a).unwrap();
    run(&mut session);
    let mut fork = session.fork().unwrap();
    assert_eq!(run(&mut fork), run(&mut session));

    // A saved sequence goes on with the adapters it was evaluated with, and with no others.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved");
    session.save(&path).unwrap();
    for adapters in [&[][..], &with_b, &[(a.clone(), 0.5)]] {
        session.set_adapters(adapters).unwrap();
        let error = session.restore(&path).unwrap_err().to_string();
        assert!(error.contains("set the adapters"), "{error}");
    }
    session.set_adapters(&with_a).unwrap();
    session.restore(&path).unwrap();
    let (tokens, reused) = run(&mut session);
    assert_eq!((tokens, reused > 0), (fresh(&with_a), true));
}

#[test]
fn the_memory_limit_counts_adapters() {
    let (base, a, _) = trio();
    let options = SessionOptions {
        context: Some(64),
        ..SessionOptions::default()
    };
    let (without, with) = (
        base.memory(options),
        base.memory(MemoryQuery {
            adapters: &[(a.clone(), 1.0)],
            ..options.into()
        }),
    );
    assert_eq!(with.mapped - without.mapped, a.gguf().file_bytes() as u64);
    assert!(with.scratch > without.scratch);
    let limit = OpenOptions {
        memory_limit: Some(with.total() - 1),
        ..OpenOptions::default()
    };
    let limited = Model::from_gguf(file("base", &Shape::default().gguf()), &limit).unwrap();
    let mut session = limited.session(options).unwrap();
    let error = session.set_adapters(&[(a.clone(), 1.0)]).unwrap_err();
    assert!(
        matches!(error, Error::MemoryLimit { fits: 1.., .. }),
        "{error}"
    );
    assert!(session.adapters().is_empty());
    let error = session.set_adapters(&[(a, f32::NAN)]).unwrap_err();
    assert!(matches!(error, Error::InvalidOption { .. }), "{error}");
}

#[test]
fn what_is_wrong_with_an_adapter_is_named() {
    let base = model("base", &Shape::default().gguf());
    let good = Lora::default().gguf(base.gguf());
    let refused = |change: &dyn Fn(&mut Gguf)| {
        let mut bad = good.clone();
        change(&mut bad);
        let file = File::from_bytes("lora", bad.bytes()).unwrap();
        base.adapter_from_gguf(file).unwrap_err().to_string()
    };
    let text = |key: &'static str, to: &'static str| {
        refused(&move |bad| bad.set(key, Value::Str(to.into())))
    };
    let named = |from: &'static str, to: &'static str| {
        refused(&move |bad| bad.tensor(from).name = to.into())
    };
    let query = "blk.1.attn_q.weight";
    let shaped = |half: &str, dims: [u64; 2]| {
        refused(&|bad| {
            let tensor = bad.tensor(&format!("{query}.{half}"));
            tensor.dims = dims.into();
            tensor.bytes.resize((4 * dims[0] * dims[1]) as usize, 0);
        })
    };
    let without = |name: String| refused(&move |bad| bad.tensors.retain(|t| t.name != name));
    let cases = [
        (text("general.type", "model"), "`adapter`"),
        (text("general.architecture", "qwen2"), "`llama`"),
        (text("adapter.type", "ia3"), "`lora`"),
        (refused(&|bad| bad.remove("general.type")), "general.type"),
        (
            refused(&|bad| bad.set("adapter.lora.alpha", Value::F32(f32::INFINITY))),
            "a finite number",
        ),
        (
            refused(&|bad| bad.set("adapter.alora.invocation_tokens", Value::I32s(vec![1]))),
            "expected none",
        ),
        (
            named("output.weight.lora_a", "blk.9.attn_q.weight.lora_a"),
            "made for another model",
        ),
        (
            named("output.weight.lora_a", "output_norm.weight.lora_a"),
            "made for another model",
        ),
        (
            named("output.weight.lora_a", "output_norm.weight"),
            "output_norm.weight`: expected only pairs",
        ),
        (
            without(format!("{query}.lora_b")),
            "attn_q.weight.lora_b`, got none",
        ),
        (
            without(format!("{query}.lora_a")),
            "attn_q.weight.lora_a`, got none",
        ),
        (
            without(format!("{EMBEDDING}.lora_b")),
            "token_embd.weight.lora_b`",
        ),
        (
            shaped("lora_b", [6, 64]),
            "expected shape [5, 64], got [6, 64]",
        ),
        (
            shaped("lora_b", [5, 32]),
            "expected shape [5, 64], got [5, 32]",
        ),
        (
            shaped("lora_a", [32, 5]),
            "expected shape [64, 5], got [32, 5]",
        ),
        (shaped("lora_a", [64, 65]), "a rank of at most 64"),
        (refused(&|bad| bad.tensors.clear()), "got none"),
    ];
    for (error, part) in cases {
        assert!(
            error.contains(part) && error.contains("lora"),
            "{part}: {error}"
        );
    }
    // Cut short anywhere it is refused, as every GGUF file is.
    let bytes = good.bytes();
    for end in (0..bytes.len()).step_by(bytes.len() / 61) {
        assert!(File::from_bytes("lora", &bytes[..end]).is_err(), "{end}");
    }

    let other = model(
        "other",
        &Shape {
            seed: 2,
            ..Shape::default()
        }
        .gguf(),
    );
    let adapter = base.adapter_from_gguf(file("lora", &good)).unwrap();
    let error = session(&other).set_adapters(&[(adapter.clone(), 1.0)]);
    assert!(matches!(error, Err(Error::WrongBase { .. })), "{error:?}");
    // The same file opened another time is the same model.
    let again = model("again", &Shape::default().gguf());
    session(&again).set_adapters(&[(adapter, 1.0)]).unwrap();
}
